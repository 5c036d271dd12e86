"""What each task of a build is at, on disk, so that a process that is killed can be named with its document.

A note is one record of fixed size, written over when a document is begun and removed when the task ends, unless its
process is killed. Of documents that take less than a millisecond, not each is written: that would cost as much as
reading them.
"""

import contextlib
import dataclasses
import os
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tf_bert.errors import InputError
from tf_bert.files import reporting_disk_errors

NOTE_SUFFIX = ".note"
MEMORY_ADVICE = (
    "use fewer workers, a smaller shard_megabytes or more memory, or take the document out, and run the same command "
    "again: it goes on from what is finished"
)
_RECORD_BYTES = 512
_PAUSE_SECONDS = 0.001
_LONG_DOCUMENT = 64 << 10  # bytes; is written down in any case
_BEGINNING = 100  # bytes


class NoteWriter:
    """The note of a task that runs."""

    def __init__(self, descriptor: int, parts: tuple[str | bytes, ...]) -> None:
        self._descriptor, self._parts = descriptor, parts
        self._owner = f"{socket.gethostname()} {os.getpid()} "
        self.write()

    def at(self, *parts: str | bytes) -> None:
        """A document is begun.

        Args:
          *parts: where it is, from the whole to the part; bytes are its text, of which the beginning is noted.
        """
        self._parts = parts
        if time.monotonic() - self._written > _PAUSE_SECONDS or len(parts[-1]) > _LONG_DOCUMENT:
            self.write()

    def write(self) -> None:
        """Writes the note, however long ago it was written last."""
        record = (self._owner + self.place).encode(errors="replace")[:_RECORD_BYTES]
        os.pwrite(self._descriptor, record.ljust(_RECORD_BYTES, b"\n"), 0)
        self._written = time.monotonic()

    @property
    def place(self) -> str:
        """The document, for people: 'corpus.txt: line 12'."""
        return ": ".join(part if isinstance(part, str) else _in_words(part) for part in self._parts)


def _in_words(text: bytes) -> str:
    return f'the document that begins "{" ".join(text[:_BEGINNING].decode(errors="ignore").split())}"'


@contextlib.contextmanager
def noting(path: Path, *parts: str) -> Iterator[NoteWriter]:
    """Keeps a note at `path` of what this process is at, before the first document at `parts`.

    Raises:
      InputError: if the memory does not suffice; names the process and what it was at.
    """
    with reporting_disk_errors(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        with reporting_disk_errors(path):
            note = NoteWriter(descriptor, parts)
        try:
            yield note
        except MemoryError as error:
            raise InputError(f"process {os.getpid()} ran out of memory at {note.place}; {MEMORY_ADVICE}") from error
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class Note:
    """What a task was at when its process was killed, or what it is at."""

    path: Path
    """The file."""
    host: str
    """The machine's name."""
    pid: int
    """The process's id there."""
    place: str
    """The document, for people: 'corpus.txt: line 12'."""


def read_notes(paths: Iterable[Path]) -> list[Note]:
    """The notes that exist of `paths`; one that was not yet written is left out."""
    notes = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            parts = path.read_text(encoding="utf-8", errors="replace").rstrip("\n").split(" ", 2)
            if len(parts) == 3:
                notes.append(Note(path, parts[0], int(parts[1]), parts[2]))
    return notes
