"""Exact match and F1 of answers, as the official evaluation scripts of SQuAD 1.1 and 2.0 define them, in per cent.

Both compare words after lower-casing and without punctuation and English articles, with the gold answer that fits
best. They differ where nothing is left of an answer: 1.1 gives F1 0, 2.0 compares it with other empty answers.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tf_bert.errors import InputError

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def evaluate_v1(gold: Mapping[str, Sequence[str]], predictions: Mapping[str, str]) -> dict[str, float]:
    """`exact_match` and `f1` of SQuAD 1.1.

    Args:
      gold: texts of the answers by question, one at least for each.
      predictions: the predicted text; a question without one scores 0.

    Raises:
      InputError: if a question has no gold answer.
    """
    exact = f1 = 0.0
    for number, texts in gold.items():
        if not texts:
            raise InputError(
                f"question {number!r} has no answer to compare with, expected one or more; such questions are of "
                "SQuAD 2.0: give a null threshold"
            )
        if number in predictions:
            exact += _best(exact_match, predictions[number], texts)
            f1 += _best(_f1_of_v1, predictions[number], texts)
    return {"exact_match": 100.0 * exact / len(gold), "f1": 100.0 * f1 / len(gold)}


def evaluate_v2(
    gold: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    null_scores: Mapping[str, float] | None = None,
    null_threshold: float = 1.0,
) -> dict[str, float]:
    """The metrics of SQuAD 2.0, under their official names.

    `exact` and `f1` over the `total` of all questions; the same with `HasAns_` and `NoAns_` in front over those with
    and without a gold answer, if there are any; `best_exact` and `best_f1`, which are reached if there is no answer
    where the null score is above `best_exact_thresh` and `best_f1_thresh`.

    Args:
      gold: texts of the answers by question, empty for those that have none.
      predictions: the predicted text, empty for no answer. Questions without one are left out of everything.
      null_scores: for every prediction, how sure it is that there is no answer; higher is surer. None: all 0.
      null_threshold: where the null score is greater, the prediction is that there is no answer.

    Raises:
      InputError: if nothing is predicted.
    """
    ids = [number for number in gold if number in predictions]
    if not ids:
        raise InputError(f"none of the {len(gold):,} questions has a prediction, expected one for each; predict first")
    has_answer = np.array([bool(gold[number]) for number in ids])
    null = np.array([0.0 if null_scores is None else null_scores[number] for number in ids])
    is_answered = np.array([bool(predictions[number]) for number in ids])
    metrics: dict[str, float] = {}
    best: dict[str, float] = {}
    for name, metric in {"exact": exact_match, "f1": f1_score}.items():
        raw = np.array([_best(metric, predictions[number], _comparable(gold[number])) for number in ids])
        scores = np.where(null > null_threshold, ~has_answer, raw)
        metrics[name] = 100.0 * float(np.mean(scores))
        for prefix, chosen in {"HasAns": has_answer, "NoAns": ~has_answer}.items():
            if chosen.any():
                metrics[f"{prefix}_{name}"] = 100.0 * float(np.mean(scores[chosen]))
                metrics[f"{prefix}_total"] = float(chosen.sum())
        best |= _best_threshold(name, raw, null, has_answer, is_answered)
    return {**metrics, "total": float(len(ids)), **best}


def _best_threshold(
    name: str, raw: np.ndarray, null: np.ndarray, has_answer: np.ndarray, is_answered: np.ndarray
) -> dict[str, float]:
    """Starts where nothing is answered and answers one question after the other, the surest first.

    As officially, the first of equal questions are answered before the others, though no threshold does that.
    """
    order = np.argsort(null, kind="stable")
    gains = np.where(has_answer, raw, -1.0 * is_answered)[order]
    reached = np.cumsum(np.concatenate([[np.count_nonzero(~has_answer)], gains]))
    highest = int(np.argmax(reached))
    threshold = float(null[order[highest - 1]]) if highest else 0.0
    return {f"best_{name}": 100.0 * float(reached[highest]) / len(raw), f"best_{name}_thresh": threshold}


# --- one answer ----------------------------------------------------------------------------------------------------


def normalize_answer(text: str) -> str:
    """What is compared: lower case, without ASCII punctuation and a, an, the, single spaces between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, gold: str) -> float:
    """1 if the texts are the same after `normalize_answer`, otherwise 0."""
    return float(normalize_answer(prediction) == normalize_answer(gold))


def f1_score(prediction: str, gold: str) -> float:
    """F1 of the words, each counted as often as it comes; if one text has no words, 1 if neither has, otherwise 0."""
    predicted, expected = normalize_answer(prediction).split(), normalize_answer(gold).split()
    if not predicted or not expected:
        return float(predicted == expected)
    common = (Counter(predicted) & Counter(expected)).total()
    if not common:
        return 0.0
    # In this order of operations the sums over questions are the official ones to the last bit.
    precision, recall = common / len(predicted), common / len(expected)
    return (2.0 * precision * recall) / (precision + recall)


def _f1_of_v1(prediction: str, gold: str) -> float:
    return f1_score(prediction, gold) if normalize_answer(gold) else 0.0


def _comparable(texts: Sequence[str]) -> Sequence[str]:
    """Gold answers of which something is left; that there is none, if there is nothing else."""
    return [text for text in texts if normalize_answer(text)] or [""]


def _best(metric: Callable[[str, str], float], prediction: str, texts: Sequence[str]) -> float:
    return max(metric(prediction, text) for text in texts)
