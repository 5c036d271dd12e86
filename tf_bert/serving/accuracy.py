"""How often an export is right, so that its model card can say it."""

from collections.abc import Callable, Mapping, Sequence

from tf_bert.errors import InputError
from tf_bert.serving.exported import Exported

Measure = Callable[[Exported], Mapping[str, float]]
"""Metrics by name of a loaded export."""


def label_accuracy(texts: Sequence[Sequence[str]], labels: Sequence[str], batch_size: int = 32) -> Measure:
    """A measure of classifiers: the share of examples whose label is found, as `accuracy`, and `examples`.

    Args:
      texts: one text or two an example, as the task has them.
      labels: the right label of each.
      batch_size: examples in a request.

    Raises:
      InputError: if there are no examples, or the numbers differ; when it is called, if the model has no labels.
    """
    if not texts or len(texts) != len(labels):
        raise InputError(f"found {len(texts)} examples and {len(labels)} labels to measure with, expected one for each")

    def measure(exported: Exported) -> dict[str, float]:
        names = [name for name in ("text", "text_pair") if name in exported.inputs()]
        right = 0
        # Sorted by length, less is computed for padding; the sum is the same.
        order = sorted(range(len(texts)), key=lambda i: sum(map(len, texts[i])))
        for start in range(0, len(order), batch_size):
            some = order[start : start + batch_size]
            found = exported({name: [texts[i][column] for i in some] for column, name in enumerate(names)})
            if "label" not in found:
                raise InputError(f"{exported.directory}: tells no label of a text; accuracy is measured of classifiers")
            right += sum(label.decode() == labels[i] for i, label in zip(some, found["label"].tolist(), strict=True))
        return {"accuracy": right / len(texts), "examples": float(len(texts))}

    return measure
