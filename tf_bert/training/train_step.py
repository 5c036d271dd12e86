"""The custom train step: one optimizer update from a global batch that is split over microsteps and ranks.

The gradient is that of sum(losses) / sum(weights) for every loss of the objective, with both sums over the whole
global batch. A mean of microbatch means would weigh a token by how many others were masked beside it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tf_bert.distributed import World
from tf_bert.training.losses import Objective

Batch = Mapping[str, tf.Tensor]
Gradient: TypeAlias = "tf.Tensor | tf.IndexedSlices"

RECENT_LOSSES = 100
"""Losses of the last updates whose median a spike is held against."""
LEAST_LOSSES = 20
"""So many there must be before a loss can be called a spike."""


class Trainer(keras.Model):
    """Drives a model through `fit`, one optimizer update a step.

    Args:
      model: a built model.
      objective: its losses.
      optimizer: built on `model.trainable_variables`.
      world: the ranks that share a global batch.
      clip_norm: the global norm that gradients are clipped to.
      all_reduce_precision: float32 or float16, in which gradients travel between ranks.
      hours: counts the hours that the run takes, as all ranks agree on them; None: they are not counted.
      jit_compile: compile the microstep with XLA. Horovod's operations cannot be compiled, so the XLA cluster sits
        inside a plain outer function.
    """

    def __init__(
        self,
        model: keras.Model,
        objective: Objective,
        optimizer: keras.optimizers.Optimizer,
        world: World,
        clip_norm: float,
        jit_compile: bool = False,
        all_reduce_precision: str = "float32",
        hours: keras.Variable | None = None,
    ) -> None:
        super().__init__(name="trainer")
        self.model = model
        self.objective = objective
        self.world = world
        self.clip_norm = clip_norm
        self.all_reduce_gradients = (
            world.all_reduce_sum if all_reduce_precision == "float32" else world.all_reduce_sum_float16
        )
        # A variable, so that it can be set while a step is under way; it is no part of the run's state.
        self.stop_requested = tf.Variable(0.0, trainable=False)
        self.step = keras.Variable(0, dtype="int64", trainable=False, name="step")
        self.recent_losses = keras.Variable(
            [np.inf] * RECENT_LOSSES, dtype="float32", trainable=False, name="recent_losses"
        )
        self.tokens_seen = keras.Variable(0, dtype="int64", trainable=False, name="tokens_seen")
        self.bad_steps_in_row = keras.Variable(0, dtype="int64", trainable=False, name="bad_steps_in_row")
        # When the batch of the step under way was there, in seconds since 1970; it is no part of the run's state.
        with tf.device("CPU"):
            self.batch_arrived = tf.Variable(0.0, trainable=False, dtype="float64")
        self.hours = hours
        self._microstep: Callable[..., Any] = self._forward_backward
        if jit_compile:
            self._microstep = tf.function(self._forward_backward, jit_compile=True)
        self._evaluation_step = tf.function(self._evaluate_batch)
        self.built = True
        self.compile(optimizer=optimizer, jit_compile=False)

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One optimizer update.

        Args:
          batch: this rank's share of the global batch, every tensor [accumulation_steps, microbatch_size, ...]. The
            former may differ from step to step, if it is the same on all ranks.

        Returns:
          Scalars over the global batch: `loss`, `<name>_loss` and `<name>_accuracy` for every loss of the objective,
          `gradient_norm` (before clipping), `learning_rate`, `loss_scale`, `tokens_seen` (since the start of
          the run, padding not counted), `bad_steps_in_row`, `median_loss` (of the last `RECENT_LOSSES` updates;
          infinite while there are fewer than `LEAST_LOSSES`), `without_data` (ranks whose batch is all padding),
          `stop_requests` (ranks that have set `stop_requested` to 1) and, where they are counted, `hours`.
        """
        with tf.control_dependencies(batch.values()):
            arrived = tf.timestamp()
        last_arrived = self.batch_arrived.read_value()
        # What passed before the first step of this process, which compiles it, is not counted.
        seconds = tf.where(last_arrived > 0.0, arrived - last_arrived, 0.0)
        with tf.control_dependencies([last_arrived]):
            self.batch_arrived.assign(arrived)
        weights = self.world.all_reduce_sum(self.objective.weights(batch))
        gradients, sums = self._accumulate(batch, weights)
        gradients = self.all_reduce_gradients(gradients)
        loss_scale = self.optimizer.scale_loss(tf.constant(1.0))
        scaled_norm = tf.linalg.global_norm(gradients)
        gradient_norm = scaled_norm / loss_scale
        # Here, where each clipped gradient takes the place of its own; inside of a branch it would be a copy.
        gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm * loss_scale, use_norm=scaled_norm)
        learning_rate = tf.identity(self.optimizer.learning_rate)
        # Every rank holds the same summed gradients, so all of them decide alike.
        is_finite = tf.math.is_finite(gradient_norm)
        self._apply(gradients, is_finite)
        self.step.assign_add(1)
        bad_steps = tf.where(is_finite, tf.zeros((), "int64"), self.bad_steps_in_row.value + 1)
        self.bad_steps_in_row.assign(bad_steps)

        with tf.control_dependencies(gradients):  # as late as can be, so that what is set during the step is heard
            stop_requested = self.stop_requested.read_value()
        own_tokens = count_tokens(batch)
        news = [own_tokens, tf.cast(own_tokens == 0.0, "float32"), stop_requested, tf.cast(seconds, "float32")]
        *sums, tokens, without_data, stop_requests, seconds = self.world.all_reduce_sum([*sums, *news])
        tokens_seen = self.tokens_seen.value + tf.cast(tokens, "int64")
        self.tokens_seen.assign(tokens_seen)
        counted = {}
        if self.hours is not None:
            hours = self.hours.value + tf.cast(seconds, "float64") / (3600.0 * self.world.world_size)
            self.hours.assign(hours)
            counted["hours"] = hours
        averages = self._averages(weights, sums)
        median = _median(self.recent_losses.value)
        losses = tf.concat([self.recent_losses.value[1:], [averages["loss"]]], axis=0)
        self.recent_losses.assign(tf.where(is_finite, losses, self.recent_losses.value))
        return {
            **averages,
            "median_loss": median,
            "gradient_norm": gradient_norm,
            "learning_rate": learning_rate,
            "loss_scale": loss_scale,
            "tokens_seen": tokens_seen,
            "bad_steps_in_row": bad_steps,
            "stop_requests": stop_requests,
            "without_data": without_data,
            **counted,
        }

    def _accumulate(self, batch: Batch, weights: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Gradients and loss sums over this rank's microbatches, added up in float32."""
        some = next(iter(batch.values()))

        def run(i: Any) -> list[Gradient]:
            return self._microstep({name: value[i] for name, value in batch.items()}, weights)

        totals = [tf.convert_to_tensor(term) for term in run(0)]
        if some.shape[0] != 1:
            accumulation_steps = tf.shape(some)[0]
            # The loop's first forward pass needs no totals: unless told to wait, it runs beside that of microbatch 0,
            # and memory must hold the activations of both.
            with tf.control_dependencies(totals):
                second = tf.constant(1)
            _, totals = tf.while_loop(
                lambda i, _: i < accumulation_steps,
                lambda i, totals: (i + 1, [_add(total, more) for total, more in zip(totals, run(i), strict=True)]),
                (second, totals),
                parallel_iterations=1,
            )
        count = len(self.model.trainable_variables)
        return totals[:count], totals[count:]

    def _forward_backward(self, microbatch: Batch, weights: list[tf.Tensor]) -> list[Gradient]:
        """Gradients of one microbatch's part of the loss, then its loss sums and its correct sums, in float32."""
        variables = [variable.value for variable in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            terms = self.objective.terms(self.model, microbatch, training=True)
            loss = tf.add_n(
                [tf.math.divide_no_nan(term.loss_sum, weight) for term, weight in zip(terms, weights, strict=True)]
            )
            loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        sums = [term.loss_sum for term in terms] + [term.correct_sum for term in terms]
        return [tf.cast(gradient, "float32") for gradient in gradients] + sums

    def _apply(self, gradients: list[tf.Tensor], is_finite: tf.Tensor) -> None:
        """Unscales and updates, in that order; gradients that are not finite change no weight."""
        variables = self.model.trainable_variables
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            self.optimizer.apply(gradients, variables)  # it looks for itself, and lowers its scale
        else:
            tf.cond(is_finite, lambda: self.optimizer.apply(gradients, variables), lambda: None)

    def _averages(self, weights: list[tf.Tensor], sums: list[tf.Tensor]) -> dict[str, Any]:
        averages = [tf.math.divide_no_nan(total, weight) for total, weight in zip(sums, weights * 2, strict=True)]
        losses, accuracies = averages[: len(weights)], averages[len(weights) :]
        result = {"loss": tf.add_n(losses)}
        for name, loss, accuracy in zip(self.objective.names, losses, accuracies, strict=True):
            result |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
        return result

    def _evaluate_batch(self, batch: Batch) -> list[tf.Tensor]:
        terms = self.objective.terms(self.model, batch, training=False)
        return [
            *self.objective.weights(batch),
            *(term.loss_sum for term in terms),
            *(term.correct_sum for term in terms),
        ]

    def evaluate_on(self, dataset: Iterable[Batch]) -> dict[str, float]:
        """Averages over a dataset of batches [batch, ...], each rank bringing its own share of them.

        Returns:
          `loss`, `<name>_loss` and `<name>_accuracy` over all ranks' batches.
        """
        count = len(self.objective.names)
        totals = [tf.zeros(())] * (3 * count)
        for batch in dataset:
            totals = [total + more for total, more in zip(totals, self._evaluation_step(batch), strict=True)]
        totals = self.world.all_reduce_sum(totals)
        return {name: float(value) for name, value in self._averages(totals[:count], totals[count:]).items()}


def _add(total: tf.Tensor, more: Gradient) -> tf.Tensor:
    """The sum; of a table's rows only those that a microbatch has looked up are touched, and in place."""
    if isinstance(more, tf.IndexedSlices):
        return tf.tensor_scatter_nd_add(total, more.indices[:, tf.newaxis], more.values)
    return total + more


def _median(losses: tf.Tensor) -> tf.Tensor:
    """Of the finite ones; the upper one of two in the middle."""
    count = tf.reduce_sum(tf.cast(tf.math.is_finite(losses), "int32"))
    return tf.where(count < LEAST_LOSSES, np.float32(np.inf), tf.sort(losses)[count // 2])


def count_tokens(batch: Batch) -> tf.Tensor:
    """Tokens that are not padding, as float32."""
    mask = batch.get("example_ids", batch.get("input_mask"))
    return tf.cast(tf.size(batch["input_ids"]) if mask is None else tf.math.count_nonzero(mask), "float32")
