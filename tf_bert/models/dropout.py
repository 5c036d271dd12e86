"""Dropout whose random state is drawn by the caller."""

from typing import Any

import keras


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
    """Zeroes a share `rate` of `x` and scales the rest by 1 / (1 - rate); the identity where `seed` is None."""
    if seed is None or rate == 0.0:
        return x
    return keras.random.dropout(x, rate, seed=_DrawnSeed(seed))
