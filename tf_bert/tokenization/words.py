"""Words with their places in the text, and the word of every token, as TensorFlow operations.

Tasks that point into a text (answers, entities) need to know where a token comes from. The tokenizer folds case, drops
characters and strips accents before it cuts a text into words, so places are not kept there. But none of this makes or
removes a border between words, four characters aside; so the text as it is, cut at the same borders, has the same
words in the same order. Every TensorFlow Serving links the operations that are used here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from tf_bert.tokenization.sentencepiece import SentencePieceTokenizer
from tf_bert.tokenization.tokenizer import Tokenizer
from tf_bert.tokenization.wordpiece import ACCENTS, OTHER_WHITESPACE, REMOVED, WORD_DELIMITER

# The tokenizer has made spaces of white space, and has removed the form feed, which is in \s too, when it cuts.
_PUNCTUATION_OR_CJK = WORD_DELIMITER.removeprefix(r"\s|")
_WHITESPACE = f" |{OTHER_WHITESPACE}"
# Without their accents these are ` = < >, punctuation as all of ASCII that is no letter or digit.
_PUNCTUATION_WITH_ACCENT = r"|[\x{1FEF}\x{2260}\x{226E}\x{226F}]"
_LONGEST_TEXT = 1 << 40  # bytes; keeps the places of different texts apart


class Words(NamedTuple):
    """Words of a batch of texts.

    Args:
      words: string [batch, (words)], as they stand in the text, but for U+0001 in the place of U+0000.
      starts, ends: int64 [batch, (words)], the bytes of the text that each takes.
    """

    words: tf.RaggedTensor
    starts: tf.RaggedTensor
    ends: tf.RaggedTensor


class TokensOfWords(NamedTuple):
    """Tokens of a batch of texts.

    Args:
      ids: int32 [batch, (tokens)], equal to what `tokenizer.tokenize` gives.
      word_index: int64 [batch, (tokens)], which word of its text each belongs to; it never falls along a text.
      starts, ends: int64 [batch, (tokens)], the bytes of the text that this word takes.
    """

    ids: tf.RaggedTensor
    word_index: tf.RaggedTensor
    starts: tf.RaggedTensor
    ends: tf.RaggedTensor


def split_words(texts: tf.Tensor, strip_accents: bool) -> Words:
    """Cuts texts into words where WordPiece does: at white space, and around punctuation and CJK characters.

    A word that the tokenizer removes altogether, e.g. a lone zero-width joiner, is no word. The ids of the words, each
    tokenized by itself, are those of the text. (One letter apart: whether the lower case of a Greek capital sigma is
    a final one depends on letters beyond a full stop or an apostrophe. `tokenize_words` sees the whole text.)

    Args:
      texts: string [batch], UTF-8.
      strip_accents: as the tokenizer does, see `Tokenizer.strip_accents`.
    """
    words = _all_words(texts, strip_accents)
    removed = f"(?:{REMOVED}|{ACCENTS})*" if strip_accents else f"{REMOVED}*"
    is_visible = words.words.with_flat_values(~tf.strings.regex_full_match(words.words.flat_values, removed))
    return Words(*(tf.ragged.boolean_mask(part, is_visible) for part in words))


def tokenize_words(tokenizer: Tokenizer, texts: tf.Tensor) -> TokensOfWords:
    """Tokenizes texts and tells for every token where its word is.

    A SentencePiece piece may reach over several words; it then has the index and the start of the first and the end of
    the last one.

    Args:
      tokenizer: of either kind.
      texts: string [batch], UTF-8.
    """
    if isinstance(tokenizer, SentencePieceTokenizer):
        return _pieces_of_words(tokenizer, texts)
    words = split_words(texts, tokenizer.strip_accents)
    ids = tokenizer.tokenize(texts)
    continues = tf.constant(tokenizer.vocabulary.continues_word)
    begins = ids.with_flat_values(tf.cast(~tf.gather(continues, ids.flat_values), tf.int64))

    def counted() -> tf.Tensor:
        tokens = tokenizer.tokenize(words.words.flat_values)
        begins = tokens.with_flat_values(tf.cast(~tf.gather(continues, tokens.flat_values), tf.int64))
        return tf.reduce_sum(begins, axis=1)

    # The fast tokenizer knows some characters of Unicode 16 as punctuation, which regular expressions do not: there
    # one word begins several times.
    is_one_to_one = tf.reduce_all(tf.reduce_sum(begins, axis=1) == words.words.row_lengths())
    beginnings = tf.cond(is_one_to_one, lambda: tf.ones_like(words.starts.flat_values), counted)
    word_of_beginning = tf.repeat(tf.range(tf.size(beginnings, tf.int64)), beginnings)
    word = tf.gather(word_of_beginning, tf.cumsum(begins.flat_values) - 1)
    return _tokens_at(ids, words, word, word)


def characters_of(texts: Sequence[bytes], places: tf.RaggedTensor) -> np.ndarray:
    """Counts places in characters (code points), as Python does, where TensorFlow counts them in bytes.

    Args:
      texts: UTF-8, the batch that the places are in.
      places: int64 [batch, (...)]; none is inside of a character.

    Returns:
      int32, as `places.flat_values`.
    """
    # In UTF-8 every character has one byte that does not begin with the bits 10.
    begins = (np.frombuffer(b"".join(texts), np.uint8) & 0xC0) != 0x80
    before = np.concatenate([[0], np.cumsum(begins)])  # each byte of all texts
    offset = np.cumsum([0, *(len(text) for text in texts)])[places.value_rowids().numpy()]
    found: np.ndarray = (before[offset + places.flat_values.numpy()] - before[offset]).astype(np.int32)
    return found


def _all_words(texts: tf.Tensor, strip_accents: bool) -> Words:
    """As `split_words`, with words that the tokenizer removes."""
    texts = tf.strings.regex_replace(texts, r"\x00", "\x01")  # the split ends at the first; both are removed
    kept = _PUNCTUATION_OR_CJK + (_PUNCTUATION_WITH_ACCENT if strip_accents else "")
    return Words(*tf_text.regex_split_with_offsets(texts, f"{_WHITESPACE}|{kept}", kept))


def _pieces_of_words(tokenizer: SentencePieceTokenizer, texts: tf.Tensor) -> TokensOfWords:
    """As `tokenize_words`. The library keeps the places of pieces through its normalization."""
    ids, starts, ends = tokenizer.tokenize_with_offsets(texts)
    words = _all_words(texts, strip_accents=False)
    word_ends = words.ends.flat_values + words.ends.value_rowids() * _LONGEST_TEXT
    word_starts = words.starts.flat_values + words.starts.value_rowids() * _LONGEST_TEXT
    rows = ids.value_rowids() * _LONGEST_TEXT
    # A piece holds the space before its word. Of a character that became several, the first ones take no bytes.
    first = tf.searchsorted(word_ends, rows + tf.cast(starts.flat_values, tf.int64), side="right", out_type=tf.int64)
    last = tf.searchsorted(word_starts, rows + tf.cast(ends.flat_values, tf.int64), out_type=tf.int64) - 1
    return _tokens_at(ids, words, first, tf.maximum(first, last))


def _tokens_at(ids: tf.RaggedTensor, words: Words, first: tf.Tensor, last: tf.Tensor) -> TokensOfWords:
    """Tokens with the places of their words, which are numbered through the batch."""
    return TokensOfWords(
        ids,
        ids.with_flat_values(first - tf.gather(words.starts.row_starts(), ids.value_rowids())),
        ids.with_flat_values(tf.gather(words.starts.flat_values, first)),
        ids.with_flat_values(tf.gather(words.ends.flat_values, last)),
    )
