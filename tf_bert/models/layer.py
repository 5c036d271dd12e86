"""What every layer of the model shares: its configuration, initial weights and LayerNorm."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras

from tf_bert.config import BertConfig
from tf_bert.models.gradients import gelu

_TAKES_WEIGHTS = contextvars.ContextVar("takes_weights", default=False)


class BertLayer(keras.layers.Layer):
    """A layer that is built from a `BertConfig` and can be rebuilt from plain values."""

    def __init__(self, config: BertConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config if isinstance(config, BertConfig) else BertConfig(**config)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": dataclasses.asdict(self.config)}


@contextlib.contextmanager
def taking_weights() -> Iterator[None]:
    """Models that are made inside have zeros for random numbers in the embeddings and blocks of their encoders.

    For those that are given the weights of a source next: each has all of these, and to draw them takes longer than to
    read them, and more memory.
    """
    token = _TAKES_WEIGHTS.set(True)
    try:
        yield
    finally:
        _TAKES_WEIGHTS.reset(token)


def initializer(config: BertConfig, in_encoder: bool = False) -> keras.initializers.Initializer:
    """Truncated normal, as in the original `modeling.py`. A new object each time: Keras warns when one is reused.

    Args:
      config: with the standard deviation.
      in_encoder: of embeddings or a block: see `taking_weights`.
    """
    if in_encoder and _TAKES_WEIGHTS.get():
        return keras.initializers.Zeros()
    return keras.initializers.TruncatedNormal(stddev=config.initializer_range)


def layer_norm(config: BertConfig, name: str, **kwargs: Any) -> keras.layers.LayerNormalization:
    """LayerNorm over the hidden axis (Ba et al. 2016)."""
    return keras.layers.LayerNormalization(epsilon=config.layer_norm_eps, name=name, **kwargs)


def dense(config: BertConfig, units: int, name: str, in_encoder: bool = False, **kwargs: Any) -> keras.layers.Dense:
    """An affine map of the last axis with BERT's initial weights; see `initializer`."""
    return keras.layers.Dense(units, kernel_initializer=initializer(config, in_encoder), name=name, **kwargs)


def activation(config: BertConfig, training: bool = False) -> Callable[[Any], Any]:
    """The function that `hidden_act` names; in training with a gradient of its own where that is faster."""
    function = gelu if training else keras.ops.gelu
    functions: dict[str, Callable[[Any], Any]] = {
        "gelu": lambda x: function(x, approximate=False),
        "gelu_new": lambda x: function(x, approximate=True),
        "relu": keras.ops.relu,
    }
    return functions[config.hidden_act]
