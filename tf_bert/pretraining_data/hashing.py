"""Randomness as a function: one stateless 64-bit hash, the same in Python, numpy and TensorFlow (`hashing_ops.py`).

Everything random in a data build or in the reading order is `hash_words(stream, seed, ...)` of what it is about, so
it depends on no generator's state, no library's version and no order of evaluation. (numpy promises no equal streams
across its versions.) The mixing function is the finaliser of splitmix64 (Steele, Lea and Flood 2014, "Fast
splittable pseudorandom number generators", figure 16), applied once per word.
"""

import enum
import hashlib
from typing import Any

import numpy as np

MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


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
        word = np.atleast_1d(word).astype(np.uint64) if isinstance(word, np.ndarray) else int(word) & MASK
        z = ((state ^ word) + GAMMA) & MASK
        z = ((z ^ (z >> 30)) * MULTIPLIERS[0]) & MASK
        z = ((z ^ (z >> 27)) * MULTIPLIERS[1]) & MASK
        state = z ^ (z >> 31)
    return state


def uniform(hashed: Any) -> Any:
    """A hash (or array of them) as float64 in [0, 1)."""
    return (hashed >> 11) * 2.0**-53


def below(hashed: Any, bound: Any) -> Any:
    """A hash (or array of them) as an integer in [0, bound), bound at most 2**32; its bias is below bound / 2**32."""
    return ((hashed >> 32) * bound) >> 32


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
