"""The order is a function: of neither ranks nor microbatches nor restarts; and damage is one clear line."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tf_bert.config import DataConfig
from tf_bert.errors import InputError
from tf_bert.pretraining_data.dataset import PretrainingRows, read_shard, training_dataset, validation_dataset
from tf_bert.pretraining_data.manifest import MANIFEST_FILE, read_manifest
from tf_bert.pretraining_data.schema import BATCH_FEATURES, parse_row
from tf_bert.tokenization.vocab import Vocabulary

CONFIG = DataConfig(shuffle_shards=3)
GLOBAL = 16


def training(
    data_dir,
    microbatch=GLOBAL,
    rank=0,
    world_size=1,
    first_step=0,
    seed=1,
    config=CONFIG,
    global_batch=GLOBAL,
    skips=(),
):
    return training_dataset(
        data_dir,
        config,
        seed=seed,
        global_batch_size=global_batch,
        microbatch_size=microbatch,
        accumulation_steps=global_batch // microbatch // world_size,
        rank=rank,
        world_size=world_size,
        first_step=first_step,
        skips=skips,
    )


def steps_of(rows, count):
    """Batches with their two leading axes merged."""
    return [
        {name: value.numpy().reshape(-1, value.shape[-1]) for name, value in batch.items()}
        for batch in rows.dataset.take(count)
    ]


def assert_equal_batches(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], name)


def rows_of(data_dir, **changes):
    settings = {"seed": 1, "shuffle_shards": 3} | changes
    return PretrainingRows(data_dir, read_manifest(data_dir).splits["train"], **settings)


@pytest.fixture
def copy(data_dir, tmp_path):
    """A data directory to damage."""
    return shutil.copytree(data_dir, tmp_path / "copy")


def first_shard(data_dir, split="train"):
    return read_manifest(data_dir).splits[split].shards[0]


# --- order ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("world_size", "microbatch"), [(1, 4), (2, 8), (2, 1), (4, 2)])
def test_ranks_and_microbatches_share_the_same_global_batches(data_dir, world_size, microbatch):
    whole = steps_of(training(data_dir), 12)
    ranks = [steps_of(training(data_dir, microbatch, rank, world_size), 12) for rank in range(world_size)]
    for step, batch in enumerate(whole):
        shares = [rank[step] for rank in ranks]
        assert_equal_batches({name: np.concatenate([share[name] for share in shares]) for name in batch}, batch)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_of_any_number_of_ranks_each_row_goes_to_one_and_once_an_epoch(data_dir, world_size):
    stored = rows_of(data_dir).read(0, read_manifest(data_dir).splits["train"].records)[0]
    steps = -(-2 * len(stored) // 24)  # two epochs, the second begins within a step
    ranks = [
        steps_of(training(data_dir, 24 // world_size, rank, world_size, global_batch=24), steps)
        for rank in range(world_size)
    ]
    seen = [ids for step in range(steps) for rank in ranks for ids in unmasked(rank[step])]
    in_order = [tuple(parse_row(row)["input_ids"].tolist()) for row in rows_of(data_dir).read(0, len(seen))[0]]
    assert seen == in_order  # the order does not know of ranks
    once = sorted(tuple(parse_row(row)["input_ids"].tolist()) for row in stored)
    assert sorted(seen[: len(stored)]) == once == sorted(seen[len(stored) : 2 * len(stored)])


def unmasked(batch):
    """The token ids of every row as they are stored."""
    ids = batch["input_ids"].copy()
    rows, masks = np.nonzero(batch["masked_lm_weights"])
    ids[rows, batch["masked_lm_positions"][rows, masks]] = batch["masked_lm_ids"][rows, masks]
    lengths = np.count_nonzero(batch["example_ids"], axis=1)
    return [tuple(row[:length].tolist()) for row, length in zip(ids, lengths, strict=True)]


@pytest.mark.parametrize("first_step", [1, 7, 40])
def test_a_resumed_run_goes_on_with_the_same_batches(data_dir, first_step):
    whole = steps_of(training(data_dir), first_step + 3)
    resumed = steps_of(training(data_dir, first_step=first_step), 3)
    for ours, theirs in zip(resumed, whole[first_step:], strict=True):
        assert_equal_batches(ours, theirs)


def test_rows_can_be_left_out_before_a_step(data_dir):
    whole = steps_of(training(data_dir), 12)
    skips = [(3, 2), (5, 4)]
    for first_step, expected in ((0, [0, 1, 2, 5, 6, 11]), (4, [6, 11])):
        found = steps_of(training(data_dir, first_step=first_step, skips=skips), len(expected))
        for ours, step in zip(found, expected, strict=True):
            assert_equal_batches(ours, whole[step])


def test_the_rows_of_a_step_have_names(data_dir):
    split = read_manifest(data_dir).splits["train"]
    shards = {shard.name: read_shard(data_dir, shard) for shard in split.shards}
    rows = training(data_dir, microbatch=4, rank=1, world_size=2, skips=[(2, 1)])
    for step, place in ((0, 0), (1, 16), (2, 48), (split.records // 16, (split.records // 16 + 1) * 16)):
        names = rows.names(step)
        assert list(names) == sorted(names) and all(numbers == sorted(numbers) for numbers in names.values())
        named = [shards[name][number] for name, numbers in names.items() for number in numbers]
        assert sorted(named) == sorted(rows_of(data_dir).read(place, 16)[0])


@pytest.mark.parametrize("shuffle_shards", [1, 3, 1000])
def test_every_row_comes_once_an_epoch_in_an_order_of_its_own(data_dir, shuffle_shards):
    split = read_manifest(data_dir).splits["train"]
    stored = [row for shard in split.shards for row in read_shard(data_dir, shard)]
    count = len(stored)
    assert count == split.records == len(set(stored)) and len(split.shards) > 6
    rows = rows_of(data_dir, shuffle_shards=shuffle_shards)
    epochs = [rows.read(epoch * count, count) for epoch in range(3)]
    for found, keys in epochs:
        assert sorted(found) == sorted(stored)
        assert len(set(keys.tolist())) == count
    orders = [tuple(found) for found, _ in epochs]
    assert len({tuple(stored), *orders}) == 4
    assert orders[0] != tuple(rows_of(data_dir, shuffle_shards=shuffle_shards, seed=2).read(0, count)[0])
    # A row's masks differ from epoch to epoch: so must its key.
    key_of = [dict(zip(found, keys.tolist(), strict=True)) for found, keys in epochs]
    assert all(key_of[0][row] != key_of[1][row] != key_of[2][row] for row in stored)


def test_reading_in_any_pieces_gives_the_same_sequence(data_dir):
    count = read_manifest(data_dir).splits["train"].records
    rows, keys = rows_of(data_dir).read(0, 2 * count + 5)
    pieces = rows_of(data_dir)
    for start, size in ((0, 1), (count - 2, 4), (3, 50), (2 * count - 1, 6), (count // 2, 2), (5, 2 * count)):
        found, found_keys = pieces.read(start, size)
        assert found == rows[start : start + size] and found_keys.tolist() == keys[start : start + size].tolist()


def test_a_group_mixes_its_shards_and_no_others(data_dir):
    split = read_manifest(data_dir).splits["train"]
    shard_of = {row: shard.name for shard in split.shards for row in read_shard(data_dir, shard)}
    records = {shard.name: shard.records for shard in split.shards}
    rows, _ = rows_of(data_dir).read(0, split.records)
    place, groups = 0, []
    while place < len(rows):
        group, size = [], 0
        while len(group) < 3 and place + size < len(rows):  # a group goes on until each of its shards is exhausted
            names = {shard_of[row] for row in rows[place : place + size + 1]}
            size = sum(records[name] for name in names)
            group = sorted(names)
        seen = [shard_of[row] for row in rows[place : place + size]]
        assert set(seen) == set(group) and len(group) <= 3
        assert len(group) == 1 or seen != sorted(seen, key=seen.index), "the shards of a group follow one another"
        groups.append(group)
        place += size
    assert sorted(name for group in groups for name in group) == sorted(records)


# --- batches -------------------------------------------------------------------------------------------------


def test_batches_have_the_shapes_and_types_of_the_schema(data_dir):
    sizes = {"L": 64, "P": 10, "K": 8}
    expected = {name: tf.TensorSpec([2, 8, sizes[axis]], dtype) for name, (dtype, axis) in BATCH_FEATURES.items()}
    assert training(data_dir, microbatch=8).dataset.element_spec == expected
    held_out = validation_dataset(data_dir, CONFIG, batch_size=5).element_spec
    assert held_out == {name: tf.TensorSpec([5, sizes[axis]], dtype) for name, (dtype, axis) in BATCH_FEATURES.items()}


def test_unmasked_batches_are_the_stored_rows(data_dir):
    stored, _ = rows_of(data_dir).read(0, GLOBAL)
    (batch,) = steps_of(training(data_dir), 1)
    for index, (row, ids) in enumerate(zip(map(parse_row, stored), unmasked(batch), strict=True)):
        assert ids == tuple(row["input_ids"].tolist()) and not batch["input_ids"][index, len(ids) :].any()
        lengths = np.bincount(batch["example_ids"][index])[1:]
        assert lengths.tolist() == row["example_lengths"].tolist()
        used = batch["next_sentence_weights"][index] > 0
        assert batch["next_sentence_labels"][index][used].tolist() == row["next_sentence_labels"].tolist()


def test_masks_differ_between_epochs_and_seeds_and_number_as_set(data_dir):
    records = read_manifest(data_dir).splits["train"].records
    config = DataConfig(shuffle_shards=3, masked_lm_prob=0.3, max_predictions_per_seq=7)
    steps = steps_of(training(data_dir, config=config), 2 * records // GLOBAL)
    weights = np.concatenate([step["masked_lm_weights"] for step in steps])
    assert weights.shape[1] == 7 and weights.sum(axis=1).max() == 7
    positions = np.concatenate([step["masked_lm_positions"] for step in steps])
    rows, _ = rows_of(data_dir).read(0, len(positions))
    by_row: dict[bytes, list[tuple]] = {}
    for row, mask in zip(rows, map(tuple, positions.tolist()), strict=True):
        by_row.setdefault(row, []).append(mask)
    twice = [masks for masks in by_row.values() if len(masks) == 2]
    assert len(twice) > 100 and np.mean([first == second for first, second in twice]) < 0.05


def test_masked_tokens_are_replaced_by_mask(data_dir):
    vocabulary = Vocabulary.load(data_dir / "vocab.txt")
    steps = steps_of(training(data_dir), 20)
    chosen = np.concatenate([step["masked_lm_weights"] for step in steps]) > 0
    positions = np.concatenate([step["masked_lm_positions"] for step in steps])
    now = np.take_along_axis(np.concatenate([step["input_ids"] for step in steps]), positions, 1)[chosen]
    assert (now == vocabulary.mask_id).mean() == pytest.approx(0.8, abs=0.04)
    assert now.max() < len(vocabulary)
    originals = np.concatenate([step["masked_lm_ids"] for step in steps])[chosen]
    assert not np.isin(originals, [vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id]).any()


def test_validation_is_every_row_once_with_fixed_masks(data_dir):
    split = read_manifest(data_dir).splits["validation"]
    stored = [row for shard in split.shards for row in read_shard(data_dir, shard)]
    batch_size = next(size for size in (7, 8) if len(stored) % size)
    held_out = validation_dataset(data_dir, CONFIG, batch_size)
    first, second = list(held_out), list(held_out)
    assert len(first) == len(held_out) == -(-len(stored) // batch_size)
    for ours, theirs in zip(first, second, strict=True):
        assert_equal_batches(ours, theirs)
    rows = {name: np.concatenate([batch[name] for batch in first]) for name in first[0]}
    padding = {name: values[len(stored) :] for name, values in rows.items()}
    assert len(padding["input_ids"]) > 0 and not any(values.any() for values in padding.values())
    assert (rows["example_ids"] > 0).sum() == split.counts.row_tokens
    assert rows["next_sentence_weights"].sum() == split.counts.examples
    assert rows["next_sentence_labels"].sum() == split.counts.random_next
    one_batch = next(iter(validation_dataset(data_dir, CONFIG, len(stored))))
    assert_equal_batches(one_batch, {name: values[: len(stored)] for name, values in rows.items()})


# --- damage --------------------------------------------------------------------------------------------------


def test_a_missing_shard_is_named_at_the_start(copy):
    path = copy / first_shard(copy).name
    path.unlink()
    with pytest.raises(InputError, match=rf"^{path}: cannot be read: No such file or directory; restore"):
        training(copy)


def test_a_truncated_shard_is_named_at_the_start(copy):
    shard = first_shard(copy)
    path = copy / shard.name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=rf"^{path}: found {shard.bytes - 10} bytes, expected {shard.bytes} as in"):
        training(copy)


def flip_a_bit(copy, split):
    shard = first_shard(copy, split)
    path = copy / shard.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return rf"^{path}: found {shard.bytes} bytes with CRC-32 [0-9a-f]+, expected {shard.bytes} with {shard.crc32}"


def test_from_a_flipped_bit_on_there_is_padding_and_an_error_to_raise(copy):
    message = flip_a_bit(copy, "train")
    rows = training(copy)
    rows.raise_errors()
    batches = steps_of(rows, 2 * read_manifest(copy).splits["train"].records // GLOBAL)
    assert not batches[-1]["example_ids"].any() and not batches[-1]["masked_lm_weights"].any()
    with pytest.raises(InputError, match=message):
        rows.raise_errors()


def test_a_flipped_bit_in_validation_is_found_at_the_start(copy):
    message = flip_a_bit(copy, "validation")
    with pytest.raises(InputError, match=message):
        validation_dataset(copy, CONFIG, 4)


def test_a_wrong_number_of_records(copy):
    shard = first_shard(copy)
    wrong = dataclasses.replace(shard, records=shard.records + 1)
    message = f"found {shard.records} records, expected {shard.records + 1} as in manifest"
    with pytest.raises(InputError, match=message):
        read_shard(copy, wrong)


def test_another_vocabulary(copy):
    with (copy / "vocab.txt").open("a") as file:
        file.write("word\n")
    with pytest.raises(InputError, match=r"vocab\.txt: found \d+ tokens with SHA-256 \w+\.\.\., expected those that"):
        training(copy)


def test_nothing_held_out(copy):
    path = copy / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    manifest["splits"]["validation"]["shards"] = []
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"no rows were held out; prepare the data with a validation_fraction above 0"):
        validation_dataset(copy, CONFIG, 4)


def test_a_batch_that_does_not_add_up_is_refused(data_dir):
    with pytest.raises(ValueError, match="2 ranks x 3 x 4 is not 32"):
        training_dataset(
            data_dir,
            CONFIG,
            seed=1,
            global_batch_size=32,
            microbatch_size=4,
            accumulation_steps=3,
            rank=0,
            world_size=2,
            first_step=0,
        )


# --- the manifest --------------------------------------------------------------------------------------------


def test_no_manifest(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.json: not found, expected the manifest that `tf-bert prepare`"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "manifest.json: is not valid JSON"),
        ("[]", "manifest.json: format is null, expected"),
        ('{"format": "something else"}', 'manifest.json: format is "something else", expected "tf_bert pretraining'),
    ],
)
def test_a_file_that_is_no_manifest(tmp_path, content, message):
    (tmp_path / MANIFEST_FILE).write_text(content)
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path)


def test_a_manifest_that_lacks_something(copy):
    path = copy / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    del manifest["splits"]["train"]["shards"][1]["records"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"manifest\.json: splits\.train\.shards\.1\.records: Field required"):
        read_manifest(copy)
    del manifest["splits"]["train"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"manifest\.json: splits has no 'train'"):
        read_manifest(copy)
