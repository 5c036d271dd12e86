"""Input files, whatever their format, to documents."""

import glob
from collections.abc import Iterator
from pathlib import Path

from tf_bert.config import CorpusConfig
from tf_bert.corpus.blocks import OnBytes
from tf_bert.corpus.document import Document, OnDocument
from tf_bert.corpus.text import read_jsonl, read_text
from tf_bert.corpus.wikipedia import read_wikipedia
from tf_bert.errors import InputError
from tf_bert.files import PARTIAL_SUFFIX

_OTHER_COMPRESSIONS = frozenset({".gz", ".xz", ".zst", ".lz4", ".zip", ".7z", ".rar", ".tar", ".tgz"})


def list_input_files(config: CorpusConfig) -> list[Path]:
    """The files that `config.input` names, each once, in order of their names.

    Directories stand for all files in and below them, hidden ones and unfinished downloads left out.

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
                and not file.name.endswith(PARTIAL_SUFFIX)
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
            ]
            if not matches:
                raise InputError(f"{pattern}: is a directory without files, expected a corpus; name another input")
        elif path.exists():
            matches = [path]
        else:
            matches = [Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if Path(name).is_file()]
            if not matches:
                raise InputError(f"{pattern}: no such file or directory, and no file matches it; check input")
        found.update(dict.fromkeys(matches))
    for path in found:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: is empty, expected text; remove it from the input")
    return sorted(found)


def read_file(
    path: Path, config: CorpusConfig, on_bytes: OnBytes | None = None, on_document: OnDocument | None = None
) -> Iterator[Document]:
    """Documents of one file, in the file's order; see `read_documents` and `OnDocument`."""
    if path.suffix.lower() in _OTHER_COMPRESSIONS:
        raise InputError(f"{path}: is compressed as {path.suffix}; expected plain or .bz2 files; decompress it first")
    form = _format_of(path) if config.format == "auto" else config.format
    if form == "wikipedia":
        return read_wikipedia(path, on_bytes, on_document)
    if form == "jsonl":
        return read_jsonl(path, on_bytes, on_document)
    return read_text(path, config.document_separator == "file", on_bytes, on_document)


def read_documents(config: CorpusConfig, on_bytes: OnBytes | None = None) -> Iterator[Document]:
    """All documents of a corpus, streamed with bounded memory.

    Args:
      config: what to read.
      on_bytes: called with the number of input bytes (compressed ones, where they are) read since the last call.

    Raises:
      InputError: if a file is missing, damaged or not of its format, or no document is found.
    """
    empty = True
    for path in list_input_files(config):
        for document in read_file(path, config, on_bytes):
            empty = False
            yield document
    if empty:
        raise InputError(f"{', '.join(config.input)}: no document was found; check input and format")


def _format_of(path: Path) -> str:
    # Parts of a split dump are named like enwiki-...-pages-articles1.xml-p1p41242.bz2.
    if ".xml" in path.name:
        return "wikipedia"
    return "jsonl" if ".jsonl" in path.suffixes else "text"
