"""Places in texts, as operations of a served graph.

TensorFlow counts bytes; callers count characters (code points), as Python does. Time and memory grow with the texts and
with what is cut out of them, not with their product, as they would where strings are cut.
"""

import tensorflow as tf

_LONGEST_TEXT = 1 << 40  # bytes; keeps the places of different texts apart


class Characters:
    """The characters of a batch of texts, numbered through the batch.

    Args:
      texts: string [batch], UTF-8.
    """

    def __init__(self, texts: tf.Tensor) -> None:
        codes, offsets = tf.strings.unicode_decode_with_offsets(texts, "UTF-8")
        self._codes = codes.flat_values
        self._first = codes.row_starts()
        self._places = offsets.flat_values + offsets.value_rowids() * _LONGEST_TEXT

    def at(self, rows: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """The characters that begin at places, or the next one where a text ends, int64 [places].

        Args:
          rows: int64 [places], which text each is in.
          places: int64 [places], in bytes.
        """
        return tf.searchsorted(self._places, rows * _LONGEST_TEXT + places, out_type=tf.int64)

    def in_text(self, rows: tf.Tensor, characters: tf.Tensor) -> tf.Tensor:
        """The number that a character has in its own text, int32 [places]."""
        return tf.cast(characters - tf.gather(self._first, rows), tf.int32)

    def cut(self, starts: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
        """The texts from one character to before another, string [places]."""
        ranges = tf.ragged.range(starts, ends)
        return tf.strings.unicode_encode(ranges.with_flat_values(tf.gather(self._codes, ranges.flat_values)), "UTF-8")
