"""Where a model of a text task goes wrong: which labels it takes for which, and the examples that cost it most."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_bert.finetuning.examples import Example
from tf_bert.finetuning.metrics import Metrics, as_array
from tf_bert.finetuning.predictor import Predictor
from tf_bert.finetuning.tasks import Task

_LEAST = 1e-12  # probability, so that a loss is a number


@dataclass(frozen=True)
class Evaluated:
    """One set of examples with what a model says of them."""

    split: str
    examples: Sequence[Example]
    """With labels."""
    predictions: Sequence[Mapping[str, Any]]
    """What `TextFamily.decode` tells of each."""
    metrics: Metrics


def evaluate_with_answers(predictor: Predictor, split: str, examples: Sequence[Example]) -> Evaluated:
    """Evaluates as `Predictor.evaluate` does, and keeps the answers."""
    predictions = list(predictor.predict(examples))
    return Evaluated(split, examples, predictions, predictor.family.evaluate(examples, predictions))


@dataclass(frozen=True)
class Error:
    """An example and what the model says of it."""

    example: Example
    is_wrong: bool
    """For regression: every answer, if only by a little."""
    gold: str
    """Its label: a word, words with commas, or a number."""
    predicted: str
    """The same of the model; words with commas have their probabilities."""
    probability: float | None
    """What the model gives the predicted label; None where it is not one label."""
    gold_probability: float | None
    """What it gives the right one."""
    loss: float
    """Cross-entropy in nats, over labels the mean of it; for regression the squared error."""


def worst_errors(task: Task, evaluated: Evaluated, limit: int) -> list[Error]:
    """The wrong answers with the highest loss, the highest first."""
    judged = [
        _judge(task, example, answer) for example, answer in zip(evaluated.examples, evaluated.predictions, strict=True)
    ]
    return sorted((error for error in judged if error.is_wrong), key=lambda error: -error.loss)[:limit]


def _judge(task: Task, example: Example, answer: Mapping[str, Any]) -> Error:
    label: Any = example.label
    if task.kind == "regression":
        loss = (answer["score"] - label) ** 2
        return Error(example, loss > 0.0, f"{label:g}", f"{answer['score']:.3f}", None, None, loss)
    scores = answer["scores"]
    if task.kind == "multilabel":
        right = [task.labels[number] for number in label]
        losses = [-_log(score if word in right else 1.0 - score) for word, score in scores.items()]
        told = [f"{word} {scores[word]:.0%}" for word in answer["labels"]]
        is_wrong = right != list(answer["labels"])
        return Error(example, is_wrong, _words(right), _words(told), None, None, sum(losses) / len(losses))
    gold, predicted = task.labels[label], answer["label"]
    loss = -_log(scores[gold])
    return Error(example, gold != predicted, gold, predicted, scores[predicted], scores[gold], loss)


def _words(labels: Sequence[str]) -> str:
    return ", ".join(labels) or "none"


def _log(probability: float) -> float:
    return math.log(max(probability, _LEAST))


def confusion_matrix(task: Task, evaluated: Evaluated) -> np.ndarray:
    """Counts, int64 [right labels, predicted labels], in the order of the task's labels."""
    ids = {label: number for number, label in enumerate(task.labels)}
    gold = as_array(task, [example.label for example in evaluated.examples])
    found = as_array(task, [ids[answer["label"]] for answer in evaluated.predictions])
    matrix = np.zeros((len(ids), len(ids)), np.int64)
    np.add.at(matrix, (gold, found), 1)
    return matrix


def confusions(task: Task, matrix: np.ndarray, limit: int) -> list[tuple[str, str, int]]:
    """The right and the predicted label of the most frequent confusions, with their counts."""
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    places = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        (task.labels[gold], task.labels[found], int(wrong[gold, found])) for gold, found in places if wrong[gold, found]
    ]


def label_counts(task: Task, evaluated: Evaluated) -> np.ndarray:
    """multilabel: how often each label is found, missed, and predicted wrongly, int64 [labels, 3]."""
    ids = {label: number for number, label in enumerate(task.labels)}
    gold = as_array(task, [example.label for example in evaluated.examples])
    found = as_array(task, [[ids[label] for label in answer["labels"]] for answer in evaluated.predictions])
    return np.stack([np.sum(gold & found, 0), np.sum(gold & ~found, 0), np.sum(~gold & found, 0)], axis=1)
