"""How vocabularies fit a corpus: tokens per word, [UNK] rate, split words, and the words that are broken worst.

A word is what BERT's basic tokenization leaves: the text normalized as the vocabulary wants it and cut at white space,
around punctuation and around CJK characters. Different words are counted first and cut into pieces once each.
"""

import dataclasses
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_bert.config import VocabReportConfig
from tf_bert.errors import InputError, UsageError
from tf_bert.tokenization.tokenizer import Tokenizer, load_vocabulary, make_tokenizer
from tf_bert.tokenization.wordpiece import WORD_DELIMITER, normalize

MAX_DIFFERENT_WORDS = 1_000_000
"""So many different words are kept; then the rarer half goes into the sums, which stay exact, and is forgotten."""

_TEXT_BATCH_BYTES = 1 << 18
_WORD_BATCH = 1 << 14


@dataclasses.dataclass(frozen=True)
class Fit:
    """What one vocabulary makes of the corpus. Counts are of running words and tokens, not of different ones."""

    name: str
    """Where the vocabulary comes from."""
    lower_case: bool
    """True: uncased."""
    size: int
    """Tokens in the vocabulary."""
    used: int
    """Tokens of the vocabulary that occur in the corpus."""
    capitals: int
    """Tokens with capital letters, those in brackets aside: a cased vocabulary has many, an uncased one none."""
    words: int
    tokens: int
    unknown: int
    """Words that become `[UNK]`."""
    split: int
    """Words of more than one piece."""

    @property
    def tokens_per_word(self) -> float:
        """1.0 when every word is a token of its own."""
        return self.tokens / self.words

    @property
    def unknown_share(self) -> float:
        """The [UNK] rate: share of words that become `[UNK]`."""
        return self.unknown / self.words

    @property
    def split_share(self) -> float:
        """Share of words of more than one piece."""
        return self.split / self.words

    @property
    def used_share(self) -> float:
        """Share of the vocabulary that occurs in the corpus."""
        return self.used / self.size


@dataclasses.dataclass(frozen=True)
class BrokenWord:
    """A word that a vocabulary breaks."""

    word: str
    count: int
    pieces: tuple[tuple[str, ...], ...]
    """Its pieces in every vocabulary of the report."""


@dataclasses.dataclass(frozen=True)
class VocabReport:
    """One or two vocabularies over the same texts."""

    fits: tuple[Fit, ...]
    broken: tuple[tuple[BrokenWord, ...], ...]
    """For every vocabulary the words that it breaks worst, the worst first."""


def load_tokenizers(config: VocabReportConfig) -> list[Tokenizer]:
    """The one or two vocabularies that `config` names.

    Raises:
      InputError: if a file is missing or is not a vocabulary.
      UsageError: if both are the same vocabulary.
    """
    tokenizers = [make_tokenizer(load_vocabulary(Path(config.vocab)), config.lower_case)]
    if config.other_vocab is not None:
        other = load_vocabulary(Path(config.other_vocab))
        if other.tokens == tokenizers[0].vocabulary.tokens:
            raise UsageError(
                f"vocab {config.vocab} and other_vocab {config.other_vocab} are the same {len(other):,} tokens; "
                "expected two vocabularies to compare: name another one, or leave other_vocab out"
            )
        tokenizers.append(make_tokenizer(other, config.other_lower_case))
    return tokenizers


def report_on(
    texts: Iterable[str],
    tokenizers: Sequence[Tokenizer],
    num_broken: int,
    max_different_words: int = MAX_DIFFERENT_WORDS,
) -> VocabReport:
    """Counts what the vocabularies make of the texts, read once, in bounded memory.

    Words are listed with their case, unless all vocabularies are uncased.

    Args:
      texts: the corpus.
      tokenizers: the vocabularies with their cases.
      num_broken: list at most this many words for each vocabulary.
      max_different_words: as `MAX_DIFFERENT_WORDS`; past it, the counts of listed words may fall short a little.

    Raises:
      InputError: if there is not one word in the texts.
    """
    tallies = [_Tally(tokenizer) for tokenizer in tokenizers]
    counters = {
        folding: _WordCounter(folding, [tally for tally in tallies if tally.folding == folding], max_different_words)
        for folding in {tally.folding for tally in tallies}
    }
    for batch in _batches(texts):
        for counter in counters.values():
            counter.add(batch)
    for counter in counters.values():
        counter.fold(counter.counts.items())
    if not all(tally.words for tally in tallies):
        raise InputError("the corpus holds no words, only white space and control characters; check input and format")
    listed = counters[min(counters)].counts  # False comes first: the words as they are written, where one counts these
    return VocabReport(
        tuple(tally.fit() for tally in tallies),
        tuple(_broken_worst(listed, tokenizer, tokenizers, num_broken) for tokenizer in tokenizers),
    )


class _Tally:
    """Sums of one vocabulary."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.folding = (tokenizer.lower_case, tokenizer.strip_accents)
        self.words = self.tokens = self.unknown = self.split = 0
        self._used = np.zeros(len(tokenizer.vocabulary), bool)

    def add(self, words: list[bytes], counts: np.ndarray) -> None:
        """Adds words, int64 `counts` of each."""
        ids, lengths, unknown = _cut(self._tokenizer, words)
        self.words += int(counts.sum())
        self.tokens += int(lengths @ counts)
        self.unknown += int(counts[unknown].sum())
        self.split += int(counts[lengths > 1].sum())
        self._used[ids] = True

    def fit(self) -> Fit:
        vocabulary = self._tokenizer.vocabulary
        return Fit(
            name=vocabulary.source,
            lower_case=self._tokenizer.lower_case,
            size=len(vocabulary),
            used=int(self._used.sum()),
            capitals=sum(token != token.lower() and not token.startswith("[") for token in vocabulary.tokens),
            words=self.words,
            tokens=self.tokens,
            unknown=self.unknown,
            split=self.split,
        )


class _WordCounter:
    """Counts the different words of texts, lower-cased and without accents or not."""

    def __init__(self, folding: tuple[bool, bool], tallies: list[_Tally], max_different: int) -> None:
        self.counts: Counter[bytes] = Counter()
        self._spaced = _word_spacer(*folding)
        self._tallies = tallies
        self._max_different = max_different

    def add(self, texts: list[str]) -> None:
        for text in self._spaced(tf.constant(texts, tf.string)).numpy():
            self.counts.update(text.split())
        if len(self.counts) > self._max_different:
            ranked = self.counts.most_common()
            kept = len(ranked) // 2
            self.fold(ranked[kept:])
            self.counts = Counter(dict(ranked[:kept]))

    def fold(self, counted: Iterable[tuple[bytes, int]]) -> None:
        """Adds words with their counts to the sums."""
        for words, counts in _word_batches(counted):
            for tally in self._tallies:
                tally.add(words, counts)


def _word_spacer(lower_case: bool, strip_accents: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    """Texts, string [batch], to normalized texts with a space on both sides of whatever ends a word."""
    return tf.function(
        lambda texts: tf.strings.regex_replace(normalize(texts, lower_case, strip_accents), WORD_DELIMITER, r" \0 "),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )


def _cut(tokenizer: Tokenizer, words: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids of all words in a row; the number of each word's tokens; for each word whether it is unknown."""
    tokens = tokenizer.tokenize(tf.constant(words, tf.string))
    ids = tokens.flat_values.numpy()
    unknown = np.zeros(len(words), bool)
    unknown[tokens.value_rowids().numpy()[ids == tokenizer.vocabulary.unk_id]] = True
    return ids, np.array(tokens.row_lengths()), unknown


def _broken_worst(
    counted: Counter[bytes], breaking: Tokenizer, tokenizers: Sequence[Tokenizer], num: int
) -> tuple[BrokenWord, ...]:
    """The words that `breaking` breaks worst: by count times pieces, where an unknown word's characters are pieces."""
    worst: list[tuple[int, bytes, int]] = []
    for words, counts in _word_batches(counted.items()):
        _, pieces, unknown = _cut(breaking, words)
        pieces[unknown] = [len(words[row].decode()) for row in np.flatnonzero(unknown)]
        costs = counts * pieces
        found = [(-int(costs[row]), words[row], int(counts[row])) for row in np.flatnonzero((pieces > 1) | unknown)]
        worst = heapq.nsmallest(num, [*worst, *found])
    chosen = [word for _, word, _ in worst]
    cuts = [_pieces(tokenizer, chosen) for tokenizer in tokenizers]
    return tuple(
        BrokenWord(word.decode(), count, tuple(pieces)) for (_, word, count), *pieces in zip(worst, *cuts, strict=True)
    )


def _pieces(tokenizer: Tokenizer, words: list[bytes]) -> list[tuple[str, ...]]:
    tokens = tokenizer.vocabulary.tokens
    rows = tokenizer.tokenize(tf.constant(words, tf.string)).to_list()
    return [tuple(tokens[token] for token in row) for row in rows]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _TEXT_BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _word_batches(counted: Iterable[tuple[bytes, int]]) -> Iterator[tuple[list[bytes], np.ndarray]]:
    pairs = iter(counted)
    while batch := list(itertools.islice(pairs, _WORD_BATCH)):
        words, counts = zip(*batch, strict=True)
        yield list(words), np.array(counts, np.int64)
