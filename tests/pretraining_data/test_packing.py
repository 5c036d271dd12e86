"""Rows hold every example once and are nearly full."""

import numpy as np
import pytest

from tf_bert.pretraining_data.packing import pack


def sums_of(rows, lengths):
    return [int(lengths[rows.examples[a:b]].sum()) for a, b in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)]


def naive_best_fit(lengths, max_seq_length, max_examples):
    """Longest first; every time all rows are looked at for the fullest that has room."""
    rows: list[list[int]] = []
    for length in sorted(lengths.tolist(), reverse=True):
        fitting = [row for row in rows if sum(row) + length <= max_seq_length and len(row) < max_examples]
        if fitting:
            max(fitting, key=sum).append(length)
        else:
            rows.append([length])
    return sorted(sum(row) for row in rows)


@pytest.mark.parametrize("max_examples", [1, 2, 3, 8, 1000])
def test_every_example_is_in_one_row_that_has_room(max_examples):
    lengths = np.random.default_rng(max_examples).integers(5, 129, 700)
    rows = pack(lengths, 128, max_examples)
    assert sorted(rows.examples.tolist()) == list(range(700))
    counts = np.diff(rows.offsets)
    assert counts.min() >= 1 and counts.max() <= max_examples
    assert rows.offsets[0] == 0 and rows.offsets[-1] == 700 and len(rows) == len(counts)
    assert max(sums_of(rows, lengths)) <= 128


@pytest.mark.parametrize("seed", range(4))
def test_equals_a_search_through_all_rows(seed):
    lengths = np.random.default_rng(seed).integers(5, 65, 300)
    assert sorted(sums_of(pack(lengths, 64, 1000), lengths)) == naive_best_fit(lengths, 64, 1000)


def test_full_examples_stay_alone_and_halves_meet():
    rows = pack(np.array([5, 10, 3, 5, 7]), 10, 8)
    assert [rows.examples[a:b].tolist() for a, b in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)] == [
        [1],
        [4, 2],
        [0, 3],
    ]


def test_nothing_gives_no_row():
    rows = pack(np.zeros(0, np.int64), 128, 8)
    assert len(rows) == 0 and rows.offsets.tolist() == [0] and len(rows.examples) == 0
