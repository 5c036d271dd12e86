"""The tensors of a BERT: their names and shapes, and the variables that hold them.

The names are Hugging Face's, which are also those of `model.safetensors`; `interop` translates the names of others to
them. A dense layer's weight is [outputs, inputs] there, and query, key and value are tensors of their own.
"""

import dataclasses
from collections.abc import Callable, Iterator

from tf_bert.config import BertConfig

WORD_EMBEDDINGS = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"
"""The masked-LM head's output matrix where it is not the token embedding."""
MASKED_LM_BIAS = "cls.predictions.bias"


@dataclasses.dataclass(frozen=True)
class Slot:
    """One variable and the tensors it is made of."""

    variable: str
    """Path of the variable in a model that is named `bert`."""
    names: tuple[str, ...]
    """The tensors, in order along their first axis."""
    shape: tuple[int, ...]
    """Of each of the tensors."""

    @property
    def is_transposed(self) -> bool:
        """Whether the variable is the transpose of its tensors."""
        return self.variable.endswith("/kernel")


def part_slots(part: str, config: BertConfig, num_labels: int = 0) -> list[Slot]:
    """The variables and tensors of one of `PARTS`.

    Args:
      part: its name.
      config: shape of the encoder.
      num_labels: outputs of the classifier.
    """
    return list(PARTS[part](config, num_labels))


def _encoder(config: BertConfig, _: int) -> Iterator[Slot]:
    hidden, inner = config.hidden_size, config.intermediate_size
    embeddings = {
        "token": ("word", config.vocab_size),
        "position": ("position", config.max_position_embeddings),
        "segment": ("token_type", config.type_vocab_size),
    }
    for ours, (theirs, rows) in embeddings.items():
        name = f"bert.embeddings.{theirs}_embeddings.weight"
        yield Slot(f"bert/encoder/embeddings/{ours}_embedding", (name,), (rows, hidden))
    yield from _layer_norm("bert/encoder/embeddings/layer_norm", "bert.embeddings.LayerNorm", hidden)
    for i in range(config.num_hidden_layers):
        ours, theirs = f"bert/encoder/block_{i}", f"bert.encoder.layer.{i}"
        query_key_value = [f"{theirs}.attention.self.{part}" for part in ("query", "key", "value")]
        yield from _dense(f"{ours}/attention/query_key_value", hidden, hidden, *query_key_value)
        yield from _dense(f"{ours}/attention/output", hidden, hidden, f"{theirs}.attention.output.dense")
        yield from _layer_norm(f"{ours}/attention_layer_norm", f"{theirs}.attention.output.LayerNorm", hidden)
        yield from _dense(f"{ours}/intermediate", hidden, inner, f"{theirs}.intermediate.dense")
        yield from _dense(f"{ours}/output", inner, hidden, f"{theirs}.output.dense")
        yield from _layer_norm(f"{ours}/output_layer_norm", f"{theirs}.output.LayerNorm", hidden)


def _pooler(config: BertConfig, _: int) -> Iterator[Slot]:
    return _dense("bert/encoder/pooler", config.hidden_size, config.hidden_size, "bert.pooler.dense")


def _masked_lm(config: BertConfig, _: int) -> Iterator[Slot]:
    hidden = config.hidden_size
    yield from _dense("bert/masked_lm/transform", hidden, hidden, "cls.predictions.transform.dense")
    yield from _layer_norm("bert/masked_lm/layer_norm", "cls.predictions.transform.LayerNorm", hidden)
    yield Slot("bert/masked_lm/bias", (MASKED_LM_BIAS,), (config.vocab_size,))
    if not config.tie_word_embeddings:
        yield Slot("bert/masked_lm/output_embedding", (DECODER,), (config.vocab_size, hidden))


def _next_sentence(config: BertConfig, _: int) -> Iterator[Slot]:
    return _dense("bert/next_sentence/classifier", config.hidden_size, 2, "cls.seq_relationship")


def _classifier(config: BertConfig, num_labels: int) -> Iterator[Slot]:
    return _dense("bert/classifier/dense", config.hidden_size, num_labels, "classifier")


def _span(config: BertConfig, _: int) -> Iterator[Slot]:
    return _dense("bert/span/dense", config.hidden_size, 2, "qa_outputs")


PARTS: dict[str, Callable[[BertConfig, int], Iterator[Slot]]] = {
    "encoder": _encoder,
    "pooler": _pooler,
    "masked_lm": _masked_lm,
    "next_sentence": _next_sentence,
    "classifier": _classifier,
    "span": _span,
}
"""What a model may have. `classifier` scores labels, of examples or of tokens; `span`, starts and ends of answers."""


def _dense(ours: str, inputs: int, outputs: int, *theirs: str) -> Iterator[Slot]:
    yield Slot(f"{ours}/kernel", tuple(f"{name}.weight" for name in theirs), (outputs, inputs))
    yield Slot(f"{ours}/bias", tuple(f"{name}.bias" for name in theirs), (outputs,))


def _layer_norm(ours: str, theirs: str, hidden: int) -> Iterator[Slot]:
    yield Slot(f"{ours}/gamma", (f"{theirs}.weight",), (hidden,))
    yield Slot(f"{ours}/beta", (f"{theirs}.bias",), (hidden,))
