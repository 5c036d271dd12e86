"""`manifest.json` of a data directory: written last, so that a directory that has one is complete."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic
from pydantic.dataclasses import dataclass

from tf_bert.errors import InputError
from tf_bert.files import read_json, write_json

MANIFEST_FILE = "manifest.json"
FORMAT = "tf_bert pretraining data 5"  # its number changes whenever equal inputs would give other bytes
TRAIN, VALIDATION = SPLITS = ("train", "validation")
LENGTH_BINS = 20

_STRICT = pydantic.ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class Shard:
    """One TFRecord file."""

    name: str
    """File name inside the data directory."""
    records: int
    """Rows."""
    bytes: int
    """Size of the file."""
    crc32: str
    """Of the file, eight hexadecimal digits."""


@dataclass(frozen=True, config=_STRICT)
class Counts:
    """How much there is at each stage."""

    documents: int = 0
    """Documents with at least one token."""
    sentences: int = 0
    """Sentences with at least one token."""
    tokens: int = 0
    """WordPiece tokens of the documents."""
    examples: int = 0
    """`[CLS] A [SEP] B [SEP]`, or `[CLS] A [SEP]` without next-sentence pairs; every pass over the text counts."""
    random_next: int = 0
    """Examples whose B is random."""
    rows: int = 0
    """Rows of up to max_seq_length tokens."""
    row_tokens: int = 0
    """Tokens in rows, special ones included, padding not."""

    def __add__(self, other: "Counts") -> "Counts":
        mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
        return Counts(*(a + b for a, b in zip(mine, others, strict=True)))


@dataclass(frozen=True, config=_STRICT)
class Lengths:
    """How long examples and rows are: how many there are in each of `LENGTH_BINS` equal bins up to max_seq_length."""

    examples: list[int]
    """Examples by their tokens, special ones included."""
    rows: list[int]
    """Rows by their tokens, padding not included."""

    @classmethod
    def of(cls, examples: np.ndarray, rows: np.ndarray, max_seq_length: int) -> "Lengths":
        """Counts integers [n] from 1 to max_seq_length; the last bin holds those of max_seq_length."""

        def count(lengths: np.ndarray) -> list[int]:
            counts: list[int] = np.bincount(
                (lengths - 1) * LENGTH_BINS // max_seq_length, minlength=LENGTH_BINS
            ).tolist()
            return counts

        return cls(count(examples), count(rows))

    @classmethod
    def total(cls, parts: Iterable["Lengths"]) -> "Lengths":
        """Sums of several; zeros for none."""
        parts = list(parts)
        zeros = [[0] * LENGTH_BINS]
        return cls(
            [sum(counts) for counts in zip(*zeros, *(part.examples for part in parts), strict=True)],
            [sum(counts) for counts in zip(*zeros, *(part.rows for part in parts), strict=True)],
        )


@dataclass(frozen=True, config=_STRICT)
class Split:
    """The training or the validation rows."""

    shards: list[Shard]
    """Those that hold rows, in order."""
    counts: Counts
    """Sums over the shards."""
    lengths: Lengths
    """Sums over the shards."""
    fill: float
    """Share of the rows' positions that hold a token."""

    @property
    def records(self) -> int:
        """Rows in all shards."""
        return sum(shard.records for shard in self.shards)


@dataclass(frozen=True, config=_STRICT)
class VocabularyFacts:
    """The vocabulary, which lies beside the manifest."""

    size: int
    """Tokens."""
    sha256: str
    """Of the file's canonical bytes."""
    lower_case: bool
    """Whether text was lower-cased and stripped of accents."""


@dataclass(frozen=True, config=_STRICT)
class Source:
    """One input file."""

    path: str
    """As it was found when the data was built."""
    bytes: int
    """Size of the file, compressed where it is."""
    sha256: str
    """Of the file."""


@dataclass(frozen=True, config=_STRICT)
class Manifest:
    """What a data directory holds and where it comes from."""

    format: str
    """`FORMAT`."""
    max_seq_length: int
    """Tokens in a row at most."""
    row_format: Literal["packed", "original"]
    """Which of the two kinds of rows: `schema.ROW_FEATURES` or `original.ORIGINAL_FEATURES`."""
    max_examples_per_row: int
    """Examples in a row at most; 1 in original rows."""
    max_predictions_per_seq: int | None
    """Masked tokens in an original row at most. None for packed rows, which are masked when loaded."""
    next_sentence: bool
    """Whether examples have a next-sentence label."""
    seed: int
    """Of the build."""
    vocabulary: VocabularyFacts
    """The vocabulary."""
    validation_unigram_loss: float | None
    """Cross-entropy in nats of the validation tokens, [CLS] and [SEP] not counted, under the frequencies of the
    training tokens, each counted once more than seen. None where nothing is held out."""
    splits: dict[str, Split]
    """`train` and `validation`."""
    pages: int
    """Pages of dumps that were read."""
    articles: int
    """Pages of namespace 0 that are no redirects."""
    skipped: list[str]
    """Documents that could not be read and were passed over: for each the file, the place in it and the reason."""
    documents: int
    """Documents that were read, so articles and other texts that are not empty. They are those of the splits and
    those that were dropped."""
    dropped: dict[str, int]
    """Documents that were left out, by reason."""
    config: dict[str, Any]
    """All settings of the build but those that say where files are."""
    sources: list[Source]
    """The input files."""
    versions: dict[str, str]
    """Of Python and of the packages that had a part in the build, by name."""
    excluded: list[Source]
    """The files of `quality.exclude`."""


def write_manifest(data_dir: Path, manifest: Manifest) -> None:
    """Writes the manifest atomically.

    Raises:
      InputError: if the operating system refuses to write.
    """
    write_json(data_dir / MANIFEST_FILE, dataclasses.asdict(manifest))


def read_manifest(data_dir: Path) -> Manifest:
    """Reads and checks the manifest of a data directory.

    Raises:
      InputError: if there is none, or it is not a manifest of this version.
    """
    path = data_dir / MANIFEST_FILE
    if not path.exists():
        raise InputError(
            f"{path}: not found, expected the manifest that `tf-bert prepare` writes last; name its output_dir, or "
            "run the command again to finish an interrupted build"
        )
    values = read_json(path)
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise InputError(
            f"{path}: format is {json.dumps(found)}, expected {json.dumps(FORMAT)}; "
            "name a data directory that this version of `tf-bert prepare` wrote"
        )
    try:
        manifest = pydantic.TypeAdapter(Manifest).validate_python(values)
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise InputError(f"{path}: {key}: {problem['msg']}; restore the file or prepare the data anew") from None
    if missing := set(SPLITS) - manifest.splits.keys():
        raise InputError(f"{path}: splits has no '{min(missing)}'; restore the file or prepare the data anew")
    return manifest
