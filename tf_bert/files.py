"""Files that are either complete or absent. A leaf that every room may import."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from tf_bert.errors import InputError

PARTIAL_SUFFIX = ".partial"  # nothing that a reader looks for ends with it


@contextlib.contextmanager
def reporting_disk_errors(path: Path) -> Iterator[None]:
    """Turns an operating system's refusal to write (disk full, no permission, ...) into an `InputError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path}: cannot be written: {reason}; free space or choose another directory") from error


def fsync_directory(directory: Path) -> None:
    """Makes renames inside `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def own_partial(path: Path) -> Path:
    """A name for the unfinished `path` that no other process uses, on whatever machine.

    Where a process is killed the file stays, so this is for directories that are removed as a whole later on.
    """
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}")


@contextlib.contextmanager
def atomic_writer(path: Path, contended: bool = False) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` only once it is written whole and on disk.

    Args:
      path: the file.
      contended: several processes may write the same file at once; the last one wins. See `own_partial`.

    Raises:
      InputError: if the operating system refuses to write.
    """
    partial = own_partial(path) if contended else path.with_name(path.name + PARTIAL_SUFFIX)
    with reporting_disk_errors(path):
        try:
            with open(partial, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            fsync_directory(path.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any, contended: bool = False) -> None:
    """Writes `value` as indented JSON, as `atomic_writer` does."""
    with atomic_writer(path, contended) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads one JSON file.

    Raises:
      InputError: if the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: is not valid JSON ({error}); restore the file or write it again") from error


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A directory that appears under `path` only once all its files are written and on disk.

    Yields the directory to write into. An older `path` is replaced.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    with reporting_disk_errors(path):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            for file in partial.rglob("*"):
                if file.is_file():
                    with open(file, "rb") as opened:
                        os.fsync(opened.fileno())
            fsync_directory(partial)
            if path.exists():
                shutil.rmtree(path)
            os.replace(partial, path)
            fsync_directory(path.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file.

    Raises:
      InputError: if the operating system refuses to write.
    """
    try:
        save_file({name: np.asarray(value, order="C") for name, value in tensors.items()}, path, metadata)
    except SafetensorError as error:
        raise InputError(f"{path}: cannot be written: {error}; free space or choose another directory") from error


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
