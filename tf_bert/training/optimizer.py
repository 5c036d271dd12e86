"""The optimizer of a run, built on the variables it will update."""

from collections.abc import Sequence

import keras

from tf_bert.config import OptimizerConfig, TrainingConfig
from tf_bert.training.schedule import LinearWarmupDecay

# Keras 3 calls LayerNorm's scale and shift gamma and beta: a pattern on the word LayerNorm would match nothing.
_NOT_DECAYED = ("bias", "gamma", "beta")


def excluded_from_decay(variables: Sequence[keras.Variable]) -> list[keras.Variable]:
    """Bias and LayerNorm variables."""
    return [variable for variable in variables if variable.name in _NOT_DECAYED]


def build_optimizer(
    config: OptimizerConfig, training: TrainingConfig, variables: Sequence[keras.Variable]
) -> keras.optimizers.Optimizer:
    """AdamW with decoupled decay, global-norm clipping and, for mixed_float16, a dynamic loss scale."""
    schedule = LinearWarmupDecay(
        config.learning_rate, config.num_warmup_steps, training.num_train_steps, config.end_learning_rate
    )
    optimizer: keras.optimizers.Optimizer = keras.optimizers.AdamW(
        learning_rate=schedule,
        weight_decay=config.weight_decay_rate,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        epsilon=config.epsilon,
        global_clipnorm=config.clip_norm,
        name="adamw",
    )
    optimizer.exclude_from_weight_decay(var_list=excluded_from_decay(variables))
    if training.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
    optimizer.build(list(variables))
    return optimizer
