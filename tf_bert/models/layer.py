"""What every layer of the model shares: its configuration, initial weights and LayerNorm."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from tf_bert.config import BertConfig


class BertLayer(keras.layers.Layer):
    """A layer that is built from a `BertConfig` and can be rebuilt from plain values."""

    def __init__(self, config: BertConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config if isinstance(config, BertConfig) else BertConfig(**config)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": dataclasses.asdict(self.config)}


def initializer(config: BertConfig) -> keras.initializers.Initializer:
    """Truncated normal, as in the original `modeling.py`. A new object each time: Keras warns when one is reused."""
    return keras.initializers.TruncatedNormal(stddev=config.initializer_range)


def layer_norm(config: BertConfig, name: str, **kwargs: Any) -> keras.layers.LayerNormalization:
    """LayerNorm over the hidden axis (Ba et al. 2016)."""
    return keras.layers.LayerNormalization(epsilon=config.layer_norm_eps, name=name, **kwargs)


def dense(config: BertConfig, units: int, name: str, **kwargs: Any) -> keras.layers.Dense:
    """An affine map of the last axis with BERT's initial weights."""
    return keras.layers.Dense(units, kernel_initializer=initializer(config), name=name, **kwargs)


def activation(config: BertConfig) -> Callable[[Any], Any]:
    """The function that `hidden_act` names."""
    functions: dict[str, Callable[[Any], Any]] = {
        "gelu": lambda x: keras.ops.gelu(x, approximate=False),
        "gelu_new": lambda x: keras.ops.gelu(x, approximate=True),
        "relu": keras.ops.relu,
    }
    return functions[config.hidden_act]
