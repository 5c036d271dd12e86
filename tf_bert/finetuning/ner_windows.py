"""Sentences as windows `[CLS] words [SEP]` with a label on the first token of each word, and the way back to tags.

Devlin et al. 2018, section 5.3: every word is tokenized by itself, and its first token stands for it. Sentences that do
not fit are cut between words, so that every word is in one window.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_bert.errors import Diverged, InputError, UsageError
from tf_bert.finetuning.ner import Sentence
from tf_bert.finetuning.ner_tags import OUTSIDE, repair
from tf_bert.finetuning.tables import quoted
from tf_bert.tokenization.tokenizer import Tokenizer

_WORDS_AT_ONCE = 8192
_SPECIAL_TOKENS = 2
_MOST_CHARACTERS = 20  # of a word in a note


@dataclass(frozen=True, eq=False)
class NerWindow:
    """One window, without padding."""

    sentence_index: int
    """Which of the sentences it belongs to."""
    first_word: int
    """Which of the sentence's words is its first."""
    input_ids: np.ndarray
    """int32 [tokens]."""
    word_positions: np.ndarray
    """int32 [words]: position of the first token of each of its words."""
    label_ids: np.ndarray
    """int32 [tokens]: the label of each word at its first token, 0 elsewhere and where labels are not known."""

    @property
    def label_weights(self) -> np.ndarray:
        """float32 [tokens]: 1 at the first token of each word."""
        weights = np.zeros(len(self.input_ids), np.float32)
        weights[self.word_positions] = 1.0
        return weights


class NerWindows(NamedTuple):
    """The windows of all sentences, in their order, and lines on what did not fit into them."""

    windows: list[NerWindow]
    notes: tuple[str, ...]


def make_ner_windows(
    sentences: Sequence[Sentence], tokenizer: Tokenizer, max_seq_length: int, labels: Sequence[str] = ()
) -> NerWindows:
    """Makes windows. A word with more tokens than a window has keeps the first ones.

    Args:
      sentences: what to cut.
      tokenizer: of either kind.
      max_seq_length: tokens in a window, special tokens included.
      labels: label 0 first, to give sentences' tags as label ids; empty: tags are not read.

    Raises:
      UsageError: if there is no room for a word.
      InputError: if a sentence has a tag that is not among the labels.
    """
    room = max_seq_length - _SPECIAL_TOKENS
    if room < 1:
        raise UsageError(f"max_seq_length: found {max_seq_length}, expected {_SPECIAL_TOKENS + 1} or more")
    tokens_of = _tokenized(sentences, tokenizer)
    cls, sep = [tokenizer.vocabulary.cls_id], [tokenizer.vocabulary.sep_id]
    windows: list[NerWindow] = []
    too_long: list[tuple[int, int]] = []
    for index, sentence in enumerate(sentences):
        pieces = [tokens_of[word][:room] for word in sentence.words]
        too_long += [(index, i) for i, word in enumerate(sentence.words) if len(tokens_of[word]) > room]
        ids = np.array(_label_ids(sentence, labels) if labels else [0] * len(pieces), np.int32)
        for words in _fitting([len(piece) for piece in pieces], room):
            input_ids = np.concatenate([cls, *pieces[words], sep]).astype(np.int32)
            positions = 1 + np.cumsum([0, *(len(piece) for piece in pieces[words][:-1])], dtype=np.int32)
            label_ids = np.zeros(len(input_ids), np.int32)
            label_ids[positions] = ids[words]
            windows.append(NerWindow(index, words.start, input_ids, positions, label_ids))
    return NerWindows(windows, tuple(_notes(sentences, windows, too_long, room)))


def word_tags(
    sentences: Sequence[Sentence], windows: Sequence[NerWindow], logits: Sequence[np.ndarray], labels: Sequence[str]
) -> list[list[str]]:
    """The predicted tag of every word of every sentence, made valid as `ner_tags.repair` does.

    Args:
      sentences: as for `make_ner_windows`.
      windows: as it gave them, in any order.
      logits: for every window float [tokens or more, labels]; what is beyond its tokens is padding.
      labels: label 0 first.

    Raises:
      Diverged: if a logit is not finite.
    """
    tags = [[OUTSIDE] * len(sentence.words) for sentence in sentences]
    for window, values in zip(windows, logits, strict=True):
        of_words = np.asarray(values)[window.word_positions]
        if not np.isfinite(of_words).all():
            raise Diverged(
                f"{_place(sentences, window.sentence_index, window.first_word)}: a logit of this sentence is not "
                "finite, expected numbers; the training has diverged: lower the learning rate"
            )
        for word, label in enumerate(of_words.argmax(axis=-1), window.first_word):
            tags[window.sentence_index][word] = labels[label]
    return [repair(tags_of_sentence) for tags_of_sentence in tags]


def _fitting(lengths: Sequence[int], room: int) -> Iterator[slice]:
    """Runs of words, as many in each as there is room for."""
    begin = used = 0
    for word, length in enumerate(lengths):
        if used + length > room:
            yield slice(begin, word)
            begin, used = word, 0
        used += length
    if begin < len(lengths):
        yield slice(begin, len(lengths))


def _label_ids(sentence: Sentence, labels: Sequence[str]) -> list[int]:
    ids = {label: number for number, label in enumerate(labels)}
    for tag, place in zip(sentence.tags, sentence.places, strict=True):
        if tag not in ids:
            raise InputError(
                f"{place}: found the tag {tag!r}, which the training file does not have; expected one of "
                f"{quoted(labels)}; mend the tag, or add such words to the training file"
            )
    return [ids[tag] for tag in sentence.tags]


def _tokenized(sentences: Sequence[Sentence], tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    """Token ids of every word, int32 [tokens]; `[UNK]` for one that has none, as it has to be told a label."""
    words = list({word: None for sentence in sentences for word in sentence.words})
    nothing = np.array([tokenizer.vocabulary.unk_id], np.int32)
    found: dict[str, np.ndarray] = {}
    for begin in range(0, len(words), _WORDS_AT_ONCE):
        some = words[begin : begin + _WORDS_AT_ONCE]
        ids = tokenizer.tokenize(tf.constant(some, tf.string))
        splits = ids.row_splits.numpy()[1:-1]
        for word, tokens in zip(some, np.split(ids.flat_values.numpy(), splits), strict=True):
            found[word] = tokens if len(tokens) else nothing
    return found


def _notes(
    sentences: Sequence[Sentence], windows: Sequence[NerWindow], too_long: Sequence[tuple[int, int]], room: int
) -> Iterator[str]:
    if continued := [window for window in windows if window.first_word]:
        first = continued[0]
        yield (
            f"{_place(sentences, first.sentence_index, first.first_word)}: a sentence has more tokens than the {room} "
            f"of a window and is cut here; such cuts: {len(continued):,}"
        )
    if too_long:
        index, word = too_long[0]
        name = sentences[index].words[word]
        shown = repr(name) if len(name) <= _MOST_CHARACTERS else f"{name[:_MOST_CHARACTERS]!r}..."
        yield (
            f"{_place(sentences, index, word)}: the word {shown} has more tokens than the {room} of a window and keeps "
            f"the first ones; such words: {len(too_long):,}"
        )


def _place(sentences: Sequence[Sentence], index: int, word: int) -> str:
    places = sentences[index].places
    return places[word] if places else f"sentence {index + 1}"
