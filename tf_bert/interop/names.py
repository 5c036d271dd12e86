"""What the tensors of a BERT are called, and how they lie, in google-research's and in Model Garden's checkpoints.

One table serves both directions. Google's names are those of `modeling.py` and its task scripts (google-research/bert).
Model Garden's are paths of attributes in `official.nlp.modeling`, from an object that has a role (`ROLES`).
"""

import dataclasses
import enum
import math
from collections.abc import Iterator

import numpy as np

from tf_bert.models.tensors import MASKED_LM_BIAS, WORD_EMBEDDINGS


class Layout(enum.Enum):
    """How a tensor lies there, compared with Hugging Face's layout; the value names its dimensions."""

    SAME = ""
    TRANSPOSED = "[inputs, outputs]"
    HEADS_OUT = "[inputs, heads, size]"
    HEADS_IN = "[heads, size, outputs]"
    HEADS_BIAS = "[heads, size]"

    @property
    def rank(self) -> int | None:
        """Number of dimensions there; None if it is any."""
        return self.value.count(",") + 1 if self.value else None

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Hugging Face's shape of a tensor that has the shape `stored` there."""
        if self is Layout.SAME:
            return stored
        if self is Layout.HEADS_BIAS:
            return (math.prod(stored),)
        inputs = math.prod(stored[:-1]) if self is Layout.HEADS_IN else stored[0]
        return (math.prod(stored) // inputs if inputs else 0, inputs)

    def read(self, value: np.ndarray) -> np.ndarray:
        """A stored tensor in Hugging Face's layout."""
        if self in (Layout.SAME, Layout.HEADS_BIAS):
            return value.reshape(self.shape(value.shape))
        return np.ascontiguousarray(value.reshape(self.shape(value.shape)[::-1]).T)

    def write(self, value: np.ndarray, heads: int) -> np.ndarray:
        """A tensor in Hugging Face's layout as it is stored; `heads` is the number of attention heads."""
        if self is Layout.SAME:
            return value
        if self is Layout.HEADS_BIAS:
            return value.reshape(heads, -1)
        outputs, inputs = value.shape
        shapes = {
            Layout.TRANSPOSED: (inputs, outputs),
            Layout.HEADS_OUT: (inputs, heads, outputs // heads),
            Layout.HEADS_IN: (heads, inputs // heads, outputs),
        }
        return np.ascontiguousarray(value.T).reshape(shapes[self])


@dataclasses.dataclass(frozen=True)
class Names:
    """One tensor. `{i}` in the names is the number of a layer, from 0 on."""

    canonical: str
    """Of `tf_bert.models.tensors`."""
    google: str
    google_layout: Layout
    garden: tuple[str, ...]
    """The first of them that a checkpoint has is the one that was trained."""
    garden_layout: Layout

    def of_layer(self, i: int) -> "Names":
        """The names with a layer's number in them."""
        garden = tuple(name.format(i=i) for name in self.garden)
        return dataclasses.replace(
            self, canonical=self.canonical.format(i=i), google=self.google.format(i=i), garden=garden
        )


ENCODER, MASKED_LM, NEXT_SENTENCE, CLASSIFIER, SPAN = ROLES = (
    "encoder",
    "masked_lm",
    "next_sentence",
    "classifier",
    "span_labeling",
)
"""Model Garden's objects: an encoder, a `MaskedLM`, `ClassificationHead`s (a `Dense` for tokens), a `SpanLabeling`."""
POOLER_ITEM = ".pooler_dense"
"""With a head's name before it: what a checkpoint calls the pooler of that head (`checkpoint_items`)."""


def expand(num_layers: int) -> Iterator[Names]:
    """Every row of the table, those of layers once for each layer."""
    for names in TABLE:
        if "{i}" in names.canonical:
            yield from (names.of_layer(i) for i in range(num_layers))
        else:
            yield names


def _same(canonical: str, google: str, *garden: str) -> Iterator[Names]:
    yield Names(canonical, google, Layout.SAME, garden, Layout.SAME)


def _dense(
    canonical: str, google: str, *garden: str, kernel: Layout = Layout.TRANSPOSED, bias: Layout = Layout.SAME
) -> Iterator[Names]:
    kernels = tuple(f"{name}/kernel" for name in garden)
    yield Names(f"{canonical}.weight", f"{google}/kernel", Layout.TRANSPOSED, kernels, kernel)
    biases = tuple(f"{name}/bias" for name in garden)
    yield Names(f"{canonical}.bias", f"{google}/bias", Layout.SAME, biases, bias)


def _output(canonical: str, google: str, *garden: str) -> Iterator[Names]:
    """A task's output layer, which google's scripts make of variables of their own."""
    for names in _dense(canonical, google, *garden):
        google, _, kind = names.google.rpartition("/")
        own = f"{google}/output_{'weights' if kind == 'kernel' else 'bias'}".removeprefix("/")
        yield dataclasses.replace(names, google=own, google_layout=Layout.SAME)


def _layer_norm(canonical: str, google: str, *garden: str) -> Iterator[Names]:
    for theirs, ours in {"gamma": "weight", "beta": "bias"}.items():
        yield from _same(f"{canonical}.{ours}", f"{google}/{theirs}", *(f"{name}/{theirs}" for name in garden))


def _table() -> Iterator[Names]:
    embeddings = "bert/embeddings"
    yield from _same(WORD_EMBEDDINGS, f"{embeddings}/word_embeddings", f"{ENCODER}/_embedding_layer/embeddings")
    yield from _same(
        "bert.embeddings.position_embeddings.weight",
        f"{embeddings}/position_embeddings",
        f"{ENCODER}/_position_embedding_layer/_position_embeddings",
        f"{ENCODER}/_position_embedding_layer/embeddings",
    )
    yield from _same(
        "bert.embeddings.token_type_embeddings.weight",
        f"{embeddings}/token_type_embeddings",
        f"{ENCODER}/_type_embedding_layer/embeddings",
    )
    yield from _layer_norm("bert.embeddings.LayerNorm", f"{embeddings}/LayerNorm", f"{ENCODER}/_embedding_norm_layer")
    ours, google, garden = "bert.encoder.layer.{i}", "bert/encoder/layer_{i}", f"{ENCODER}/_transformer_layers/{{i}}"
    for part in ("query", "key", "value"):
        yield from _dense(
            f"{ours}.attention.self.{part}",
            f"{google}/attention/self/{part}",
            f"{garden}/_attention_layer/_{part}_dense",
            kernel=Layout.HEADS_OUT,
            bias=Layout.HEADS_BIAS,
        )
    yield from _dense(
        f"{ours}.attention.output.dense",
        f"{google}/attention/output/dense",
        f"{garden}/_attention_layer/_output_dense",
        f"{garden}/_attention_output_dense",  # of the first releases
        kernel=Layout.HEADS_IN,
    )
    yield from _layer_norm(
        f"{ours}.attention.output.LayerNorm",
        f"{google}/attention/output/LayerNorm",
        f"{garden}/_attention_layer_norm",
    )
    yield from _dense(f"{ours}.intermediate.dense", f"{google}/intermediate/dense", f"{garden}/_intermediate_dense")
    yield from _dense(f"{ours}.output.dense", f"{google}/output/dense", f"{garden}/_output_dense")
    yield from _layer_norm(f"{ours}.output.LayerNorm", f"{google}/output/LayerNorm", f"{garden}/_output_layer_norm")
    # A Model Garden head may have a pooler of its own, which is then trained in the place of the encoder's.
    yield from _dense(
        "bert.pooler.dense",
        "bert/pooler/dense",
        f"{NEXT_SENTENCE}/dense",
        f"{CLASSIFIER}/dense",
        f"{ENCODER}/_pooler_layer",
    )
    predictions = "cls/predictions"
    yield from _dense("cls.predictions.transform.dense", f"{predictions}/transform/dense", f"{MASKED_LM}/dense")
    yield from _layer_norm(
        "cls.predictions.transform.LayerNorm", f"{predictions}/transform/LayerNorm", f"{MASKED_LM}/layer_norm"
    )
    yield from _same(MASKED_LM_BIAS, f"{predictions}/output_bias", f"{MASKED_LM}/bias")
    yield from _output(
        "cls.seq_relationship",
        "cls/seq_relationship",
        f"{NEXT_SENTENCE}/out_proj",
        f"{NEXT_SENTENCE}/layer_with_weights-0",
    )
    yield from _output("classifier", "", f"{CLASSIFIER}/out_proj", f"{CLASSIFIER}/layer_with_weights-0", CLASSIFIER)
    yield from _output("qa_outputs", "cls/squad", f"{SPAN}/layer_with_weights-0")


TABLE = tuple(_table())
