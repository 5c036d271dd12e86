"""Pass 1 of a build: documents are scattered over buckets by their text, on disk.

A bucket is what one worker of pass 2 holds in memory, and becomes one shard. It is chosen by a hash of the text, so it
does not depend on the order of reading, and every bucket holds a random share of the corpus.

One task reads some parts of the input files and appends to one spill file: documents are gathered up to `BUFFER_BYTES`,
sorted by bucket and written as one run. Its index, written last, says where each run has each bucket, so a task either
is complete or is done again, and few files exist and few are open however many buckets there are.
"""

import contextlib
import dataclasses
import functools
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tf_bert.config import PrepareConfig, QualityConfig
from tf_bert.corpus.blocks import Part
from tf_bert.corpus.quality import QualityFilter
from tf_bert.corpus.read_report import ReadReport
from tf_bert.corpus.reader import read_part
from tf_bert.files import atomic_writer, own_partial, read_json, reporting_disk_errors, write_json
from tf_bert.pretraining_data.duplicates import SignatureWriter
from tf_bert.pretraining_data.hashing import Stream, below, hash_words, text_key, uniform
from tf_bert.pretraining_data.manifest import TRAIN, VALIDATION
from tf_bert.pretraining_data.notes import NOTE_SUFFIX, noting

BUFFER_BYTES = 8 << 20
_HEADER = struct.Struct("<Q")  # bytes of the text that follows


@dataclasses.dataclass(frozen=True)
class Plan:
    """Into how many buckets a corpus goes; a function of its size and the configuration alone."""

    train: int
    """Buckets of the training split: 0 <= bucket < train."""
    validation: int
    """Buckets of the validation split, numbered after those of the training split."""

    @classmethod
    def for_files(cls, files: Sequence[Path], config: PrepareConfig) -> "Plan":
        """Buckets of about `shard_megabytes` of plain text each, by the sizes of the input files."""
        buckets = sum(_text_bytes(path, config) for path in files) / (config.shard_megabytes * 1e6)
        held_out = config.validation_fraction
        return cls(
            train=max(1, round(buckets * (1 - held_out))),
            validation=max(1, round(buckets * held_out)) if held_out else 0,
        )

    def __len__(self) -> int:
        return self.train + self.validation

    def name(self, bucket: int) -> str:
        """The name of a bucket's shard, e.g. "train-00003-of-00012"."""
        split, index, count = TRAIN, bucket, self.train
        if bucket >= self.train:
            split, index, count = VALIDATION, bucket - self.train, self.validation
        return f"{split}-{index:05d}-of-{count:05d}"

    def bucket_of(self, text: bytes, config: PrepareConfig) -> int:
        """The bucket of a document.

        Whether a document is held out depends on its text alone, not on the seed: builds of one corpus with other
        seeds or lengths hold out the same documents.
        """
        key = text_key(text)
        hashed = hash_words(Stream.BUCKET, config.seed, key)
        if uniform(hash_words(Stream.VALIDATION, key)) < config.validation_fraction:
            return self.train + int(below(hashed, self.validation))
        return int(below(hashed, self.train))


def _text_bytes(path: Path, config: PrepareConfig) -> float:
    """About how much plain text a file holds: bz2 makes a quarter of XML, and two fifths of a dump's XML are text."""
    is_compressed = path.suffix == ".bz2"
    is_dump = config.format == "wikipedia" or (config.format == "auto" and ".xml" in path.name)
    return path.stat().st_size * (4 if is_compressed else 1) * (0.4 if is_dump else 1)


def scatter(
    parts: list[Part], spill: Path, config: PrepareConfig, plan: Plan, on_bytes: Callable[[int], None] | None = None
) -> None:
    """Reads `parts` and writes their documents, but for those to leave out, to `spill`, unless that is done.

    Args:
      parts: of input files.
      spill: the file to write; its `ReadReport`, its documents' signatures (where near-duplicates are looked for) and,
        last, its index get the same name with a suffix each.
      config: the build's configuration.
      plan: the buckets.
      on_bytes: called with the number of input bytes read since the last call.

    Raises:
      InputError: if an input file, or one with n-grams to exclude, is damaged, more documents than
        `max_skipped_documents` cannot be read, or the disk refuses.
    """
    if is_complete(spill):
        return
    quality = _filter(config.quality, tuple(Path(name).stat().st_mtime_ns for name in config.quality.exclude))
    finds_near_duplicates = config.quality.near_duplicate_threshold is not None
    report = ReadReport(config.max_skipped_documents)
    with contextlib.ExitStack() as stack:
        note = stack.enter_context(noting(spill.with_suffix(NOTE_SUFFIX), str(parts[0].path), "its beginning"))

        def on_block(size: int) -> None:
            note.write()  # a document that goes on over a block is long
            if on_bytes:
                on_bytes(size)

        writer = stack.enter_context(_SpillWriter(spill, len(plan)))
        signatures = stack.enter_context(SignatureWriter(spill, config.quality)) if finds_near_duplicates else None
        for part in parts:
            for document in read_part(part, config, report, on_block, functools.partial(note.at, str(part.path))):
                if reason := quality.reason(document.text):
                    report.dropped[reason] += 1
                    continue
                text = document.text.encode()
                writer.add(plan.bucket_of(text, config), text)
                if signatures:
                    signatures.add(document.text)
        write_json(_report_path(spill), report.to_json(), contended=True)


@functools.lru_cache(1)
def _filter(config: QualityConfig, _times: tuple[int, ...]) -> QualityFilter:
    # The times of the excluded files are a part of the cache's key: they may be written anew.
    return QualityFilter(config)


class _SpillWriter:
    """A spill file in the making. Leaving the context without an error writes its index and so completes it."""

    def __init__(self, path: Path, buckets: int) -> None:
        self._path, self._partial = path, own_partial(path)
        self._buffer: list[list[bytes]] = [[] for _ in range(buckets)]
        self._buffered = 0
        self._runs: list[np.ndarray] = []
        with reporting_disk_errors(path):
            self._file = open(self._partial, "wb")  # noqa: SIM115, closed by __exit__

    def __enter__(self) -> "_SpillWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            # Closing writes what is still buffered, so it fails once more where a write has failed.
            with reporting_disk_errors(self._path), self._file:
                if kind is not None:
                    return
                self._write_run()
                os.fsync(self._file.fileno())
                os.replace(self._partial, self._path)
        finally:
            self._partial.unlink(missing_ok=True)
        with atomic_writer(_index_path(self._path), contended=True) as file:
            np.save(file, np.stack(self._runs))

    def add(self, bucket: int, text: bytes) -> None:
        self._buffer[bucket] += (_HEADER.pack(len(text)), text)
        self._buffered += len(text)
        if self._buffered >= BUFFER_BYTES:
            self._write_run()

    def _write_run(self) -> None:
        """Writes the buffer, bucket after bucket, and notes where each starts and ends, int64 [buckets + 1]."""
        with reporting_disk_errors(self._path):
            bounds = [self._file.tell()]
            for pieces in self._buffer:
                self._file.writelines(pieces)
                bounds.append(self._file.tell())
                pieces.clear()
            self._file.flush()
        self._runs.append(np.array(bounds, np.int64))
        self._buffered = 0


def _index_path(spill: Path) -> Path:
    return spill.with_suffix(".npy")


def _report_path(spill: Path) -> Path:
    return spill.with_suffix(".json")


def is_complete(spill: Path) -> bool:
    """Whether the task that writes a spill has come to its end."""
    return _index_path(spill).exists()


def read_report(spills: list[Path], config: PrepareConfig) -> ReadReport:
    """What came of reading the whole corpus, so far as pass 1 knows.

    Raises:
      InputError: if more documents than `max_skipped_documents` could not be read.
    """
    report = ReadReport(config.max_skipped_documents)
    for spill in spills:
        report.add(ReadReport.from_json(read_json(_report_path(spill))))
    report.check_skipped()
    return report


def bucket_bytes(spills: list[Path], plan: Plan) -> np.ndarray:
    """Bytes of text in each bucket, int64 [buckets]."""
    total = np.zeros(len(plan), np.int64)
    for spill in spills:
        total += np.diff(np.load(_index_path(spill)), axis=1).sum(axis=0)
    return total


def read_bucket(spills: list[Path], bucket: int) -> list[bytes]:
    """The texts of one bucket, in the order in which they were read."""
    return [text for spill in spills for text in _read_spill(spill, bucket)]


def _read_spill(spill: Path, bucket: int) -> Iterator[bytes]:
    index = np.load(_index_path(spill), mmap_mode="r")
    with open(spill, "rb") as file:
        for start, end in index[:, bucket : bucket + 2].tolist():
            file.seek(start)
            while file.tell() < end:
                (size,) = _HEADER.unpack(file.read(_HEADER.size))
                yield file.read(size)
