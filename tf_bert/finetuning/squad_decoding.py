"""From a model's logits to answers.

As in `run_squad.py` of google-research/bert: a span is scored by the logits of its first and last token, the best
spans of all windows of a question compete, and for SQuAD 2.0 the score of no answer, of the window that is the surest
of an answer, is held against the best span's. Unlike there, every pair of positions is looked at, and an answer is
made of the words of the context, which need not be found again.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tf_bert.errors import Diverged
from tf_bert.finetuning.squad import Question
from tf_bert.finetuning.squad_windows import SquadWindow


@dataclass(frozen=True)
class Candidate:
    """One possible answer."""

    text: str
    """As in the context, from the first word's start to the last word's end; empty: no answer."""
    start: int
    """Its first character in the context; 0 for no answer."""
    end: int
    """The character after it; 0 for no answer."""
    score: float
    """The logit of its first token plus that of its last."""
    probability: float
    """Among the candidates; they sum to 1."""


@dataclass(frozen=True)
class Prediction:
    """What a model says to one question."""

    id: str
    """The question's."""
    answer: Candidate
    """The answer; its text is empty if there is none."""
    best_text: str
    """The most probable text of the context, even if the answer is that there is none."""
    candidates: tuple[Candidate, ...]
    """The best ones, in falling order of their scores; their texts differ. At least one."""
    null_score_difference: float | None
    """Score of no answer minus that of the best text; None where an answer has to be given."""


def decode_answers(
    questions: Sequence[Question],
    windows: Sequence[SquadWindow],
    start_logits: Sequence[np.ndarray],
    end_logits: Sequence[np.ndarray],
    n_best_size: int = 20,
    max_answer_length: int = 30,
    null_threshold: float | None = None,
) -> Iterator[Prediction]:
    """One prediction for every question that has a window, in the order of the questions.

    Between equal scores the earlier window, start and end wins, and a text before no answer.

    Args:
      questions: as for `make_squad_windows`.
      windows: as it gave them, in any order.
      start_logits, end_logits: for every window float [tokens or more]; what is beyond its tokens is padding.
      n_best_size: texts to give; that there is no answer is a candidate besides.
      max_answer_length: tokens in an answer.
      null_threshold: there is no answer if its score is greater than that of the best text by more than this; None:
        an answer has to be given.

    Raises:
      Diverged: if a logit is not finite.
    """
    of_question: dict[int, list[int]] = {}
    for number, window in enumerate(windows):
        of_question.setdefault(window.question_index, []).append(number)
    for index in sorted(of_question):
        scored = [_Scored.of(windows[i], start_logits[i], end_logits[i]) for i in of_question[index]]
        yield _decode(questions[index], scored, n_best_size, max_answer_length, null_threshold)


@dataclass(frozen=True, eq=False)
class _Scored:
    """A window and the logits of its context's tokens, float64 [context tokens]."""

    window: SquadWindow
    start_logits: np.ndarray
    end_logits: np.ndarray
    null_score: float

    @property
    def logits(self) -> tuple[np.ndarray, ...]:
        return self.start_logits, self.end_logits, np.array(self.null_score)

    @staticmethod
    def of(window: SquadWindow, start_logits: np.ndarray, end_logits: np.ndarray) -> "_Scored":
        tokens = len(window.input_ids)
        start, end = (np.asarray(logits, np.float64)[:tokens] for logits in (start_logits, end_logits))
        context = slice(window.context_begin, tokens - 1)
        return _Scored(window, start[context], end[context], float(start[0] + end[0]))


def _decode(
    question: Question, scored: list[_Scored], n_best_size: int, max_answer_length: int, null_threshold: float | None
) -> Prediction:
    null_score = min(one.null_score for one in scored)
    if not all(np.isfinite(logits).all() for one in scored for logits in one.logits):
        raise Diverged(
            f"question {question.id!r}: a logit is not finite, expected numbers; the training has diverged: lower the "
            "learning rate"
        )
    spans = _best_spans(question, scored, n_best_size, max_answer_length)
    # Where the context has no word a score of 0 stands in, as in the original.
    best_text, best_score = (spans[0][0], spans[0][3]) if spans else ("", 0.0)
    difference = None if null_threshold is None else null_score - best_score
    nothing = ("", 0, 0, null_score)
    if difference is not None or not spans:
        spans.insert(sum(score >= null_score for *_, score in spans), nothing)
    weights = np.exp([score - spans[0][3] for *_, score in spans])
    candidates = tuple(
        Candidate(*span, probability=float(weight)) for span, weight in zip(spans, weights / weights.sum(), strict=True)
    )
    is_null = not best_text or (difference is not None and null_threshold is not None and difference > null_threshold)
    answer = next(candidate for candidate in candidates if (not candidate.text) == is_null)
    return Prediction(question.id, answer, best_text, candidates, difference)


def _best_spans(
    question: Question, scored: list[_Scored], n_best_size: int, max_answer_length: int
) -> list[tuple[str, int, int, float]]:
    """Texts with their places and scores, best first, each text once."""
    # Many spans can have one text, as all tokens of a word stand for it: so more of them than are wanted.
    limit = n_best_size * n_best_size
    tables = [_span_table(one, max_answer_length, limit) for one in scored]
    scores, starts, ends = (np.concatenate(part) for part in zip(*tables, strict=True))
    found: dict[str, tuple[str, int, int, float]] = {}
    for i in np.argsort(-scores, kind="stable"):
        start, end = int(starts[i]), int(ends[i])
        text = question.context[start:end]
        if text not in found:
            found[text] = (text, start, end, float(scores[i]))
            if len(found) == n_best_size:
                break
    return list(found.values())


def _span_table(one: _Scored, max_answer_length: int, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of the best spans of one window, and the characters where they start and end, best first."""
    window, tokens = one.window, len(one.start_logits)
    lengths = min(max_answer_length, tokens)
    if not lengths:
        return np.empty(0), np.empty(0, np.int32), np.empty(0, np.int32)
    begins = np.flatnonzero(window.has_most_context)
    beyond = np.full(lengths - 1, -math.inf)
    end_logits = np.lib.stride_tricks.sliding_window_view(np.concatenate([one.end_logits, beyond]), lengths)
    scores = (one.start_logits[begins, None] + end_logits[begins]).ravel()
    # All of those that equal the last one come along, so that which of them stay does not hang on how they are sorted.
    least = np.partition(scores, -limit)[-limit] if scores.size > limit else -math.inf
    chosen = np.flatnonzero((scores >= least) & (scores > -math.inf))
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")[:limit]]
    first, length = begins[chosen // lengths], chosen % lengths
    return scores[chosen], window.starts[first], window.ends[first + length]
