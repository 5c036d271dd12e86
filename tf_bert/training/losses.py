"""Losses as sums with their weights; whoever knows the whole global batch normalises."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import keras
from keras import ops


class LossTerm(NamedTuple):
    """Float32 scalars of one loss over one microbatch."""

    loss_sum: Any
    """Weighted sum of the losses, in nats."""
    correct_sum: Any
    """Weighted count of correct predictions."""


class Objective(Protocol):
    """What a model is trained for: named losses, each divided by its own weight sum over the global batch."""

    @property
    def names(self) -> tuple[str, ...]:
        """One name a loss."""

    def weights(self, batch: Mapping[str, Any]) -> list[Any]:
        """Weight sums, float32 scalars, one a name; `batch` may have any leading axes."""

    def terms(self, model: keras.Model, batch: Mapping[str, Any], training: bool) -> list[LossTerm]:
        """Runs the model on one microbatch and sums its losses, one a name."""


def weighted_cross_entropy(logits: Any, labels: Any, weights: Any) -> LossTerm:
    """Softmax cross-entropy, summed.

    Args:
      logits: float32 [..., classes].
      labels: integers [...].
      weights: float32 [...]; 0 where there is nothing to predict.
    """
    losses = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    correct = ops.cast(ops.equal(ops.argmax(logits, axis=-1), ops.cast(labels, "int32")), "float32")
    return LossTerm(ops.sum(losses * weights), ops.sum(correct * weights))


class PretrainingObjective:
    """Masked-LM plus next-sentence loss (Devlin et al. 2018, section 3.1)."""

    names = ("masked_lm", "next_sentence")

    def weights(self, batch: Mapping[str, Any]) -> list[Any]:
        """Masked tokens and examples with a next-sentence label in the batch."""
        return [ops.sum(batch[f"{name}_weights"]) for name in self.names]

    def terms(self, model: keras.Model, batch: Mapping[str, Any], training: bool) -> list[LossTerm]:
        """Both losses of one microbatch, see `Objective.terms`."""
        logits = model(batch, training=training)
        return [
            weighted_cross_entropy(logits["masked_lm_logits"], batch["masked_lm_ids"], batch["masked_lm_weights"]),
            weighted_cross_entropy(
                logits["next_sentence_logits"], batch["next_sentence_labels"], batch["next_sentence_weights"]
            ),
        ]
