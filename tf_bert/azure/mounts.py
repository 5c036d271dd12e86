"""Inputs and outputs of a rehearsed job: local folders in the place of datastores, seen by the job where Azure would.

A datastore's paths are folders below `datastores/NAME/` of the rehearsals' directory, which all jobs rehearsed there
share: what one writes the next one reads. A job sees them below `cap/data-capability/wd/`, as on Azure's nodes, and in
another place in every attempt.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from tf_bert.azure.job import DATASTORE_PATH, JobFile, JobInput
from tf_bert.config.mounts import MOUNTS_PATH
from tf_bert.errors import InputError, UsageError
from tf_bert.files import reporting_disk_errors

MOUNTS_DIR = Path(MOUNTS_PATH)

Seen = tuple[tuple[str, int, int], ...]
"""Path, bytes and time of the last change in nanoseconds of every file."""


class Mounts:
    """What a job reads and writes, found before it is run.

    Args:
      file: the job.
      directory: of all rehearsals.
      run_id: what `${{name}}` in an output's path stands for.
      given: places of inputs by name, in the stead of those in `directory`.

    Raises:
      UsageError: if `given` names no input of the job, or a path leads out of its datastore.
      InputError: if an input has no local data.
    """

    def __init__(self, file: JobFile, directory: Path, run_id: str, given: Mapping[str, Path]) -> None:
        self._file, self._directory, self._run_id = file, directory.resolve(), run_id
        for name in given:
            if name not in file.job.inputs:
                known = ", ".join(file.job.inputs) or "none"
                raise UsageError(f"--input {name}: {file.path} has no such input; expected one of: {known}")
        self._sources = {name: self._find(name, given.get(name)) for name in file.job.inputs}
        self._kept = {
            name: None if output.path is None else self._place(output.path, f"outputs.{name}")
            for name, output in file.job.outputs.items()
        }

    def mount(self, attempt_dir: Path) -> dict[str, Path]:
        """Makes what an attempt sees; returns the paths by placeholder, such as `inputs.data`."""
        seen_dir = attempt_dir / MOUNTS_DIR
        paths: dict[str, Path] = {}
        with reporting_disk_errors(attempt_dir):
            seen_dir.mkdir(parents=True)
            for name, given in self._file.job.inputs.items():
                paths[f"inputs.{name}"] = self._mount_input(given, self._sources[name], seen_dir / f"INPUT_{name}")
            for name, output in self._file.job.outputs.items():
                path = seen_dir / name
                kept = self._kept[name]
                if kept is None or output.mode == "upload":
                    path.mkdir()
                else:
                    kept.mkdir(parents=True, exist_ok=True)
                    path.symlink_to(kept, target_is_directory=True)
                paths[f"outputs.{name}"] = path
        return paths

    def upload(self, paths: Mapping[str, Path]) -> None:
        """Copies what Azure uploads only when a job has ended to its datastore."""
        for name, output in self._file.job.outputs.items():
            if (kept := self._kept[name]) is not None and output.mode == "upload":
                with reporting_disk_errors(kept):
                    shutil.copytree(paths[f"outputs.{name}"], kept, dirs_exist_ok=True)

    def places(self, paths: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
        """Name and lasting place of every output."""
        for name, kept in self._kept.items():
            yield name, kept or paths[f"outputs.{name}"]

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """A block that must not change any input that Azure mounts for reading.

        Raises:
          InputError: if it did; the change stays.
        """
        mounted = {
            name: self._sources[name] for name, given in self._file.job.inputs.items() if given.mode != "download"
        }
        before = {name: _look(source) for name, source in mounted.items()}
        yield
        for name, source in mounted.items():
            if changed := sorted(set(before[name]) ^ set(_look(source))):
                raise InputError(
                    f"inputs.{name}: the job has changed {changed[0][0]}, but Azure mounts this input for reading "
                    "only; write to an output, or set the input's mode to download"
                )

    def _find(self, name: str, given: Path | None) -> Path:
        wanted = self._file.job.inputs[name]
        if given is not None:
            source, told, advice = given, str(given), f"give --input {name} another path"
        elif wanted.path.startswith("https://"):
            raise InputError(f"inputs.{name}: {wanted.path} is not fetched in a rehearsal; give --input {name}=PATH")
        else:
            source = self._place(wanted.path, f"inputs.{name}")
            told = str(source) if wanted.is_local else f"{source}, which stands for {wanted.path}"
            advice = f"put the data there, or give --input {name}=PATH"
        expected, fits = ("a file", Path.is_file) if wanted.type == "uri_file" else ("a folder", Path.is_dir)
        if not source.exists():
            raise InputError(f"inputs.{name}: there is no {told}; {advice}")
        if not fits(source):
            raise InputError(f"inputs.{name}: {told}: expected {expected}, as its type is {wanted.type}; {advice}")
        return source.resolve()

    def _place(self, path: str, key: str) -> Path:
        """Where the data of a path in the job is kept on this machine."""
        path = path.replace("${{name}}", self._run_id)
        if match := DATASTORE_PATH.fullmatch(path):
            place = ("datastores", match["datastore"], *Path(match["path"]).parts)
        elif path.startswith("azureml:"):
            place = ("data", *path.removeprefix("azureml:").replace("@", ":").split(":"))
        else:
            return self._file.local_path(path)
        if ".." in place or "/" in place:
            raise UsageError(f"{self._file.path}: {key}: {path} leads out of its datastore; write it without '..'")
        return self._directory.joinpath(*place)

    def _mount_input(self, given: JobInput, source: Path, path: Path) -> Path:
        if given.type == "uri_file":
            path.mkdir()
            path = path / source.name
        if given.mode != "download":
            path.symlink_to(source, target_is_directory=source.is_dir())
        elif source.is_dir():
            shutil.copytree(source, path)
        else:
            shutil.copy2(source, path)
        return path


def _look(source: Path) -> Seen:
    if source.is_file():
        files = [source]
    else:
        files = [Path(root) / name for root, _, names in os.walk(source, followlinks=True) for name in names]
    return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(files) if path.is_file())
