"""Many rows through a network, some at a time, so that a long text takes time and not memory."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_bert.serving.graph_inputs import Rows

ROWS_AT_ONCE = 32


def in_portions(
    run: Callable[[Rows, tf.Tensor], Sequence[tf.Tensor]], rows: Rows, outputs: Sequence[tf.TensorSpec]
) -> list[tf.Tensor]:
    """What `run` gives for all rows.

    Args:
      run: of some rows and their numbers, int32 [rows]; returns tensors [rows, ...].
      rows: all of them.
      outputs: what it returns.
    """
    count = tf.shape(rows.input_ids)[0]

    def portion(number: tf.Tensor, *found: tf.TensorArray) -> list[tf.Tensor | tf.TensorArray]:
        numbers = tf.range(number * ROWS_AT_ONCE, tf.minimum((number + 1) * ROWS_AT_ONCE, count))
        some = run(Rows(*(tf.gather(part, numbers) for part in rows)), numbers)
        return [number + 1, *(array.write(number, one) for array, one in zip(found, some, strict=True))]

    # One portion at least, as arrays of nothing have no shape.
    portions = tf.maximum((count + ROWS_AT_ONCE - 1) // ROWS_AT_ONCE, 1)
    arrays = [
        tf.TensorArray(output.dtype, portions, infer_shape=False, element_shape=output.shape) for output in outputs
    ]
    _, *arrays = tf.while_loop(
        lambda number, *_: number < portions, portion, [tf.constant(0), *arrays], parallel_iterations=1
    )
    return [tf.ensure_shape(array.concat(), output.shape) for array, output in zip(arrays, outputs, strict=True)]
