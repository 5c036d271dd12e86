"""Plain text and JSONL, streamed."""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tf_bert.corpus.blocks import OnBytes, Part, read_blocks
from tf_bert.corpus.document import MAX_DOCUMENT_BYTES, Document, OnDocument
from tf_bert.corpus.read_report import ReadReport
from tf_bert.errors import InputError

_LIMIT = f"{MAX_DOCUMENT_BYTES >> 20} MiB"

_Line = tuple[int, str | InputError]  # its number in its part, from 1, and what it says or why that is not known


def read_text(
    part: Part,
    by_file: bool,
    report: ReadReport,
    on_bytes: OnBytes | None = None,
    on_document: OnDocument | None = None,
) -> Iterator[Document]:
    """Documents of a text file. Holds one document at a time.

    Args:
      part: UTF-8 text; a byte order mark and Windows line ends are understood.
      by_file: the file is one document; otherwise blank lines separate documents.
      report: takes in documents that cannot be read: with a byte that is not UTF-8, or longer than
        `MAX_DOCUMENT_BYTES`.
      on_bytes: see `read_blocks`.
      on_document: see `OnDocument`.

    Raises:
      InputError: if the file cannot be read, or one document too many.
    """

    def has_text(line: _Line) -> bool:
        return by_file or isinstance(line[1], InputError) or bool(line[1].strip())

    for is_document, lines in itertools.groupby(_lines(part, on_bytes), has_text):
        if is_document:
            try:
                document = _join(lines, part, by_file, on_document)
            except InputError as error:
                report.skip(error)  # groupby passes over the rest of its lines
                continue
            if document:
                yield document


def _join(lines: Iterable[_Line], part: Part, by_file: bool, on_document: OnDocument | None) -> Document | None:
    """A document of all lines that are not blank; None if there are none."""
    texts: list[str] = []
    size = first = 0
    for number, line in lines:
        if isinstance(line, InputError):
            raise line
        if line.strip():
            if not texts:
                first = number
                if on_document:
                    on_document(part.line(first))
            texts.append(line)
            size += len(line)
        if size > MAX_DOCUMENT_BYTES:
            way_out = "one document a file is asked for" if by_file else "separate documents with blank lines"
            raise InputError(
                f"{part.path}: {part.line(first)}: found a document of more than {_LIMIT}, expected smaller ones; "
                f"{way_out}"
            )
    return Document("\n".join(texts), str(part.path), part.line(first)) if texts else None


def read_jsonl(
    part: Part, report: ReadReport, on_bytes: OnBytes | None = None, on_document: OnDocument | None = None
) -> Iterator[Document]:
    """Documents of a JSONL file: the string `text` of the object on each line.

    Args:
      part: UTF-8 text.
      report: takes in lines that cannot be read: that are not UTF-8, no JSON object, or have no string `text`.
      on_bytes: see `read_blocks`.
      on_document: see `OnDocument`.

    Raises:
      InputError: if the file cannot be read, or one line too many.
    """
    for number, line in _lines(part, on_bytes):
        location = part.line(number)
        try:
            if isinstance(line, InputError):
                raise line
            if not line.strip():
                continue
            if on_document:
                on_document(location)
            text = _text_of(line, f"{part.path}: {location}")
        except InputError as error:
            report.skip(error)
            continue
        if text.strip():
            yield Document(text, str(part.path), location)


def _text_of(line: str, where: str) -> str:
    record = _parse_json(line, where)
    if not isinstance(record, dict):
        raise InputError(f"{where}: found a JSON {type(record).__name__}, expected an object with text")
    text = record.get("text")
    if not isinstance(text, str):
        found = f"text is a {type(text).__name__}" if "text" in record else f"found the keys {sorted(record)[:5]}"
        raise InputError(f'{where}: {found}, expected a string under "text"')
    # JSON can spell half of a surrogate pair, which no encoding can write.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _parse_json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        at = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(f"{where}: is not valid JSON ({at}); expected one object a line") from error


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The values of a JSONL file and the numbers of their lines; blank lines are passed over.

    Raises:
      InputError: if a line is not UTF-8 or not JSON.
    """
    for number, line in read_lines(path):
        if line.strip():
            yield number, _parse_json(line, f"{path}: line {number}")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file without their ends, and their numbers.

    Raises:
      InputError: if a byte is not UTF-8 or a line is longer than `MAX_DOCUMENT_BYTES`.
    """
    for number, line in _lines(Part(path)):
        if isinstance(line, InputError):
            raise line
        yield number, line


def _lines(part: Part, on_bytes: OnBytes | None = None) -> Iterator[_Line]:
    for number, line in enumerate(_raw_lines(part, on_bytes), start=1):
        if line is None:
            yield (
                number,
                InputError(
                    f"{part.path}: {part.line(number)}: found a line of more than {_LIMIT}, expected text; is it a "
                    "binary file?"
                ),
            )
            continue
        if number == 1 and not part.start:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            yield number, line.decode().rstrip("\r")
        except UnicodeDecodeError as error:
            yield (
                number,
                InputError(
                    f"{part.path}: {part.line(number)}: byte {line[error.start]:#04x} at column {error.start + 1} is "
                    "not UTF-8; convert the file, e.g. with iconv -t UTF-8"
                ),
            )


def _raw_lines(part: Part, on_bytes: OnBytes | None) -> Iterator[bytes | None]:
    """Lines without their ends; None, as soon as that is known, for one that is longer than `MAX_DOCUMENT_BYTES`."""
    pieces: list[bytes] = []
    size = 0
    for block in read_blocks(part, on_bytes):
        *ends, rest = block.split(b"\n")
        for piece in ends:
            if size <= MAX_DOCUMENT_BYTES:
                yield b"".join([*pieces, piece])
            pieces, size = [], 0
        if size > MAX_DOCUMENT_BYTES:
            continue
        pieces.append(rest)
        size += len(rest)
        if size > MAX_DOCUMENT_BYTES:
            pieces = []
            yield None
    if last := b"".join(pieces):
        yield last
