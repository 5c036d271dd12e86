"""google-research/bert's TF1 checkpoints: `bert_model.ckpt.*`, `bert_config.json` and `vocab.txt`.

They hold encoder, pooler, both pretraining heads, the output layers of the classification and SQuAD scripts, and what
other programs named so. The output matrix of the masked-LM head is always the token embedding.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from tf_bert.errors import InputError
from tf_bert.interop.bert_config import FILE, check_labels, check_layers, read_described, write_described
from tf_bert.interop.names import expand
from tf_bert.interop.tf_checkpoint import Checkpoint, write_checkpoint
from tf_bert.models.tensors import DECODER
from tf_bert.models.weights import StoredTensor, Weights

CHECKPOINT = "bert_model.ckpt"

_FIRST = "bert/embeddings/word_embeddings"  # the tensor by which a prefix is known
_LAYER = re.compile(r"bert/encoder/layer_\d+/")
# Of google's optimizer, Adam, NVIDIA's LAMB with loss scaling and Horovod scripts.
_COUNTERS = re.compile(
    r"global_step|bad_steps|good_steps|num_(good|bad)_steps|loss_scale|current_loss_scale|beta[12]_power|learning_rate"
)


def read_google(checkpoint: Checkpoint) -> Weights:
    """The weights of a TF1 checkpoint; `bert_config.json` must lie beside it.

    A scope before all names (`model/bert/...`) is passed over.

    Raises:
      InputError: if the checkpoint is not one of a BERT, or `bert_config.json` is missing or describes another model.
    """
    path = checkpoint.prefix.with_name(FILE)
    if not path.exists():
        raise InputError(
            f"{checkpoint.prefix}: has no {FILE} beside it; copy the one of the checkpoint that training started from"
        )
    described = read_described(path, approximate=False)
    first = next((name for name in checkpoint.entries if f"/{name}".endswith(f"/{_FIRST}")), None)
    if first is None:
        raise InputError(
            f"{checkpoint.prefix}: holds no tensor {_FIRST}, only e.g. {', '.join(sorted(checkpoint.entries)[:3])}; "
            "expected a checkpoint of google-research/bert"
        )
    scope = first.removesuffix(_FIRST)
    layers = {found[0] for name in checkpoint.entries if (found := _LAYER.match(name.removeprefix(scope)))}
    check_layers(str(checkpoint.prefix), described.config, len(layers))
    known = {names.google: names for names in expand(described.config.num_hidden_layers)}
    tensors: dict[str, StoredTensor] = {}
    left_out: dict[str, str] = {}
    for name in checkpoint.entries:
        if names := known.get(name.removeprefix(scope)):
            tensors[names.canonical] = checkpoint.tensor(name, names.google_layout)
        else:
            left_out[name] = _reason(name.removeprefix(scope), known)
    check_labels(path, described, tensors)
    return described.weights(str(checkpoint.prefix), tensors, left_out)


def _reason(name: str, known: Collection[str]) -> str:
    """Why a tensor is left out."""
    parents = [name[: slash.start()] for slash in re.finditer("/", name)]
    if any(parent in known for parent in parents) or _COUNTERS.fullmatch(name.rpartition("/")[2]):
        return "it is the optimizer's"
    return "it is no part of a BERT"


def write_google(weights: Weights, directory: Path) -> None:
    """Writes `bert_model.ckpt.*` (float32) and `bert_config.json` into an existing directory.

    Raises:
      InputError: if a tensor is damaged, or the masked-LM head has an output matrix of its own.
    """
    refuse_untied(weights, "google-research/bert")
    write_checkpoint(directory / CHECKPOINT, _google_tensors(weights))
    write_described(weights, directory / FILE)


def refuse_untied(weights: Weights, program: str) -> None:
    """Raises `InputError` where a program's checkpoints have no place for the masked-LM head's output matrix."""
    if not weights.config.tie_word_embeddings and DECODER in weights.tensors:
        raise InputError(
            f"{weights.source}: {DECODER} is a matrix of its own; checkpoints of {program} have no place for it, there "
            "it is the token embedding: write the hf format"
        )


def _google_tensors(weights: Weights) -> Iterator[tuple[str, np.ndarray]]:
    config = weights.config
    wanted = {name for part in weights.parts for name in weights.names_of(part)}
    for names in expand(config.num_hidden_layers):
        if names.canonical in wanted:
            value = weights.read(names.canonical)
            yield names.google, names.google_layout.write(value, config.num_attention_heads)
