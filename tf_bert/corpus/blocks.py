"""Files and parts of files as blocks of bytes, decompressed where they are bz2, with bounded memory."""

import bz2
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from tf_bert.errors import InputError

BLOCK_BYTES = 256 << 10

# 178 bytes of bz2 can hold 200 MB. Text shrinks to a quarter or a tenth; a thousandth is an attack or rubbish.
MAX_RATIO = 1000
_RATIO_SLACK = 16 << 20

OnBytes = Callable[[int], object]


@dataclasses.dataclass(frozen=True)
class Part:
    """A stretch of a file that can be read on its own, as `splits.split_files` finds them; by default all of it."""

    path: Path
    """The file."""
    start: int = 0
    """Its first byte, compressed where the file is."""
    end: int | None = None
    """The byte after its last one; None: the part goes on to the end of the file."""

    @property
    def size(self) -> int:
        """Bytes."""
        return (self.path.stat().st_size if self.end is None else self.end) - self.start

    def line(self, number: int) -> str:
        """The line of that number, from 1, in words that lead to it in the whole file."""
        return f"line {number} after byte {self.start:,}" if self.start else f"line {number}"


def read_blocks(part: Part, on_bytes: OnBytes | None = None) -> Iterator[bytes]:
    """The content of a part in blocks of at most `BLOCK_BYTES`; `.bz2` (multistream too) is decompressed.

    Args:
      part: the whole file, or what can be decompressed on its own.
      on_bytes: called with the number of bytes of the file, compressed where it is, read since the last call.

    Raises:
      InputError: if the file cannot be read, is not bz2 though it is named so, is cut off, or expands beyond measure.
    """
    raw = _raw_blocks(part, on_bytes)
    return _decompress(part, raw) if part.path.suffix == ".bz2" else raw


def _raw_blocks(part: Part, on_bytes: OnBytes | None) -> Iterator[bytes]:
    try:
        with open(part.path, "rb") as file:
            at = file.seek(part.start)
            while block := file.read(BLOCK_BYTES if part.end is None else min(BLOCK_BYTES, part.end - at)):
                at += len(block)
                yield block
                if on_bytes:
                    on_bytes(len(block))
    except OSError as error:
        raise InputError(f"{part.path}: cannot be read: {error.strerror}") from error


def _decompress(part: Part, blocks: Iterator[bytes]) -> Iterator[bytes]:
    path = part.path
    decompressor = bz2.BZ2Decompressor()
    bytes_in = bytes_out = 0
    between_streams = True
    for block in blocks:
        bytes_in += len(block)
        while block or not decompressor.needs_input:
            if decompressor.eof:
                decompressor = bz2.BZ2Decompressor()
            try:
                output = decompressor.decompress(block, BLOCK_BYTES)
            except OSError as error:
                near = part.start + max(0, bytes_in - len(block))
                raise InputError(f"{path}: is not valid bz2 near byte {near}; download or compress it again") from error
            block = decompressor.unused_data if decompressor.eof else b""
            between_streams = decompressor.eof
            bytes_out += len(output)
            if bytes_out > MAX_RATIO * bytes_in + _RATIO_SLACK:
                raise InputError(
                    f"{path}: expands to more than {MAX_RATIO} times its size: found {bytes_out:,} bytes in the first "
                    f"{bytes_in:,}; expected text; if it is meant, decompress it yourself"
                )
            if output:
                yield output
            if decompressor.eof and not block:
                break
    if not between_streams:
        raise InputError(f"{path}: is cut off: its bz2 stream does not end; download it again")
