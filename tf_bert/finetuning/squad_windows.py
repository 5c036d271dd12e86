"""Questions and contexts as windows `[CLS] question [SEP] piece of the context [SEP]`.

A context that does not fit is cut into pieces that overlap, as in `run_squad.py` of google-research/bert.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tf_bert.errors import UsageError
from tf_bert.finetuning.squad import Question
from tf_bert.tokenization.tokenizer import Tokenizer
from tf_bert.tokenization.words import characters_of, tokenize_words

_TEXTS_AT_ONCE = 1024
_SPECIAL_TOKENS = 3


@dataclass(frozen=True, eq=False)
class SquadWindow:
    """One window, without padding."""

    question_index: int
    """Which of the questions it belongs to."""
    input_ids: np.ndarray
    """int32 [tokens]."""
    context_begin: int
    """Position of the first token of the context; the tokens from there to the last but one are the context's."""
    starts: np.ndarray
    """int32 [context tokens], the first character of each token's word in the context."""
    ends: np.ndarray
    """int32 [context tokens], the character after this word."""
    has_most_context: np.ndarray
    """Bool [context tokens]: an answer may begin here. No other window has more tokens around this one."""
    start_position: int = 0
    """Position of the first token of the answer; 0, which is `[CLS]`, if it is not in the window."""
    end_position: int = 0
    """Position of the last token of the answer, or 0."""


def make_squad_windows(
    questions: Sequence[Question],
    tokenizer: Tokenizer,
    max_seq_length: int,
    max_query_length: int = 64,
    doc_stride: int = 128,
    for_training: bool = False,
) -> list[SquadWindow]:
    """The windows of all questions, in their order.

    Args:
      questions: what to cut.
      tokenizer: of either kind.
      max_seq_length: tokens in a window, special tokens included.
      max_query_length: tokens of a question; what it has more is left out.
      doc_stride: tokens from the beginning of a piece to that of the next one; less where pieces are shorter.
      for_training: give answers' positions, and leave out questions that have answers, but none in the context.

    Raises:
      UsageError: if a length is not positive, or a question leaves no room for its context.
    """
    lengths = {"max_seq_length": max_seq_length, "max_query_length": max_query_length, "doc_stride": doc_stride}
    for name, length in lengths.items():
        if length < 1:
            raise UsageError(f"{name}: found {length}, expected 1 or more")
    chosen = [i for i, q in enumerate(questions) if not for_training or q.target or q.is_impossible]
    contexts = _tokenized({questions[i].context: None for i in chosen}, tokenizer)
    queries = _tokenized({questions[i].question: None for i in chosen}, tokenizer)
    vocabulary, windows = tokenizer.vocabulary, []
    for i in chosen:
        question = questions[i]
        query = queries[question.question].ids[:max_query_length]
        room = max_seq_length - _SPECIAL_TOKENS - len(query)
        if room < 1:
            raise UsageError(
                f"max_seq_length: question {question.id!r} has {len(query)} tokens, so {max_seq_length} leave no room "
                f"for its context; raise it, or set max_query_length, which is {max_query_length}, to less"
            )
        head = np.concatenate([[vocabulary.cls_id], query, [vocabulary.sep_id]])
        context = contexts[question.context]
        first, last = _target(question, context) if for_training and question.target else (-1, -1)
        pieces = _pieces(len(context.ids), room, doc_stride)
        for piece, has_most_context in zip(pieces, _most_context(pieces), strict=True):
            shift = len(head) - piece.start
            is_inside = piece.start <= first and last < piece.stop
            windows.append(
                SquadWindow(
                    question_index=i,
                    input_ids=np.concatenate([head, context.ids[piece], [vocabulary.sep_id]]).astype(np.int32),
                    context_begin=len(head),
                    starts=context.starts[piece],
                    ends=context.ends[piece],
                    has_most_context=has_most_context,
                    start_position=first + shift if is_inside else 0,
                    end_position=last + shift if is_inside else 0,
                )
            )
    return windows


def _pieces(tokens: int, room: int, doc_stride: int) -> list[slice]:
    """Pieces of a context, at least one. The last one ends with the context."""
    step = min(room, doc_stride)
    begins = range(0, max(tokens - room, 0) + step, step)
    return [slice(begin, min(begin + room, tokens)) for begin in begins]


def _most_context(pieces: list[slice]) -> list[np.ndarray]:
    """For the tokens of each piece, whether this is the piece, the first one of equals, that scores them highest.

    The score is the smaller number of tokens before and after in the piece, plus a hundredth of the piece's length.
    """
    best = np.full(pieces[-1].stop, -1.0)
    owner = np.zeros(pieces[-1].stop, np.int32)
    for number, piece in enumerate(pieces):
        before = np.arange(piece.stop - piece.start)
        score = np.minimum(before, before[::-1]) + 0.01 * len(before)
        is_better = score > best[piece]
        best[piece][is_better] = score[is_better]
        owner[piece][is_better] = number
    return [owner[piece] == number for number, piece in enumerate(pieces)]


def _target(question: Question, context: "_Tokens") -> tuple[int, int]:
    """First and last token of the words that hold the answer; (-1, -1) if it is made of no token."""
    answer = question.target
    assert answer is not None and answer.start is not None
    first = int(np.searchsorted(context.ends, answer.start, side="right"))
    last = int(np.searchsorted(context.starts, answer.start + len(answer.text), side="left")) - 1
    return (first, last) if first <= last else (-1, -1)


# --- tokens --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Tokens:
    """Tokens of one text and the characters of their words, each int32 [tokens]; the latter never fall."""

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def _tokenized(texts: dict[str, None], tokenizer: Tokenizer) -> dict[str, _Tokens]:
    """Tokens of every text; many texts at once, as each call has its cost."""
    names = list(texts)
    found: dict[str, _Tokens] = {}
    for begin in range(0, len(names), _TEXTS_AT_ONCE):
        some = names[begin : begin + _TEXTS_AT_ONCE]
        found.update(zip(some, _tokens_of(some, tokenizer), strict=True))
    return found


def _tokens_of(texts: list[str], tokenizer: Tokenizer) -> Iterator[_Tokens]:
    encoded = [text.encode() for text in texts]
    tokens = tokenize_words(tokenizer, tf.constant(encoded, tf.string))
    starts, ends = (characters_of(encoded, part) for part in (tokens.starts, tokens.ends))
    ids = tokens.ids.flat_values.numpy()
    for begin, end in itertools.pairwise(tokens.ids.row_splits.numpy()):
        yield _Tokens(ids[begin:end], starts[begin:end], ends[begin:end])
