"""A model directory's `config.json` and `model.safetensors`, with Hugging Face's file and tensor names.

`transformers.BertForPreTraining.from_pretrained` opens the directory as it stands. Only safetensors is read and
written: a file of plain tensors that cannot run code.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from tf_bert.config import BertConfig, load_bert_config
from tf_bert.errors import InputError
from tf_bert.files import write_json, write_tensors
from tf_bert.models.pretraining import BertForPretraining

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def tensor_names(config: BertConfig) -> Iterator[tuple[str, list[str]]]:
    """Pairs of a variable's path and the tensors it is made of, in order along its last axis."""
    yield from (
        ("bert/encoder/embeddings/token_embedding", ["bert.embeddings.word_embeddings.weight"]),
        ("bert/encoder/embeddings/position_embedding", ["bert.embeddings.position_embeddings.weight"]),
        ("bert/encoder/embeddings/segment_embedding", ["bert.embeddings.token_type_embeddings.weight"]),
    )
    yield from _layer_norm("bert/encoder/embeddings/layer_norm", "bert.embeddings.LayerNorm")
    for i in range(config.num_hidden_layers):
        ours, theirs = f"bert/encoder/block_{i}", f"bert.encoder.layer.{i}"
        parts = [f"{theirs}.attention.self.{part}" for part in ("query", "key", "value")]
        yield from _dense(f"{ours}/attention/query_key_value", *parts)
        yield from _dense(f"{ours}/attention/output", f"{theirs}.attention.output.dense")
        yield from _layer_norm(f"{ours}/attention_layer_norm", f"{theirs}.attention.output.LayerNorm")
        yield from _dense(f"{ours}/intermediate", f"{theirs}.intermediate.dense")
        yield from _dense(f"{ours}/output", f"{theirs}.output.dense")
        yield from _layer_norm(f"{ours}/output_layer_norm", f"{theirs}.output.LayerNorm")
    yield from _dense("bert/encoder/pooler", "bert.pooler.dense")
    yield from _dense("bert/masked_lm/transform", "cls.predictions.transform.dense")
    yield from _layer_norm("bert/masked_lm/layer_norm", "cls.predictions.transform.LayerNorm")
    yield "bert/masked_lm/bias", ["cls.predictions.bias"]
    yield from _dense("bert/next_sentence/classifier", "cls.seq_relationship")


def _dense(ours: str, *theirs: str) -> Iterator[tuple[str, list[str]]]:
    yield f"{ours}/kernel", [f"{name}.weight" for name in theirs]
    yield f"{ours}/bias", [f"{name}.bias" for name in theirs]


def _layer_norm(ours: str, theirs: str) -> Iterator[tuple[str, list[str]]]:
    yield f"{ours}/gamma", [f"{theirs}.weight"]
    yield f"{ours}/beta", [f"{theirs}.bias"]


def save_model(model: BertForPretraining, directory: Path, settings: Mapping[str, Any]) -> None:
    """Writes `config.json` and `model.safetensors` (float32) into an existing directory.

    Args:
      settings: more entries for `config.json` that other tools look for, e.g. `pad_token_id`.
    """
    variables = {variable.path: np.asarray(variable) for variable in model.trainable_variables}
    tensors: dict[str, np.ndarray] = {}
    for path, names in tensor_names(model.config):
        value = variables.pop(path)
        if path.endswith("/kernel"):
            value = value.T  # a linear layer's weight is [out, in] there
        axis = 0  # after the transposition the fused parts lie along the first axis
        tensors.update(zip(names, np.split(value, len(names), axis), strict=True))
    assert not variables, f"no tensor name for {sorted(variables)}"
    write_tensors(directory / WEIGHTS_FILE, tensors, metadata={"format": "pt"})
    identity = {"architectures": ["BertForPreTraining"], "model_type": "bert"}
    write_json(directory / CONFIG_FILE, {**identity, **dataclasses.asdict(model.config), **settings})


def load_model(directory: Path, precision: str = "float32") -> BertForPretraining:
    """Opens a model directory: encoder, pooler and both pretraining heads.

    Raises:
      InputError: if a file is missing or damaged, or a tensor is missing or has another shape than `config.json` says.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; expected a model directory, as `tf-bert pretrain` writes it")
    model = BertForPretraining(load_bert_config(directory / CONFIG_FILE), precision)
    path = directory / WEIGHTS_FILE
    variables = {variable.path: variable for variable in model.trainable_variables}
    try:
        with safe_open(path, framework="numpy") as file:
            present = set(file.keys())
            missing = [name for _, names in tensor_names(model.config) for name in names if name not in present]
            if missing:
                raise InputError(
                    f"{path}: {len(missing)} tensors are missing, the first is {missing[0]}; expected the weights of "
                    f"a BERT with {model.config.num_hidden_layers} layers and both pretraining heads"
                )
            for variable_path, names in tensor_names(model.config):
                variable = variables[variable_path]
                value = np.concatenate([file.get_tensor(name) for name in names], axis=0)
                value = value.T if variable_path.endswith("/kernel") else value
                if value.shape != tuple(variable.shape):
                    raise InputError(
                        f"{path}: {', '.join(names)}: found shape {value.shape}, expected {tuple(variable.shape)} by "
                        f"{CONFIG_FILE}; the two files belong to different models"
                    )
                variable.assign(value)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected the weights of the model") from error
    except SafetensorError as error:
        raise InputError(f"{path}: is damaged ({error}); copy or write it again") from error
    return model
