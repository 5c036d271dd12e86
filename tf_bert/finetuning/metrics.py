"""Metrics of text tasks, from scikit-learn and scipy, with a value and a note where a definition leaves none.

A metric that is undefined, such as a correlation with something constant, is reported as 0 and said in the notes; no
value is ever NaN. scikit-learn and scipy are in the extra `glue` and are imported when a metric is computed.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_bert.errors import Diverged
from tf_bert.finetuning.tasks import Task


@dataclass(frozen=True)
class Metrics:
    """Values by name, and lines on what is to be known about them."""

    values: dict[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Metric:
    """One metric."""

    description: str
    """What the number means."""
    compute: Callable[[np.ndarray, np.ndarray], tuple[float, str]]
    """Of labels and predictions, as `compute_metrics` has them: the value, and why it is undefined, or nothing."""
    higher_is_better: bool = True
    """False for errors."""


def compute_metrics(task: Task, predictions: Any, labels: Any) -> Metrics:
    """All metrics of a task.

    Args:
      task: names the metrics.
      predictions: one a row: class ids (classification), numbers (regression), or for multilabel either the ascending
        ids of a row's classes or a row of bool [classes].
      labels: the same, as `Example.label` has them.

    Raises:
      Diverged: if a prediction is not finite.
    """
    predicted, expected = as_array(task, predictions), as_array(task, labels)
    if predicted.shape != expected.shape or not len(expected):
        raise ValueError(f"predictions have the shape {predicted.shape}, labels {expected.shape}: expected one a row")
    if bad := int(np.count_nonzero(~np.isfinite(predicted))):
        raise Diverged(
            f"{task.name}: {bad:,} of {len(predicted):,} predictions are not finite, expected numbers; the training "
            "has diverged: lower the learning rate"
        )
    values, notes = {}, list(_constant_notes(task, predicted, expected))
    for name in task.metrics:
        value, undefined = METRICS[name].compute(expected, predicted)
        values[name] = float(value)
        if undefined:
            notes.append(f"{name} is undefined, {undefined}, and reported as 0")
    return Metrics(values, tuple(notes))


def as_array(task: Task, values: Any) -> np.ndarray:
    """Labels or predictions as int64 [rows], for regression float64 [rows], for multilabel bool [rows, classes]."""
    if task.kind == "regression":
        return np.asarray(values, np.float64)
    if task.kind == "classification":
        return np.asarray(values, np.int64)
    if isinstance(values, np.ndarray):
        return values.astype(bool)
    chosen = np.zeros((len(values), len(task.labels)), bool)
    for row, ids in enumerate(values):
        chosen[row, list(ids)] = True
    return chosen


def _constant_notes(task: Task, predicted: np.ndarray, expected: np.ndarray) -> Sequence[str]:
    """Says when all labels or all predictions are the same, which makes most metrics meaningless."""
    notes = []
    for values, what in ((expected, "labels"), (predicted, "predictions")):
        if np.all(values == values[0]):
            if task.kind == "classification":
                same = repr(task.labels[int(values[0])])
            elif task.kind == "regression":
                same = f"{float(values[0]):g}"
            else:
                same = str([label for label, chosen in zip(task.labels, values[0], strict=True) if chosen])
            notes.append(f"all {len(values):,} {what} are {same}")
    return notes


# --- definitions ---------------------------------------------------------------------------------------------------


def _accuracy(labels: np.ndarray, predictions: np.ndarray) -> tuple[float, str]:
    from sklearn.metrics import accuracy_score

    return accuracy_score(labels, predictions), ""


def _f1(labels: np.ndarray, predictions: np.ndarray) -> tuple[float, str]:
    from sklearn.metrics import f1_score

    undefined = "" if np.any(labels == 1) or np.any(predictions == 1) else "as no label and no prediction is positive"
    return f1_score(labels == 1, predictions == 1, zero_division=0.0), undefined


def _macro_f1(labels: np.ndarray, predictions: np.ndarray) -> tuple[float, str]:
    from sklearn.metrics import f1_score

    return f1_score(labels, predictions, average="macro", zero_division=0.0), ""


def _micro_f1(labels: np.ndarray, predictions: np.ndarray) -> tuple[float, str]:
    from sklearn.metrics import f1_score

    undefined = "" if np.any(labels) or np.any(predictions) else "as no row has a label and none is predicted"
    # As one column: scikit-learn takes a table with one column for another kind of task.
    return f1_score(labels.ravel(), predictions.ravel(), zero_division=0.0), undefined


def _exact_match(labels: np.ndarray, predictions: np.ndarray) -> tuple[float, str]:
    return float(np.mean(np.all(labels == predictions, axis=1))), ""


def _matthews(labels: np.ndarray, predictions: np.ndarray) -> tuple[float, str]:
    from sklearn.metrics import matthews_corrcoef

    if undefined := _constant(labels, predictions):
        return 0.0, undefined  # as scikit-learn has it, which warns too
    return matthews_corrcoef(labels, predictions), ""


def _mse(labels: np.ndarray, predictions: np.ndarray) -> tuple[float, str]:
    from sklearn.metrics import mean_squared_error

    return mean_squared_error(labels, predictions), ""


def _pearson(labels: np.ndarray, predictions: np.ndarray) -> tuple[float, str]:
    from scipy.stats import pearsonr

    return _correlation(pearsonr, labels, predictions)


def _spearman(labels: np.ndarray, predictions: np.ndarray) -> tuple[float, str]:
    from scipy.stats import spearmanr

    return _correlation(spearmanr, labels, predictions)


def _correlation(
    correlate: Callable[[np.ndarray, np.ndarray], Any], labels: np.ndarray, predictions: np.ndarray
) -> tuple[float, str]:
    if undefined := _constant(labels, predictions):
        return 0.0, undefined
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that hardly differ; a note follows where that leaves no number
        value = float(correlate(labels, predictions).statistic)
    return (value, "") if np.isfinite(value) else (0.0, "as the values hardly differ")


def _constant(labels: np.ndarray, predictions: np.ndarray) -> str:
    for values, what in ((labels, "labels"), (predictions, "predictions")):
        if np.all(values == values[0]):
            return f"as all {what} are the same"
    return ""


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("share of rows whose label is predicted", _accuracy),
    "f1": Metric("F1 of the label with class id 1: 2 TP / (2 TP + FP + FN)", _f1),
    "macro_f1": Metric("mean of the F1 of every label that is there or predicted", _macro_f1),
    "micro_f1": Metric("F1 of all pairs of a row and a label", _micro_f1),
    "exact_match": Metric("share of rows all of whose labels are predicted, and no other", _exact_match),
    "matthews": Metric("Matthews correlation of labels and predictions, -1 to 1", _matthews),
    "pearson": Metric("Pearson correlation of labels and predictions, -1 to 1", _pearson),
    "spearman": Metric("Spearman rank correlation of labels and predictions, -1 to 1", _spearman),
    "mse": Metric("mean squared error", _mse, higher_is_better=False),
}
