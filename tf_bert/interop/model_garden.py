"""Model Garden's TF2 checkpoints, and the SavedModels that its `export_tfhub` makes of them, as on TF Hub.

Both hold the objects of a program: `BertEncoder` or `BertEncoderV2`, alone or inside of `BertPretrainer`,
`BertPretrainerV2`, `BertClassifier`, `BertTokenClassifier` or `BertSpanLabeler`, under whatever names; they are found
by their attributes. Of a SavedModel only the variables are read, its graph is never loaded.

Where `bert_config.json` is missing, as from SavedModels, the shape is that of the tensors, and the rest what Model
Garden has by default: its "gelu" (the tanh approximation, `gelu_new` here), a layer_norm_eps of 1e-12, dropout of 0.1.
An encoder with `norm_first` has the same tensors and cannot be told from a BERT.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_bert.config import BertConfig
from tf_bert.config.reading import from_dict
from tf_bert.errors import InputError, UsageError
from tf_bert.interop.bert_config import FILE, Described, check_labels, check_layers, read_described, write_described
from tf_bert.interop.garden_objects import BLOCKS, find_objects
from tf_bert.interop.google import CHECKPOINT, refuse_untied
from tf_bert.interop.names import CLASSIFIER, ENCODER, MASKED_LM, NEXT_SENTENCE, POOLER_ITEM, SPAN, Names, expand
from tf_bert.interop.object_graph import ROOT, ObjectGraph, parse_graph
from tf_bert.interop.tf_checkpoint import OBJECT_GRAPH, Checkpoint, open_checkpoint, writing
from tf_bert.models.tensors import DECODER, WORD_EMBEDDINGS
from tf_bert.models.weights import Weights

SAVED_MODEL = "saved_model.pb"

_TOKENS = "BertForTokenClassification"
_LOWER_CASE = "do_lower_case"


def read_model_garden(checkpoint: Checkpoint, directory: Path | None = None) -> Weights:
    """The weights of a TF2 checkpoint.

    Args:
      checkpoint: the checkpoint.
      directory: where `bert_config.json` may lie; None: beside the checkpoint.

    Raises:
      InputError: if the checkpoint is not one of a BERT, or `bert_config.json` describes another model.
    """
    graph = _graph(checkpoint)
    shapes = {name: entry.shape for name, entry in checkpoint.entries.items()}
    objects = find_objects(graph, shapes, str(checkpoint.prefix))
    num_layers = next(i for i in range(len(objects) + 1) if f"{BLOCKS}/{i}" not in objects)
    found: dict[str, tuple[str, Names]] = {}
    left_out = {name: _reason(name) for name in checkpoint.entries if name != OBJECT_GRAPH}
    for names in expand(num_layers):
        paths = (_tensor(graph, objects, path) for path in names.garden)
        candidates = [name for name in paths if name in left_out]
        if candidates:
            chosen, *others = dict.fromkeys(candidates)
            found[names.canonical] = chosen, names
            left_out |= dict.fromkeys(others, "the pooler of a head is in its place")
            del left_out[chosen]
    path = (directory or checkpoint.prefix.parent) / FILE
    described = read_described(path, approximate=True) if path.exists() else _derive(checkpoint, found, num_layers)
    check_layers(str(checkpoint.prefix), described.config, num_layers)
    _check_heads(checkpoint, found, described.config)
    tensors = {name: checkpoint.tensor(stored, names.garden_layout) for name, (stored, names) in found.items()}
    table = graph.tensor(objects[MASKED_LM], "embedding_table") if MASKED_LM in objects else None
    if table in left_out:
        tensors[DECODER] = checkpoint.tensor(table)
        del left_out[table]
        described = dataclasses.replace(
            described, config=dataclasses.replace(described.config, tie_word_embeddings=False)
        )
    if described.architecture is None and CLASSIFIER in objects and "kernel" in graph.children[objects[CLASSIFIER]]:
        described = dataclasses.replace(described, architecture=_TOKENS)
    check_labels(path, described, tensors)
    return described.weights(str(checkpoint.prefix), tensors, left_out)


def open_saved_model(directory: Path) -> Checkpoint:
    """The variables of a SavedModel.

    Raises:
      InputError: if they are missing or damaged.
    """
    return open_checkpoint(directory / "variables" / "variables")


def saved_lower_case(checkpoint: Checkpoint) -> bool | None:
    """Whether a SavedModel says that text is lower-cased; None if it does not say it.

    Raises:
      InputError: if its description of objects is damaged.
    """
    name = _graph(checkpoint).tensor(ROOT, _LOWER_CASE)
    entry = checkpoint.entries.get(name) if name else None
    if name is None or entry is None or (entry.dtype, entry.shape) != ("bool", ()):
        return None
    return bool(checkpoint.value(name))


def _graph(checkpoint: Checkpoint) -> ObjectGraph:
    content = checkpoint.object_graph()
    if content is None:
        raise InputError(f"{checkpoint.prefix}: has no {OBJECT_GRAPH}; expected a checkpoint or SavedModel of TF2")
    return parse_graph(content, checkpoint.prefix)


def _tensor(graph: ObjectGraph, objects: Mapping[str, int], path: str) -> str:
    """The tensor that a name of `names.TABLE` leads to; empty if there is none."""
    beginning, rest = path, ""
    while beginning:
        if beginning in objects:
            return graph.tensor(objects[beginning], rest) or ""
        beginning, _, last = beginning.rpartition("/")
        rest = f"{last}/{rest}".removesuffix("/")
    return ""


def _reason(name: str) -> str:
    """Why a tensor is left out."""
    if "/.OPTIMIZER_SLOT/" in name or "optimizer/" in name:
        return "it is the optimizer's"
    if name.partition("/.ATTRIBUTES/")[0] in ("save_counter", "global_step", "step"):
        return "it counts steps"
    if name.startswith(f"{_LOWER_CASE}/"):
        return "it says how text is read"
    return "it is no part of a BERT"


def _derive(checkpoint: Checkpoint, found: Mapping[str, tuple[str, Names]], num_layers: int) -> Described:
    """What the shapes of the tensors tell."""
    layer = "bert.encoder.layer.0"
    needed = {
        "vocab_size": (WORD_EMBEDDINGS, 0),
        "hidden_size": (WORD_EMBEDDINGS, 1),
        "max_position_embeddings": ("bert.embeddings.position_embeddings.weight", 0),
        "type_vocab_size": ("bert.embeddings.token_type_embeddings.weight", 0),
        "num_attention_heads": (f"{layer}.attention.self.query.bias", 0),
        "intermediate_size": (f"{layer}.intermediate.dense.bias", 0),
    }
    values: dict[str, Any] = {"num_hidden_layers": num_layers, "hidden_act": "gelu_new"}
    for key, (name, axis) in needed.items():
        shape = checkpoint.entries[found[name][0]].shape if name in found else ()
        if len(shape) <= axis:
            raise InputError(
                f"{checkpoint.prefix}: has no {FILE} beside it, and no tensor that tells {key}; copy the file there"
            )
        values[key] = shape[axis]
    try:
        return Described(from_dict(BertConfig, values, where=str(checkpoint.prefix)))
    except UsageError as error:
        raise InputError(str(error)) from error


def _check_heads(checkpoint: Checkpoint, found: Mapping[str, tuple[str, Names]], config: BertConfig) -> None:
    for canonical, (name, _) in found.items():
        shape = checkpoint.entries[name].shape
        if canonical.endswith(".attention.self.query.bias") and shape[0] != config.num_attention_heads:
            raise InputError(
                f"{checkpoint.prefix}: {name}: found {shape[0]} attention heads, expected {config.num_attention_heads} "
                f"by num_attention_heads of {FILE}; the two belong to different models"
            )


def write_model_garden(weights: Weights, directory: Path) -> None:
    """Writes `bert_model.ckpt.*` (float32) and `bert_config.json` into an existing directory.

    `tf.train.Checkpoint(encoder=...)` restores them into an encoder, `Checkpoint(**model.checkpoint_items)` into a
    `BertPretrainerV2` with a head that is called next_sentence, and `Checkpoint(model=...)` into that,
    `BertClassifier`, `BertTokenClassifier` and `BertSpanLabeler`. Where there is no pooler, none is written.

    Raises:
      InputError: if a tensor is damaged, or the masked-LM head has an output matrix of its own.
    """
    refuse_untied(weights, "Model Garden")
    wanted = {name for part in weights.parts for name in weights.names_of(part)}
    tree: dict[str, Any] = {}
    prefix = directory / CHECKPOINT
    with tf.device("/CPU:0"):
        for names in expand(weights.config.num_hidden_layers):
            if names.canonical in wanted:
                value = weights.read(names.canonical)
                value = names.garden_layout.write(value, weights.config.num_attention_heads)
                for path in _written(names, weights):
                    _put(tree, path, value)
        checkpoint = tf.train.Checkpoint(**_items({name: _module(branch) for name, branch in tree.items()}))
        _ = checkpoint.save_counter  # programs that restore everything look for it
        with writing(prefix):
            checkpoint.write(str(prefix))
    write_described(weights, directory / FILE)


def _written(names: Names, weights: Weights) -> Iterator[str]:
    """Where a tensor is written."""
    if names.canonical.startswith("bert.pooler."):
        yield names.garden[-1]
        if "next_sentence" in weights.parts:
            yield names.garden[0]
    elif names.canonical.startswith("classifier.") and weights.kind == _TOKENS:
        yield names.garden[-1]
    else:
        yield names.garden[0]


def _put(tree: dict[str, Any], path: str, value: np.ndarray) -> None:
    *parents, last = path.split("/")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = tf.Variable(value)


def _module(branch: dict[str, Any]) -> tf.Module:
    """Objects with the same attributes."""
    module = tf.Module()
    for name, value in branch.items():
        setattr(module, name, _module(value) if isinstance(value, dict) else value)
    return module


def _items(roles: dict[str, tf.Module]) -> dict[str, tf.Module]:
    """What a program of Model Garden would save: the `checkpoint_items` of its model, and the model."""
    items = {name: module for name, module in roles.items() if name in (ENCODER, MASKED_LM)}
    model = {"_network": roles[ENCODER], "encoder_network": roles[ENCODER]}
    model |= {name: module for name, module in roles.items() if name in (MASKED_LM, CLASSIFIER, SPAN)}
    if NEXT_SENTENCE in roles:
        head = roles[NEXT_SENTENCE]
        model["classification_heads"] = tf.Module()
        setattr(model["classification_heads"], "0", head)
        if hasattr(head, "dense"):
            items[NEXT_SENTENCE + POOLER_ITEM] = head.dense
    if roles.keys() != {ENCODER}:
        items["model"] = tf.Module()
        for name, module in model.items():
            setattr(items["model"], name, module)
    return items
