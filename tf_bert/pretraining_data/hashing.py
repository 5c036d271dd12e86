"""Randomness as a function: one stateless 64-bit hash, the same in Python, numpy and TensorFlow.

Everything random in a data build or in the reading order is `hash_words(stream, seed, ...)` of what it is about, so
it depends on no generator's state, no library's version and no order of evaluation. (numpy promises no equal streams
across its versions.) The mixing function is the finaliser of splitmix64 (Steele, Lea and Flood 2014, "Fast
splittable pseudorandom number generators", figure 16), applied once per word.
"""

import enum
import hashlib
from typing import Any

import numpy as np
import tensorflow as tf

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


class Stream(enum.IntEnum):
    """The first word of every hash: what it is for. Two purposes never share draws."""

    VALIDATION = 1
    BUCKET = 2
    DOCUMENT_ORDER = 3
    PAIRS = 4
    ROW_ORDER = 5
    SHARD_EPOCH_ORDER = 6
    ROW_EPOCH_ORDER = 7
    ROW_KEY = 8
    MASK_CHOICE = 9
    MASK_ACTION = 10
    MASK_RANDOM_ID = 11
    MASK_SPAN = 12
    STORED_ROW_KEY = 13


def text_key(data: bytes) -> int:
    """64 bits that stand for a text wherever it comes from."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def hash_words(*words: Any) -> Any:
    """The hash of a sequence of 64-bit words.

    Args:
      words: ints, or integer arrays (int64 counts as its two's complement) that broadcast against each other.

    Returns:
      An int in [0, 2**64), or a uint64 array of at least one dimension if any word is an array.
    """
    state: Any = 0
    for word in words:
        # A numpy scalar would warn of the wrap-around that is meant; an array does not.
        word = np.atleast_1d(word).astype(np.uint64) if isinstance(word, np.ndarray) else int(word) & _MASK
        z = ((state ^ word) + _GAMMA) & _MASK
        z = ((z ^ (z >> 30)) * _MULTIPLIERS[0]) & _MASK
        z = ((z ^ (z >> 27)) * _MULTIPLIERS[1]) & _MASK
        state = z ^ (z >> 31)
    return state


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
            word = constant(int(word) & _MASK)
        elif word.dtype != tf.uint64:
            word = tf.bitcast(tf.cast(word, tf.int64), tf.uint64)
        z = tf.bitwise.bitwise_xor(*_broadcast(state, word)) + constant(_GAMMA)
        z = xor_shifted(z, 30) * constant(_MULTIPLIERS[0])
        z = xor_shifted(z, 27) * constant(_MULTIPLIERS[1])
        state = xor_shifted(z, 31)
    return state


def _broadcast(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.broadcast_dynamic_shape(tf.shape(a), tf.shape(b))
    return tf.broadcast_to(a, shape), tf.broadcast_to(b, shape)


def uniform(hashed: Any) -> Any:
    """A hash (or array of them) as float64 in [0, 1)."""
    return (hashed >> 11) * 2.0**-53


def uniform_tensor(hashed: tf.Tensor) -> tf.Tensor:
    """`uniform` for a uint64 tensor."""
    return tf.cast(tf.bitwise.right_shift(hashed, tf.constant(11, tf.uint64)), tf.float64) * 2.0**-53


def below(hashed: Any, bound: Any) -> Any:
    """A hash (or array of them) as an integer in [0, bound), bound at most 2**32; its bias is below bound / 2**32."""
    return ((hashed >> 32) * bound) >> 32


def below_tensor(hashed: tf.Tensor, bound: int) -> tf.Tensor:
    """`below` for a uint64 tensor."""
    shift = tf.constant(32, tf.uint64)
    return tf.bitwise.right_shift(tf.bitwise.right_shift(hashed, shift) * tf.constant(bound, tf.uint64), shift)


def permutation(hashes: np.ndarray) -> np.ndarray:
    """The int64 order that sorts `hashes` [n]; equal ones keep their order."""
    return np.argsort(hashes, kind="stable")


class HashRandom:
    """Draws in sequence: the n-th is the hash of the key and n.

    Args:
      words: the key, as for `hash_words`.
    """

    def __init__(self, *words: int) -> None:
        self._key = hash_words(*words)
        self._drawn = 0

    def _next(self) -> int:
        self._drawn += 1
        return int(hash_words(self._key, self._drawn))

    def random(self) -> float:
        """A float in [0, 1)."""
        return float(uniform(self._next()))

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high], both ends included."""
        return low + int(below(self._next(), high - low + 1))

    def heads(self, tosses: int) -> int:
        """How many of `tosses` fair coins show heads."""
        heads = 0
        for done in range(0, tosses, 64):
            heads += (self._next() & ((1 << min(64, tosses - done)) - 1)).bit_count()
        return heads
