"""Input files, whatever their format, to documents."""

import glob
from collections.abc import Iterator
from pathlib import Path

from tf_bert.config import CorpusConfig
from tf_bert.corpus.blocks import OnBytes, Part
from tf_bert.corpus.document import Document, OnDocument
from tf_bert.corpus.read_report import ReadReport
from tf_bert.corpus.text import read_jsonl, read_text
from tf_bert.corpus.wikipedia import read_wikipedia
from tf_bert.errors import InputError
from tf_bert.files import PARTIAL_SUFFIX

_OTHER_COMPRESSIONS = frozenset({".gz", ".xz", ".zst", ".lz4", ".zip", ".7z", ".rar", ".tar", ".tgz"})


def list_input_files(config: CorpusConfig) -> list[Path]:
    """The files that `config.input` names, each once, in order of their names.

    Directories stand for all files in and below them, hidden ones and unfinished downloads left out; in directories
    and patterns the indices that come with multistream dumps are left out too.

    Raises:
      InputError: if a name matches nothing or a file is empty.
    """
    found: dict[Path, None] = {}
    for pattern in config.input:
        path = Path(pattern)
        if path.is_dir():
            matches = [
                file
                for file in sorted(path.rglob("*"))
                if file.is_file()
                and not _is_index(file)
                and not file.name.endswith(PARTIAL_SUFFIX)
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
            ]
            if not matches:
                raise InputError(f"{pattern}: is a directory without files, expected a corpus; name another input")
        elif path.exists():
            matches = [path]
        else:
            matches = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
            matches = [path for path in matches if path.is_file() and not _is_index(path)]
            if not matches:
                raise InputError(f"{pattern}: no such file or directory, and no file matches it; check input")
        found.update(dict.fromkeys(matches))
    for path in found:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: is empty, expected text; remove it from the input")
    return sorted(found)


def _is_index(path: Path) -> bool:
    """Whether this is a table of a multistream dump's pages: ...-multistream-index.txt.bz2, -index3.txt-p1p9.bz2."""
    return "-multistream-index" in path.name and ".txt" in path.name


def read_part(
    part: Part,
    config: CorpusConfig,
    report: ReadReport,
    on_bytes: OnBytes | None = None,
    on_document: OnDocument | None = None,
) -> Iterator[Document]:
    """Documents of a file or a part of it, in the file's order; see `read_documents` and `OnDocument`."""
    for document in _reader(part, config, report, on_bytes, on_document):
        report.documents += 1
        yield document


def _reader(
    part: Part, config: CorpusConfig, report: ReadReport, on_bytes: OnBytes | None, on_document: OnDocument | None
) -> Iterator[Document]:
    path = part.path
    if path.suffix.lower() in _OTHER_COMPRESSIONS:
        raise InputError(f"{path}: is compressed as {path.suffix}; expected plain or .bz2 files; decompress it first")
    form = format_of(path, config)
    if form == "wikipedia":
        return read_wikipedia(part, report, on_bytes, on_document)
    if form == "jsonl":
        return read_jsonl(part, report, on_bytes, on_document)
    return read_text(part, config.document_separator == "file", report, on_bytes, on_document)


def read_documents(
    config: CorpusConfig, on_bytes: OnBytes | None = None, report: ReadReport | None = None
) -> Iterator[Document]:
    """All documents of a corpus, streamed with bounded memory.

    Args:
      config: what to read.
      on_bytes: called with the number of input bytes (compressed ones, where they are) read since the last call.
      report: what came of it, for who wants to know.

    Raises:
      InputError: if a file is missing, damaged or not of its format, too many documents cannot be read, or none is
        found.
    """
    report = report or ReadReport(config.max_skipped_documents)
    for path in list_input_files(config):
        yield from read_part(Part(path), config, report, on_bytes)
    if not report.documents:
        raise InputError(f"{', '.join(config.input)}: no document was found; check input and format")


def format_of(path: Path, config: CorpusConfig) -> str:
    """How a file is to be read: wikipedia, jsonl or text."""
    if config.format != "auto":
        return config.format
    # Parts of a split dump are named like enwiki-...-pages-articles1.xml-p1p41242.bz2.
    if ".xml" in path.name:
        return "wikipedia"
    return "jsonl" if ".jsonl" in path.suffixes else "text"
