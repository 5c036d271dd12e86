"""Whether a model was trained on lower-cased text, and without accents: said in many places, or left to be guessed."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tf_bert.errors import InputError
from tf_bert.files import read_json
from tf_bert.tokenization.sentencepiece import SentencePieceVocabulary
from tf_bert.tokenization.tokenizer import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE
from tf_bert.tokenization.vocab import Vocabulary

# In the names of google's releases, and which of them are lower-cased (`validate_case_matches_checkpoint` of
# google-research/bert); the first that fits counts.
_NAMES = {"uncased": True, "cased": False, "multilingual": True, "chinese": True}
_UPPER_CASE_SHARE = 0.001  # of tokens; the vocabularies of uncased models have none


@dataclasses.dataclass(frozen=True)
class TextCase:
    """What happens to text before it is cut into tokens."""

    lower_case: bool
    strip_accents: bool | None
    """None: as with `lower_case`, or as a SentencePiece model says."""
    known_from: str
    """For people."""


def find_case(directory: Path, vocabulary: Vocabulary, saved: bool | None, names: Sequence[str]) -> TextCase:
    """Finds out what a model's text is like.

    The answer is that of a SentencePiece model, of `tokenizer_config.json`, of `tokenizer.json`, of a SavedModel, of
    the name, or that an uncased vocabulary has no capital letters: the first of them that there is.

    Args:
      directory: of the tokenizer's files.
      vocabulary: the tokens.
      saved: what a SavedModel says of lower case.
      names: of directory and archive.

    Raises:
      InputError: if a file is damaged, or asks for what the tokenizer does not do.
    """
    if isinstance(vocabulary, SentencePieceVocabulary):
        return TextCase(vocabulary.lower_case_or(False), None, f"by {vocabulary.file_name}")
    for path, settings in _stated(directory):
        case = _case_of(path, settings)
        if case:
            return case
    if saved is not None:
        return TextCase(saved, None, "by do_lower_case of the SavedModel")
    for name in names:
        for part, lower_case in _NAMES.items():
            if part in name.lower():
                return TextCase(lower_case, None, f"by the name {name}")
    tokens = [token for token in vocabulary.tokens if not token.startswith("[")]
    capitals = sum(token != token.lower() for token in tokens)
    if capitals > _UPPER_CASE_SHARE * len(tokens):
        return TextCase(False, None, f"by {capitals:,} tokens with capital letters")
    return TextCase(True, None, "by its vocabulary, which has no capital letters")


def _stated(directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """What files say, in the words of `tokenizer_config.json`."""
    path = directory / TOKENIZER_CONFIG_FILE
    if path.exists():
        yield path, _as_dict(read_json(path))
    path = directory / TOKENIZER_FILE
    if path.exists():
        normalizer = _as_dict(_as_dict(read_json(path)).get("normalizer"))
        several = normalizer.get("normalizers")
        for step in several if isinstance(several, list) else [normalizer]:
            step = _as_dict(step)
            if step.get("type") == "BertNormalizer":
                yield (
                    path,
                    {
                        "do_lower_case": step.get("lowercase"),
                        "strip_accents": step.get("strip_accents"),
                        "tokenize_chinese_chars": step.get("handle_chinese_chars"),
                    },
                )


def _case_of(path: Path, settings: dict[str, Any]) -> TextCase | None:
    lower_case, strip_accents = settings.get("do_lower_case"), settings.get("strip_accents")
    if lower_case is None:
        return None
    if not isinstance(lower_case, bool) or not isinstance(strip_accents, bool | None):
        raise InputError(
            f"{path}: do_lower_case is {lower_case!r} and strip_accents {strip_accents!r}, expected true or false (or "
            "null for strip_accents); mend it"
        )
    if settings.get("tokenize_chinese_chars") is False:
        raise InputError(
            f"{path}: tokenize_chinese_chars is False, expected True, as the original BERT tokenizer does it"
        )
    return TextCase(lower_case, strip_accents, f"by {path.name}")


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
