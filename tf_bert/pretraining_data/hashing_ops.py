"""`hashing.py` as TensorFlow operations, bit for bit. Apart, so that what scatters documents needs no TensorFlow."""

from typing import Any

import tensorflow as tf

from tf_bert.pretraining_data.hashing import GAMMA, MASK, MULTIPLIERS


def hash_tensors(*words: Any) -> tf.Tensor:
    """`hash_words` as TensorFlow operations, bit for bit.

    Args:
      words: ints or integer tensors (int64 counts as its two's complement) that broadcast against each other.

    Returns:
      A uint64 tensor.
    """

    def constant(value: int) -> tf.Tensor:
        return tf.constant(value, tf.uint64)

    def xor_shifted(z: tf.Tensor, bits: int) -> tf.Tensor:
        return tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, constant(bits)))

    state = constant(0)
    for word in words:
        if not tf.is_tensor(word):
            word = constant(int(word) & MASK)
        elif word.dtype != tf.uint64:
            word = tf.bitcast(tf.cast(word, tf.int64), tf.uint64)
        z = tf.bitwise.bitwise_xor(*_broadcast(state, word)) + constant(GAMMA)
        z = xor_shifted(z, 30) * constant(MULTIPLIERS[0])
        z = xor_shifted(z, 27) * constant(MULTIPLIERS[1])
        state = xor_shifted(z, 31)
    return state


def _broadcast(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.broadcast_dynamic_shape(tf.shape(a), tf.shape(b))
    return tf.broadcast_to(a, shape), tf.broadcast_to(b, shape)


def uniform_tensor(hashed: tf.Tensor) -> tf.Tensor:
    """`uniform` for a uint64 tensor."""
    return tf.cast(tf.bitwise.right_shift(hashed, tf.constant(11, tf.uint64)), tf.float64) * 2.0**-53


def below_tensor(hashed: tf.Tensor, bound: int) -> tf.Tensor:
    """`below` for a uint64 tensor."""
    shift = tf.constant(32, tf.uint64)
    return tf.bitwise.right_shift(tf.bitwise.right_shift(hashed, shift) * tf.constant(bound, tf.uint64), shift)
