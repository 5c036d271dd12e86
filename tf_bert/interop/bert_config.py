"""`bert_config.json`, the shape of an encoder as google-research and Model Garden write it.

What they call "gelu" is not one function. Google's checkpoints were released with the exact one (erf), and their
scripts moved to the tanh approximation later; `transformers` opens them with the exact one, and so does this project.
In Model Garden's code "gelu" has always been the approximation (`official/modeling/tf_utils.py`), which is `gelu_new`
here. So each format has a meaning of its own for the word, and files that are written here say in `approximate_gelu`
which of the two a model has; the formats' own programs pass over that key, as over label names and the other keys that
the original files do not have.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_bert.config import BertConfig, load_bert_config
from tf_bert.errors import InputError
from tf_bert.files import read_json, write_json
from tf_bert.models.directory import KEPT_SETTINGS, labels_settings, read_labels
from tf_bert.models.weights import StoredTensor, Weights

FILE = "bert_config.json"
_APPROXIMATE = "approximate_gelu"
_NOT_ORIGINAL = ("layer_norm_eps", "tie_word_embeddings")


@dataclasses.dataclass(frozen=True)
class Described:
    """What a `bert_config.json` says of a model."""

    config: BertConfig
    architecture: str | None = None
    labels: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def weights(self, source: str, tensors: Mapping[str, StoredTensor], left_out: Mapping[str, str]) -> Weights:
        """The weights of the model. See `Weights`."""
        return Weights(source, self.config, tensors, left_out, self.architecture, self.labels, self.settings)


def read_described(path: Path, approximate: bool) -> Described:
    """Reads a `bert_config.json`.

    Args:
      path: the file.
      approximate: the format's meaning of "gelu", where the file does not say it.

    Raises:
      InputError: if it is missing, damaged or describes something that is not a BERT.
    """
    config = load_bert_config(path)
    settings = read_json(path)
    if config.hidden_act == "gelu" and settings.get(_APPROXIMATE, approximate):
        config = dataclasses.replace(config, hidden_act="gelu_new")
    architectures = settings.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise InputError(f'{path}: architectures is {architectures!r}, expected names, such as ["BertForPreTraining"]')
    return Described(
        config=config,
        architecture=next(iter(architectures), None),
        labels=read_labels(settings, path),
        settings={key: settings[key] for key in KEPT_SETTINGS if key in settings},
    )


def write_described(weights: Weights, path: Path) -> None:
    """Writes a `bert_config.json` that `read_described` reads, as the formats' own programs do.

    Raises:
      InputError: if the operating system refuses to write.
    """
    values = dataclasses.asdict(weights.config)
    defaults = {field.name: field.default for field in dataclasses.fields(BertConfig)}
    for key in _NOT_ORIGINAL:
        if values[key] == defaults[key]:
            del values[key]
    if values["hidden_act"] in ("gelu", "gelu_new"):
        values |= {"hidden_act": "gelu", _APPROXIMATE: values["hidden_act"] == "gelu_new"}
    labels = labels_settings(weights.labels) if weights.labels else {}
    write_json(path, {**values, "architectures": [weights.kind], **labels, **weights.settings})


def check_layers(path: str, config: BertConfig, found: int) -> None:
    """Raises `InputError` if the files hold another number of layers than the configuration says."""
    if found != config.num_hidden_layers:
        raise InputError(
            f"{path}: holds {found} layers, expected {config.num_hidden_layers} by num_hidden_layers of {FILE}; the "
            "two belong to different models"
        )


def check_labels(path: Path, described: Described, tensors: Mapping[str, StoredTensor]) -> None:
    """Raises `InputError` if the classifier has another number of outputs than there are label names."""
    bias = tensors.get("classifier.bias")
    if described.labels and bias and bias.shape != (len(described.labels),):
        raise InputError(
            f"{path}: id2label names {len(described.labels)} labels, but the classifier has outputs of shape "
            f"{bias.shape}; the two belong to different models"
        )
