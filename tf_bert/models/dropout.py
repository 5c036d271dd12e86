"""Dropout whose random state is drawn by the caller."""

from typing import Any

import keras
from keras import ops

_LEVELS = 2**16


class _DrawnSeed(keras.random.SeedGenerator):
    """A seed that was drawn earlier, in the form that `keras.random` functions take."""

    def __init__(self, value: Any) -> None:  # deliberately without the parent's state variable
        self._value = value

    def next(self, ordered: bool = True) -> Any:
        return self._value


def draw_seeds(generator: keras.random.SeedGenerator, count: int) -> list[Any]:
    """`count` seeds (uint32 tensors of shape [2]) from a generator's state, which moves on.

    Seeds are drawn outside of code that may be recomputed: a recomputed block that drew its own would get other
    dropout masks in the backward pass than it had in the forward pass.
    """
    return [generator.next() for _ in range(count)]


def dropout(x: Any, rate: float, seed: Any | None) -> Any:
    """Zeroes a share `rate` of `x` and scales the rest by 1 / (1 - rate); the identity where `seed` is None.

    Two elements share a random word of 32 bits: on a CPU, drawing a float for each takes longer than all the rest. The
    rate is rounded to a multiple of 2^-16, and the scale is that of the rounded rate.
    """
    dropped = round(rate * _LEVELS)
    if seed is None or dropped == 0:
        return x
    shape = ops.shape(x)
    count = ops.size(x)
    words = keras.random.randint(((count + 1) // 2, 1), -(2**31), 2**31 - 1, dtype="int32", seed=_DrawnSeed(seed))
    bits = ops.reshape(ops.reshape(ops.view(words, "int16"), (-1,))[:count], shape)
    kept = ops.cast(ops.greater_equal(bits, dropped - _LEVELS // 2), x.dtype)
    return x * (kept * (_LEVELS / (_LEVELS - dropped)))
