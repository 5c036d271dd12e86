"""One picture of a model's errors: a confusion matrix, a bar for each label, or right against predicted numbers."""

from typing import Any

import numpy as np

from tf_bert.finetuning.error_analysis import Evaluated, confusion_matrix, label_counts
from tf_bert.finetuning.tasks import Task
from tf_bert.pictures import open_pyplot, picture_bytes

MOST_LABELS = 25
"""A picture of more would be too small to read: those with the most errors are drawn."""
_NUMBERED = 12  # labels, with which the cells have room for their counts
_LABEL_WIDTH = 24


def draw_errors(task: Task, evaluated: Evaluated) -> bytes | None:
    """The picture as PNG; None if matplotlib is missing."""
    pyplot = open_pyplot()
    if pyplot is None:
        return None
    draw = {"classification": _confusion, "multilabel": _bars, "regression": _scatter}[task.kind]
    return picture_bytes(pyplot, draw(pyplot, task, evaluated))


def _confusion(pyplot: Any, task: Task, evaluated: Evaluated) -> Any:
    matrix = confusion_matrix(task, evaluated)
    errors = matrix.sum(0) + matrix.sum(1) - 2 * np.diag(matrix)
    shown = np.sort(np.argsort(-errors, kind="stable")[:MOST_LABELS])
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.75 * min(len(shown), _NUMBERED) + 0.2 * max(0, len(shown) - _NUMBERED)
    figure, axis = pyplot.subplots(figsize=(side + 1.4, side), layout="constrained")
    picture = axis.imshow(shares[np.ix_(shown, shown)], cmap="Blues", vmin=0.0, vmax=1.0)
    names = [_name(task.labels[number]) for number in shown]
    slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 6 else {}
    axis.set_xticks(range(len(shown)), names, **slanted)
    axis.set_yticks(range(len(shown)), names)
    if len(shown) <= _NUMBERED:
        for row, gold in enumerate(shown):
            for column, found in enumerate(shown):
                color = "white" if shares[gold, found] > 0.6 else "black"
                text = f"{matrix[gold, found]:,}\n{shares[gold, found]:.0%}"
                axis.text(column, row, text, ha="center", va="center", color=color)
    axis.set_xlabel("predicted")
    axis.set_ylabel("right label")
    figure.colorbar(picture, ax=axis, shrink=0.8, label="share of the right label")
    return figure


def _bars(pyplot: Any, task: Task, evaluated: Evaluated) -> Any:
    counts = label_counts(task, evaluated)
    shown = np.sort(np.argsort(-counts[:, 1:].sum(axis=1), kind="stable")[:MOST_LABELS])
    figure, axis = pyplot.subplots(figsize=(8, 1.6 + 0.4 * len(shown)), layout="constrained")
    left = np.zeros(len(shown))
    for column, (name, color) in enumerate((("found", "#9ecae1"), ("missed", "lightgray"), ("wrong", "#f4a09a"))):
        bars = axis.barh(range(len(shown)), counts[shown, column], left=left, color=color, label=name)
        axis.bar_label(bars, [f"{count:,}" if count else "" for count in counts[shown, column]], label_type="center")
        left += counts[shown, column]
    axis.set_yticks(range(len(shown)), [_name(task.labels[number]) for number in shown])
    axis.invert_yaxis()
    axis.set_xlabel("examples")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def _scatter(pyplot: Any, task: Task, evaluated: Evaluated) -> Any:
    right = np.array([example.label for example in evaluated.examples], float)
    found = np.array([answer["score"] for answer in evaluated.predictions], float)
    figure, axis = pyplot.subplots(figsize=(6, 6), layout="constrained")
    axis.scatter(right, found, s=14, alpha=0.5, linewidths=0)
    ends = [min(right.min(), found.min()), max(right.max(), found.max())]
    axis.plot(ends, ends, color="black", linestyle="--", linewidth=1, label="right")
    axis.legend()
    axis.set_xlabel("right number")
    axis.set_ylabel("predicted")
    axis.grid(alpha=0.3)
    return figure


def _name(label: str) -> str:
    """A label for matplotlib, which takes what is between dollars for mathematics."""
    clipped = label if len(label) <= _LABEL_WIDTH else label[: _LABEL_WIDTH - 1] + "…"
    return clipped.replace("$", r"\$")
