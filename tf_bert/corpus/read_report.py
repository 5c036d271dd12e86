"""What came of reading a corpus: how much was read, what was left out and what could not be read."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tf_bert.errors import InputError


@dataclasses.dataclass
class ReadReport:
    """Counts that grow while a corpus, or a part of it, is read. Whoever reads adds to them."""

    max_skipped: int = 0
    """So many documents may be passed over; `CorpusConfig.max_skipped_documents`."""
    pages: int = 0
    """Pages of dumps."""
    articles: int = 0
    """Pages of namespace 0 that are no redirects."""
    documents: int = 0
    """Documents that were read, so with text in them."""
    dropped: Counter[str] = dataclasses.field(default_factory=Counter)
    """Of these, how many were left out, by reason."""
    skipped: list[str] = dataclasses.field(default_factory=list)
    """Documents that could not be read and were passed over: for each the file, the place in it and the reason."""

    def skip(self, problem: InputError) -> None:
        """Passes over a document that cannot be read.

        Raises:
          InputError: if that is one too many.
        """
        self.skipped.append(str(problem))
        self.check_skipped()

    def check_skipped(self) -> None:
        """Raises `InputError` if more documents could not be read than may be passed over."""
        count = len(self.skipped)
        if count <= self.max_skipped:
            return
        if count == 1:
            raise InputError(
                f"{self.skipped[0]}; or have such documents passed over: max_skipped_documents says how many"
            )
        raise InputError(
            f"{count:,} documents cannot be read, max_skipped_documents allows {self.max_skipped:,}; the first: "
            f"{self.skipped[0]}; mend them or raise max_skipped_documents, and run the same command again"
        )

    def add(self, other: "ReadReport") -> None:
        """Adds what another task has read."""
        self.pages += other.pages
        self.articles += other.articles
        self.documents += other.documents
        self.dropped.update(other.dropped)
        self.skipped += other.skipped

    def to_json(self) -> dict[str, Any]:
        """Plain values, but for the limit, which belongs to the command and not to what was read."""
        return {key: value for key, value in vars(self).items() if key != "max_skipped"}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ReadReport":
        """What `to_json` has made."""
        return cls(**values | {"dropped": Counter(values["dropped"])})


def tell_skipped(skipped: Sequence[str]) -> str | None:
    """What to tell the user about documents that were passed over; None for none."""
    if not skipped:
        return None
    if len(skipped) == 1:
        return f"1 document that cannot be read was passed over: {skipped[0]}"
    return f"{len(skipped):,} documents that cannot be read were passed over, the first: {skipped[0]}"
