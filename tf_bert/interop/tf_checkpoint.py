"""TensorFlow checkpoints as data: names, shapes, and tensors that are read one at a time.

TensorFlow's own reader reads the tensors and compares their checksums; `read_index` has looked at the files before it.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_bert.errors import InputError
from tf_bert.interop.checkpoint_index import Entry, read_index
from tf_bert.interop.names import Layout
from tf_bert.models.weights import StoredTensor

INDEX_SUFFIX = ".index"
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The tensor that describes the objects of a TF2 checkpoint."""
STATE_FILE = "checkpoint"
"""Beside checkpoints: which of them is the newest."""

_LONGEST_GRAPH = 8 << 20  # bytes; BERT-large with its optimizer takes 0.5 MB


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint."""

    prefix: Path
    """Its path without `.index`."""
    entries: Mapping[str, Entry]
    """By name."""
    reader: Any
    """TensorFlow's."""

    def tensor(self, name: str, layout: Layout = Layout.SAME) -> StoredTensor:
        """One tensor, to be read in Hugging Face's layout.

        Raises:
          InputError: if it has not as many dimensions as the layout.
        """
        entry = self.entries[name]
        place = f"{self.prefix}: {name}"
        if layout.rank not in (None, len(entry.shape)):
            raise InputError(
                f"{place}: found shape {entry.shape}, expected {layout.value}; this is no tensor of a BERT"
            )
        return StoredTensor(place, layout.shape(entry.shape), entry.dtype, functools.partial(self._read, name, layout))

    def _read(self, name: str, layout: Layout) -> np.ndarray:
        return layout.read(self.value(name))

    def value(self, name: str) -> np.ndarray:
        """A tensor of numbers as it lies there.

        Raises:
          InputError: if it is damaged.
        """
        with _one_line(f"{self.prefix}: {name}"):
            value: np.ndarray = self.reader.get_tensor(name)
        return value

    def object_graph(self) -> bytes | None:
        """The serialised description of the objects; None in TF1 checkpoints.

        Raises:
          InputError: if it is damaged.
        """
        entry = self.entries.get(OBJECT_GRAPH)
        if entry is None:
            return None
        with open(entry.path, "rb") as file:
            file.seek(entry.offset)
            head = file.read(min(entry.size, 10))
        # A string is its length in 7 bits a byte, 4 bytes of checksum, and itself. The reader allocates the length.
        last = next((i for i, byte in enumerate(head) if byte < 0x80), 0)
        length = sum((byte & 0x7F) << 7 * i for i, byte in enumerate(head[: last + 1]))
        is_string = entry.dtype == "string" and entry.shape == ()
        if not is_string or entry.size != last + 1 + 4 + length or length > _LONGEST_GRAPH:
            raise InputError(f"{self.prefix}: {OBJECT_GRAPH} is damaged; copy or download the checkpoint again")
        return bytes(self.value(OBJECT_GRAPH))


def open_checkpoint(prefix: Path) -> Checkpoint:
    """Opens a checkpoint.

    Args:
      prefix: its path without `.index`.

    Raises:
      InputError: if a file is missing or damaged.
    """
    entries = read_index(prefix)
    with _one_line(f"{prefix}{INDEX_SUFFIX}"):
        reader = tf.train.load_checkpoint(str(prefix))
        found = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    # TensorFlow passes over blocks whose checksum is wrong.
    if found != {name: entry.shape for name, entry in entries.items()}:
        raise InputError(f"{prefix}{INDEX_SUFFIX}: is damaged (checksum); copy or download the checkpoint again")
    return Checkpoint(prefix, entries, reader)


def is_prefix(path: Path) -> bool:
    """Whether there is a checkpoint of this path without `.index`."""
    return bool(path.name) and path.with_name(path.name + INDEX_SUFFIX).is_file()


def find_prefix(directory: Path) -> Path | None:
    """The checkpoint of a directory, the newest as its `checkpoint` file says; None if there is none.

    Raises:
      InputError: if there are several, and nothing says which is meant.
    """
    found = sorted(path.with_suffix("") for path in directory.glob(f"*{INDEX_SUFFIX}") if path.is_file())
    if len(found) < 2:
        return next(iter(found), None)
    newest = None
    if (directory / STATE_FILE).is_file():
        text = (directory / STATE_FILE).read_text(encoding="utf-8", errors="replace")
        newest = re.search(r'^\s*model_checkpoint_path:\s*"([^"\n]+)"', text, re.MULTILINE)
    chosen = directory / Path(newest[1]).name if newest else None
    if chosen not in found:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{directory}: holds the checkpoints {names}; name one of them, e.g. {found[-1]}")
    return chosen


def write_checkpoint(prefix: Path, tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes names and tensors as a TF1 program does.

    Args:
      prefix: path of the checkpoint without `.index`.
      tensors: in any order; all of them are held in memory.

    Raises:
      InputError: if the operating system refuses to write.
    """
    with tf.device("/CPU:0"):
        # A tensor that is made of an array takes its memory twice for as long as it lives; a copy of it does not.
        held = {name: tf.identity(value) for name, value in tensors}
        with writing(prefix):
            tf.raw_ops.SaveV2(
                prefix=str(prefix),
                tensor_names=list(held),
                shape_and_slices=[""] * len(held),
                tensors=list(held.values()),
            )


@contextmanager
def writing(prefix: Path) -> Iterator[None]:
    """Turns TensorFlow's refusal to write into an `InputError`."""
    try:
        yield
    except tf.errors.OpError as error:
        reason = _first_line(error)
        raise InputError(f"{prefix}: cannot be written: {reason}; free space or choose another directory") from error


@contextmanager
def _one_line(place: str) -> Iterator[None]:
    """Turns an error of TensorFlow's reader into an `InputError`."""
    try:
        yield
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as error:
        raise InputError(
            f"{place}: is damaged ({_first_line(error)}); copy or download the checkpoint again"
        ) from error


def _first_line(error: Exception) -> str:
    message = getattr(error, "message", None) or str(error)
    return next(iter(str(message).splitlines()), type(error).__name__)
