"""The weights that finetuning starts from, fitted to the labels of its task."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from tf_bert.errors import InputError
from tf_bert.models.weights import StoredTensor, Weights

CLASSIFIER = ("classifier.weight", "classifier.bias")


def fit_labels(weights: Weights, labels: tuple[str, ...], num_labels: int, required: bool) -> Weights:
    """Weights whose classifier has the task's labels in the task's order, or none.

    Labels are matched by name, whatever the case: an MNLI classifier from elsewhere may have another order.

    Args:
      weights: of a source.
      labels: of the task, in the order of its classifier's outputs; empty for regression.
      num_labels: outputs of the task's classifier.
      required: the classifier has to be there; otherwise one with other labels is left out, to be made anew.

    Raises:
      InputError: if it is required and has other labels.
    """
    if not weights.num_labels:
        return weights
    theirs, ours = weights.labels or (), labels
    if all(re.fullmatch(r"(?i)label_\d+", label) for label in theirs):
        theirs = ()  # Hugging Face's words for labels without names
    if len({label.casefold() for label in ours}) == len(ours):  # otherwise the case tells them apart
        theirs, ours = (tuple(label.casefold() for label in names) for names in (theirs, ours))
    if weights.num_labels == num_labels and (theirs == ours or not theirs or not ours):
        return weights
    if sorted(theirs) == sorted(ours):
        return _reordered(weights, [theirs.index(label) for label in ours])
    if required:
        raise InputError(
            f"{weights.source}: its classifier has the labels {', '.join(weights.labels or ['without names'])}, but "
            f"the task has {', '.join(labels) or 'a single number'}; choose the model of this task"
        )
    tensors = {name: tensor for name, tensor in weights.tensors.items() if name not in CLASSIFIER}
    left_out = dict.fromkeys(CLASSIFIER, "its labels are not the task's")
    return dataclasses.replace(weights, tensors=tensors, left_out={**weights.left_out, **left_out}, labels=None)


def _reordered(weights: Weights, order: list[int]) -> Weights:
    def reordered(tensor: StoredTensor) -> StoredTensor:
        return dataclasses.replace(tensor, read=lambda: np.asarray(tensor.read())[order], read_rows=None)

    changed: Mapping[str, StoredTensor] = {name: reordered(weights.tensors[name]) for name in CLASSIFIER}
    labels = tuple(weights.labels[number] for number in order) if weights.labels else None
    return dataclasses.replace(weights, tensors={**weights.tensors, **changed}, labels=labels)
