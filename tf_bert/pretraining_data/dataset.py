"""Shards -> batches, in an order that is a function.

Which row stands at place q of an endless run depends on the seed and q alone, not on batch sizes, ranks, threads or
how often the run was resumed: epoch q // N, place q % N. In every epoch the shards are permuted, consecutive
`shuffle_shards` of them form a group, and the rows of a group are permuted jointly. Step t of global batch G reads
places t * G to (t + 1) * G, of which rank r takes the r-th contiguous share; so a run goes on at any step at the cost
of reading one group.
"""

import dataclasses
import functools
import itertools
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_bert.config import DataConfig
from tf_bert.errors import InputError, UsageError
from tf_bert.pretraining_data.hashing import Stream, hash_words, permutation
from tf_bert.pretraining_data.manifest import (
    MANIFEST_FILE,
    TRAIN,
    VALIDATION,
    Manifest,
    Shard,
    Split,
    read_manifest,
)
from tf_bert.pretraining_data.masking import Masking, apply_masking
from tf_bert.pretraining_data.original import parse_original_rows
from tf_bert.pretraining_data.schema import NO_ROW, Batch, parse_rows
from tf_bert.tokenization.tokenizer import directory_vocabulary

VALIDATION_SEED = 0  # of the masks of validation rows, the same in every run
_RESTORE = "restore the data directory or prepare it anew"
_LENGTH = struct.Struct("<Q")
_LENGTH_FIELDS, _FOOTER = 12, 4  # bytes of a TFRecord before its data (length and its CRC) and after (CRC of the data)


@dataclasses.dataclass(frozen=True)
class TrainingRows:
    """The endless training data of one rank."""

    dataset: tf.data.Dataset
    """Batches (`schema.BATCH_FEATURES`), every tensor [accumulation_steps, microbatch_size, ...]."""
    errors: list[InputError]
    """What went wrong while reading. From there on batches hold no token: nothing may be kept of such a step."""
    names: Callable[[int], dict[str, list[int]]]
    """Of a step, the rows of all ranks: by shard, the numbers of its records."""

    def raise_errors(self) -> None:
        """Raises the first `InputError` of the reader, if any."""
        if self.errors:
            raise self.errors[0]


def training_dataset(
    data_dir: Path,
    config: DataConfig,
    *,
    seed: int,
    global_batch_size: int,
    microbatch_size: int,
    accumulation_steps: int,
    rank: int,
    world_size: int,
    first_step: int,
    skips: Sequence[tuple[int, int]] = (),
) -> TrainingRows:
    """The training rows from step `first_step` on. Packed rows are masked here, with other masks in every epoch.

    Args:
      data_dir: a data directory with its manifest.
      config: masking and shuffling.
      seed: of order and masks.
      global_batch_size: rows per step, over all ranks.
      microbatch_size: rows in one forward pass.
      accumulation_steps: microbatches per step and rank.
      rank: this process, 0 <= rank < world_size.
      world_size: processes.
      first_step: steps done before.
      skips: pairs of a step and how many steps' rows are left out right before it.

    Raises:
      InputError: if manifest, vocabulary or shards do not fit together. Damage inside of a shard is found
        when it is read, see `TrainingRows.errors`.
      UsageError: if other masks are asked for than those that original rows have.
    """
    share = microbatch_size * accumulation_steps
    if share * world_size != global_batch_size:
        raise ValueError(f"{world_size} ranks x {accumulation_steps} x {microbatch_size} is not {global_batch_size}")
    manifest = read_manifest(data_dir)
    rows = PretrainingRows(data_dir, manifest.splits[TRAIN], seed, config.shuffle_shards)
    errors: list[InputError] = []

    def place(step: int) -> int:
        return (step + sum(count for at, count in skips if at <= step)) * global_batch_size

    def steps() -> Iterator[tuple[list[bytes], np.ndarray]]:
        try:
            for step in itertools.count(first_step):
                yield rows.read(place(step) + rank * share, share)
        except InputError as error:
            errors.append(error)
            # The other ranks go on until they hear of it, and this one must keep step with them.
            yield from itertools.repeat(([NO_ROW] * share, np.zeros(share, np.int64)))

    def split_up(batch: Batch) -> Batch:
        shape = [accumulation_steps, microbatch_size]
        return {name: tf.reshape(value, [*shape, *value.shape[1:]]) for name, value in batch.items()}

    batches = _batches(steps, share, batch_maker(data_dir, manifest, config, seed))
    return TrainingRows(
        batches.map(split_up).prefetch(2), errors, lambda step: rows.names(place(step), global_batch_size)
    )


def validation_dataset(data_dir: Path, config: DataConfig, batch_size: int) -> tf.data.Dataset:
    """All validation rows once, in a fixed order with fixed masks.

    Args:
      data_dir: a data directory with its manifest.
      config: masking.
      batch_size: B; the last batch is filled up with rows of padding, whose weights are 0.

    Returns:
      Batches [B, ...] (`schema.BATCH_FEATURES`); their number is known.

    Raises:
      InputError: if manifest, vocabulary or shards do not fit together, or nothing was held out.
      UsageError: if other masks are asked for than those that original rows have.
    """
    manifest = read_manifest(data_dir)
    split = manifest.splits[VALIDATION]
    if not split.records:
        raise InputError(
            f"{data_dir / MANIFEST_FILE}: no rows were held out; "
            "prepare the data with a validation_fraction above 0, e.g. 0.01"
        )
    for shard in split.shards:  # read here once, so that damage is an error of the caller's and not of TensorFlow's
        read_shard(data_dir, shard)

    def batches() -> Iterator[tuple[list[bytes], np.ndarray]]:
        rows = itertools.chain.from_iterable(read_shard(data_dir, shard) for shard in split.shards)
        for first in range(0, split.records, batch_size):
            batch = list(itertools.islice(rows, batch_size))
            batch += [NO_ROW] * (batch_size - len(batch))
            yield batch, _row_keys(0, np.arange(first, first + batch_size))

    count = math.ceil(split.records / batch_size)
    dataset = _batches(batches, batch_size, batch_maker(data_dir, manifest, config, VALIDATION_SEED))
    return dataset.apply(tf.data.experimental.assert_cardinality(count)).prefetch(2)


def read_shard(data_dir: Path, shard: Shard) -> list[bytes]:
    """The serialized rows of one shard, in their order.

    Raises:
      InputError: if the file is not the one that the manifest describes.
    """
    path = data_dir / shard.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; {_RESTORE}") from error
    found = f"{zlib.crc32(data):08x}"
    if (len(data), found) != (shard.bytes, shard.crc32):
        raise InputError(
            f"{path}: found {len(data)} bytes with CRC-32 {found}, expected {shard.bytes} with {shard.crc32} as in "
            f"{MANIFEST_FILE}; {_RESTORE}"
        )
    rows: list[bytes] = []
    position = 0
    while position < len(data):
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH_FIELDS
        rows.append(data[position : position + length])
        position += length + _FOOTER
    if len(rows) != shard.records:
        raise InputError(
            f"{path}: found {len(rows)} records, expected {shard.records} as in {MANIFEST_FILE}; {_RESTORE}"
        )
    return rows


@dataclasses.dataclass(frozen=True)
class _Group:
    """The rows of a few shards, permuted."""

    first_place: int
    rows: list[bytes]
    keys: np.ndarray


class PretrainingRows:
    """Random access to the endless, shuffled sequence of a split's rows.

    Holds the rows of the group that is being read and of the one after it, which is read ahead.

    Args:
      data_dir: where the shards are.
      split: their facts.
      seed: of the order.
      shuffle_shards: shards in a group.

    Raises:
      InputError: if a shard is missing or is not as long as it should be.
    """

    def __init__(self, data_dir: Path, split: Split, seed: int, shuffle_shards: int) -> None:
        self._seed = seed
        self._group_size = shuffle_shards
        self._records = np.array([shard.records for shard in split.shards], np.int64)
        self._first_ids = np.cumsum(self._records) - self._records
        self._shard_names = [shard.name for shard in split.shards]
        self._groups_per_epoch = math.ceil(len(split.shards) / shuffle_shards)
        for shard in split.shards:
            _check_size(data_dir, shard)
        # Shards enough for two groups: a split that fits is read from disk once, not once an epoch.
        self._read = functools.lru_cache(2 * shuffle_shards)(lambda index: read_shard(data_dir, split.shards[index]))
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="rows")
        self._groups: dict[tuple[int, int], Future[_Group]] = {}

    def read(self, place: int, count: int) -> tuple[list[bytes], np.ndarray]:
        """The serialized rows at places `place` to `place + count` and their row keys, int64 [count].

        Raises:
          InputError: if a shard is damaged.
        """
        rows: list[bytes] = []
        keys: list[np.ndarray] = []
        while len(rows) < count:
            group = self._group_at(place + len(rows))
            start = place + len(rows) - group.first_place
            end = start + count - len(rows)
            rows += group.rows[start:end]
            keys.append(group.keys[start:end])
        return rows, np.concatenate(keys)

    def names(self, place: int, count: int) -> dict[str, list[int]]:
        """Where the rows at places `place` to `place + count` are stored: by shard, the numbers of its records."""
        names: dict[str, list[int]] = {}
        while count:
            epoch, group = self._epoch_and_group(place)
            first_place, _, ids = self._shuffled(epoch, group)
            chosen = ids[place - first_place :][:count]
            shards = np.searchsorted(self._first_ids, chosen, side="right") - 1
            for shard, row in zip(shards.tolist(), (chosen - self._first_ids[shards]).tolist(), strict=True):
                names.setdefault(self._shard_names[shard], []).append(row)
            place, count = place + len(chosen), count - len(chosen)
        return {shard: sorted(numbers) for shard, numbers in sorted(names.items())}

    def _group_at(self, place: int) -> _Group:
        epoch, group = self._epoch_and_group(place)
        following = (epoch, group + 1) if group + 1 < self._groups_per_epoch else (epoch + 1, 0)
        known = self._groups
        groups = {key: known.get(key) or self._reader.submit(self._load, *key) for key in ((epoch, group), following)}
        self._groups = groups
        return groups[epoch, group].result()

    def _epoch_and_group(self, place: int) -> tuple[int, int]:
        epoch, within = divmod(place, int(self._records.sum()))
        return epoch, int(np.searchsorted(self._layout(epoch)[1], within, side="right")) - 1

    def _layout(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of the shards in an epoch, and the place within it where each group starts."""
        shards = np.arange(len(self._records))
        order = permutation(hash_words(Stream.SHARD_EPOCH_ORDER, self._seed, epoch, shards))
        records = self._records[order]
        return order, (np.cumsum(records) - records)[:: self._group_size]

    def _shuffled(self, epoch: int, group: int) -> tuple[int, list[int], np.ndarray]:
        """The first place of a group, its shards, and the ids of its rows in the order of their places."""
        order, starts = self._layout(epoch)
        shards = order[group * self._group_size : (group + 1) * self._group_size].tolist()
        ids = np.concatenate([self._first_ids[shard] + np.arange(self._records[shard]) for shard in shards])
        shuffled = permutation(hash_words(Stream.ROW_EPOCH_ORDER, self._seed, epoch, ids))
        return epoch * int(self._records.sum()) + int(starts[group]), shards, ids[shuffled]

    def _load(self, epoch: int, group: int) -> _Group:
        first_place, shards, ids = self._shuffled(epoch, group)
        rows = {shard: self._read(shard) for shard in shards}
        of_shards = (np.searchsorted(self._first_ids, ids, side="right") - 1).tolist()
        numbers = (ids - self._first_ids[of_shards]).tolist()
        ordered = [rows[shard][number] for shard, number in zip(of_shards, numbers, strict=True)]
        return _Group(first_place, ordered, _row_keys(epoch, ids))


def _check_size(data_dir: Path, shard: Shard) -> None:
    path = data_dir / shard.name
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; {_RESTORE}") from error
    if size != shard.bytes:
        raise InputError(f"{path}: found {size} bytes, expected {shard.bytes} as in {MANIFEST_FILE}; {_RESTORE}")


def _row_keys(epoch: int, ids: np.ndarray) -> np.ndarray:
    """What a row's masks depend on besides the seed, int64 [rows]."""
    keys: np.ndarray = hash_words(Stream.ROW_KEY, epoch, ids)
    return keys.view(np.int64)


def batch_maker(
    data_dir: Path, manifest: Manifest, config: DataConfig, seed: int
) -> Callable[[tf.Tensor, tf.Tensor], Batch]:
    """The function from serialized rows, string [B], and row keys, int64 [B], to a masked batch.

    Raises:
      InputError: if the vocabulary is not that of the manifest.
      UsageError: if other masks are asked for than those that original rows have.
    """
    vocabulary = directory_vocabulary(data_dir)
    wanted = manifest.vocabulary
    if vocabulary.sha256 != wanted.sha256:
        raise InputError(
            f"{vocabulary.source}: found {len(vocabulary)} tokens with SHA-256 {vocabulary.sha256[:12]}..., expected "
            f"those that the data was built with, {wanted.size} with {wanted.sha256[:12]}...; {_RESTORE}"
        )
    length = manifest.max_seq_length
    predictions = manifest.max_predictions_per_seq
    masking = Masking.from_settings(config, vocabulary, length, seed)

    def make_batch(serialized: tf.Tensor, row_keys: tf.Tensor) -> Batch:
        if predictions is not None:
            return parse_original_rows(serialized, length, predictions, vocabulary.pad_id)
        unmasked = parse_rows(serialized, length, manifest.max_examples_per_row, vocabulary.pad_id)
        return apply_masking(unmasked, row_keys, masking)

    if predictions is not None:
        _check_stored_masks(data_dir, manifest, config)
    return make_batch


def _check_stored_masks(data_dir: Path, manifest: Manifest, config: DataConfig) -> None:
    """Refuses masks that rows masked for good cannot have; a setting left at its default asks for nothing."""
    stored = {**manifest.config, "max_predictions_per_seq": manifest.max_predictions_per_seq}
    for name in ("masked_lm_prob", "max_predictions_per_seq", "whole_word_masking", "mean_span_words"):
        asked = getattr(config, name)
        if asked not in (getattr(DataConfig(), name), stored[name]):
            raise UsageError(
                f"data.{name} {asked} cannot be had: the original rows of {data_dir} were masked with {stored[name]} "
                "when they were prepared; leave it out, or prepare the data anew"
            )


def _batches(
    rows: Callable[[], Iterator[tuple[list[bytes], np.ndarray]]],
    batch_size: int,
    make_batch: Callable[[tf.Tensor, tf.Tensor], Batch],
) -> tf.data.Dataset:
    signature = (tf.TensorSpec([batch_size], tf.string), tf.TensorSpec([batch_size], tf.int64))
    dataset = tf.data.Dataset.from_generator(rows, output_signature=signature)
    return dataset.map(make_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
