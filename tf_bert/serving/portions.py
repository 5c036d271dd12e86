"""Many rows through a network, some at a time: a long text takes time and not memory, and a short one no padding."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_bert.serving.graph_inputs import Rows

ROWS_AT_ONCE = 32
ROWS_OF_A_LENGTH = 16
"""Where texts are of many lengths: fewer would leave less padding, but processors would have less to do at once."""


def by_length(run: Callable[[Rows], tf.Tensor], rows: Rows, output: tf.TensorSpec) -> tf.Tensor:
    """What `run` gives for all rows; where much of them is padding, those of about a length are run together.

    Args:
      run: of some rows, cut to their longest; returns a tensor [rows, ...].
      rows: all of them, with the padding last.
      output: what it returns.
    """
    lengths = tf.reduce_sum(rows.input_mask, axis=1)
    order = tf.argsort(lengths, stable=True)
    is_dense = 3 * tf.reduce_sum(lengths) >= 2 * tf.size(rows.input_mask)
    at_once = tf.where(is_dense, tf.maximum(tf.size(lengths), 1), ROWS_OF_A_LENGTH)

    def portion(some: Rows, numbers: tf.Tensor) -> list[tf.Tensor]:
        longest = tf.maximum(tf.reduce_max(tf.gather(lengths, tf.gather(order, numbers))), 1)
        return [run(Rows(*(part[:, :longest] for part in some)))]

    (found,) = in_portions(portion, Rows(*(tf.gather(part, order) for part in rows)), [output], at_once)
    return tf.gather(found, tf.math.invert_permutation(order))


def in_portions(
    run: Callable[[Rows, tf.Tensor], Sequence[tf.Tensor]],
    rows: Rows,
    outputs: Sequence[tf.TensorSpec],
    at_once: int | tf.Tensor = ROWS_AT_ONCE,
) -> list[tf.Tensor]:
    """What `run` gives for all rows.

    Args:
      run: of some rows and their numbers, int32 [rows]; returns tensors [rows, ...].
      rows: all of them.
      outputs: what it returns.
      at_once: rows that are run together.
    """
    count = tf.shape(rows.input_ids)[0]

    def portion(number: tf.Tensor, *found: tf.TensorArray) -> list[tf.Tensor | tf.TensorArray]:
        numbers = tf.range(number * at_once, tf.minimum((number + 1) * at_once, count))
        some = run(Rows(*(tf.gather(part, numbers) for part in rows)), numbers)
        return [number + 1, *(array.write(number, one) for array, one in zip(found, some, strict=True))]

    # One portion at least, as arrays of nothing have no shape.
    portions = tf.maximum((count + at_once - 1) // at_once, 1)
    arrays = [
        tf.TensorArray(output.dtype, portions, infer_shape=False, element_shape=output.shape) for output in outputs
    ]
    _, *arrays = tf.while_loop(
        lambda number, *_: number < portions, portion, [tf.constant(0), *arrays], parallel_iterations=1
    )
    return [tf.ensure_shape(array.concat(), output.shape) for array, output in zip(arrays, outputs, strict=True)]
