"""Rows survive being stored, and a batch says of every token which example, segment and position it has."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tf_bert.pretraining_data.schema import NO_ROW, ROW_FEATURES, Lists, parse_row, parse_rows, serialize_rows

LENGTH, EXAMPLES, PAD = 24, 4, 9


def random_row(rng: np.random.Generator, lengths: list[int]) -> dict[str, np.ndarray]:
    return {
        "input_ids": rng.integers(0, 30522, sum(lengths)),
        "example_lengths": np.array(lengths),
        "segment_a_lengths": np.array([int(rng.integers(3, length - 1)) for length in lengths]),
        "next_sentence_labels": rng.integers(0, 2, len(lengths)),
    }


def expected_batch(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """A batch made token by token."""
    wide = {name: np.zeros((len(rows), LENGTH), "int32") for name in ("segment_ids", "position_ids", "example_ids")}
    wide["input_ids"] = np.full((len(rows), LENGTH), PAD, "int32")
    few = {name: np.zeros((len(rows), EXAMPLES), "int32") for name in ("positions", "labels", "weights")}
    for i, row in enumerate(rows):
        place = 0
        for k, (length, a_length) in enumerate(zip(row["example_lengths"], row["segment_a_lengths"], strict=True)):
            few["positions"][i, k], few["labels"][i, k], few["weights"][i, k] = place, row["next_sentence_labels"][k], 1
            for within in range(length):
                wide["input_ids"][i, place] = row["input_ids"][place]
                wide["segment_ids"][i, place] = within >= a_length
                wide["position_ids"][i, place] = within
                wide["example_ids"][i, place] = k + 1
                place += 1
    return wide | {f"next_sentence_{name}": values for name, values in few.items()}


ROWS = [random_row(np.random.default_rng(i), lengths) for i, lengths in enumerate(([24], [5, 6, 7, 5], [19, 5], [9]))]


def serialized(rows: list[dict[str, np.ndarray]]) -> list[bytes]:
    offsets = {name: np.cumsum([0, *(len(row[name]) for row in rows)]) for name in ROW_FEATURES}
    values = {name: np.concatenate([np.zeros(0, "int64"), *(row[name] for row in rows)]) for name in ROW_FEATURES}
    return list(serialize_rows({name: Lists(values[name], offsets[name]) for name in ROW_FEATURES}))


def as_message(row: dict[str, np.ndarray]) -> bytes:
    example = tf.train.Example()
    for name, values in row.items():
        example.features.feature[name].int64_list.value.extend(values.tolist())
    return example.SerializeToString(deterministic=True)


def test_a_row_survives_being_stored():
    for row, stored in zip(ROWS, serialized(ROWS), strict=True):
        back = parse_row(stored)
        assert list(back) == list(ROW_FEATURES)
        for name, values in row.items():
            np.testing.assert_array_equal(back[name], values)


@given(st.lists(st.lists(st.integers(0, 2**28 - 1), max_size=300), max_size=5))
def test_rows_are_the_bytes_that_protobuf_writes(lists):
    rows = [{name: np.array(values[i:], "int64") for i, name in enumerate(ROW_FEATURES)} for values in lists]
    assert serialized(rows) == [as_message(row) for row in rows]


def test_rows_are_plain_tensorflow_examples():
    features = {name: tf.io.VarLenFeature(tf.int64) for name in ROW_FEATURES}
    parsed = tf.io.parse_single_example(serialized(ROWS)[1], features)
    for name, values in ROWS[1].items():
        np.testing.assert_array_equal(parsed[name].values, values)


@pytest.mark.parametrize("static_size", [True, False])
def test_a_batch_equals_one_made_token_by_token(static_size):
    signature = tf.TensorSpec([len(ROWS)] if static_size else [None], tf.string)
    parse = tf.function(lambda rows: parse_rows(rows, LENGTH, EXAMPLES, PAD), input_signature=[signature])
    batch = parse(tf.constant(serialized(ROWS)))
    expected = expected_batch(ROWS)
    assert batch.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(batch[name], values, name)
        assert batch[name].dtype == (tf.float32 if name.endswith("weights") else tf.int32)


def test_rows_without_labels_weigh_nothing_in_next_sentence_prediction():
    row = {**ROWS[1], "segment_a_lengths": ROWS[1]["example_lengths"], "next_sentence_labels": np.zeros(0, "int64")}
    stored = serialized([row, ROWS[0]])
    assert parse_row(stored[0])["next_sentence_labels"].shape == (0,)
    batch = parse_rows(tf.constant(stored), LENGTH, EXAMPLES, PAD)
    np.testing.assert_array_equal(batch["next_sentence_weights"], [[0, 0, 0, 0], [1, 0, 0, 0]])
    assert not batch["segment_ids"][0].numpy().any() and not batch["next_sentence_labels"][0].numpy().any()
    np.testing.assert_array_equal(batch["next_sentence_positions"][0], [0, 5, 11, 18])


def test_no_row_is_padding_alone():
    batch = parse_rows(tf.constant([*serialized(ROWS[:1]), NO_ROW]), LENGTH, EXAMPLES, PAD)
    for name, values in batch.items():
        expected = PAD if name == "input_ids" else 0
        np.testing.assert_array_equal(values[1], np.full(values.shape[1], expected), name)
