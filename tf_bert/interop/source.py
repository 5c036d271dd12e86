"""Weights and vocabulary from wherever they are: what a source is, is found out by looking.

A source is a model directory or a Hugging Face directory, the directory or the prefix of a google-research TF1 or a
Model Garden TF2 checkpoint, a SavedModel of a BERT encoder as on TF Hub, or an archive of one of them.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tf_bert.errors import InputError, UsageError
from tf_bert.files import read_json
from tf_bert.interop.archives import archive_name, is_archive, unpack
from tf_bert.interop.google import read_google, write_google
from tf_bert.interop.model_garden import (
    SAVED_MODEL,
    open_saved_model,
    read_model_garden,
    saved_lower_case,
    write_model_garden,
)
from tf_bert.interop.text_case import TextCase, find_case
from tf_bert.interop.tf_checkpoint import INDEX_SUFFIX, OBJECT_GRAPH, find_prefix, is_prefix, open_checkpoint
from tf_bert.models.directory import CONFIG_FILE, INDEX_FILE, LINEAGE_FILE, WEIGHTS_FILE, read_directory, save_weights
from tf_bert.models.weights import Weights
from tf_bert.tokenization.sentencepiece import SentencePieceVocabulary
from tf_bert.tokenization.tokenizer import TOKENIZER_FILE, directory_vocabulary, load_vocabulary
from tf_bert.tokenization.vocab import Vocabulary

FORMATS = {
    "hf": "a model directory of Hugging Face's format",
    "google": "a TF1 checkpoint of google-research/bert",
    "model-garden": "a TF2 checkpoint of Model Garden",
}
"""What `write_weights` writes."""

_WRITERS: dict[str, Callable[[Weights, Path], None]] = {
    "hf": save_weights,
    "google": write_google,
    "model-garden": write_model_garden,
}
_EXPECTED = (
    f"{CONFIG_FILE} with {WEIGHTS_FILE}, a checkpoint (*{INDEX_SUFFIX}) with bert_config.json, {SAVED_MODEL}, or a zip "
    "or tar archive of one of them"
)
_ASSETS = "assets"
_SHOWN = 6  # file names in a message


@dataclasses.dataclass(frozen=True)
class Source:
    """What a source holds. Its tensors can be read until it is closed."""

    path: str
    """As the user gave it."""
    kind: str
    """huggingface, google, model-garden or saved-model."""
    weights: Weights
    vocabulary: Vocabulary | None
    """None where there is none."""
    case: TextCase | None
    """Of the vocabulary's text."""
    inherited: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What the source's own `lineage.json` says."""

    @property
    def lower_case(self) -> bool | None:
        """Whether text is lower-cased; None where there is no vocabulary."""
        return self.case.lower_case if self.case else None

    @property
    def strip_accents(self) -> bool | None:
        """Whether accents go; None: as with `lower_case`."""
        return self.case.strip_accents if self.case else None

    @property
    def case_known_from(self) -> str:
        """What tells of the case, for people."""
        return self.case.known_from if self.case else ""

    def lineage(self) -> dict[str, Any]:
        """What to note where the weights go to."""
        vocabulary = self.vocabulary.sha256 if self.vocabulary else None
        noted = {"source": self.path, "kind": self.kind, "model": self.weights.kind, "vocabulary_sha256": vocabulary}
        return {**noted, "lineage": self.inherited}


@contextmanager
def open_source(path: str) -> Iterator[Source]:
    """Opens a source. An archive is unpacked into a temporary directory for as long as it is open.

    Args:
      path: a directory, the prefix of a checkpoint (with or without `.index`) or an archive.

    Raises:
      InputError: if it is none of these, is damaged, or does not hold one BERT.
    """
    place = Path(path)
    if not is_archive(place):
        yield _open(place, path, [place.resolve().name])
        return
    with tempfile.TemporaryDirectory(prefix="tf_bert-") as temporary:
        root = Path(temporary)
        try:
            unpack(place, root)
            names = [archive_name(place)]
            while folder := _only_folder(root):
                root = folder
                names.insert(0, folder.name)
            yield _open(root, path, names)
        except InputError as error:
            raise InputError(str(error).replace(temporary, path)) from error


def write_weights(weights: Weights, directory: Path, to: str) -> None:
    """Writes weights into an existing directory.

    Args:
      weights: what to write, in float32.
      directory: where.
      to: one of `FORMATS`.

    Raises:
      InputError: if a tensor is damaged, or the format has no place for it.
      UsageError: if the format is not known.
    """
    if to not in _WRITERS:
        raise UsageError(f"--to: found '{to}', expected one of {', '.join(FORMATS)}")
    _WRITERS[to](weights, directory)


def _only_folder(directory: Path) -> Path | None:
    """The one folder that an archive put its files into. macOS adds files of its own."""
    found = [path for path in directory.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    return found[0] if len(found) == 1 and found[0].is_dir() else None


def _open(place: Path, path: str, names: list[str]) -> Source:
    saved = None
    directory = place if place.is_dir() else place.parent
    if _is_hugging_face(place):
        kind, weights = "huggingface", read_directory(place)
    elif (place / SAVED_MODEL).is_file():
        checkpoint = open_saved_model(place)
        kind, weights, saved = "saved-model", read_model_garden(checkpoint, place), saved_lower_case(checkpoint)
    elif prefix := _prefix(place):
        checkpoint = open_checkpoint(prefix)
        if OBJECT_GRAPH in checkpoint.entries:
            kind, weights = "model-garden", read_model_garden(checkpoint)
        else:
            kind, weights = "google", read_google(checkpoint)
        names = names if place.is_dir() else [directory.resolve().name]
    elif (place / CONFIG_FILE).is_file():
        kind, weights = "huggingface", read_directory(place)  # which says what is wrong with it
    else:
        raise InputError(_unknown(place, path))
    vocabulary = _vocabulary(directory)
    if vocabulary and len(vocabulary) > weights.config.vocab_size:
        raise InputError(
            f"{vocabulary.source}: holds {len(vocabulary)} tokens, more than the model's vocab_size "
            f"{weights.config.vocab_size}; the two belong to different models"
        )
    case = find_case(directory, vocabulary, saved, names) if vocabulary else None
    lineage = directory / LINEAGE_FILE
    inherited = read_json(lineage) if lineage.is_file() else {}
    return Source(path, kind, dataclasses.replace(weights, source=path), vocabulary, case, inherited)


def _is_hugging_face(place: Path) -> bool:
    return (place / WEIGHTS_FILE).is_file() or (place / INDEX_FILE).is_file()


def _prefix(place: Path) -> Path | None:
    """The checkpoint that a directory holds or a path means."""
    if place.is_dir():
        return find_prefix(place)
    return next((path for path in (place, place.with_suffix("")) if place.name and is_prefix(path)), None)


def _vocabulary(directory: Path) -> Vocabulary | None:
    files = (Vocabulary.file_name, SentencePieceVocabulary.file_name, TOKENIZER_FILE)
    for place in (directory, directory / _ASSETS):
        if any((place / name).is_file() for name in files):
            return directory_vocabulary(place)
    assets = list((directory / _ASSETS).glob("*.txt")) if (directory / SAVED_MODEL).is_file() else []
    return load_vocabulary(assets[0]) if len(assets) == 1 else None


def _unknown(place: Path, path: str) -> str:
    if not place.exists():
        return f"{path}: no such file or directory; expected {_EXPECTED}"
    if place.is_file():
        return f"{path}: is a file of no known kind; expected a directory with {_EXPECTED}"
    found = sorted(place.iterdir())
    for folder in found:
        if folder.is_dir() and (_is_hugging_face(folder) or (folder / SAVED_MODEL).is_file() or _holds_index(folder)):
            return f"{path}: holds no weights itself; {folder.name}/ does: give {folder}"
    names = ", ".join(file.name for file in found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    return f"{path}: found {names or 'nothing'}; expected {_EXPECTED}"


def _holds_index(folder: Path) -> bool:
    return any(folder.glob(f"*{INDEX_SUFFIX}"))
