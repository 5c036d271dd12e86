"""Texts to the encoder's inputs, as operations of a served graph: joined, cut and padded to the longest of the batch.

Core TensorFlow alone: the trimmers of TensorFlow Text are not in every TensorFlow Serving.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_bert.config import BertConfig
from tf_bert.tokenization.vocab import Vocabulary


class Rows(NamedTuple):
    """A batch of plain rows, each int32 [rows, length]; see `BertEncoder.call`."""

    input_ids: tf.Tensor
    segment_ids: tf.Tensor
    input_mask: tf.Tensor


def check_rows(rows: Rows, config: BertConfig) -> Rows:
    """The same rows; `InvalidArgument` with one line where the encoder would make nonsense of them.

    It gathers and broadcasts: there may be zeros for ids that no table has, and one row of segments does for all.
    """
    shape = tf.shape(rows.input_ids)
    longest = config.max_position_embeddings
    line = _line("input_ids: found rows of {} tokens, expected 1 to {}", shape[1], longest)
    checks = [((shape[1] >= 1) & (shape[1] <= longest), line)]
    for name in ("segment_ids", "input_mask"):
        found = tf.shape(getattr(rows, name))
        line = _line(f"{name}: found shape {{}}, expected {{}} as of input_ids", found, shape)
        checks.append((tf.reduce_all(found == shape), line))
    for name, size in (("input_ids", config.vocab_size), ("segment_ids", config.type_vocab_size)):
        lowest, highest = (reduce(getattr(rows, name)) for reduce in (tf.reduce_min, tf.reduce_max))
        line = _line(f"{name}: found {{}} to {{}}, expected 0 to {{}}", lowest, highest, size - 1)
        checks.append(((lowest >= 0) & (highest < size), line))
    done: list[tf.Operation] = []
    for is_right, line in checks:
        with tf.control_dependencies(done):
            done = [tf.raw_ops.Assert(condition=is_right, data=[line])]
    with tf.control_dependencies(done):
        return Rows(*map(tf.identity, rows))


def _line(form: str, *values: tf.Tensor | int) -> tf.Tensor:
    return tf.strings.format(form, [tf.convert_to_tensor(value) for value in values])


class Segments(NamedTuple):
    """One segment for every row: a range of tokens.

    Args:
      values: int32 [tokens].
      starts, lengths: int32 [rows].
    """

    values: tf.Tensor
    starts: tf.Tensor
    lengths: tf.Tensor

    @staticmethod
    def of(tokens: tf.RaggedTensor, lengths: tf.Tensor | None = None) -> "Segments":
        """The tokens of every text, [batch, (tokens)], or the first `lengths` of them."""
        whole = row_lengths(tokens)
        return Segments(tokens.flat_values, tf.cumsum(whole, exclusive=True), whole if lengths is None else lengths)


def row_lengths(tokens: tf.RaggedTensor) -> tf.Tensor:
    """int32 [batch]."""
    return tf.cast(tokens.row_lengths(), tf.int32)


def clean(texts: tf.Tensor) -> tf.Tensor:
    """Texts without the bytes that are not UTF-8, as the portable tokenizer reads them."""
    return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="ignore")


def truncate(lengths: Sequence[tf.Tensor], budget: int) -> list[tf.Tensor]:
    """How many tokens of each text are kept, int32 [batch], so that those of an example are `budget` at most.

    Of a pair the longer text loses tokens first, one by one, and the second where both are equally long
    (`_truncate_seq_pair` of google-research/bert `run_classifier.py`).
    """
    if len(lengths) == 1:
        return [tf.minimum(lengths[0], budget)]
    first, second = lengths
    half = budget // 2
    kept_first = tf.where(second <= half, tf.minimum(first, budget - second), tf.minimum(first, budget - half))
    return [kept_first, tf.minimum(second, budget - kept_first)]


def join(segments: Sequence[Segments], vocabulary: Vocabulary) -> Rows:
    """`[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, padded to the longest of the batch; one token long at least."""
    pool = tf.concat([part.values for part in segments], axis=0)
    cls, sep, pad = (tf.size(pool) + i for i in range(3))
    pool = tf.concat([pool, [vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id]], axis=0)
    total = 1 + sum(part.lengths + 1 for part in segments)
    positions = tf.range(tf.maximum(tf.reduce_max(total), 1))[None, :]
    source = tf.where(positions == 0, cls, pad)  # where in the pool each token is
    begin, first_offset = tf.ones_like(total), 0
    begins = []
    for part in segments:
        within = positions - begin[:, None]
        inside = (within >= 0) & (within < part.lengths[:, None])
        source = tf.where(inside, first_offset + part.starts[:, None] + within, source)
        source = tf.where(within == part.lengths[:, None], sep, source)
        begins.append(begin)
        begin += part.lengths + 1
        first_offset += tf.size(part.values)
    real = positions < total[:, None]
    second = real & (positions >= begins[-1][:, None]) if len(segments) > 1 else tf.zeros_like(real)
    return Rows(tf.gather(pool, source), tf.cast(second, tf.int32), tf.cast(real, tf.int32))
