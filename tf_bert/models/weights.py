"""Weights that lie in somebody's files, read one tensor at a time, and how a model takes them."""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from tf_bert.config import BertConfig
from tf_bert.errors import InputError
from tf_bert.models.model import BertModel
from tf_bert.models.tensors import DECODER, PARTS, WORD_EMBEDDINGS, Slot, part_slots

_KINDS = {
    ("span",): "BertForQuestionAnswering",
    ("classifier",): "BertForSequenceClassification",
    ("masked_lm", "next_sentence"): "BertForPreTraining",
    ("masked_lm",): "BertForMaskedLM",
    ("next_sentence",): "BertForNextSentencePrediction",
}

FLOATS = ("float32", "float16", "bfloat16", "float64")
_PIECE_BYTES = 1 << 22  # of float32


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file, known by its shape until it is read."""

    place: str
    """The file and the name there, for messages."""
    shape: tuple[int, ...]
    """In Hugging Face's layout."""
    dtype: str
    """A numpy name, such as float32."""
    read: Callable[[], np.ndarray]
    """Reads it, in that shape and dtype."""
    read_rows: Callable[[int, int], np.ndarray] | None = None
    """Reads the rows from one number up to another, where that takes less memory than reading it whole."""


def check_shape(found: StoredTensor, expected: tuple[int, ...]) -> None:
    """Raises `InputError` if a tensor has another shape than the configuration says."""
    if found.shape != expected:
        raise InputError(
            f"{found.place}: found shape {found.shape}, expected {expected} by the configuration; the two belong to "
            "different models"
        )


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a source holds of a BERT."""

    source: str
    """Where it lies, for messages."""
    config: BertConfig
    """Shape of the encoder."""
    tensors: Mapping[str, StoredTensor]
    """By the names of `tf_bert.models.tensors`."""
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What else the files hold, by its name there, and why it is of no use."""
    architecture: str | None = None
    """Hugging Face's name of the kind of model, such as BertForPreTraining, if the source says it."""
    labels: tuple[str, ...] | None = None
    """The classifier's label names in the order of its outputs, if the source says them."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Entries of `config.json` beside the shape that other tools look for, such as pad_token_id."""

    @property
    def num_labels(self) -> int:
        """Outputs of the classifier; 0 where there is none."""
        return self.tensors["classifier.bias"].shape[0] if "classifier.bias" in self.tensors else 0

    @property
    def kind(self) -> str:
        """Hugging Face's name of the kind of model: what the source says, or else what its parts make it."""
        if self.architecture:
            return self.architecture
        parts = set(self.parts)
        for needed, name in _KINDS.items():
            if parts.issuperset(needed):
                return name
        return "BertModel"

    def names_of(self, part: str) -> list[str]:
        """The tensors of one part."""
        return [name for slot in part_slots(part, self.config, self.num_labels) for name in slot.names]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of a BERT that are all here.

        Raises:
          InputError: if there is some of a part, but not all of it, or a tensor has another shape than `config` says.
        """
        return tuple(part for part in PARTS if self._is_whole(part))

    def _is_whole(self, part: str) -> bool:
        names = self.names_of(part)
        missing = [name for name in names if name not in self.tensors]
        if len(missing) == len(names):
            if part == "encoder":
                raise InputError(f"{self.source}: holds no tensor of a BERT encoder; expected e.g. {names[0]}")
            return False
        if missing:
            raise InputError(
                f"{self.source}: {len(missing)} of {len(names)} tensors of the {part} are missing, the first is "
                f"{missing[0]}; expected the weights of a BERT with {self.config.num_hidden_layers} layers"
            )
        for slot in part_slots(part, self.config, self.num_labels):
            for name in slot.names:
                check_shape(self.tensors[name], slot.shape)
        return True

    def read(self, name: str) -> np.ndarray:
        """One tensor, in float32.

        Raises:
          InputError: if it is damaged, does not hold floating-point numbers, or one of them is not finite.
        """
        tensor = self.tensors[name]
        _check_dtype(tensor)
        return _float32(tensor, tensor.read())

    def read_in_pieces(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
        """One tensor, in float32, as runs of rows of some megabytes, each with the number of its first row.

        Raises:
          InputError: as `read` does.
        """
        tensor = self.tensors[name]
        count, rows = tensor.shape[0], _rows_of_a_piece(tensor.shape)
        if tensor.read_rows is None or count <= rows:
            yield from _in_pieces(self.read(name))
            return
        _check_dtype(tensor)
        for start in range(0, count, rows):
            yield start, _float32(tensor, tensor.read_rows(start, min(start + rows, count)))

    def check_tied(self) -> None:
        """Refuses an output matrix of its own where `config` says that it is the token embedding.

        Raises:
          InputError: if the two differ.
        """
        is_tied = self.config.tie_word_embeddings and DECODER in self.tensors
        if is_tied and not np.array_equal(self.read(DECODER), self.read(WORD_EMBEDDINGS)):
            raise InputError(
                f"{self.tensors[DECODER].place}: differs from the token embedding, but the configuration ties the two; "
                "write tie_word_embeddings false into it if the model was trained so"
            )


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of a source's tensors."""

    source: str
    loaded: tuple[str, ...]
    """Tensors that the model took."""
    newly_made: tuple[str, ...]
    """Tensors of the model that the source does not have: they keep their initial values."""
    left_out: Mapping[str, str]
    """Tensors that the model has no place for, and why."""

    def lines(self) -> Iterator[str]:
        """For people to read: what was loaded, newly made and left out, by name."""
        yield f"{self.source}: {len(self.loaded)} tensors loaded"
        if self.newly_made:
            yield f"  newly made: {', '.join(self.newly_made)}"
        yield from left_out_lines(self.left_out)


def left_out_lines(left_out: Mapping[str, str]) -> Iterator[str]:
    """Names by the reason that they were left out for, for people to read."""
    for why in dict.fromkeys(left_out.values()):
        yield f"  left out ({why}): {', '.join(name for name, reason in left_out.items() if reason == why)}"


def assign_weights(model: BertModel, weights: Weights, optional: Collection[str] = ()) -> LoadReport:
    """Gives a model the tensors of a source, one after the other.

    Args:
      model: what is to take them.
      weights: the source.
      optional: parts that may be newly made where the source does not have them.

    Raises:
      InputError: if a part that is not optional is missing, or a tensor is damaged or has another shape.
    """
    present = weights.parts
    weights.check_tied()
    variables = {variable.path: variable for variable in model.trainable_variables}
    loaded: list[str] = []
    newly_made: list[str] = []
    for part in model.parts:
        names = newly_made
        if part in present:
            names = loaded
        elif part not in optional:
            raise InputError(
                f"{weights.source}: has no {part}, only {', '.join(present)}; expected a model that was trained with it"
            )
        for slot in part_slots(part, model.config, model.num_labels):
            names += slot.names
            if part in present:
                _assign(variables[slot.variable], slot, weights)
    left_out = {name: "the model has no place for it" for name in weights.tensors if name not in loaded}
    if DECODER in left_out and model.config.tie_word_embeddings:
        left_out[DECODER] = "it is the token embedding"
    return LoadReport(weights.source, tuple(loaded), tuple(newly_made), {**left_out, **weights.left_out})


def _assign(variable: keras.Variable, slot: Slot, weights: Weights) -> None:
    for name in slot.names:
        check_shape(weights.tensors[name], slot.shape)
    pieces = weights.read_in_pieces(slot.names[0])
    if slot.is_transposed or len(slot.names) > 1:
        parts = [weights.read(name) for name in slot.names]
        value = np.concatenate(parts) if len(parts) > 1 else parts[0]
        pieces = _in_pieces(value.T if slot.is_transposed else value)
    # In place: what is assigned may be in memory four times on its way, and the token embedding may be half of a model.
    for start, rows in pieces:
        variable.value.scatter_nd_update(np.arange(start, start + len(rows))[:, None], rows)


def _in_pieces(value: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    rows = _rows_of_a_piece(value.shape)
    yield from ((start, value[start : start + rows]) for start in range(0, len(value), rows))


def _rows_of_a_piece(shape: tuple[int, ...]) -> int:
    return max(1, _PIECE_BYTES // (4 * math.prod(shape[1:])))


def _check_dtype(tensor: StoredTensor) -> None:
    if tensor.dtype not in FLOATS:
        raise InputError(f"{tensor.place}: holds {tensor.dtype}, expected one of {', '.join(FLOATS)}")


def _float32(tensor: StoredTensor, value: np.ndarray) -> np.ndarray:
    value = np.asarray(value).astype(np.float32, copy=False)
    # Without a mask of its size: the smallest and the largest number tell of infinities, and a NaN is both.
    if value.size and not (np.isfinite(value.min()) and np.isfinite(value.max())):
        raise InputError(
            f"{tensor.place}: holds numbers that are not finite; a model with them answers nothing: take an earlier "
            "checkpoint"
        )
    return value
