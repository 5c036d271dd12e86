"""BERT's tokenizer as TensorFlow operations, with the ids of the original algorithm on any text.

Reference: `tokenization.py` of google-research/bert. It cleans the text, lower-cases it and strips accents (uncased
vocabularies), splits off punctuation and CJK characters, and cuts each word greedily into the longest pieces that
the vocabulary knows. The library's tokenizers do the last two steps; their own lower-casing folds compatibility
characters, which the original does not, so the first steps are separate operations here.
"""

from collections.abc import Sequence

import tensorflow as tf
import tensorflow_text as tf_text

from tf_bert.tokenization.vocab import UNK, Vocabulary

MAX_CHARS_PER_WORD = 200
"""Longer words become one `[UNK]`."""

# The library counts a word's bytes. 200 characters have at most 800, and a word of more than the limit is unknown.
_MAX_BYTES_PER_WORD = 1000
_UNKNOWN_WORD = "x" * (_MAX_BYTES_PER_WORD + 1)

# Category Zs but for the plain space, which would be replaced by itself thousands of times; and line and paragraph
# separators, where Python's str.split, which ends the original's words, splits too.
OTHER_WHITESPACE = r"[\t\n\r\x{A0}\x{1680}\x{2000}-\x{200A}\x{202F}\x{205F}\x{3000}\p{Zl}\p{Zp}]"
REMOVED = r"[\p{Cc}\p{Cf}\x{FFFD}]"
ACCENTS = r"\p{Mn}"
_CJK = (
    r"\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}\x{2B820}-\x{2CEAF}"
    r"\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}"
)
WORD_DELIMITER = rf"\s|[!-/:-@\[-`{{-~\p{{P}}]|[{_CJK}]"
"""What ends a word: white space, every ASCII character that is no letter or digit, other punctuation, and CJK."""
_HAS_LONG_PIECE = rf"(?s).*[^ ]{{{MAX_CHARS_PER_WORD + 1}}}.*"


class WordPieceTokenizer:
    """Text to token ids, in eager code, in `tf.function` and in `tf.data`.

    Args:
      vocabulary: the tokens.
      lower_case: True for uncased vocabularies: text is lower-cased.
      portable: use only operations that every TensorFlow Serving has; slower.
      strip_accents: whether accents go; None: where text is lower-cased, as in the original.
    """

    def __init__(
        self, vocabulary: Vocabulary, lower_case: bool, portable: bool = False, strip_accents: bool | None = None
    ) -> None:
        self.vocabulary = vocabulary
        self.lower_case = lower_case
        self.strip_accents = lower_case if strip_accents is None else strip_accents
        self._portable = portable
        if portable:
            tokens = tf.constant(vocabulary.tokens)
            ids = tf.range(len(vocabulary), dtype=tf.int64)
            table = tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(tokens, ids), default_value=vocabulary.unk_id
            )
            self._tokenizer = tf_text.BertTokenizer(
                table, max_bytes_per_word=_MAX_BYTES_PER_WORD, token_out_type=tf.int64, unknown_token=UNK
            )
        else:
            self._tokenizer = tf_text.FastBertTokenizer(
                list(vocabulary.tokens),
                max_bytes_per_word=_MAX_BYTES_PER_WORD,
                token_out_type=tf.int32,
                unknown_token=UNK,
            )

    def tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Token ids of every text, without `[CLS]` and `[SEP]`.

        Args:
          text: string [batch], UTF-8 (a portable tokenizer leaves out bytes that are not). Special-token strings in it
            are plain text.

        Returns:
          int32 [batch, (tokens)].
        """
        if self._portable:  # what a server is sent may be anything; a corpus has been read as UTF-8 before
            text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="ignore")
        words = _without_long_words(normalize(text, self.lower_case, self.strip_accents))
        return tf.cast(_two_dimensional(self._tokenizer.tokenize(words)), tf.int32)

    def to_text(self, ids: Sequence[int]) -> str:
        """Joins tokens for people to read: `em ##bed` becomes `embed`."""
        return " ".join(self.vocabulary.tokens[token] for token in ids).replace(" ##", "")


def normalize(text: tf.Tensor, lower_case: bool, strip_accents: bool) -> tf.Tensor:
    """Texts, string [batch], before they are cut into words: cleaned; lower-cased and without accents if asked for."""
    text = tf.strings.regex_replace(text, OTHER_WHITESPACE, " ")
    text = tf.strings.regex_replace(text, REMOVED, "")
    if lower_case:
        text = tf.strings.lower(text, encoding="utf-8")
    if strip_accents:
        text = tf.strings.regex_replace(tf_text.normalize_utf8(text, "NFD"), ACCENTS, "")
    return text


def _without_long_words(text: tf.Tensor) -> tf.Tensor:
    """Puts a word that is unknown in the place of each that has more than `MAX_CHARS_PER_WORD` characters."""
    # Few texts go that far without a space: the costly split sees those alone.
    rows = tf.where(tf.strings.regex_full_match(text, _HAS_LONG_PIECE))

    def replace() -> tf.Tensor:
        words = tf_text.regex_split(tf.gather(text, rows[:, 0]), WORD_DELIMITER, keep_delim_regex_pattern=".|\n")
        is_long = tf.strings.length(words.flat_values, unit="UTF8_CHAR") > MAX_CHARS_PER_WORD
        words = words.with_flat_values(tf.where(is_long, _UNKNOWN_WORD, words.flat_values))
        return tf.tensor_scatter_nd_update(text, rows, tf.strings.reduce_join(words, axis=1))

    return tf.cond(tf.size(rows) > 0, replace, lambda: text)


def _two_dimensional(ids: tf.RaggedTensor) -> tf.RaggedTensor:
    """Takes out the word axis that the portable tokenizer has."""
    return ids.merge_dims(1, 2) if ids.ragged_rank == 2 else ids
