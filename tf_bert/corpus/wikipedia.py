"""MediaWiki dumps (`pages-articles.xml`, `.bz2`), streamed: articles of namespace 0 that are no redirects."""

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from tf_bert.corpus.blocks import OnBytes, read_blocks
from tf_bert.corpus.document import MAX_DOCUMENT_BYTES, Document
from tf_bert.corpus.wikitext import to_plain_text
from tf_bert.errors import InputError

_FILE_NAMESPACES = ("6", "14")  # File and Category, which a dump's header names in its own language
_TEXT_ELEMENTS = frozenset({"title", "ns", "text", "namespace"})


def read_wikipedia(path: Path, on_bytes: OnBytes | None = None) -> Iterator[Document]:
    """Articles of a dump as plain text. Holds one page at a time.

    Args:
      path: `.xml` or `.xml.bz2`.
      on_bytes: see `read_blocks`.

    Raises:
      InputError: if the file is damaged or cut off, is no MediaWiki export, or defines a DTD or entities.
    """
    parser = _DumpParser(path)
    for block in read_blocks(path, on_bytes):
        parser.feed(block)
        yield from parser.take()
    parser.close()
    yield from parser.take()


class _DumpParser:
    """Collects finished articles while it is fed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._documents: list[Document] = []
        self._dropped: list[str] = []
        self._path_of_elements: list[str] = []
        self._pieces: list[str] = []
        self._length = 0
        self._page: dict[str, str] = {}
        self._namespace_key = ""
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse_dtd
        parser.EntityDeclHandler = self._refuse_dtd
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        self._parser = parser

    def take(self) -> list[Document]:
        """The articles finished since the last call."""
        documents, self._documents = self._documents, []
        return documents

    def feed(self, block: bytes) -> None:
        try:
            self._parser.Parse(block, False)
        except expat.ExpatError as error:
            raise InputError(
                f"{self._path}: line {error.lineno}{self._where()}: is not valid XML or not UTF-8 "
                f"({expat.ErrorString(error.code)}); expected a MediaWiki export; download it again"
            ) from error

    def close(self) -> None:
        try:
            self._parser.Parse(b"", True)
        except expat.ExpatError as error:
            if not self._path_of_elements and not self._page:
                raise InputError(f"{self._path}: is empty or holds no XML; expected a MediaWiki export") from error
            raise InputError(
                f"{self._path}: is cut off at line {error.lineno}{self._where()}: <{self._path_of_elements[-1]}> is "
                "not closed; download it again"
            ) from error

    def _where(self) -> str:
        return f', page "{self._page["title"]}"' if self._page.get("title") else ""

    def _refuse_dtd(self, name: str, *_: object) -> NoReturn:
        raise InputError(
            f"{self._path}: line {self._parser.CurrentLineNumber}: declares a DTD or an entity ({name}), which no "
            "MediaWiki export does and which can be an attack; remove the declaration"
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._path_of_elements and name != "mediawiki":
            raise InputError(f"{self._path}: its root is <{name}>, expected <mediawiki>; name a MediaWiki export")
        self._path_of_elements.append(name)
        if name == "page":
            self._page = {}
        elif name == "redirect":
            self._page["redirect"] = "yes"
        elif name == "namespace":
            self._namespace_key = attributes.get("key", "")
        self._pieces, self._length = [], 0

    def _text(self, data: str) -> None:
        if self._path_of_elements[-1] not in _TEXT_ELEMENTS:
            return
        self._pieces.append(data)
        self._length += len(data)
        if self._length > MAX_DOCUMENT_BYTES:
            raise InputError(
                f"{self._path}: line {self._parser.CurrentLineNumber}{self._where()}: its text has more than "
                f"{MAX_DOCUMENT_BYTES >> 20} MiB; expected an article; take the page out"
            )

    def _end(self, name: str) -> None:
        self._path_of_elements.pop()
        if name == "namespace" and self._namespace_key in _FILE_NAMESPACES:
            self._dropped.append("".join(self._pieces))
        elif name in ("title", "ns", "text"):  # of several revisions, the last counts
            self._page[name] = "".join(self._pieces)
        elif name == "page":
            self._finish_page()

    def _finish_page(self) -> None:
        page = self._page
        if page.get("ns", "0").strip() != "0" or "redirect" in page or not page.get("text"):
            return
        if text := to_plain_text(page["text"], self._dropped):
            self._documents.append(Document(text, str(self._path), f'page "{page.get("title", "")}"'))
