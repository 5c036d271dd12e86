"""MediaWiki dumps (`pages-articles.xml`, `.bz2`), streamed: articles of namespace 0 that are no redirects."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from tf_bert.corpus.blocks import BLOCK_BYTES, OnBytes, Part, read_blocks
from tf_bert.corpus.document import Document, OnDocument
from tf_bert.corpus.read_report import ReadReport
from tf_bert.corpus.wikitext import to_plain_text
from tf_bert.errors import InputError

_FILE_NAMESPACES = ("6", "14")  # File and Category, which a dump's header names in its own language
_NAMESPACE_KEY = re.compile(r"[1-9][0-9]{0,3}")
# Characters of an element that is kept; the others are passed over. MediaWiki's own limits are 2 MiB for a page
# ($wgMaxArticleSize) and 255 bytes for a title. A hostile page takes up to 70 bytes a character to become plain text.
_MAX_LENGTHS = {"text": 8 << 20, "title": 1024, "ns": 1024, "namespace": 1024}
# Both keep a hostile file from filling the memory.
_MAX_TAG_BYTES = 1 << 20
_MAX_DEPTH = 32
_MAX_HEAD_BYTES = 1 << 20
PAGE = b"<page>"


def read_wikipedia(
    part: Part, report: ReadReport, on_bytes: OnBytes | None = None, on_document: OnDocument | None = None
) -> Iterator[Document]:
    """Articles of a dump as plain text. Holds one page at a time.

    Args:
      part: of an `.xml` or `.xml.bz2`; one that does not begin the file begins with a page.
      report: counts pages and articles, and takes in articles that cannot be read: with a title or text beyond
        measure, or markup that cannot be converted.
      on_bytes: see `read_blocks`.
      on_document: see `OnDocument`; called for pages that are no articles too.

    Raises:
      InputError: if the file is damaged or cut off, is no MediaWiki export, defines a DTD or entities, or holds
        a tag or a nesting beyond measure, or one article too many that cannot be read.
    """
    parser = _DumpParser(part, report, on_document)
    if part.start:
        parser.feed_head(read_head(part.path))
    for block in read_blocks(part, on_bytes):
        parser.feed(block)
        yield from parser.take()
    parser.close()
    yield from parser.take()


def read_head(path: Path) -> bytes:
    """What a dump holds before its first page: its root and its namespaces. Empty if there is no page early on.

    Raises:
      InputError: see `read_blocks`.
    """
    content = b""
    for block in read_blocks(Part(path)):
        content += block
        head, page, _ = content.partition(PAGE)
        if page:
            return head
        if len(content) > _MAX_HEAD_BYTES:
            break
    return b""


class _DumpParser:
    """Collects finished articles while it is fed."""

    def __init__(self, part: Part, report: ReadReport, on_document: OnDocument | None) -> None:
        self._part, self._path = part, part.path
        self._report = report
        self._on_document = on_document
        self._documents: list[Document] = []
        self._namespaces: dict[str, str] = {}
        self._fed = 0
        self._head_lines = 0
        self._path_of_elements: list[str] = []
        self._pieces: list[str] = []
        self._length = 0
        self._page: dict[str, str] = {}
        self._problem: InputError | None = None
        self._namespace_key = ""
        parser = expat.ParserCreate("utf-8")  # every export is; a file may declare what Python cannot decode
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

    def feed_head(self, head: bytes) -> None:
        """The beginning of the file, for a part that does not have it."""
        self.feed(head)
        self._head_lines = head.count(b"\n")

    def feed(self, block: bytes) -> None:
        try:
            self._parser.Parse(block, False)
        except expat.ExpatError as error:
            raise InputError(
                f"{self._path}: {self._line(error.lineno)}{self._where()}: is not valid XML or not UTF-8 "
                f"({expat.ErrorString(error.code)}); expected a MediaWiki export; download it again"
            ) from error
        self._fed += len(block)
        # expat holds a tag or comment whole, and reads it from its beginning again with every block.
        if self._fed - self._parser.CurrentByteIndex > _MAX_TAG_BYTES + BLOCK_BYTES:
            raise InputError(
                f"{self._path}: {self._line()}{self._where()}: found a tag or comment of more than "
                f"{_MAX_TAG_BYTES:,} bytes; expected a MediaWiki export; take it out"
            )

    def close(self) -> None:
        end = self._part.end
        try:
            self._parser.Parse(b"" if end is None else b"</mediawiki>", True)
        except expat.ExpatError as error:
            if end is not None:
                raise InputError(
                    f"{self._path}: the <page> at or behind byte {end:,}, from which it was to be read in parallel, is "
                    "inside of a comment, a CDATA section or another element; expected a MediaWiki export; compress it "
                    "with bzip2, and it is read in one piece"
                ) from error
            if not self._path_of_elements:
                raise InputError(
                    f"{self._path}: {self._line(error.lineno)}: is empty or holds no whole XML "
                    f"({expat.ErrorString(error.code)}); expected a MediaWiki export; download it again"
                ) from error
            raise InputError(
                f"{self._path}: is cut off at {self._line(error.lineno)}{self._where()}: "
                f"<{self._path_of_elements[-1]}> is not closed; download it again"
            ) from error

    def _line(self, number: int | None = None) -> str:
        return self._part.line((number or self._parser.CurrentLineNumber) - self._head_lines)

    def _where(self) -> str:
        return f', page "{self._page["title"]}"' if self._page.get("title") else ""

    def _refuse_dtd(self, name: str, *_: object) -> NoReturn:
        raise InputError(
            f"{self._path}: {self._line()}: declares a DTD or an entity ({name}), which no MediaWiki export does and "
            "which can be an attack; remove the declaration"
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._path_of_elements and name != "mediawiki":
            raise InputError(f"{self._path}: its root is <{name}>, expected <mediawiki>; name a MediaWiki export")
        if len(self._path_of_elements) == _MAX_DEPTH:
            raise InputError(
                f"{self._path}: {self._line()}{self._where()}: elements are nested more than {_MAX_DEPTH} deep; "
                "expected a MediaWiki export; name another file"
            )
        self._path_of_elements.append(name)
        if name == "page":
            self._page, self._problem = {}, None
        elif name == "redirect":
            self._page["redirect"] = "yes"
        elif name == "namespace":
            self._namespace_key = attributes.get("key", "")
        self._pieces, self._length = [], 0

    def _text(self, data: str) -> None:
        name = self._path_of_elements[-1]
        limit = _MAX_LENGTHS.get(name)
        if limit is None or self._length > limit:
            return
        self._pieces.append(data)
        self._length += len(data)
        if self._length > limit:
            self._pieces = []
            problem = InputError(
                f"{self._path}: {self._line()}{self._where()}: its {name} has more than {limit:,} characters; expected "
                "an article; take the page out"
            )
            if "page" not in self._path_of_elements:
                raise problem
            self._problem = problem

    def _end(self, name: str) -> None:
        self._path_of_elements.pop()
        if name == "namespace" and _NAMESPACE_KEY.fullmatch(self._namespace_key):
            self._namespaces[self._namespace_key] = "".join(self._pieces)
        elif name == "title":
            self._page[name] = " ".join("".join(self._pieces).split())
            if self._on_document:
                self._on_document(f'page "{self._page[name]}"')
        elif name in ("ns", "text"):  # of several revisions, the last counts
            self._page[name] = "".join(self._pieces)
        elif name == "page":
            self._finish_page()

    def _finish_page(self) -> None:
        self._report.pages += 1
        title, text = self._page.get("title", ""), self._page.get("text", "")
        if not self._is_article(title) or "redirect" in self._page or text.lstrip()[:9].lower() == "#redirect":
            return
        self._report.articles += 1
        try:
            if self._problem:
                raise self._problem
            if plain := self._plain_text(text):
                self._documents.append(Document(plain, str(self._path), f'page "{title}"'))
        except InputError as error:
            self._report.skip(error)

    def _plain_text(self, text: str) -> str:
        dropped = [self._namespaces[key] for key in _FILE_NAMESPACES if key in self._namespaces]
        try:
            return to_plain_text(text, dropped)
        except MemoryError:
            raise
        except Exception as error:
            raise InputError(
                f"{self._path}: {self._line()}{self._where()}: its markup cannot be made plain text "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); take the page out"
            ) from error

    def _is_article(self, title: str) -> bool:
        if "ns" in self._page:
            return self._page["ns"].strip() == "0"
        # Exports before version 0.6 tell a namespace by the title alone.
        prefix, colon, _ = title.partition(":")
        return not colon or prefix not in self._namespaces.values()
