"""Whose a data directory is: what is built in it, from what, and by which processes at once.

Locks are `flock`s: they end with their process, however it ends. Network file systems that know them (NFS 4, Lustre
mounted with `flock`, CIFS) keep apart processes on different machines, too.
"""

import contextlib
import dataclasses
import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from tf_bert.config import PrepareConfig, to_dict
from tf_bert.errors import InputError, UsageError
from tf_bert.files import read_json, reporting_disk_errors, sha256_of, write_json
from tf_bert.pretraining_data.manifest import FORMAT, MANIFEST_FILE, Manifest, Source, read_manifest

WORK_DIR = "_work"
PLAN_FILE = "plan.json"
SOURCES_FILE = "sources.json"
LOCK_FILE = "lock"
TURN_FILE = "turn.lock"
# Settings that say where and by whom, not what.
_PLACES = ("input", "output_dir", "vocab")
_PROCESSES = ("workers", "engine", "scheduler", "scheduler_file", "task_index", "num_tasks", "wait_minutes")
_TOLERANCE = ("max_skipped_documents",)  # what was skipped is in the manifest


class ProgressBar(Protocol):
    """Counts bytes."""

    def update(self, n: int) -> Any:
        """`n` more bytes are done."""


Progress = Callable[[int, str], AbstractContextManager[ProgressBar]]
"""Makes a progress bar of a total in bytes and a description, as `run_log.byte_progress` does."""


class _NoBar:
    def update(self, n: int) -> None:
        pass


def no_progress(_total: int, _description: str) -> AbstractContextManager[ProgressBar]:
    """Shows nothing."""
    return contextlib.nullcontext(_NoBar())


def refuse_foreign_directory(output_dir: Path) -> None:
    """Raises `InputError` if `output_dir` is a file or holds what no build has put there."""
    if output_dir.exists() and not output_dir.is_dir():
        raise InputError(f"{output_dir}: is a file, expected a directory to write; choose another output_dir")
    if not output_dir.exists() or (output_dir / MANIFEST_FILE).exists() or (output_dir / WORK_DIR / PLAN_FILE).exists():
        return
    if others := sorted(path.name for path in output_dir.iterdir() if path.name != WORK_DIR):
        raise InputError(
            f"{output_dir}: holds {others[0]} but no {MANIFEST_FILE} of a data directory; "
            "choose an empty or a new output_dir"
        )


def refuse_output_among_inputs(output_dir: Path, config: PrepareConfig) -> None:
    """Raises `UsageError` if what is written would be read as text."""
    for name in config.input:
        if Path(name).is_dir() and output_dir.resolve().is_relative_to(Path(name).resolve()):
            raise UsageError(
                f"output_dir {output_dir} is inside the input directory {name}, so what is written would be read as "
                "text; choose an output_dir outside of it"
            )


# --- the same build or another one ---------------------------------------------------------------------------


def content_settings(config: PrepareConfig) -> dict[str, Any]:
    """The settings on which the shards' bytes depend."""
    settings = {key: value for key, value in to_dict(config).items() if key not in _PLACES + _PROCESSES + _TOLERANCE}
    del settings["quality"]["exclude"]
    return settings


def identity_of(
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


def already_built(output_dir: Path, identity: dict[str, Any]) -> Manifest:
    """The manifest of a directory that is complete; raises `InputError` if it is of another build."""
    manifest = read_manifest(output_dir)
    earlier = identity_of(manifest.config, manifest.sources, manifest.excluded, manifest.vocabulary.sha256)
    if difference := _difference(earlier, identity):
        raise InputError(
            f"{output_dir}: holds data built with {difference}; choose another output_dir or remove this one"
        )
    print(f"{output_dir}: already built from these inputs with these settings; nothing to do")
    shutil.rmtree(output_dir / WORK_DIR, ignore_errors=True)  # of a build killed between manifest and clean-up
    return manifest


def claim(output_dir: Path, identity: dict[str, Any], is_alone: bool) -> None:
    """Notes what is being built, or checks that an unfinished build is of the same.

    Args:
      output_dir: the directory.
      identity: what is to be built.
      is_alone: no other process builds in it, so an unfinished build that has come to nothing does not count.

    Raises:
      InputError: if it is of something else.
    """
    work_dir = output_dir / WORK_DIR
    plan_path = work_dir / PLAN_FILE
    if not plan_path.exists() or (is_alone and not any(work_dir.rglob("*.npy"))):
        write_json(plan_path, identity)
    elif difference := _difference(read_json(plan_path), identity):
        raise InputError(
            f"{output_dir}: holds an unfinished build with {difference}; choose another output_dir, or remove this "
            "one to start over"
        )


def fingerprint(files: Sequence[Path], progress: Progress) -> list[Source]:
    """Size and SHA-256 of every file."""
    sources = []
    with progress(sum(path.stat().st_size for path in files), "checking inputs") as bar:
        for path in files:
            source = Source(path=str(path), bytes=path.stat().st_size, sha256=sha256_of(path))
            sources.append(source)
            bar.update(source.bytes)
    return sources


def fingerprint_once(files: Sequence[Path], progress: Progress, work_dir: Path) -> list[Source]:
    """`fingerprint`, for the first of many tasks; the others take its word as long as size and time of a file stay.

    A task of an array job would read the whole corpus only for this. The caller holds the turn.
    """
    known = work_dir / SOURCES_FILE
    times = {str(path): path.stat().st_mtime_ns for path in files}
    if known.exists():
        earlier = read_json(known)
        sources = [Source(**values) for values in earlier["sources"]]
        sizes = {str(path): path.stat().st_size for path in files}
        if earlier["times"] == times and {source.path: source.bytes for source in sources} == sizes:
            return sources
    sources = fingerprint(files, progress)
    write_json(known, {"times": times, "sources": [dataclasses.asdict(source) for source in sources]})
    return sources


# --- who is at work ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def at_work(output_dir: Path, config: PrepareConfig) -> Iterator[None]:
    """Keeps out who must not build in a directory at the same time.

    A whole build is alone in it; the tasks of an array job may be there together, each index once.

    Raises:
      InputError: if another process is there.
    """
    work_dir = output_dir / WORK_DIR
    with reporting_disk_errors(work_dir):
        work_dir.mkdir(parents=True, exist_ok=True)
    is_task = config.num_tasks > 1
    build_lock = _flock(
        work_dir / LOCK_FILE,
        fcntl.LOCK_NB | (fcntl.LOCK_SH if is_task else fcntl.LOCK_EX),
        f"{output_dir}: another build is at work in this directory; wait for it or choose another output_dir",
    )
    with build_lock:
        if not is_task:
            yield
            return
        task_lock = _flock(
            work_dir / f"task-{config.task_index:05d}.lock",
            fcntl.LOCK_NB | fcntl.LOCK_EX,
            f"{output_dir}: task {config.task_index} is at work in this directory already; give every task of the "
            "array an index of its own",
        )
        with task_lock:
            yield


def turn(output_dir: Path) -> AbstractContextManager[None]:
    """What only one task of an array job may do at a time; waits for the others to have done it."""
    return _flock(output_dir / WORK_DIR / TURN_FILE, fcntl.LOCK_EX, "")


@contextlib.contextmanager
def _flock(path: Path, operation: int, refusal: str) -> Iterator[None]:
    with reporting_disk_errors(path):
        file = open(path, "wb")  # noqa: SIM115, closed below
    with file:
        try:
            fcntl.flock(file, operation)
        except BlockingIOError as error:
            raise InputError(refusal) from error
        yield
