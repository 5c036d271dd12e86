"""Tokenizers of either kind: what they have in common, and how a file or a directory says which one it holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import tensorflow as tf

from tf_bert.errors import InputError
from tf_bert.files import read_json, write_json
from tf_bert.tokenization.sentencepiece import SUFFIX, SentencePieceTokenizer, SentencePieceVocabulary
from tf_bert.tokenization.vocab import Vocabulary
from tf_bert.tokenization.wordpiece import WordPieceTokenizer

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
TOKENIZER_FILE = "tokenizer.json"
"""Of Hugging Face's `tokenizers`: vocabulary and settings in one. Read where the other files do not say it."""
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


def make_tokenizer(
    vocabulary: Vocabulary, lower_case: bool, portable: bool = False, strip_accents: bool | None = None
) -> Tokenizer:
    """The tokenizer of a vocabulary.

    Args:
      vocabulary: of either kind.
      lower_case, strip_accents: for WordPiece, see there; a SentencePiece model holds its own normalization.
      portable: use only operations that every TensorFlow Serving has; slower for WordPiece.
    """
    if isinstance(vocabulary, SentencePieceVocabulary):
        return SentencePieceTokenizer(vocabulary)
    return WordPieceTokenizer(vocabulary, lower_case, portable, strip_accents)


def save_tokenizer(
    directory: Path, vocabulary: Vocabulary, lower_case: bool, strip_accents: bool | None = None
) -> None:
    """Writes the vocabulary (`vocab.txt` or `spiece.model`) and `tokenizer_config.json`, with Hugging Face's names.

    Args:
      directory: an existing one.
      vocabulary, lower_case, strip_accents: as for `make_tokenizer`.

    Raises:
      InputError: if the operating system refuses to write.
    """
    vocabulary.save(directory / vocabulary.file_name)
    ids = (vocabulary.pad_id, vocabulary.unk_id, vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id)
    settings: dict[str, object] = {"tokenizer_class": "BertTokenizer"}
    if isinstance(vocabulary, SentencePieceVocabulary):
        # Of the SentencePiece tokenizers there, Albert's is the one that puts [CLS] and [SEP] around segments.
        settings = {"tokenizer_class": "AlbertTokenizer", "keep_accents": True}
    elif strip_accents not in (None, lower_case):
        settings["strip_accents"] = strip_accents
    settings["do_lower_case"] = vocabulary.lower_case_or(lower_case)
    settings |= {name: vocabulary.tokens[i] for name, i in zip(_NAMES, ids, strict=True)}
    write_json(directory / TOKENIZER_CONFIG_FILE, settings)


def directory_vocabulary(directory: Path) -> Vocabulary:
    """The vocabulary of a data directory or a model directory.

    Raises:
      InputError: if it is missing or damaged.
    """
    path = directory / SentencePieceVocabulary.file_name
    if path.exists():
        return load_vocabulary(path)
    path, complete = directory / Vocabulary.file_name, directory / TOKENIZER_FILE
    if path.exists() or not complete.exists():
        return load_vocabulary(path)
    model = _complete_settings(complete).get("model")
    ids = model.get("vocab") if isinstance(model, dict) and model.get("type") == "WordPiece" else None
    if not isinstance(ids, dict) or sorted(ids.values()) != list(range(len(ids))):
        raise InputError(
            f"{complete}: holds no WordPiece vocabulary; expected one, or {Vocabulary.file_name} beside it"
        )
    return Vocabulary(tuple(sorted(ids, key=ids.__getitem__)), str(complete))


def load_tokenizer(directory: Path, portable: bool = False) -> Tokenizer:
    """Opens the tokenizer of a data directory or a model directory.

    Raises:
      InputError: if a file is missing or damaged, or asks for what this tokenizer does not do.
    """
    path = directory / TOKENIZER_CONFIG_FILE
    settings = read_json(path)
    if not isinstance(settings, dict):
        settings = {}
    if "do_lower_case" not in settings and (complete := directory / TOKENIZER_FILE).exists():
        path, settings = complete, _normalizer_settings(complete)
    lower_case, strip_accents = settings.get("do_lower_case"), settings.get("strip_accents")
    if not isinstance(lower_case, bool):
        raise InputError(f"{path}: do_lower_case is {lower_case!r}, expected true or false; add it")
    if not isinstance(strip_accents, bool | None):
        raise InputError(f"{path}: strip_accents is {strip_accents!r}, expected true, false or null; mend it")
    vocabulary = directory_vocabulary(directory)
    if vocabulary.lower_case_or(lower_case) != lower_case:
        raise InputError(
            f"{path}: do_lower_case is {lower_case}, but {vocabulary.source} says {not lower_case}; the two files "
            "belong to different tokenizers"
        )
    if not isinstance(vocabulary, SentencePieceVocabulary) and settings.get("tokenize_chinese_chars") is False:
        raise InputError(
            f"{path}: tokenize_chinese_chars is False, expected True, as the original BERT tokenizer does it"
        )
    return make_tokenizer(vocabulary, lower_case, portable, strip_accents)


def _normalizer_settings(path: Path) -> dict[str, Any]:
    """What a `tokenizer.json` says of the text before it is cut, in the words of `tokenizer_config.json`."""
    normalizer = _complete_settings(path).get("normalizer")
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        raise InputError(f"{path}: its normalizer is not BertNormalizer; expected the tokenizer of a BERT")
    names = {
        "lowercase": "do_lower_case",
        "strip_accents": "strip_accents",
        "handle_chinese_chars": "tokenize_chinese_chars",
    }
    return {name: normalizer.get(key) for key, name in names.items()}


def _complete_settings(path: Path) -> dict[str, Any]:
    settings = read_json(path)
    return settings if isinstance(settings, dict) else {}
