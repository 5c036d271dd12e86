"""Where files can be cut, so that many processes read one file.

A part begins where a reader may begin: at a page, behind a blank line, at a line. So the documents of a file are those
of its parts, one after the other. Cuts depend on the corpus alone, not on how many processes there are.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tf_bert.config import CorpusConfig
from tf_bert.corpus.blocks import BLOCK_BYTES, Part, read_blocks
from tf_bert.corpus.document import MAX_DOCUMENT_BYTES
from tf_bert.corpus.reader import format_of
from tf_bert.corpus.wikipedia import PAGE, read_head
from tf_bert.errors import InputError

LEAST_BYTES = 4 << 20
MOST_BYTES = 64 << 20
PARTS = 64  # so many, if that keeps their size between the two

# The beginning of a bz2 stream that is not empty: its header, and the magic number of its first block.
_STREAM = re.compile(rb"BZh[1-9]1AY&SY", re.DOTALL)
_PAGE = re.compile(PAGE)
_LINE_END = re.compile(rb"\n")
_BLANK_LINE = re.compile(rb"\n[ \t\r]{0,20}\n")
_LONGEST_MATCH = 32  # bytes, at least
# What has no place to be cut here holds a document beyond measure, or is one long bz2 stream.
_SEARCHED_BYTES = 2 * MAX_DOCUMENT_BYTES

_Find = Callable[[Path, int], int | None]  # the first place to cut a file from a byte on


def split_files(files: Sequence[Path], config: CorpusConfig) -> list[list[Part]]:
    """Cuts large files into parts and puts small ones together.

    Multistream bz2 dumps are cut between their streams, whether their index is there or not: near the place where a cut
    is wanted, the beginning of a stream is found sooner in the dump than in the index, which has a line for each page.
    Files of one stream, other files that are bz2 and texts that are one document each are not cut.

    Args:
      files: the input files, in order.
      config: how they are read.

    Returns:
      Consecutive parts in groups of about equal size, at least `LEAST_BYTES` (the last may have less).

    Raises:
      InputError: if a file cannot be read.
    """
    part_bytes = min(MOST_BYTES, max(LEAST_BYTES, sum(path.stat().st_size for path in files) // PARTS))
    groups: list[list[Part]] = []
    room = 0
    for path in files:
        for part in _split(path, config, part_bytes):
            if room <= 0:
                groups.append([])
                room = part_bytes
            groups[-1].append(part)
            room -= max(1, part.size)
    return groups


def _split(path: Path, config: CorpusConfig, part_bytes: int) -> list[Part]:
    """Parts of about `part_bytes`, the last one between a half and one and a half of it."""
    starts, size = [0], path.stat().st_size
    if size <= 1.5 * part_bytes or (find := _finder(path, config)) is None:
        return [Part(path)]
    while size - starts[-1] > 1.5 * part_bytes:
        start = find(path, starts[-1] + part_bytes)
        if start is None or start >= size:
            break
        starts.append(start)
    return [Part(path, start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)]


def _finder(path: Path, config: CorpusConfig) -> _Find | None:
    """What finds the places where a file can be cut; None for a file that cannot."""
    form, is_packed = format_of(path, config), path.suffix == ".bz2"
    if form == "wikipedia" and read_head(path):
        return _next_stream if is_packed else _next_page
    if form == "wikipedia" or is_packed or (form == "text" and config.document_separator == "file"):
        return None
    return _after_line if form == "jsonl" else _after_blank_line


def _next_page(path: Path, start: int) -> int | None:
    # In XML a tag is a tag wherever it is, but for comments and the like; the parser notices if a part ends in one.
    return next((match[0] for match in _matches(path, _PAGE, start)), None)


def _after_line(path: Path, start: int) -> int | None:
    return next((match[1] for match in _matches(path, _LINE_END, start)), None)


def _after_blank_line(path: Path, start: int) -> int | None:
    return next((match[1] for match in _matches(path, _BLANK_LINE, start)), None)


def _next_stream(path: Path, start: int) -> int | None:
    """The next stream, if it begins with a page; parallel compressors cut pages, too."""
    for offset, _ in _matches(path, _STREAM, start):
        try:
            beginning = next(read_blocks(Part(path, offset)), b"")
        except InputError:
            continue  # the same bytes by chance, inside of a stream
        return offset if beginning.lstrip().startswith(PAGE) else None
    return None


def _matches(path: Path, pattern: re.Pattern[bytes], start: int) -> Iterator[tuple[int, int]]:
    """Where a pattern of up to `_LONGEST_MATCH` bytes occurs from `start` on; twice, where two blocks meet."""
    seam = b""
    at = start
    with open(path, "rb") as file:
        file.seek(start)
        while at < start + _SEARCHED_BYTES and (block := file.read(BLOCK_BYTES)):
            content, begins = seam + block, at - len(seam)
            yield from ((begins + match.start(), begins + match.end()) for match in pattern.finditer(content))
            at += len(block)
            seam = content[-_LONGEST_MATCH:]
