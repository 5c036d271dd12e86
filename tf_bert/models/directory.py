"""A model directory's `config.json` and `model.safetensors`, with Hugging Face's file and tensor names.

`transformers` opens the directory as it stands, and directories that it wrote open here: in one file or in shards,
with or without a prefix before the names. Only safetensors is read and written: plain tensors, which cannot run code.
"""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 (numpy's bfloat16, which safetensors files may hold)
import numpy as np
from safetensors import SafetensorError, safe_open

from tf_bert.config import BertConfig, load_bert_config
from tf_bert.errors import InputError
from tf_bert.files import read_json, write_json, write_tensors
from tf_bert.models.layer import taking_weights
from tf_bert.models.model import BertModel
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.models.tensors import DECODER, MASKED_LM_BIAS, PARTS, WORD_EMBEDDINGS, part_slots
from tf_bert.models.weights import StoredTensor, Weights, assign_weights

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
"""In the place of `WEIGHTS_FILE` where the weights are in shards: which tensor is in which file."""
LINEAGE_FILE = "lineage.json"
"""In a model directory: what its weights come from."""
KEPT_SETTINGS = ("pad_token_id", "problem_type")
"""Entries of `config.json`, beside the encoder's shape and the labels, that a converted directory keeps."""

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_FIRST = WORD_EMBEDDINGS.removeprefix("bert.")  # the tensor by which a prefix is known
_DECODER_BIAS = "cls.predictions.decoder.bias"
_OLD_ENDINGS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # of the first releases
_NOT_WEIGHTS = {
    "bert.embeddings.position_ids": "it holds the numbers 0, 1, 2, ...",
    "bert.embeddings.token_type_ids": "it holds zeros",
    _DECODER_BIAS: f"it is {MASKED_LM_BIAS}",
}


def read_directory(directory: Path) -> Weights:
    """Opens a model directory; its tensors are read when they are asked for.

    Raises:
      InputError: if a file is missing or damaged, or `config.json` describes another model than the weights.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; expected a model directory, as `tf-bert pretrain` writes it")
    config = load_bert_config(directory / CONFIG_FILE)
    settings = read_json(directory / CONFIG_FILE)
    tensors, left_out = _sort_tensors(dict(_stored_tensors(directory)), config, directory / CONFIG_FILE)
    labels = read_labels(settings, directory / CONFIG_FILE)
    if labels and "classifier.bias" in tensors and tensors["classifier.bias"].shape != (len(labels),):
        raise InputError(
            f"{directory / CONFIG_FILE}: id2label names {len(labels)} labels, but the classifier has outputs of shape "
            f"{tensors['classifier.bias'].shape}; the two belong to different models"
        )
    return Weights(
        source=str(directory),
        config=config,
        tensors=tensors,
        left_out=left_out,
        architecture=next(iter(settings.get("architectures") or []), None),
        labels=labels,
        settings={key: settings[key] for key in KEPT_SETTINGS if key in settings},
    )


def load_model(directory: Path, precision: str = "float32", optional: Collection[str] = ()) -> BertForPretraining:
    """Opens a model directory with its encoder, pooler and both pretraining heads.

    Args:
      directory: a model directory.
      precision: Keras dtype policy.
      optional: parts that the caller does without: where the directory has none of them, they are made anew.

    Raises:
      InputError: if a file is missing or damaged, or a tensor is missing or has another shape than `config.json` says.
    """
    weights = read_directory(directory)
    with taking_weights():
        model = BertForPretraining(weights.config, precision)
    assign_weights(model, weights, optional)
    return model


def save_model(
    model: BertModel, directory: Path, settings: Mapping[str, Any], labels: Sequence[str] | None = None
) -> None:
    """Writes `config.json` and `model.safetensors` (float32) into an existing directory.

    Args:
      model: what to write.
      directory: where.
      settings: more entries for `config.json` that other tools look for, e.g. `pad_token_id`.
      labels: names of the classifier's outputs.
    """
    variables = {variable.path: np.asarray(variable) for variable in model.trainable_variables}
    tensors: dict[str, np.ndarray] = {}
    for part in model.parts:
        for slot in part_slots(part, model.config, model.num_labels):
            value = variables.pop(slot.variable)
            value = value.T if slot.is_transposed else value
            tensors.update(zip(slot.names, np.split(value, len(slot.names)), strict=True))
    assert not variables, f"no tensor name for {sorted(variables)}"
    _write(directory, model.config, tensors, model.architecture, labels, settings)


def save_weights(weights: Weights, directory: Path) -> None:
    """Writes a source's tensors into an existing directory, as `save_model` does.

    Raises:
      InputError: if a tensor is damaged.
    """
    names = [name for part in weights.parts for name in weights.names_of(part)]
    tensors = {name: weights.read(name) for name in names}
    _write(directory, weights.config, tensors, weights.kind, weights.labels, weights.settings)


def labels_settings(labels: Sequence[str]) -> dict[str, Any]:
    """The entries of `config.json` that name a classifier's outputs."""
    return {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def read_labels(settings: Mapping[str, Any], path: Path) -> tuple[str, ...] | None:
    """The label names that a `config.json` gives to a classifier's outputs, in their order; None if it has none.

    Raises:
      InputError: if they are not numbered from 0 on.
    """
    id2label = settings.get("id2label")
    if id2label is None:
        return None
    keys = [str(number) for number in range(len(id2label))] if isinstance(id2label, dict) else []
    if not keys or set(id2label) != set(keys) or not all(isinstance(label, str) for label in id2label.values()):
        raise InputError(
            f'{path}: id2label is {id2label!r}, expected names by number, such as {{"0": "no", "1": "yes"}}'
        )
    return tuple(id2label[key] for key in keys)


def _write(
    directory: Path,
    config: BertConfig,
    tensors: Mapping[str, np.ndarray],
    architecture: str,
    labels: Sequence[str] | None,
    settings: Mapping[str, Any],
) -> None:
    if DECODER in tensors:  # where `transformers` does not tie the matrices, it does not tie the biases either
        tensors = {**tensors, _DECODER_BIAS: tensors[MASKED_LM_BIAS]}
    write_tensors(directory / WEIGHTS_FILE, tensors, metadata={"format": "pt"})
    identity = {"architectures": [architecture], "model_type": "bert"}
    names = labels_settings(labels) if labels else {}
    write_json(directory / CONFIG_FILE, {**identity, **dataclasses.asdict(config), **names, **settings})


def _stored_tensors(directory: Path) -> Iterator[tuple[str, StoredTensor]]:
    """Every tensor of a directory by its name there."""
    path, index = directory / WEIGHTS_FILE, directory / INDEX_FILE
    if path.exists() or not index.exists():
        if not path.exists() and (pickle := next((name for name in _PICKLES if (directory / name).exists()), None)):
            raise InputError(
                f"{directory}: holds its weights as {pickle}, expected {WEIGHTS_FILE}: such files are not opened, for "
                "they can run code; save the model with safe_serialization=True in `transformers`"
            )
        yield from _tensors_of(path)
        return
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise InputError(f"{index}: has no weight_map, expected file names by tensor names; fetch the file again")
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise InputError(f"{index}: names the file {name!r}, expected one beside it; fetch the file again")
        found = dict(_tensors_of(directory / name))
        if missing := [tensor for tensor, file in places.items() if file == name and tensor not in found]:
            raise InputError(f"{directory / name}: has no tensor {missing[0]}, which {INDEX_FILE} places there")
        yield from found.items()


def _tensors_of(path: Path) -> Iterator[tuple[str, StoredTensor]]:
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            piece = file.get_slice(name)
            dtype = _DTYPES.get(piece.get_dtype(), piece.get_dtype())
            shape = tuple(piece.get_shape())
            read, read_rows = (functools.partial(function, path, name) for function in (_read, _read_rows))
            yield name, StoredTensor(f"{path}: {name}", shape, dtype, read, read_rows if shape else None)


def _read(path: Path, name: str) -> np.ndarray:
    # Opened for each tensor: the file is mapped to memory, and what was read of it stays there until it is closed.
    with _opened(path) as file:
        value: np.ndarray = file.get_tensor(name)
    return value


def _read_rows(path: Path, name: str, start: int, stop: int) -> np.ndarray:
    with _opened(path) as file:
        value: np.ndarray = file.get_slice(name)[start:stop]
    return value


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file, whose library's errors are one line each."""
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected the weights of the model") from error
    except SafetensorError as error:
        raise InputError(f"{path}: is damaged ({error}); copy or write it again") from error


def _sort_tensors(
    stored: Mapping[str, StoredTensor], config: BertConfig, config_path: Path
) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """What a file holds by the names of `tf_bert.models.tensors`, and what is left out and why."""
    prefix = next((name.removesuffix(_FIRST) for name in stored if name.endswith(_FIRST)), "bert.")
    renamed = {_rename(name, prefix): name for name in stored}
    layers = {found[1] for name in renamed if (found := re.match(r"bert\.encoder\.layer\.(\d+)\.", name))}
    if layers and len(layers) != config.num_hidden_layers:  # before so many names are made
        raise InputError(
            f"{config_path}: num_hidden_layers is {config.num_hidden_layers:,}, but the weights have {len(layers):,} "
            "layers; the two belong to different models"
        )
    known = {name for part in PARTS for slot in part_slots(part, config) for name in slot.names} | {DECODER}
    tensors: dict[str, StoredTensor] = {}
    left_out: dict[str, str] = {}
    # The two are one tensor where the matrices are tied. Otherwise `transformers` adds the decoder's.
    if _DECODER_BIAS in renamed and (MASKED_LM_BIAS not in renamed or not config.tie_word_embeddings):
        if MASKED_LM_BIAS in renamed:
            left_out[renamed[MASKED_LM_BIAS]] = f"{_DECODER_BIAS} is in its place"
        renamed[MASKED_LM_BIAS] = renamed.pop(_DECODER_BIAS)
    for name, original in renamed.items():
        if name in known:
            tensors[name] = stored[original]
        elif re.match(r"bert\.encoder\.layer\.\d+\.", name):
            raise InputError(
                f"{stored[original].place}: is of a layer or kind that {config_path} does not have "
                f"(num_hidden_layers {config.num_hidden_layers}); the two belong to different models"
            )
        else:
            left_out[original] = _NOT_WEIGHTS.get(name, "it is no part of a BERT")
    return tensors, left_out


def _rename(name: str, prefix: str) -> str:
    """A tensor's name without what a model that contains this one puts before it, and as newer releases write it."""
    around = prefix.removesuffix("bert.")
    if name.startswith(prefix) and name.removeprefix(prefix).partition(".")[0] in ("embeddings", "encoder", "pooler"):
        name = f"bert.{name.removeprefix(prefix)}"
    else:
        name = name.removeprefix(around)
    for old, new in _OLD_ENDINGS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
