"""Sentences whose words are tagged as parts of entities: files in columns as at CoNLL, raw text, entities found.

The format: Tjong Kim Sang and De Meulder 2003, https://arxiv.org/abs/cs/0306050. Places in texts are counted in
characters (code points).
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from tf_bert.errors import InputError
from tf_bert.finetuning.ner_tags import OUTSIDE, Tagged, tag_spans, to_iob2
from tf_bert.finetuning.tables import quoted, read_lines
from tf_bert.tokenization.words import characters_of, split_words

_BETWEEN_DOCUMENTS = "-DOCSTART-"


@dataclass(frozen=True)
class Sentence:
    """Words, and their tags where they are known."""

    text: str
    """The sentence as it was, or its words with spaces between them."""
    words: tuple[str, ...]
    starts: tuple[int, ...]
    """The first character of every word in the text."""
    tags: tuple[str, ...] = ()
    """IOB2, one a word; empty: not known."""
    places: tuple[str, ...] = ()
    """File and line of every word, for messages."""


@dataclass(frozen=True)
class NerData:
    """What a file holds."""

    sentences: tuple[Sentence, ...]
    """At least one."""
    scheme: str
    """How the file's tags were written; see `to_iob2`."""
    notes: tuple[str, ...]
    """Says so if that is not IOB2."""


class Entity(NamedTuple):
    """An entity that was found."""

    type: str
    first_word: int
    last_word: int
    text: str
    """From the beginning of the first word to the end of the last one."""
    start: int
    """Its first character in the sentence's text."""
    end: int
    """The character after it."""


def read_ner(path: str | Path, tag_column: str | None = None) -> NerData:
    """Reads a file of one word a line, in columns with blanks or tabs between, and an empty line between sentences.

    The first column is the word. -DOCSTART- lines are passed over. Where there is a tab in a line, only tabs separate
    its columns. Tags become IOB2.

    Args:
      path: UTF-8 text, with a byte order mark or not, and line ends of any kind.
      tag_column: the name of the tags' column, which the first line has among the names of all; None: the last
        column, and there is no line of names.

    Raises:
      InputError: if the file cannot be read or holds no sentence, a line has too few or too many columns, or tags are
        not as `to_iob2` expects them.
    """
    try:
        stream = open(path, "rb")  # noqa: SIM115 - the next line closes it
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; expected a file with a word and its tag a line"
        ) from error
    with stream:
        rows = list(_rows(read_lines(stream, str(path)), str(path), tag_column))
    grouped = itertools.groupby(rows, key=lambda row: row is not None)
    sentences = [[row for row in group if row is not None] for is_sentence, group in grouped if is_sentence]
    if not sentences:
        raise InputError(
            f"{path}: holds no sentence, expected lines of a word and its tag, and an empty line between sentences"
        )
    tags, scheme = to_iob2([Tagged([row.tag for row in rows], [row.place for row in rows]) for rows in sentences])
    notes = () if scheme == "IOB2" else (f"{path}: the tags are {scheme}; they are read as IOB2",)
    found = (
        _sentence([row.word for row in rows], tuple(tags_of_sentence), tuple(row.place for row in rows))
        for rows, tags_of_sentence in zip(sentences, tags, strict=True)
    )
    return NerData(tuple(found), scheme, notes)


def sentences_of(texts: Sequence[str], strip_accents: bool) -> list[Sentence]:
    """Cuts texts into words, each text one sentence; one without a word is a sentence without words.

    Args:
      texts: any text.
      strip_accents: as the tokenizer does, see `split_words`.
    """
    encoded = [text.encode() for text in texts]
    words = split_words(tf.constant(encoded, tf.string), strip_accents)
    starts, ends = (characters_of(encoded, part).tolist() for part in (words.starts, words.ends))
    sentences = []
    for text, (begin, end) in zip(texts, itertools.pairwise(words.starts.row_splits.numpy()), strict=True):
        found = tuple(text[a:b] for a, b in zip(starts[begin:end], ends[begin:end], strict=True))
        sentences.append(Sentence(text, found, tuple(starts[begin:end])))
    return sentences


def labels_of(sentences: Iterable[Sentence]) -> tuple[str, ...]:
    """The tags that a training file has: O, which is label 0, and the others sorted.

    Raises:
      InputError: if there is no other.
    """
    tags = {tag for sentence in sentences for tag in sentence.tags} - {OUTSIDE}
    if not tags:
        place = next((f"{place}: " for sentence in sentences for place in sentence.places), "")
        raise InputError(
            f"{place}from here on every tag is O, expected entities to learn from; is it the right column?"
        )
    return (OUTSIDE, *sorted(tags))


def find_entities(sentence: Sentence, tags: Sequence[str]) -> list[Entity]:
    """The entities that tags of the sentence's words make; invalid tags are read as `ner_tags.repair` makes them."""
    found = []
    for kind, first, last in tag_spans(tags):
        start, end = sentence.starts[first], sentence.starts[last] + len(sentence.words[last])
        found.append(Entity(kind, first, last, sentence.text[start:end], start, end))
    return found


# --- lines -----------------------------------------------------------------------------------------------------------


class _Row(NamedTuple):
    """One word of a file."""

    word: str
    tag: str
    place: str


def _rows(lines: Iterator[tuple[int, str]], name: str, tag_column: str | None) -> Iterator[_Row | None]:
    """The words of a file, None between sentences."""
    tag_index, columns, first = -1, 0, 0
    for number, line in lines:
        fields, place = _fields(line), f"{name}: line {number}"
        if not fields or fields[0] == _BETWEEN_DOCUMENTS:
            yield None
            continue
        if not columns:
            columns, first = len(fields), number
            if columns < 2:
                raise InputError(f"{place}: found 1 column, expected a word and its tag with a blank or a tab between")
            if tag_column is not None:
                if tag_column not in fields:
                    raise InputError(
                        f"{place}: has no column {tag_column!r}; found {quoted(fields)}; name one of these columns"
                    )
                tag_index = fields.index(tag_column)
                continue
        if len(fields) != columns:
            raise InputError(
                f"{place}: found {len(fields)} columns, expected {columns} as in line {first}; mend the line"
            )
        if not fields[0]:
            raise InputError(f"{place}: the first column is empty, expected a word; mend the line or remove it")
        yield _Row(fields[0], fields[tag_index], place)


def _fields(line: str) -> list[str]:
    """The columns of a line; none if it is blank."""
    if line.isspace():
        return []
    return [field.strip(" ") for field in line.split("\t")] if "\t" in line else [f for f in line.split(" ") if f]


def _sentence(words: list[str], tags: tuple[str, ...], places: tuple[str, ...]) -> Sentence:
    starts = itertools.accumulate((len(word) + 1 for word in words[:-1]), initial=0)
    return Sentence(" ".join(words), tuple(words), tuple(starts), tags, places)
