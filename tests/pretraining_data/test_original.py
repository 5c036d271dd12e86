"""Rows in the original format: read by tf-models, statistics beside its own, and the same batches for the trainer."""

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from test_pairs import distance

from tf_bert.config import DataConfig
from tf_bert.errors import UsageError
from tf_bert.pretraining_data.build import build
from tf_bert.pretraining_data.dataset import read_shard, training_dataset, validation_dataset
from tf_bert.pretraining_data.manifest import read_manifest
from tf_bert.pretraining_data.original import ORIGINAL_FEATURES, parse_original_rows
from tf_bert.pretraining_data.schema import BATCH_FEATURES, NO_ROW, parse_row
from tf_bert.tokenization.vocab import Vocabulary

LENGTH, PREDICTIONS, PASSES = 64, 10, 3
ORIGINAL = {"row_format": "original", "dupe_factor": PASSES, "validation_fraction": 0.1}


@pytest.fixture(scope="module", params=[False, True], ids=["single tokens", "whole words"])
def is_whole_word(request):
    return request.param


@pytest.fixture(scope="module")
def original_dir(prepare_config, tmp_path_factory, is_whole_word) -> Path:
    """The small corpus in original rows."""
    output_dir = tmp_path_factory.mktemp("original") / "data"
    build(prepare_config(output_dir, **ORIGINAL, whole_word_masking=is_whole_word))
    return output_dir


@pytest.fixture(scope="module")
def single_dirs(prepare_config, tmp_path_factory) -> dict[str, Path]:
    """The small corpus without next-sentence pairs, in both formats."""
    directory = tmp_path_factory.mktemp("single")
    changes = {"packed": {}, "original": ORIGINAL}
    for name, change in changes.items():
        build(prepare_config(directory / name, next_sentence=False, **change))
    return {name: directory / name for name in changes}


def stored_rows(data_dir, split="train"):
    return [row for shard in read_manifest(data_dir).splits[split].shards for row in read_shard(data_dir, shard)]


def columns(rows):
    """All rows as arrays [rows, ...], read with TensorFlow's own parser."""
    sizes = {"L": LENGTH, "P": PREDICTIONS, "1": 1}
    features = {name: tf.io.FixedLenFeature([sizes[axis]], dtype) for name, (dtype, axis) in ORIGINAL_FEATURES.items()}
    return {name: value.numpy() for name, value in tf.io.parse_example(tf.constant(rows), features).items()}


def unmasked(batch):
    """input_ids [rows, L] with the right answers in their places."""
    ids = batch["input_ids"].copy()
    rows, slots = np.nonzero(batch["masked_lm_weights"])
    ids[rows, batch["masked_lm_positions"][rows, slots]] = batch["masked_lm_ids"][rows, slots]
    return ids


def words_of(ids, vocabulary):
    """Words of one row as lists of positions."""
    words, special = [], {vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id}
    for i, token in enumerate(ids.tolist()):
        if token in special:
            continue
        if vocabulary.tokens[token].startswith("##") and ids[i - 1] not in special:
            words[-1].append(i)
        else:
            words.append([i])
    return words


# --- what is stored ------------------------------------------------------------------------------------------


def test_rows_have_the_seven_features_with_their_types_and_lengths(original_dir):
    """Those that run_pretraining.py of google-research/bert asks for."""
    kinds = {
        "input_ids": ("int64_list", LENGTH),
        "input_mask": ("int64_list", LENGTH),
        "segment_ids": ("int64_list", LENGTH),
        "masked_lm_positions": ("int64_list", PREDICTIONS),
        "masked_lm_ids": ("int64_list", PREDICTIONS),
        "masked_lm_weights": ("float_list", PREDICTIONS),
        "next_sentence_labels": ("int64_list", 1),
    }
    for row in stored_rows(original_dir)[:50]:
        features = tf.train.Example.FromString(row).features.feature
        found = {name: feature.WhichOneof("kind") for name, feature in features.items()}
        assert {name: (kind, len(getattr(features[name], kind).value)) for name, kind in found.items()} == kinds


def test_the_manifest_says_what_readers_need(original_dir, data_dir):
    manifest = read_manifest(original_dir)
    assert (manifest.row_format, manifest.max_examples_per_row, manifest.next_sentence) == ("original", 1, True)
    assert manifest.max_predictions_per_seq == PREDICTIONS  # 15% of 64, rounded up
    packed = read_manifest(data_dir)
    assert (packed.row_format, packed.max_examples_per_row, packed.max_predictions_per_seq) == ("packed", 8, None)
    for split in manifest.splits.values():
        assert split.counts.rows == split.counts.examples == split.records
    ours, theirs = manifest.splits["train"].counts, packed.splits["train"].counts
    assert (ours.documents, ours.tokens) == (theirs.documents, theirs.tokens)
    assert ours.examples == pytest.approx(PASSES * theirs.examples, rel=0.05)
    # The first pass draws what packed rows draw, and validation has this pass alone.
    assert manifest.splits["validation"].counts.examples == packed.splits["validation"].counts.examples


def test_examples_are_those_of_packed_rows(original_dir, data_dir):
    packed = set()
    for row in map(parse_row, stored_rows(data_dir, "validation")):
        ends = np.cumsum(row["example_lengths"])
        for end, length, label in zip(ends, row["example_lengths"], row["next_sentence_labels"], strict=True):
            packed.add((row["input_ids"][end - length : end].tobytes(), int(label)))
    batch = columns(stored_rows(original_dir, "validation"))
    ids, lengths = unmasked(batch), batch["input_mask"].sum(axis=1)
    found = {
        (row[:length].tobytes(), int(label))
        for row, length, label in zip(ids, lengths, batch["next_sentence_labels"][:, 0], strict=True)
    }
    assert found == packed
    np.testing.assert_array_equal(batch["input_mask"], np.arange(LENGTH) < lengths[:, np.newaxis])
    vocabulary = Vocabulary.load(original_dir / "vocab.txt")
    is_separator = ids == vocabulary.sep_id
    assert (is_separator.sum(axis=1) == 2).all()
    after_first = np.cumsum(is_separator, axis=1) - is_separator > 0
    np.testing.assert_array_equal(batch["segment_ids"], after_first & (batch["input_mask"] > 0))
    assert (ids[batch["input_mask"] == 0] == vocabulary.pad_id).all()


def test_builds_are_equal_byte_for_byte(prepare_config, original_dir, is_whole_word, tmp_path, monkeypatch):
    monkeypatch.setattr("tf_bert.pretraining_data.original.MASKING_BATCH", 100)
    build(prepare_config(tmp_path / "data", **ORIGINAL, whole_word_masking=is_whole_word))
    for path in original_dir.iterdir():
        assert (tmp_path / "data" / path.name).read_bytes() == path.read_bytes(), path.name


def test_passes_differ_in_pairs_and_masks(prepare_config, tmp_path):
    # Without short examples single segments are the same in every pass, so that masks can be compared.
    config = prepare_config(tmp_path / "data", **ORIGINAL, next_sentence=False, short_seq_prob=0.0)
    build(dataclasses.replace(config, dupe_factor=2))
    rows = [tf.train.Example.FromString(row).features.feature for row in stored_rows(tmp_path / "data")]
    masks: dict[tuple, list[tuple]] = {}
    for row in rows:
        batch = {name: np.array([getattr(row[name], row[name].WhichOneof("kind")).value]) for name in row}
        masks.setdefault(tuple(unmasked(batch)[0]), []).append(tuple(batch["masked_lm_positions"][0]))
    long = [found for ids, found in masks.items() if np.count_nonzero(ids) > 40]
    assert len(long) > 500 and {len(found) for found in long} == {2}
    assert np.mean([first == second for first, second in long]) < 0.01


# --- statistics ----------------------------------------------------------------------------------------------


def test_masks_are_of_the_right_number_and_kind(original_dir, is_whole_word):
    batch = columns(stored_rows(original_dir))
    vocabulary = Vocabulary.load(original_dir / "vocab.txt")
    ids = unmasked(batch)
    is_candidate = ~np.isin(ids, (vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id))
    chosen = batch["masked_lm_weights"] > 0
    budget = np.clip(np.rint(is_candidate.sum(axis=1) * 0.15), 1, PREDICTIONS)
    used = chosen.sum(axis=1)
    assert (used <= budget).all()
    if is_whole_word:
        is_masked = np.zeros_like(is_candidate)
        rows, slots = np.nonzero(chosen)
        is_masked[rows, batch["masked_lm_positions"][rows, slots]] = True
        words = [(row, word) for row in range(len(ids)) for word in words_of(ids[row], vocabulary)]
        assert all(is_masked[row, word].all() == is_masked[row, word].any() for row, word in words)
        assert np.mean([len(word) for _, word in words]) > 1.5
        # A third of the words are five letters spelled out: what is left of a budget of 9 may be too little for one.
        assert used.sum() / budget.sum() > 0.97
    else:
        assert (used == budget).all()
    now = np.take_along_axis(batch["input_ids"], batch["masked_lm_positions"], 1)[chosen]
    before = batch["masked_lm_ids"][chosen]
    # Some 40,000 chosen tokens: standard deviations of 0.002 and 0.0015. One of the 257 random ids is the same again.
    share = 1 / len(vocabulary)
    assert (now == vocabulary.mask_id).mean() == pytest.approx(0.8 + 0.1 * share, abs=0.01)
    assert (now == before).mean() == pytest.approx(0.1 + 0.1 * share, abs=0.008)
    assert np.isin(before, (vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id)).sum() == 0


def test_statistics_are_those_of_tf_models(prepare_config, corpus_file, vocabulary_file, is_whole_word, tmp_path):
    """Beside create_pretraining_data.py on the same text, without short examples, whose targets are drawn otherwise."""
    theirs_module = pytest.importorskip("official.nlp.data.create_pretraining_data")
    tokenizer = theirs_module.tokenization.FullTokenizer(str(vocabulary_file), do_lower_case=True)
    theirs = theirs_module.create_training_instances(
        [str(corpus_file)],
        tokenizer,
        theirs_module.get_processor_text_fn(False, True),
        max_seq_length=LENGTH,
        dupe_factor=PASSES,
        short_seq_prob=0.0,
        masked_lm_prob=0.15,
        max_predictions_per_seq=PREDICTIONS,
        rng=random.Random(3),
        do_whole_word_mask=is_whole_word,
    )
    changes = {**ORIGINAL, "short_seq_prob": 0.0, "validation_fraction": 0.0, "shard_megabytes": 10.0}
    build(prepare_config(tmp_path / "data", **changes, whole_word_masking=is_whole_word))
    ours = columns(stored_rows(tmp_path / "data"))

    assert len(ours["input_ids"]) == pytest.approx(len(theirs), rel=0.02)
    labels = [instance.is_random_next for instance in theirs]
    # Some 6,000 rows each: the difference of two shares has a standard deviation of 0.009.
    assert ours["next_sentence_labels"].mean() == pytest.approx(np.mean(labels), abs=0.03)
    bound = 2.0 * (1 / len(theirs) + 1 / len(ours["input_ids"])) ** 0.5  # passed by chance once in a thousand
    lengths = ours["input_mask"].sum(axis=1)
    b_lengths = ours["segment_ids"].sum(axis=1)
    their_lengths = np.array([len(instance.tokens) for instance in theirs])
    their_b_lengths = np.array([sum(instance.segment_ids) for instance in theirs])
    assert distance(lengths, their_lengths) < bound
    assert distance(b_lengths, their_b_lengths) < bound
    assert distance(lengths - b_lengths, their_lengths - their_b_lengths) < bound
    # They count [CLS] and [SEP] into the tokens of which they take 15%, so of 64 tokens they mask 10 and we 9.
    our_masks, their_masks = ours["masked_lm_weights"].sum(axis=1), [len(i.masked_lm_positions) for i in theirs]
    our_share = our_masks.sum() / np.clip(np.rint(0.15 * (lengths - 3)), 1, PREDICTIONS).sum()
    their_share = np.sum(their_masks) / np.clip(np.rint(0.15 * their_lengths), 1, PREDICTIONS).sum()
    assert our_share == pytest.approx(their_share, abs=0.01)


# --- readers -------------------------------------------------------------------------------------------------


def test_tf_models_input_pipeline_reads_every_row(original_dir):
    loader = pytest.importorskip("official.nlp.data.pretrain_dataloader")
    rows = stored_rows(original_dir)
    config = loader.BertPretrainDataConfig(
        input_path=str(original_dir / "train-*.tfrecord"),
        global_batch_size=32,
        is_training=False,
        drop_remainder=False,
        seq_length=LENGTH,
        max_predictions_per_seq=PREDICTIONS,
        use_next_sentence_label=True,
    )
    read = list(loader.BertPretrainDataLoader(config).load())
    theirs = {name: np.concatenate([batch[name] for batch in read]) for name in read[0]}
    names = {"input_word_ids": "input_ids", "input_type_ids": "segment_ids"}
    ours = columns(rows)
    assert {names.get(name, name) for name in theirs} == set(ORIGINAL_FEATURES)

    def sorted_rows(batch, name_of):
        joined = np.concatenate([batch[name_of(name)].astype("float64") for name in sorted(theirs)], axis=1)
        return joined[np.lexsort(joined.T)]

    # Their pipeline interleaves the files.
    np.testing.assert_array_equal(
        sorted_rows(theirs, lambda name: name), sorted_rows(ours, lambda name: names.get(name, name))
    )


def training(data_dir, **settings):
    rows = training_dataset(
        data_dir,
        DataConfig(shuffle_shards=3, **settings),
        seed=1,
        global_batch_size=16,
        microbatch_size=8,
        accumulation_steps=2,
        rank=0,
        world_size=1,
        first_step=0,
    )
    return rows.dataset


def test_the_trainer_reads_the_stored_masks(original_dir):
    dataset = training(original_dir)
    sizes = {"L": LENGTH, "P": PREDICTIONS, "K": 1}
    assert dataset.element_spec == {
        name: tf.TensorSpec([2, 8, sizes[axis]], dtype) for name, (dtype, axis) in BATCH_FEATURES.items()
    }
    stored = columns(stored_rows(original_dir))
    row_of = {
        ids.tobytes() + masks.tobytes(): i
        for i, (ids, masks) in enumerate(
            zip(stored["input_ids"].astype("int32"), stored["masked_lm_positions"].astype("int32"), strict=True)
        )
    }
    for batch in dataset.take(5):
        batch = {name: value.numpy().reshape(16, -1) for name, value in batch.items()}
        found = [row_of[batch["input_ids"][i].tobytes() + batch["masked_lm_positions"][i].tobytes()] for i in range(16)]
        expected = {name: values[found] for name, values in stored.items()}
        mask = expected.pop("input_mask")
        expected |= {
            "example_ids": mask,
            "position_ids": np.arange(LENGTH) * mask,
            "next_sentence_positions": np.zeros((16, 1)),
            "next_sentence_weights": np.ones((16, 1)),
        }
        assert batch.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(batch[name], values, name)


def test_validation_is_filled_up_with_rows_of_padding(original_dir):
    records = read_manifest(original_dir).splits["validation"].records
    batch_size = next(size for size in (7, 8) if records % size)
    batches = list(validation_dataset(original_dir, DataConfig(), batch_size))
    rows = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert rows["next_sentence_weights"].sum() == records
    padding = {name: values[records:] for name, values in rows.items()}
    assert len(padding["input_ids"]) > 0 and not any(values.any() for values in padding.values())
    no_row = parse_original_rows(tf.constant([NO_ROW]), LENGTH, PREDICTIONS, pad_id=9)
    assert no_row["input_ids"].numpy().tolist() == [[9] * LENGTH]


def test_masks_that_the_rows_do_not_have_are_refused(original_dir, is_whole_word):
    message = (
        rf"^data\.masked_lm_prob 0\.3 cannot be had: the original rows of {original_dir} were masked with 0\.15 when"
    )
    with pytest.raises(UsageError, match=message):
        training(original_dir, masked_lm_prob=0.3)
    with pytest.raises(UsageError, match=r"data\.max_predictions_per_seq 12 cannot be had: .* with 10 when they were"):
        validation_dataset(original_dir, DataConfig(max_predictions_per_seq=12), 4)
    training(original_dir, max_predictions_per_seq=PREDICTIONS)
    if is_whole_word:
        training(original_dir, whole_word_masking=True)
    else:
        with pytest.raises(UsageError, match=r"data\.whole_word_masking True cannot be had: .* with False when"):
            training(original_dir, whole_word_masking=True)


def test_packed_rows_are_masked_by_whole_words_when_they_are_loaded(data_dir):
    vocabulary = Vocabulary.load(data_dir / "vocab.txt")
    words_seen = 0
    for batch in training(data_dir, whole_word_masking=True).take(10):
        batch = {name: value.numpy().reshape(16, -1) for name, value in batch.items()}
        ids = unmasked(batch)
        for row in range(16):
            used = batch["masked_lm_weights"][row] > 0
            taken = set(batch["masked_lm_positions"][row][used].tolist())
            assert len(taken) <= PREDICTIONS
            for word in words_of(ids[row], vocabulary):
                assert len(taken & set(word)) in (0, len(word))
                words_seen += len(word) > 1 and word[0] in taken
    assert words_seen > 50


# --- without next-sentence pairs -----------------------------------------------------------------------------


def test_single_segments_hold_the_whole_text_once(single_dirs):
    manifest = read_manifest(single_dirs["packed"])
    vocabulary = Vocabulary.load(single_dirs["packed"] / "vocab.txt")
    assert not manifest.next_sentence
    for split in ("train", "validation"):
        rows = [parse_row(row) for row in stored_rows(single_dirs["packed"], split)]
        counts = manifest.splits[split].counts
        assert counts.random_next == 0 and counts.examples == sum(len(row["example_lengths"]) for row in rows)
        ids = np.concatenate([row["input_ids"] for row in rows])
        assert (ids == vocabulary.cls_id).sum() == (ids == vocabulary.sep_id).sum() == counts.examples
        assert len(ids) == counts.row_tokens == counts.tokens + 2 * counts.examples
        assert all(row["example_lengths"].tolist() == row["segment_a_lengths"].tolist() for row in rows)
    assert manifest.splits["train"].fill > 0.98


@pytest.mark.parametrize("row_format", ["packed", "original"])
def test_batches_of_single_segments_have_no_next_sentence_target(single_dirs, row_format):
    vocabulary = Vocabulary.load(single_dirs[row_format] / "vocab.txt")
    for batch in training(single_dirs[row_format]).take(3):
        for name in ("next_sentence_weights", "next_sentence_labels", "segment_ids"):
            assert not batch[name].numpy().any(), name
        assert batch["masked_lm_weights"].numpy().any()
        starts = np.take_along_axis(batch["input_ids"].numpy(), batch["next_sentence_positions"].numpy(), -1)
        assert (starts == vocabulary.cls_id).all()


def test_original_rows_of_single_segments_have_no_label(single_dirs):
    (row, *_) = stored_rows(single_dirs["original"])
    assert set(tf.train.Example.FromString(row).features.feature) == ORIGINAL_FEATURES.keys() - {"next_sentence_labels"}
