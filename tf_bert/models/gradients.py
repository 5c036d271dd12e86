"""Functions with gradients of their own, for training alone: a SavedModel would hold the gradients too."""

import math
from typing import Any

from keras import ops


def _exact(x: Any) -> tuple[Any, Any]:
    """Phi(x), the normal distribution, and its density."""
    y = x * math.sqrt(0.5)
    return 0.5 * ops.erf(y) + 0.5, ops.exp(-0.5 * math.log(2.0 * math.pi) - ops.square(y))


def _approximate(x: Any) -> tuple[Any, Any]:
    """The paper's approximation of Phi(x) by tanh, and its derivative."""
    scale, cubic = math.sqrt(2.0 / math.pi), 0.044715
    squared = ops.square(x)
    t = ops.tanh(scale * x * (1.0 + cubic * squared))
    return 0.5 * (1.0 + t), 0.5 * scale * (1.0 - ops.square(t)) * (1.0 + 3.0 * cubic * squared)


def gelu(x: Any, approximate: bool = False) -> Any:
    """GELU, the elementwise x * Phi(x) (Hendrycks and Gimpel 2016).

    Automatic differentiation keeps four tensors of the size of x and goes over them ten times, which takes a CPU as
    long as a matrix product. Here the derivative is made in the forward pass, and the backward pass is one product.

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


def matmul_by_rows(x: Any, table: Any) -> Any:
    """Products of vectors with the rows of a table.

    Automatic differentiation would transpose the gradient of the whole table, which here comes out as it is needed.

    Args:
      x: floats [..., hidden_size].
      table: floats [rows, hidden_size].

    Returns:
      Floats [..., rows].
    """

    @ops.custom_gradient
    def with_gradient(x: Any, table: Any) -> tuple[Any, Any]:
        def gradient(*arguments: Any, upstream: Any = None) -> tuple[Any, Any]:
            upstream = arguments[0] if upstream is None else upstream
            return ops.matmul(upstream, table), ops.matmul(ops.transpose(upstream), x)

        return ops.matmul(x, ops.transpose(table)), gradient

    products = with_gradient(ops.reshape(x, (-1, table.shape[1])), table)
    return ops.reshape(products, (*ops.shape(x)[:-1], table.shape[0]))
