"""Training batches: which examples a step has, and how they are packed for each rank.

The examples of step t depend on (seed, t) alone: the training set is read over and over, each time in another order,
and cut into global batches, so no batch is short and no epoch leaves an example out. A resumed run computes its place.
"""

import functools
import itertools
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tf_bert.finetuning.packing import Encoded, pack


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
    multiple: int = 1,
) -> tf.data.Dataset:
    """This rank's share of every global batch, endless, from `first_step` on; `multiple` is for `pack`.

    Returns:
      Batches as `Packed.inputs` has them, every tensor [accumulation_steps, rows, ...]; the rows of a step's
      microbatches are filled up to the same number.
    """
    share = global_batch_size // world_size

    def batch(step: int) -> dict[str, np.ndarray]:
        own = order.of_step(step, global_batch_size)[rank * share : (rank + 1) * share]
        microbatches = own.reshape(accumulation_steps, -1)
        packed = [pack(encoded, indices, row_length, multiple).inputs for indices in microbatches]
        return {name: _stack([inputs[name] for inputs in packed]) for name in packed[0]}

    def batches() -> Iterator[dict[str, np.ndarray]]:
        yield from map(batch, itertools.count(first_step))

    signature = {
        name: tf.TensorSpec([accumulation_steps, None, None, *value.shape[3:]], value.dtype)
        for name, value in batch(first_step).items()
    }
    return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(4)


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    """Stacks arrays that may differ in their first two axes, which are filled up with zeros."""
    shape = np.max([array.shape for array in arrays], axis=0)
    stacked = np.zeros((len(arrays), *shape), arrays[0].dtype)
    for whole, array in zip(stacked, arrays, strict=True):
        whole[: array.shape[0], : array.shape[1]] = array
    return stacked
