"""Rows as google-research/bert `create_pretraining_data.py` writes them: one example each, padded, masked for good.

google-research/bert, NVIDIA and tf-models read and write these tf.train.Examples. With L = max_seq_length and
P = max_predictions_per_seq of the manifest, every row holds

  input_ids             int64 [L]    masked; padding is pad_id, which is 0 in the published vocabularies
  input_mask            int64 [L]    1, or 0 for padding
  segment_ids           int64 [L]    0 for `[CLS] A [SEP]` and padding, 1 for `B [SEP]`
  masked_lm_positions   int64 [P]    ascending; 0 where unused
  masked_lm_ids         int64 [P]    0 where unused
  masked_lm_weights     float32 [P]  1, or 0 where unused
  next_sentence_labels  int64 [1]    0 = B follows A, 1 = B is random; left out without next-sentence pairs
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from tf_bert.pretraining_data.hashing import Stream, hash_words
from tf_bert.pretraining_data.masking import Masking, apply_masking
from tf_bert.pretraining_data.schema import Batch, parse_rows

ORIGINAL_FEATURES: dict[str, tuple[tf.DType, str]] = {
    "input_ids": (tf.int64, "L"),
    "input_mask": (tf.int64, "L"),
    "segment_ids": (tf.int64, "L"),
    "masked_lm_positions": (tf.int64, "P"),
    "masked_lm_ids": (tf.int64, "P"),
    "masked_lm_weights": (tf.float32, "P"),
    "next_sentence_labels": (tf.int64, "1"),
}
"""Name -> dtype and length."""

MASKING_BATCH = 256  # rows


def mask_rows(
    rows: Iterable[bytes], max_seq_length: int, pad_id: int, masking: Masking, bucket: int
) -> Iterator[bytes]:
    """Masks packed rows of one example and pads them; equal rows at equal places give equal bytes.

    Args:
      rows: as `schema.serialize_rows` gives them.
      max_seq_length: L.
      pad_id: what fills input_ids up.
      masking: settings, and P.
      bucket: where the rows come from; together with a row's index it is what the masks depend on.
    """
    numbered = enumerate(rows)
    while batch := list(itertools.islice(numbered, MASKING_BATCH)):
        indices = np.array([index for index, _ in batch])
        unmasked = parse_rows(tf.constant([row for _, row in batch]), max_seq_length, 1, pad_id)
        keys = hash_words(Stream.STORED_ROW_KEY, bucket, indices).view(np.int64)
        masked = {name: value.numpy() for name, value in apply_masking(unmasked, tf.constant(keys), masking).items()}
        masked["input_mask"] = masked["example_ids"]
        is_labelled = masked["next_sentence_weights"][:, 0] > 0
        for i in range(len(batch)):
            row = {name: masked[name][i] for name in ORIGINAL_FEATURES}
            if not is_labelled[i]:
                del row["next_sentence_labels"]
            yield _serialize(row)


def _serialize(row: Mapping[str, np.ndarray]) -> bytes:
    example = tf.train.Example()
    features = example.features.feature
    for name, values in row.items():
        is_float = ORIGINAL_FEATURES[name][0] == tf.float32
        target = features[name].float_list if is_float else features[name].int64_list
        target.value.extend(values.tolist())
    return bytes(example.SerializeToString(deterministic=True))


def parse_original_rows(serialized: tf.Tensor, max_seq_length: int, max_predictions_per_seq: int, pad_id: int) -> Batch:
    """Parses rows into a batch with the masks that they have, as TensorFlow operations.

    Args:
      serialized: string [B]; `schema.NO_ROW` gives a row of padding alone, all of whose weights are 0.
      max_seq_length: L.
      max_predictions_per_seq: P.
      pad_id: what input_ids of `schema.NO_ROW` are.

    Returns:
      All of `schema.BATCH_FEATURES`, K = 1.

    Raises:
      tf.errors.InvalidArgumentError: when run, if a row has features of other lengths or types.
    """
    sizes = {"L": max_seq_length, "P": max_predictions_per_seq, "1": 1}
    defaults = {"input_ids": pad_id, "next_sentence_labels": -1}
    features = {
        name: tf.io.FixedLenFeature([sizes[axis]], dtype, default_value=[defaults.get(name, 0)] * sizes[axis])
        for name, (dtype, axis) in ORIGINAL_FEATURES.items()
    }
    parsed = tf.io.parse_example(serialized, features)
    batch = {name: tf.cast(value, tf.int32) if value.dtype == tf.int64 else value for name, value in parsed.items()}
    example_ids = batch.pop("input_mask")
    labels = batch["next_sentence_labels"]
    return {
        **batch,
        "position_ids": tf.range(max_seq_length) * example_ids,
        "example_ids": example_ids,
        "next_sentence_positions": tf.zeros_like(labels),
        "next_sentence_labels": tf.maximum(labels, 0),
        "next_sentence_weights": tf.cast(labels >= 0, tf.float32),
    }
