"""The model's outputs for any number of examples, in their order."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tf_bert.distributed import World
from tf_bert.finetuning.family import Outputs
from tf_bert.finetuning.packing import Encoded, pack
from tf_bert.models.model import BertModel

TOKENS_AT_ONCE = 4096
"""Of one forward pass, padding counted."""

_INPUTS = ("input_ids", "segment_ids", "position_ids", "example_ids", "next_sentence_positions")


class Scorer:
    """Runs a model on encoded examples.

    Args:
      model: with a head whose outputs have names.
      of_tokens: whether these are of tokens, not of examples.
    """

    def __init__(self, model: BertModel, of_tokens: bool) -> None:
        self.of_tokens = of_tokens
        signature = {name: tf.TensorSpec([None, None], tf.int32) for name in _INPUTS}
        self._forward = tf.function(lambda inputs: model(inputs, training=False), input_signature=[signature])

    def outputs(self, encoded: Encoded, row_length: int, world: World | None = None) -> Outputs:
        """The outputs of every example, float32: [classes], or [tokens, ...] where they are of tokens.

        Args:
          encoded: the examples.
          row_length: tokens in a row; at least the longest example's.
          world: the ranks that share the work; all of them call this with the same examples, and get all outputs.
        """
        world = world or World()
        size = len(encoded.input_ids) if self.of_tokens else len(encoded)
        tables: dict[str, np.ndarray] = {}
        for number, indices in enumerate(_portions(encoded, row_length)):
            if tables and number % world.world_size != world.rank:
                continue  # every rank does the first portion, to know the shapes, but only one counts it
            packed = pack(encoded, indices, row_length)
            scores = self._forward({name: packed.inputs[name] for name in _INPUTS})
            for name, value in scores.items():
                value = value.numpy()
                table = tables.setdefault(name, np.zeros((size, *value.shape[2:]), np.float32))
                if number % world.world_size != world.rank:
                    continue
                if not self.of_tokens:
                    table[indices] = value[packed.rows, packed.slots]
                    continue
                for example, row, start in zip(indices, packed.rows, packed.starts, strict=True):
                    first, last = encoded.offsets[example : example + 2]
                    table[first:last] = value[row, start : start + last - first]
        if world.world_size > 1:
            whole = world.all_reduce_sum([tf.constant(table) for table in tables.values()])
            tables = dict(zip(tables, (tensor.numpy() for tensor in whole), strict=True))
        if not self.of_tokens:
            return [{name: table[i] for name, table in tables.items()} for i in range(len(encoded))]
        bounds = list(zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True))
        return [{name: table[first:last] for name, table in tables.items()} for first, last in bounds]


def _portions(encoded: Encoded, row_length: int) -> Iterator[np.ndarray]:
    """Runs of examples that fill about `TOKENS_AT_ONCE` tokens."""
    limit = max(TOKENS_AT_ONCE, row_length)
    starts = [0]
    for i in range(len(encoded)):
        if encoded.offsets[i + 1] - encoded.offsets[starts[-1]] > limit:
            starts.append(i)
    for first, last in zip(starts, [*starts[1:], len(encoded)], strict=True):
        yield np.arange(first, last)
