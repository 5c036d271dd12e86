"""Tokenizers of either kind: what they have in common, and how a file or a directory says which one it holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import tensorflow as tf

from tf_bert.errors import InputError
from tf_bert.files import read_json, write_json
from tf_bert.tokenization.sentencepiece import SUFFIX, SentencePieceTokenizer, SentencePieceVocabulary
from tf_bert.tokenization.vocab import Vocabulary
from tf_bert.tokenization.wordpiece import WordPieceTokenizer

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
_NAMES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")


class Tokenizer(Protocol):
    """Text to token ids, in eager code, in `tf.function` and in `tf.data`."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens."""

    @property
    def lower_case(self) -> bool:
        """Whether text is lower-cased."""

    @property
    def strip_accents(self) -> bool:
        """Whether accents go."""

    def tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Token ids of every text, without `[CLS]` and `[SEP]`.

        Args:
          text: string [batch], UTF-8. Special-token strings in it are plain text.

        Returns:
          int32 [batch, (tokens)].
        """

    def to_text(self, ids: Sequence[int]) -> str:
        """Joins tokens for people to read."""


def load_vocabulary(path: Path) -> Vocabulary:
    """Reads a vocabulary file: a SentencePiece model if its name ends with .model, otherwise WordPiece.

    Raises:
      InputError: if it is missing, damaged or not a vocabulary.
    """
    return SentencePieceVocabulary.load(path) if path.suffix == SUFFIX else Vocabulary.load(path)


def make_tokenizer(vocabulary: Vocabulary, lower_case: bool, portable: bool = False) -> Tokenizer:
    """The tokenizer of a vocabulary.

    Args:
      vocabulary: of either kind.
      lower_case: for WordPiece; a SentencePiece model holds its own case.
      portable: use only operations that every TensorFlow Serving has; slower for WordPiece.
    """
    if isinstance(vocabulary, SentencePieceVocabulary):
        return SentencePieceTokenizer(vocabulary)
    return WordPieceTokenizer(vocabulary, lower_case, portable)


def save_tokenizer(directory: Path, vocabulary: Vocabulary, lower_case: bool) -> None:
    """Writes the vocabulary (`vocab.txt` or `spiece.model`) and `tokenizer_config.json`, with Hugging Face's names.

    Raises:
      InputError: if the operating system refuses to write.
    """
    vocabulary.save(directory / vocabulary.file_name)
    ids = (vocabulary.pad_id, vocabulary.unk_id, vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id)
    settings: dict[str, object] = {"tokenizer_class": "BertTokenizer"}
    if isinstance(vocabulary, SentencePieceVocabulary):
        # Of the SentencePiece tokenizers there, Albert's is the one that puts [CLS] and [SEP] around segments.
        settings = {"tokenizer_class": "AlbertTokenizer", "keep_accents": True}
    settings["do_lower_case"] = vocabulary.lower_case_or(lower_case)
    settings |= {name: vocabulary.tokens[i] for name, i in zip(_NAMES, ids, strict=True)}
    write_json(directory / TOKENIZER_CONFIG_FILE, settings)


def directory_vocabulary(directory: Path) -> Vocabulary:
    """The vocabulary of a data directory or a model directory.

    Raises:
      InputError: if it is missing or damaged.
    """
    path = directory / SentencePieceVocabulary.file_name
    return load_vocabulary(path if path.exists() else directory / Vocabulary.file_name)


def load_tokenizer(directory: Path, portable: bool = False) -> Tokenizer:
    """Opens the tokenizer of a data directory or a model directory.

    Raises:
      InputError: if a file is missing or damaged, or asks for what this tokenizer does not do.
    """
    path = directory / TOKENIZER_CONFIG_FILE
    settings = read_json(path)
    lower_case = settings.get("do_lower_case") if isinstance(settings, dict) else None
    if not isinstance(lower_case, bool):
        raise InputError(f"{path}: do_lower_case is {lower_case!r}, expected true or false; add it")
    vocabulary = directory_vocabulary(directory)
    if vocabulary.lower_case_or(lower_case) != lower_case:
        raise InputError(
            f"{path}: do_lower_case is {lower_case}, but {vocabulary.source} says {not lower_case}; the two files "
            "belong to different tokenizers"
        )
    if not isinstance(vocabulary, SentencePieceVocabulary):
        for key, wanted in {"strip_accents": lower_case, "tokenize_chinese_chars": True}.items():
            if settings.get(key) not in (None, wanted):
                raise InputError(
                    f"{path}: {key} is {settings[key]!r}, expected {wanted!r}, as the original BERT tokenizer does it"
                )
    return make_tokenizer(vocabulary, lower_case, portable)
