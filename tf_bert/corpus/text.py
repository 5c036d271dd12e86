"""Plain text and JSONL, streamed."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tf_bert.corpus.blocks import OnBytes, Part, read_blocks
from tf_bert.corpus.document import MAX_DOCUMENT_BYTES, Document, OnDocument
from tf_bert.corpus.read_report import ReadReport
from tf_bert.errors import InputError

_LIMIT = f"{MAX_DOCUMENT_BYTES >> 20} MiB"

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_ENDS = re.compile(r"\r+(?=\n|\Z)")
_BLANK_LINE = re.compile(r"\n[^\S\n]+\n")

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
    for first, lines in _documents(part, by_file, on_bytes, on_document):
        try:
            if isinstance(lines, InputError):
                raise lines
            text = _decode(lines, first, part)
        except InputError as error:
            report.skip(error)
            continue
        if by_file:
            if text := "\n".join(line for line in text.split("\n") if line.strip()):
                yield Document(text, str(part.path), part.line(first))
        else:
            for number, document in _without_blank_lines(text, first):
                yield Document(document, str(part.path), part.line(number))


def _documents(
    part: Part, by_file: bool, on_bytes: OnBytes | None, on_document: OnDocument | None
) -> Iterator[tuple[int, list[bytes] | InputError]]:
    """For every document, the number of its first line and its lines, or why it cannot be read."""
    lines: list[bytes] = []
    problem: InputError | None = None
    first = size = 0
    for number, line in enumerate(_raw_lines(part, on_bytes), start=1):
        if line is None:
            problem = problem or _too_long(part, number)
        elif line and not line.isspace():
            if not lines:
                first = number
                if on_document:
                    on_document(part.line(first))
            lines.append(line)
            size += len(line)
            if size > MAX_DOCUMENT_BYTES:
                way_out = "one document a file is asked for" if by_file else "separate documents with blank lines"
                problem = problem or InputError(
                    f"{part.path}: {part.line(first)}: found a document of more than {_LIMIT}, expected smaller ones; "
                    f"{way_out}"
                )
                del lines[1:]
        elif not by_file:
            if lines or problem:
                yield first, problem or lines
            lines, problem, size = [], None, 0
        elif lines:
            lines.append(line)
    if lines or problem:
        yield first, problem or lines


def _decode(lines: list[bytes], first: int, part: Part) -> str:
    """Joined lines as text, without carriage returns at their ends."""
    try:
        text = b"\n".join(lines).decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(part, first, error) from error
    return _LINE_ENDS.sub("", text) if "\r" in text else text


def _without_blank_lines(text: str, first: int) -> Iterator[tuple[int, str]]:
    """Cuts at lines of white space that is not ASCII, which are rare; the pieces and the numbers of their lines."""
    if not _BLANK_LINE.search(f"\n{text}\n"):
        yield first, text
        return
    numbered = enumerate(text.split("\n"), first)
    for has_text, lines in itertools.groupby(numbered, lambda line: bool(line[1].strip())):
        if has_text:
            (number, line), *others = lines
            yield number, "\n".join([line, *(line for _, line in others)])


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
            yield number, _too_long(part, number)
            continue
        try:
            yield number, line.decode().rstrip("\r")
        except UnicodeDecodeError as error:
            yield number, _not_utf8(part, number, error)


def _too_long(part: Part, number: int) -> InputError:
    return InputError(
        f"{part.path}: {part.line(number)}: found a line of more than {_LIMIT}, expected text; is it a binary file?"
    )


def _not_utf8(part: Part, first: int, error: UnicodeDecodeError) -> InputError:
    """What is wrong in lines that begin with the line `first`."""
    number = first + error.object.count(b"\n", 0, error.start)
    column = error.start - error.object.rfind(b"\n", 0, error.start)
    return InputError(
        f"{part.path}: {part.line(number)}: byte {error.object[error.start]:#04x} at column {column} is not UTF-8; "
        "convert the file, e.g. with iconv -t UTF-8"
    )


def _raw_lines(part: Part, on_bytes: OnBytes | None) -> Iterator[bytes | None]:
    """Lines without their ends; None, as soon as that is known, for one that is longer than `MAX_DOCUMENT_BYTES`."""
    pieces: list[bytes] = []
    size = 0
    blocks = read_blocks(part, on_bytes)
    if not part.start:
        blocks = itertools.chain(
            (block.removeprefix(_BYTE_ORDER_MARK) for block in itertools.islice(blocks, 1)), blocks
        )
    for block in blocks:
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
