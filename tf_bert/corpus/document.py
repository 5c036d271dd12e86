"""What the corpus is made of."""

import dataclasses
from collections.abc import Callable

MAX_DOCUMENT_BYTES = 64 << 20
"""No document or line of text may be longer: it would have to be held in memory whole."""


@dataclasses.dataclass(frozen=True)
class Document:
    """One text that hangs together: an article, a note, a contract."""

    text: str
    """Plain text; paragraphs and headings are on lines of their own."""
    source: str
    """The input file."""
    location: str
    """Where in it, for people: 'page "Anarchism"', 'line 12'."""


OnDocument = Callable[[str], object]
"""Called with the location of a document, as `Document` has it, before the document is read."""
