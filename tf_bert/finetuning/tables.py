"""Rows of TSV, CSV and JSONL files, read line by line from an open file or a pipe.

Lines end at a newline and nowhere else: GLUE's files have characters inside texts that other readers take for the end
of a line (U+0085, U+2028, a lone carriage return). In a TSV a quote is a character like any other and a field holds no
tab; in a CSV fields are quoted as spreadsheets do. All are UTF-8, with a byte order mark or not, and a line may end
with a carriage return and a newline, as on Windows.
"""

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal, get_args

from tf_bert.errors import InputError, UsageError

FileFormat = Literal["tsv", "csv", "jsonl"]

MAX_LINE_BYTES = 16 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MOST_NAMES = 20  # in a message

Row = tuple[int, list[Any]]
"""The number of the line where a row begins, from 1, and its values: strings, or what JSON has."""


def format_of(path: Path) -> FileFormat:
    """How a file is read, by the ending of its name; raises `UsageError` if that says nothing."""
    for known in get_args(FileFormat):
        if path.suffix == f".{known}":
            return known
    found = f"ends with {path.suffix!r}" if path.suffix else "has no ending"
    raise UsageError(f"{path}: the name {found}, expected .tsv, .csv or .jsonl; rename the file")


def read_rows(
    stream: IO[bytes],
    name: str,
    file_format: FileFormat,
    required: Sequence[str],
    optional: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> Iterator[Row]:
    """The values of the columns `required` and `optional` of every row, as soon as its line is there.

    Args:
      stream: an open file or pipe.
      name: what messages call it.
      file_format: tsv, csv or jsonl.
      required: columns, or keys of JSON objects, that have to be there.
      optional: columns or keys that may be absent: their value is then None.
      columns: names of all columns of a TSV or CSV without a header; empty: the first line names them.

    Raises:
      InputError: if a line cannot be read, a column is missing, a row has too many or too few fields, or there is
        no row.
    """
    lines = read_lines(stream, name)
    if file_format == "jsonl":
        rows = _json_rows(lines, name, required, optional)
    else:
        fields = _csv_fields(lines, name) if file_format == "csv" else _tsv_fields(lines, name)
        rows = _table_rows(fields, name, file_format, required, optional, columns)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{name}: has no row, expected one at least")
    yield first
    yield from rows


def quoted(names: Sequence[object]) -> str:
    """Names for a message: 'a', 'b' and so on, cut off where they are many."""
    listed = ", ".join(repr(name) for name in names[:_MOST_NAMES]) or "nothing"
    return listed + (f", ... ({len(names):,} in all)" if len(names) > _MOST_NAMES else "")


def read_lines(stream: IO[bytes], name: str) -> Iterator[tuple[int, str]]:
    """Lines and their numbers, without their ends; empty ones only where others follow them."""
    blank = 0
    try:
        for number in itertools.count(1):
            # Not a loop over the stream, which would wait for more of a pipe than a line.
            line = stream.readline(MAX_LINE_BYTES + 1)
            if not line:
                break
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            text = _decode(line, f"{name}: line {number}")
            if not text:
                blank += 1
                continue
            for past in range(number - blank, number):
                yield past, ""
            blank = 0
            yield number, text
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error


def _decode(line: bytes, place: str) -> str:
    if len(line) > MAX_LINE_BYTES:
        limit = f"{MAX_LINE_BYTES >> 20} MiB"
        raise InputError(f"{place}: found a line of more than {limit}, expected text; is it a binary file?")
    if (zero := line.find(b"\0")) >= 0:
        advice = "remove it, or if the file is UTF-16, convert it with iconv -f UTF-16 -t UTF-8"
        raise InputError(f"{place}: found a zero byte at column {zero + 1}, expected UTF-8 text; {advice}")
    try:
        return line.decode().removesuffix("\n").rstrip("\r")
    except UnicodeDecodeError as error:
        byte = f"byte {line[error.start]:#04x} at column {error.start + 1}"
        advice = "convert the file, e.g. with iconv -f LATIN1 -t UTF-8"
        raise InputError(f"{place}: found {byte}, expected UTF-8 text; {advice}") from error


# --- TSV and CSV ---------------------------------------------------------------------------------------------------


def _tsv_fields(lines: Iterator[tuple[int, str]], name: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines:
        if not line:
            raise InputError(f"{name}: line {number}: is empty, expected a row; remove the line")
        yield number, line.split("\t")


def _csv_fields(lines: Iterator[tuple[int, str]], name: str) -> Iterator[tuple[int, list[str]]]:
    begins = number = 0

    def texts() -> Iterator[str]:
        nonlocal number
        for number, line in lines:  # noqa: B007 - it is read outside
            yield line + "\n"

    reader = csv.reader(texts(), strict=True)
    while True:
        begins = number + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            advice = "quotes are closed and those inside a field doubled, as spreadsheets write them"
            raise InputError(f"{name}: line {begins}: is not valid CSV ({error}); see that {advice}") from error
        if fields is None:
            return
        if not fields:
            raise InputError(f"{name}: line {number}: is empty, expected a row; remove the line")
        yield begins, fields


def _table_rows(
    rows: Iterator[tuple[int, list[str]]],
    name: str,
    file_format: FileFormat,
    required: Sequence[str],
    optional: Sequence[str],
    columns: Sequence[str],
) -> Iterator[Row]:
    if not columns:
        _, columns = next(rows, (0, []))
        if not columns:
            raise InputError(f"{name}: is empty, expected a line with the names of columns and then rows")
        columns = [column.strip() for column in columns]
        if twice := [column for column in columns if column in (*required, *optional) and columns.count(column) > 1]:
            raise InputError(f"{name}: line 1: names the column {twice[0]!r} twice; rename one of them")
    places = []
    for column in (*required, *optional):
        if column in columns:
            places.append(columns.index(column))
        elif column in required:
            raise InputError(f"{name}: line 1: has no column {column!r}, found {quoted(columns)}; name the right one")
        else:
            places.append(-1)
    for number, fields in rows:
        if len(fields) != len(columns):
            raise InputError(f"{name}: line {number}: {_wrong_number(fields, columns, file_format)}")
        yield number, [None if place < 0 else fields[place] for place in places]


def _wrong_number(fields: Sequence[str], columns: Sequence[str], file_format: FileFormat) -> str:
    found = f"found {len(fields)} field(s), expected {len(columns)} ({', '.join(columns[:_MOST_NAMES])})"
    if len(fields) > len(columns) and file_format == "tsv":
        return f"{found}; a tab inside a text has to go, or make it a CSV file with quotes"
    return f"{found}; mend or remove the line"


# --- JSONL -----------------------------------------------------------------------------------------------------------


def _json_rows(
    lines: Iterator[tuple[int, str]], name: str, required: Sequence[str], optional: Sequence[str]
) -> Iterator[Row]:
    for number, line in lines:
        place = f"{name}: line {number}"
        if not line.strip():
            raise InputError(f"{place}: is empty, expected a JSON object; remove the line")
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            at = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise InputError(f"{place}: is not valid JSON ({at}); expected one object a line") from error
        if not isinstance(record, dict):
            keys = quoted(required)
            raise InputError(f"{place}: found a JSON {type(record).__name__}, expected an object with the keys {keys}")
        if missing := [key for key in required if key not in record]:
            raise InputError(f"{place}: has no key {missing[0]!r}, found {quoted(sorted(record))}; name the right one")
        yield number, [record.get(key) for key in (*required, *optional)]
