"""What a stored packed row and a batch hold: names, dtypes, shapes, defined once. `original.py` has the other rows.

A packed row (tf.train.Example, unmasked and unpadded) is the examples `[CLS] A [SEP] B [SEP]`, one after the other; or,
without next-sentence pairs, `[CLS] A [SEP]`:

  input_ids             int64 [n]   n <= max_seq_length
  example_lengths       int64 [k]   tokens of each example; they add up to n; k <= max_examples_per_row
  segment_a_lengths     int64 [k]   tokens of `[CLS] A [SEP]` in each example
  next_sentence_labels  int64 [k]   0 = B follows A, 1 = B is random; none where there is no B

A batch of B rows, with L = max_seq_length, P = masks per row at most, K = max_examples_per_row, is in `BATCH_FEATURES`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

Batch = dict[str, tf.Tensor]

ROW_FEATURES = ("input_ids", "example_lengths", "segment_a_lengths", "next_sentence_labels")

BATCH_FEATURES: dict[str, tuple[tf.DType, str]] = {
    "input_ids": (tf.int32, "L"),  # masked; padding is pad_id
    "segment_ids": (tf.int32, "L"),  # 0 for `[CLS] A [SEP]` and padding, 1 for `B [SEP]`
    "position_ids": (tf.int32, "L"),  # restart at 0 with every example
    "example_ids": (tf.int32, "L"),  # 1..k; 0 is padding; tokens attend to those of equal id
    "masked_lm_positions": (tf.int32, "P"),  # ascending; 0 where unused
    "masked_lm_ids": (tf.int32, "P"),
    "masked_lm_weights": (tf.float32, "P"),  # 1, or 0 where unused
    "next_sentence_positions": (tf.int32, "K"),  # of every example's [CLS]; 0 where unused
    "next_sentence_labels": (tf.int32, "K"),
    "next_sentence_weights": (tf.float32, "K"),  # 1, or 0 where unused or without a B
}
"""Name -> dtype and the size of the axis after the batch axis."""

NO_ROW = b""
"""Parses to a row of padding alone, all of whose weights are 0."""


@dataclasses.dataclass(frozen=True)
class Lists:
    """One feature of many rows: a list of integers for each."""

    values: np.ndarray
    """Integers from 0 to 2**28 - 1, [values]: the lists of all rows, one after the other."""
    offsets: np.ndarray
    """int64 [rows + 1]: row i has values[offsets[i]:offsets[i + 1]]."""


# The fields of a tf.train.Example on the wire (protobuf.dev/programming-guides/encoding): a tag before each, which is
# the field's number and the type of what follows, here always a length and so many bytes.
_FIRST_FIELD, _SECOND_FIELD, _INT64_LIST = b"\x0a", b"\x12", b"\x1a"


def serialize_rows(features: Mapping[str, Lists]) -> Iterator[bytes]:
    """Rows as tf.train.Examples, byte for byte what `SerializeToString(deterministic=True)` gives.

    All numbers are encoded at once, which takes a fifth of the time of filling in messages.
    """
    columns = [_encoded_features(name, features[name]) for name in sorted(features)]
    for entries in zip(*columns, strict=True):
        yield _field(_FIRST_FIELD, b"".join(entries))


def _encoded_features(name: str, lists: Lists) -> Iterator[bytes]:
    """For every row, its entry in the map from names to features."""
    key = _field(_FIRST_FIELD, name.encode())
    values, sizes = _varints(lists.values)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])[lists.offsets]
    encoded = values.tobytes()
    for start, end in itertools.pairwise(ends.tolist()):
        packed = _field(_FIRST_FIELD, encoded[start:end]) if end > start else b""
        yield _field(_FIRST_FIELD, key + _field(_SECOND_FIELD, _field(_INT64_LIST, packed)))


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


@functools.cache
def _varint(value: int) -> bytes:
    return _varints(np.array([value]))[0].tobytes()


def _varints(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers [n] from 0 to 2**28 - 1, seven bits a byte from the lowest on: all bytes, and how many each one has."""
    sizes = 1 + (values >= 1 << 7) + (values >= 1 << 14) + (values >= 1 << 21)
    starts = np.cumsum(sizes) - sizes
    encoded = np.empty(int(sizes.sum()), np.uint8)
    for i in range(int(sizes.max(initial=0))):
        longer = sizes > i
        has_more = (sizes > i + 1)[longer]
        encoded[starts[longer] + i] = (values[longer] >> 7 * i & 0x7F) | has_more * 0x80
    return encoded, sizes


def parse_row(serialized: bytes) -> dict[str, np.ndarray]:
    """One row of `serialize_rows`; int64 arrays."""
    features = tf.train.Example.FromString(serialized).features.feature
    return {name: np.array(features[name].int64_list.value, np.int64) for name in ROW_FEATURES}


def parse_rows(serialized: tf.Tensor, max_seq_length: int, max_examples_per_row: int, pad_id: int) -> Batch:
    """Parses rows into an unmasked batch, as TensorFlow operations.

    Args:
      serialized: string [B].
      max_seq_length: L.
      max_examples_per_row: K.
      pad_id: what fills input_ids up.

    Returns:
      The batch features but for the three of masking; input_ids hold the original tokens.
    """
    features = {name: tf.io.RaggedFeature(tf.int64) for name in ROW_FEATURES}
    ragged = {name: tf.cast(value, tf.int32) for name, value in tf.io.parse_example(serialized, features).items()}

    def dense(name: str, size: int, default: int = 0) -> tf.Tensor:
        tensor = ragged[name].to_tensor(default, shape=[None, size])
        return tf.ensure_shape(tensor, [serialized.shape[0], size])

    lengths = dense("example_lengths", max_examples_per_row)
    ends = tf.cumsum(lengths, axis=1)
    starts = ends - lengths
    used = lengths > 0
    label_counts = ragged["next_sentence_labels"].row_lengths()[:, tf.newaxis]
    is_labelled = tf.range(max_examples_per_row, dtype=label_counts.dtype) < label_counts
    # The example that a token belongs to: how many examples end at or before it. Unused ends equal the last one.
    positions = tf.broadcast_to(tf.range(max_seq_length), tf.stack([tf.shape(ends)[0], max_seq_length]))
    index = tf.searchsorted(ends, positions, side="right")
    is_token = positions < ends[:, -1:]
    index = tf.where(is_token, index, 0)
    within = positions - tf.gather(starts, index, batch_dims=1)
    segment_a_lengths = tf.gather(dense("segment_a_lengths", max_examples_per_row), index, batch_dims=1)

    def where_token(value: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.where(is_token, value, 0), [serialized.shape[0], max_seq_length])

    return {
        "input_ids": dense("input_ids", max_seq_length, pad_id),
        "segment_ids": where_token(tf.cast(within >= segment_a_lengths, tf.int32)),
        "position_ids": where_token(within),
        "example_ids": where_token(index + 1),
        "next_sentence_positions": tf.where(used, starts, 0),
        "next_sentence_labels": dense("next_sentence_labels", max_examples_per_row),
        "next_sentence_weights": tf.ensure_shape(tf.cast(is_labelled, tf.float32), lengths.shape),
    }
