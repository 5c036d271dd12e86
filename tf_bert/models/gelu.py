"""GELU (Hendrycks and Gimpel 2016) for training: its derivative is made in the forward pass, in few operations.

Automatic differentiation of x * Phi(x) keeps four tensors of the size of x and goes over them ten times, which takes a
CPU as long as a matrix product. Here one tensor is kept, and the backward pass is one product.
"""

import math
from typing import Any

from keras import ops


def _exact(x: Any) -> tuple[Any, Any]:
    """Phi(x), the normal distribution, and its density."""
    share = 0.5 * (1.0 + ops.erf(x * math.sqrt(0.5)))
    return share, ops.exp(-0.5 * ops.square(x)) * (1.0 / math.sqrt(2.0 * math.pi))


def _approximate(x: Any) -> tuple[Any, Any]:
    """The paper's approximation of Phi(x) by tanh, and its derivative."""
    scale, cubic = math.sqrt(2.0 / math.pi), 0.044715
    squared = ops.square(x)
    t = ops.tanh(scale * x * (1.0 + cubic * squared))
    return 0.5 * (1.0 + t), 0.5 * scale * (1.0 - ops.square(t)) * (1.0 + 3.0 * cubic * squared)


def gelu(x: Any, approximate: bool = False) -> Any:
    """The elementwise x * Phi(x), with a gradient of its own.

    For training alone: a SavedModel would hold the gradient too.

    Args:
      x: floats of any shape.
      approximate: use the tanh formula for Phi.
    """

    @ops.custom_gradient
    def with_gradient(x: Any) -> tuple[Any, Any]:
        share, density = (_approximate if approximate else _exact)(x)
        derivative = share + x * density

        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            return (arguments[0] if upstream is None else upstream) * derivative

        return x * share, gradient

    return with_gradient(x)
