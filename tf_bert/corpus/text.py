"""Plain text and JSONL, streamed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tf_bert.corpus.blocks import OnBytes, read_blocks
from tf_bert.corpus.document import MAX_DOCUMENT_BYTES, Document, OnDocument
from tf_bert.errors import InputError

_LIMIT = f"{MAX_DOCUMENT_BYTES >> 20} MiB"


def read_text(
    path: Path, by_file: bool, on_bytes: OnBytes | None = None, on_document: OnDocument | None = None
) -> Iterator[Document]:
    """Documents of a text file. Holds one document at a time.

    Args:
      path: UTF-8 text; a byte order mark and Windows line ends are understood.
      by_file: the file is one document; otherwise blank lines separate documents.
      on_bytes: see `read_blocks`.
      on_document: see `OnDocument`.

    Raises:
      InputError: if a byte is not UTF-8 or a document is longer than `MAX_DOCUMENT_BYTES`.
    """
    lines: list[str] = []
    size = first = 0
    for number, line in read_lines(path, on_bytes):
        if line.strip():
            if not lines:
                first = number
                if on_document:
                    on_document(f"line {number}")
            lines.append(line)
            size += len(line)
            if size > MAX_DOCUMENT_BYTES:
                way_out = "one document a file is asked for" if by_file else "separate documents with blank lines"
                raise InputError(
                    f"{path}: line {first}: found a document of more than {_LIMIT}, expected smaller ones; {way_out}"
                )
        elif lines and not by_file:
            yield Document("\n".join(lines), str(path), f"line {first}")
            lines, size = [], 0
    if lines:
        yield Document("\n".join(lines), str(path), f"line {first}")


def read_jsonl(
    path: Path, on_bytes: OnBytes | None = None, on_document: OnDocument | None = None
) -> Iterator[Document]:
    """Documents of a JSONL file: the string `text` of the object on each line.

    Args:
      path: UTF-8 text.
      on_bytes: see `read_blocks`.
      on_document: see `OnDocument`.

    Raises:
      InputError: if a line is not UTF-8, is not a JSON object or has no string `text`.
    """
    for number, record in read_json_lines(path, on_bytes, on_document):
        if not isinstance(record, dict):
            raise InputError(
                f"{path}: line {number}: found a JSON {type(record).__name__}, expected an object with text"
            )
        text = record.get("text")
        if not isinstance(text, str):
            found = f"text is a {type(text).__name__}" if "text" in record else f"found the keys {sorted(record)[:5]}"
            raise InputError(f'{path}: line {number}: {found}, expected a string under "text"')
        if text.strip():
            yield Document(_without_surrogates(text), str(path), f"line {number}")


def read_json_lines(
    path: Path, on_bytes: OnBytes | None = None, on_line: OnDocument | None = None
) -> Iterator[tuple[int, Any]]:
    """The values of a JSONL file and the numbers of their lines; blank lines are passed over.

    Raises:
      InputError: if a line is not UTF-8 or not JSON.
    """
    for number, line in read_lines(path, on_bytes):
        if not line.strip():
            continue
        if on_line:
            on_line(f"line {number}")
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            at = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise InputError(f"{path}: line {number}: is not valid JSON ({at}); expected one object a line") from error


def _without_surrogates(text: str) -> str:
    # JSON can spell half of a surrogate pair, which no encoding can write.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read_lines(path: Path, on_bytes: OnBytes | None = None) -> Iterator[tuple[int, str]]:
    """The lines of a text file without their ends, and their numbers.

    Raises:
      InputError: if a byte is not UTF-8 or a line is longer than `MAX_DOCUMENT_BYTES`.
    """
    number = 0
    for number, line in enumerate(_raw_lines(path, on_bytes), start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            yield number, line.decode().rstrip("\r")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}: line {number}: byte {error.object[error.start]:#04x} at column {error.start + 1} is not "
                "UTF-8; convert the file, e.g. with iconv -t UTF-8"
            ) from error


def _raw_lines(path: Path, on_bytes: OnBytes | None) -> Iterator[bytes]:
    pieces: list[bytes] = []
    size = 0
    for block in read_blocks(path, on_bytes):
        first, *others = block.split(b"\n")
        pieces.append(first)
        size += len(first)
        for piece in others:
            yield b"".join(pieces)
            pieces, size = [piece], len(piece)
        if size > MAX_DOCUMENT_BYTES:
            raise InputError(f"{path}: found a line of more than {_LIMIT}, expected text; is it a binary file?")
    if size:
        yield b"".join(pieces)
