"""Checkpoints: weights, optimizer, loss scale, dropout state, step and data position, whole or not at all.

A checkpoint is a directory `step-00001000` with `tensors.safetensors` and, written last, `manifest.json` with the
size and SHA-256 of every file. It is written aside, flushed to disk and renamed, so that a run that is killed at any
moment leaves either the whole checkpoint or none. Readers take the newest one that proves sound.

Training waits only while the variables are copied to memory of the host; a thread writes them from there.
"""

import dataclasses
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from tf_bert.errors import InputError
from tf_bert.files import PARTIAL_SUFFIX, atomic_directory, read_json, sha256_of, write_json, write_tensors

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
TENSORS_FILE = "tensors.safetensors"
_NAME = re.compile(r"step-(\d{8,})")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One checkpoint directory whose files are as its manifest says."""

    path: Path
    step: int
    """Optimizer updates that it holds."""
    state: dict[str, Any]
    """What else the run put beside the tensors (data position, configuration)."""

    def restore(self, variables: Sequence[keras.Variable], only_these: bool = False) -> None:
        """Assigns every variable by its path.

        Args:
          variables: what to assign.
          only_these: pass over what else the checkpoint holds, which is an error otherwise.

        Raises:
          InputError: if names, shapes or dtypes differ.
        """
        try:
            tensors = load_file(self.path / TENSORS_FILE)
        except SafetensorError as error:
            raise InputError(f"{self.path / TENSORS_FILE}: is damaged ({error})") from error
        wanted = _by_path(variables)
        if different := sorted(wanted.keys() - tensors.keys() if only_these else wanted.keys() ^ tensors.keys()):
            raise InputError(
                f"{self.path}: holds {len(tensors)} tensors, expected {len(wanted)}; the first that differs is "
                f"{different[0]}: it was written by another model or optimizer; choose another output_dir"
            )
        for path, variable in wanted.items():
            found = tensors[path]
            if found.shape != tuple(variable.shape):
                raise InputError(
                    f"{self.path}: {path}: found shape {found.shape}, expected {tuple(variable.shape)}: it was "
                    "written by another model; choose another output_dir"
                )
            variable.assign(found)


class CheckpointManager:
    """The checkpoints of one run, written one at a time in the background.

    Args:
      directory: where they live; created on the first save.
      keep: how many of the newest stay.
      keep_every: checkpoints of steps that are multiples of this stay for good; 0: none do.
    """

    def __init__(self, directory: Path, keep: int, keep_every: int = 0) -> None:
        self.directory = directory
        self.keep = keep
        self.keep_every = keep_every
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        # Kept from save to save: the first touch of fresh memory costs many times the copy itself.
        self._copies: dict[str, np.ndarray] = {}

    def save(self, step: int, variables: Sequence[keras.Variable], state: Mapping[str, Any]) -> Path:
        """Starts to write one checkpoint, after which the oldest beyond `keep` are removed.

        Returns once the variables are copied; before that it waits for the save that is under way, if any.

        Returns:
          The directory that appears once it is whole.

        Raises:
          InputError: if the operating system refused to write the save before.
        """
        self.wait()
        for name, variable in _by_path(variables).items():
            value = np.asarray(variable.value.read_value())  # of the variable itself it would be a copy already
            np.copyto(self._copies.setdefault(name, np.empty_like(value)), value)
        path = self.directory / f"step-{step:08d}"
        manifest = {"format": FORMAT_VERSION, "step": step, "state": state}
        self._writing = self._writer.submit(self._write, path, step, manifest)
        return path

    def check(self) -> None:
        """Tells of a save that failed in the meantime, and does not wait for one that is under way.

        Raises:
          InputError: if the operating system refused to write it.
        """
        if self._writing and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Returns once the save under way, if any, is on disk.

        Raises:
          InputError: if the operating system refused to write it.
        """
        if writing := self._writing:
            self._writing = None
            writing.result()

    def close(self) -> None:
        """Waits for the save under way, if any, whatever comes of it: the next manager finds all or nothing of it."""
        self._writer.shutdown()

    def _write(self, path: Path, step: int, manifest: Mapping[str, Any]) -> None:
        for leftover in self.directory.glob(f"*{PARTIAL_SUFFIX}"):  # of a process that was killed while it saved
            shutil.rmtree(leftover)
        with atomic_directory(path) as partial:
            write_tensors(partial / TENSORS_FILE, self._copies)
            write_json(partial / MANIFEST_FILE, {**manifest, "files": [_describe(partial / TENSORS_FILE)]})
        self._remove_others(step)

    def _remove_others(self, newest: int) -> None:
        """Leaves the newest `keep` up to the step just saved. Later ones are damaged: the run passed over them."""
        present = [(step, path) for step, path in self._present() if step <= newest]
        kept = {path for _, path in present[: self.keep]}
        if self.keep_every:
            kept |= {path for step, path in present if step % self.keep_every == 0}
        for _, path in self._present():
            if path not in kept:
                # Out of the readers' sight first: a kill in between leaves nothing that looks like a checkpoint.
                shutil.rmtree(path.rename(path.with_name(path.name + PARTIAL_SUFFIX)))

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest sound checkpoint, if any, and a line of warning for every newer one that is not sound."""
        warnings: list[str] = []
        for _, path in self._present():
            try:
                return read_checkpoint(path), warnings
            except InputError as error:
                warnings.append(f"passing over a damaged checkpoint: {error}")
        return None, warnings

    def _present(self) -> list[tuple[int, Path]]:
        """Finished checkpoint directories, newest first."""
        if not self.directory.is_dir():
            return []
        matches = ((_NAME.fullmatch(path.name), path) for path in self.directory.iterdir())
        return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Opens one checkpoint directory after checking its files against its manifest.

    Raises:
      InputError: if a file is missing, cut short or changed.
    """
    manifest = read_json(path / MANIFEST_FILE)
    try:
        for line in _mismatches(path, manifest["files"]):
            raise InputError(line)
        return Checkpoint(path, int(manifest["step"]), manifest["state"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{path / MANIFEST_FILE}: is not the manifest of a checkpoint") from error


def _mismatches(path: Path, files: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for expected in files:
        file = path / expected["name"]
        if not file.is_file():
            yield f"{file}: is missing"
        elif (size := file.stat().st_size) != expected["bytes"]:
            yield f"{file}: found {size} bytes, expected {expected['bytes']}"
        elif sha256_of(file) != expected["sha256"]:
            yield f"{file}: its content is not what was written (SHA-256 differs)"


def _describe(file: Path) -> dict[str, Any]:
    return {"name": file.name, "bytes": file.stat().st_size, "sha256": sha256_of(file)}


def _by_path(variables: Sequence[keras.Variable]) -> dict[str, keras.Variable]:
    named = {variable.path: variable for variable in variables}
    assert len(named) == len(variables), "two variables share a path"
    return named
