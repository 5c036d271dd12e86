"""One hash in Python, numpy and TensorFlow; and draws that are distributed as they say."""

import numpy as np
import pytest
import tensorflow as tf

from tf_bert.pretraining_data.hashing import (
    HashRandom,
    Stream,
    below,
    hash_words,
    permutation,
    text_key,
    uniform,
)
from tf_bert.pretraining_data.hashing_ops import below_tensor, hash_tensors, uniform_tensor


@pytest.mark.parametrize(
    ("seed", "first_output"),
    [(0, 0xE220A8397B1DCDAF), (1234567, 6457827717110365317)],
    ids=["reference implementation, seed 0", "published test vector"],
)
def test_one_word_gives_the_first_output_of_splitmix64(seed, first_output):
    assert hash_words(seed) == first_output


def test_python_numpy_and_tensorflow_agree_bit_for_bit():
    rng = np.random.default_rng(0)
    signed = np.concatenate([rng.integers(-(2**63), 2**63 - 1, 500, "int64"), [-1, 0, 1, 2**63 - 1, -(2**63)]])
    small = np.arange(len(signed), dtype="int32")
    expected = [hash_words(7, int(a), int(b)) for a, b in zip(signed, small, strict=True)]
    in_numpy = hash_words(7, signed, small)
    in_graph = tf.function(lambda a, b: hash_tensors(7, a, b))(signed, small)
    assert in_numpy.dtype == np.uint64 and in_numpy.tolist() == expected
    assert in_graph.dtype == tf.uint64 and in_graph.numpy().tolist() == expected
    np.testing.assert_array_equal(uniform_tensor(in_graph), uniform(in_numpy))
    np.testing.assert_array_equal(below_tensor(in_graph, 30522), below(in_numpy, 30522))
    assert uniform(in_numpy).tolist() == [uniform(value) for value in expected]
    assert below(in_numpy, 30522).tolist() == [below(value, 30522) for value in expected]


def test_words_broadcast_and_their_order_and_number_matter():
    grid = hash_words(3, np.arange(4)[:, None], np.arange(5)[None])
    assert grid.shape == (4, 5)
    assert grid[2, 4] == hash_words(3, 2, 4)
    tensor = hash_tensors(3, tf.range(4, dtype=tf.int64)[:, None], tf.range(5)[None])
    np.testing.assert_array_equal(tensor, grid)
    assert len({hash_words(1, 2), hash_words(2, 1), hash_words(1), hash_words(1, 2, 0)}) == 4


def test_streams_do_not_share_draws():
    assert len({hash_words(stream, 5, 6) for stream in Stream}) == len(Stream)


def test_a_text_has_one_key_everywhere():
    assert text_key("Löwe".encode()) == text_key("Löwe".encode())
    assert text_key(b"a") != text_key(b"b")
    assert 0 <= text_key(b"") < 2**64


def test_hashes_of_consecutive_numbers_are_uniform():
    hashed = hash_words(11, np.arange(200_000))
    counts, _ = np.histogram(uniform(hashed), bins=100, range=(0, 1))
    chi_squared = ((counts - 2000) ** 2 / 2000).sum()
    assert 50 < chi_squared < 170  # 99 degrees of freedom: mean 99, standard deviation 14
    assert set(below(hashed, 7).tolist()) == set(range(7))
    counts = np.bincount(below(hashed, 7).astype(int))
    assert np.abs(counts - 200_000 / 7).max() < 5 * (200_000 / 7) ** 0.5
    bits = (hashed[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.006  # 5 standard deviations


def test_permutation():
    order = permutation(hash_words(1, 2, np.arange(1000)))
    assert sorted(order.tolist()) == list(range(1000))
    assert order.tolist() != list(range(1000))
    assert permutation(np.array([5, 1, 5, 1], np.uint64)).tolist() == [1, 3, 0, 2]


def test_draws_in_sequence():
    first, second, other = HashRandom(1, 2), HashRandom(1, 2), HashRandom(1, 3)
    drawn = [first.integer(3, 5) for _ in range(3000)]
    assert drawn == [second.integer(3, 5) for _ in range(3000)] != [other.integer(3, 5) for _ in range(3000)]
    counts = [drawn.count(value) for value in (3, 4, 5)]
    assert sum(counts) == 3000 and all(abs(count - 1000) < 130 for count in counts)
    assert first.integer(8, 8) == 8


@pytest.mark.parametrize("tosses", [1, 63, 64, 65, 200])
def test_heads_are_binomial(tosses):
    random = HashRandom(9, tosses)
    heads = np.array([random.heads(tosses) for _ in range(4000)])
    assert heads.min() >= 0 and heads.max() <= tosses
    assert abs(heads.mean() - tosses / 2) < 5 * (tosses / 4 / 4000) ** 0.5
    assert abs(heads.var() / (tosses / 4) - 1) < 0.12
    assert random.heads(0) == 0
