"""Training batches: which examples a step has, and how they are packed for each rank.

The examples of step t depend on (seed, t) alone: the training set is read over and over, each time in another order,
and cut into global batches, so no batch is short and no epoch leaves an example out. A resumed run computes its place.
"""

import functools
import itertools
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tf_bert.finetuning.packing import Encoded, assign_rows, pack


class ExampleOrder:
    """The order in which examples are seen.

    Args:
      count: examples in the training set.
      seed: of the run.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._permutation = functools.lru_cache(maxsize=2)(self._permute)

    def _permute(self, epoch: int) -> np.ndarray:
        return np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(self.count)

    def of_step(self, step: int, batch_size: int) -> np.ndarray:
        """The examples of the update that comes after `step` others, int64 [batch_size]."""
        numbers = np.arange(step * batch_size, (step + 1) * batch_size)
        epochs, places = np.divmod(numbers, self.count)
        return np.array([self._permutation(epoch)[place] for epoch, place in zip(epochs, places, strict=True)])


def training_dataset(
    encoded: Encoded,
    order: ExampleOrder,
    *,
    row_length: int,
    global_batch_size: int,
    accumulation_steps: int,
    rank: int,
    world_size: int,
    first_step: int,
    shape_multiple: int | None = None,
) -> tf.data.Dataset:
    """This rank's share of every global batch, endless, from `first_step` on.

    The share is packed as one and its rows are dealt out to the microbatches: packed apart, a few examples each would
    leave more room in their rows, and not all microbatches would have the same number of them. There are as few
    microbatches as hold all rows, each at most as many of them as it would have examples if none shared a row, but for
    `shape_multiple`. All ranks have equally many: their dropouts go on from a checkpoint of one of them.

    Args:
      accumulation_steps: microbatches at most.
      shape_multiple: microbatches have a multiple of this many rows, all of `row_length`, with room for a multiple of
        this many examples, so that there are few different shapes; None: they are as small as can be.

    Returns:
      Batches as `Packed.inputs` has them, every tensor [microbatches, rows, ...].
    """
    share = global_batch_size // world_size
    multiple = shape_multiple or 1

    def microbatches(shares: np.ndarray) -> int:
        if accumulation_steps == 1:
            return 1
        rows = max(assign_rows(encoded.lengths[examples], row_length).row_count for examples in shares)
        return -(-rows * accumulation_steps // share)

    def batch(step: int) -> dict[str, np.ndarray]:
        shares = order.of_step(step, global_batch_size).reshape(world_size, share)
        count = microbatches(shares)
        packed = pack(
            encoded,
            shares[rank],
            row_length,
            row_multiple=count * multiple,
            slot_multiple=multiple,
            shortens_rows=shape_multiple is None,
        )
        return {name: _deal(values, count) for name, values in packed.inputs.items()}

    def batches() -> Iterator[dict[str, np.ndarray]]:
        yield from map(batch, itertools.count(first_step))

    signature = {
        name: tf.TensorSpec([1 if accumulation_steps == 1 else None, None, None, *value.shape[3:]], value.dtype)
        for name, value in batch(first_step).items()
    }
    return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(4)


def _deal(values: np.ndarray, count: int) -> np.ndarray:
    """[rows, ...] as [count, rows / count, ...], in turns: the first rows are the fullest."""
    return np.ascontiguousarray(values.reshape(-1, count, *values.shape[1:]).swapaxes(0, 1))
