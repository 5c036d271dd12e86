"""Losses of finetuning, as sums with their weights, for the train step of `tf_bert.training`.

Batches are packed rows (see `packing.py`): scores and targets of examples are [rows, slots, ...], those of tokens
[rows, length, ...].
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tf_bert.models.attention import MASKED_LOGIT
from tf_bert.training.losses import LossTerm, weighted_cross_entropy


class _Objective:
    """One loss, weighted by examples."""

    names: tuple[str, ...]
    weighted_by = "example_weights"

    def weights(self, batch: Mapping[str, Any]) -> list[Any]:
        """Examples, or for tokens' labels the tokens that have one; see `tf_bert.training.losses.Objective`."""
        return [ops.sum(batch[self.weighted_by])] * len(self.names)


class ClassificationObjective(_Objective):
    """Cross-entropy of one label an example (Devlin et al. 2018, section 4.1)."""

    names = ("classification",)

    def terms(self, model: keras.Model, batch: Mapping[str, Any], training: bool) -> list[LossTerm]:
        """See `tf_bert.training.losses.Objective`."""
        logits = model(batch, training=training)["logits"]
        return [weighted_cross_entropy(logits, batch["labels"], batch["example_weights"])]


class MultilabelObjective(_Objective):
    """Mean binary cross-entropy over the labels; right is an example whose labels are all right."""

    names = ("multilabel",)

    def terms(self, model: keras.Model, batch: Mapping[str, Any], training: bool) -> list[LossTerm]:
        """See `tf_bert.training.losses.Objective`."""
        logits, labels = model(batch, training=training)["logits"], batch["labels"]
        losses = ops.mean(ops.binary_crossentropy(labels, logits, from_logits=True), axis=-1)
        right = ops.all(ops.equal(logits > 0.0, labels > 0.5), axis=-1)
        weights = batch["example_weights"]
        return [LossTerm(ops.sum(losses * weights), ops.sum(ops.cast(right, "float32") * weights))]


class RegressionObjective(_Objective):
    """Squared error of one number an example; right is one that is nearer than half a unit."""

    names = ("regression",)

    def terms(self, model: keras.Model, batch: Mapping[str, Any], training: bool) -> list[LossTerm]:
        """See `tf_bert.training.losses.Objective`."""
        errors = model(batch, training=training)["logits"][..., 0] - batch["labels"]
        weights = batch["example_weights"]
        right = ops.cast(ops.abs(errors) < 0.5, "float32")
        return [LossTerm(ops.sum(ops.square(errors) * weights), ops.sum(right * weights))]


class TokenObjective(_Objective):
    """Cross-entropy of one label a word, at its first token (Devlin et al. 2018, section 5.3)."""

    names = ("tokens",)
    weighted_by = "label_weights"

    def terms(self, model: keras.Model, batch: Mapping[str, Any], training: bool) -> list[LossTerm]:
        """See `tf_bert.training.losses.Objective`."""
        logits = model(batch, training=training)["logits"]
        return [weighted_cross_entropy(logits, batch["token_labels"], batch["label_weights"])]


class SpanObjective(_Objective):
    """Cross-entropy of where an answer starts and where it ends, half of each (Devlin et al. 2018, section 4.2).

    Starts and ends are among the tokens of their own example, whatever else is in its row.
    """

    names = ("start", "end")

    def terms(self, model: keras.Model, batch: Mapping[str, Any], training: bool) -> list[LossTerm]:
        """See `tf_bert.training.losses.Objective`."""
        outputs = model(batch, training=training)
        slots = ops.arange(1, ops.shape(batch["example_weights"])[1] + 1, dtype="int32")
        own = ops.equal(batch["example_ids"][:, None, :], slots[None, :, None])
        elsewhere = (1.0 - ops.cast(own, "float32")) * MASKED_LOGIT
        terms = []
        for name in self.names:
            logits = outputs[f"{name}_logits"][:, None, :] + elsewhere
            place = batch["next_sentence_positions"] + batch[f"{name}_positions"]
            term = weighted_cross_entropy(logits, place, batch["example_weights"])
            terms.append(LossTerm(0.5 * term.loss_sum, term.correct_sum))
        return terms
