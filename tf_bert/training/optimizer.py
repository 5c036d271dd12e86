"""The optimizer of a run, built on the variables it will update."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tf_bert.config import OptimizerConfig, TrainingConfig
from tf_bert.training.schedule import build_schedule

# Keras 3 calls LayerNorm's scale and shift gamma and beta: a pattern on the word LayerNorm would match nothing.
_NOT_DECAYED = ("bias", "gamma", "beta")
# One kernel stands for three layers of the paper, and each of them gets a trust ratio of its own.
_FUSED_LAYERS = {"query_key_value": 3}


def excluded_from_decay(variables: Sequence[keras.Variable]) -> list[keras.Variable]:
    """Bias and LayerNorm variables."""
    return [variable for variable in variables if variable.name in _NOT_DECAYED]


def build_optimizer(
    config: OptimizerConfig,
    training: TrainingConfig,
    variables: Sequence[keras.Variable],
    earlier_updates: int = 0,
    hours: keras.Variable | None = None,
) -> keras.optimizers.Optimizer:
    """The optimizer with its schedule, decay exclusions and, for mixed_float16, a loss scale; `Trainer` clips.

    Args:
      config: its settings.
      training: the run's.
      variables: what it will update.
      earlier_updates, hours: see `build_schedule`.
    """
    settings: dict[str, Any] = {
        "learning_rate": build_schedule(config, training, earlier_updates, hours),
        "weight_decay": config.weight_decay_rate,
        "beta_1": config.beta_1,
        "beta_2": config.beta_2,
        "epsilon": config.epsilon,
        "name": config.name,
    }
    optimizer: keras.optimizers.Optimizer = (Lamb if config.name == "lamb" else AdamW)(
        bias_correction=config.bias_correction, **settings
    )
    optimizer.exclude_from_weight_decay(var_list=excluded_from_decay(variables))
    if training.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
    optimizer.build(list(variables))
    return optimizer


class _OneDevice(keras.optimizers.Optimizer):
    """Updates of an optimizer, which Keras hands to a `tf.distribute` strategy that is not there.

    Its way to each variable takes longer to trace than the model does, and builds the schedule's graph anew for each.
    It also registers a gradient for good, so that no graph, nor any variable that it has seen, would ever be freed.
    """

    def _backend_update_step(self, gradients: Sequence[Any], variables: Sequence[Any], learning_rate: Any) -> None:
        for gradient, variable in zip(gradients, variables, strict=True):
            self.update_step(gradient, variable.value, learning_rate)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        if self.weight_decay is None:
            return
        rate = self.learning_rate * self.weight_decay
        for variable in variables:
            if self._use_weight_decay(variable):
                variable.value.assign_sub(variable.value * tf.cast(rate, variable.dtype))


class AdamW(_OneDevice, keras.optimizers.AdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), whose update is one operation a variable.

    That operation goes over gradient, moments and weights once, in place; Keras's own takes a dozen, each with a
    temporary of the variable's size.

    Args:
      bias_correction: undo that the moments start from 0; not so in `AdamWeightDecayOptimizer` of google-research/bert.
      **settings: of `keras.optimizers.AdamW`.
    """

    def __init__(self, bias_correction: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self.bias_correction = bias_correction

    def _backend_update_step(self, gradients: Sequence[Any], variables: Sequence[Any], learning_rate: Any) -> None:
        """Updates moments and variables, all of one type; weights are decayed before."""
        dtype = variables[0].dtype
        step = tf.cast(self.iterations + 1, dtype)
        betas = [tf.constant(beta, dtype) for beta in (self.beta_1, self.beta_2)]
        # The operation unbiases by 1 - power: a power of 0 leaves the moments as they are.
        powers = [tf.pow(beta, step) if self.bias_correction else tf.zeros((), dtype) for beta in betas]
        learning_rate, epsilon = tf.cast(learning_rate, dtype), tf.constant(self.epsilon, dtype)
        for gradient, variable in zip(gradients, variables, strict=True):
            index = self._get_variable_index(variable)
            # Of the variable's type, all of them: the operation does not look, and ends the process.
            tf.raw_ops.ResourceApplyAdam(
                var=variable.value.handle,
                m=self._momentums[index].value.handle,
                v=self._velocities[index].value.handle,
                beta1_power=powers[0],
                beta2_power=powers[1],
                lr=learning_rate,
                beta1=betas[0],
                beta2=betas[1],
                epsilon=epsilon,
                grad=tf.cast(gradient, dtype),
            )


class Lamb(_OneDevice, keras.optimizers.Adam):
    """Layer-wise adaptive moments (You et al. 2020, algorithm 2), of whose shape `keras.optimizers.Lamb` falls short.

    The weight decay is a part of the update whose norm the trust ratio takes, and variables that are excluded from
    decay have no trust ratio either, as in the authors' and in NVIDIA's code. The moments are Adam's.

    Args:
      bias_correction: undo that the moments start from 0.
      weight_decay: added to the update, times the weights.
      **settings: of `keras.optimizers.Adam`.
    """

    def __init__(self, bias_correction: bool, weight_decay: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.bias_correction = bias_correction
        self.decay_in_update = weight_decay  # not `weight_decay`, which Keras would apply outside of the trust ratio

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        """Updates moments and variable."""
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        self.assign_add(m, (gradient - m) * (1.0 - self.beta_1))
        self.assign_add(v, (ops.square(gradient) - v) * (1.0 - self.beta_2))
        step = ops.cast(self.iterations + 1, "float32")
        unbias_m, unbias_v = (
            1.0 - ops.power(beta, step) if self.bias_correction else 1.0 for beta in (self.beta_1, self.beta_2)
        )
        update = (m / unbias_m) / (ops.sqrt(v / unbias_v) + self.epsilon)
        if self._use_weight_decay(variable):
            update = update + self.decay_in_update * variable
            path = self._trainable_variables[index].path
            layers = next((count for name, count in _FUSED_LAYERS.items() if name in path.split("/")), 1)
            update = update * trust_ratios(variable, update, layers)
        self.assign_sub(variable, learning_rate * update)


def trust_ratios(weights: Any, update: Any, layers: int) -> Any:
    """Norm of the weights by norm of the update, layer by layer; 1 where one of them is 0.

    Args:
      weights, update: float [..., width].
      layers: so many lie side by side in the last axis.

    Returns:
      float [width], to multiply with.
    """
    width = weights.shape[-1] // layers

    def norms(x: Any) -> Any:
        return ops.sqrt(ops.sum(ops.square(ops.reshape(x, (-1, layers, width))), axis=(0, 2)))

    of_weights, of_update = norms(weights), norms(update)
    positive = ops.logical_and(of_weights > 0.0, of_update > 0.0)
    return ops.repeat(ops.where(positive, of_weights / ops.where(positive, of_update, 1.0), 1.0), width)
