"""Pretraining that goes on from somebody's weights: `tf-bert pretrain --init SOURCE`."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tf_bert.config import BertConfig, DataConfig, PretrainConfig
from tf_bert.errors import UsageError
from tf_bert.files import write_json
from tf_bert.interop.source import Source, open_source
from tf_bert.interop.vocabulary import change_vocabulary, with_vocabulary
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.models.weights import Weights, assign_weights
from tf_bert.pretraining_data.manifest import read_manifest
from tf_bert.run_directory import INIT_FILE
from tf_bert.tokenization.tokenizer import directory_vocabulary

MAY_DIFFER = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")
"""Fields of a model that its weights do not depend on."""
HEADS = ("pooler", "masked_lm", "next_sentence")
"""Parts that a source may be without; they are then made anew."""


def complete_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Lays the source's shape under what the user says of the model, if there is a source.

    Args:
      values: settings of a `PretrainConfig`, as YAML and command line give them.

    Raises:
      InputError: if the source cannot be opened.
    """
    init, model = values.get("init"), values.get("model") or {}
    known = {field.name for field in dataclasses.fields(BertConfig)}
    if not isinstance(init, str) or not isinstance(model, dict) or model.keys() >= known:
        return dict(values)  # none, wrong, or complete, as a run's own config.yaml is
    with open_source(init) as source:
        shape = dataclasses.asdict(source.weights.config)
    if str(values.get("replace_vocabulary")).lower() == "true":
        shape["vocab_size"] = read_manifest(_first_data_dir(values)).vocabulary.size
    return {**values, "model": {**shape, **model}}


def _first_data_dir(values: Mapping[str, Any]) -> Path:
    """Of the first stage, or of the run."""
    groups = [*(stage.get("data") for stage in (values.get("stages") or [])[:1]), values.get("data")]
    named = [group["data_dir"] for group in groups if group and "data_dir" in group]
    return Path(next(iter(named), DataConfig().data_dir))


def check_initial_weights(config: PretrainConfig) -> str:
    """Holds the source against model and data; returns what it is.

    Raises:
      InputError: if the source is damaged.
      UsageError: if its shape, its vocabulary or its case is another one.
    """
    with _fitting_weights(config) as (source, weights, _):
        parts = ", ".join(weights.parts)
        return f"{config.init} ({source.kind}): {parts}"


def load_initial_weights(config: PretrainConfig, model: BertForPretraining) -> list[str]:
    """Gives a new model the weights of the source; returns what was loaded, left out and newly made, for people.

    The run's directory keeps a note of the source. Raises as `check_initial_weights` does.
    """
    with _fitting_weights(config) as (source, weights, change):
        report = assign_weights(model, weights, optional=HEADS)
        write_json(Path(config.output_dir) / INIT_FILE, source.lineage())
    return [*change, *report.lines()]


@contextmanager
def _fitting_weights(config: PretrainConfig) -> Iterator[tuple[Source, Weights, list[str]]]:
    """The source, its weights in the vocabulary of the data, and lines on what was changed for it."""
    assert config.init is not None
    data_dir = Path(config.data.data_dir)
    with open_source(config.init) as source:
        weights, lines = source.weights, []
        vocabulary = directory_vocabulary(data_dir)
        if source.vocabulary is None:
            lines.append(f"{config.init}: has no vocabulary; that of {data_dir} is taken for its own")
        elif source.vocabulary.tokens != vocabulary.tokens:
            if not config.replace_vocabulary:
                raise UsageError(
                    f"init {config.init}: has another vocabulary ({len(source.vocabulary):,} tokens) than {data_dir} "
                    f"({len(vocabulary):,}); prepare the data with the vocabulary of the source, or set "
                    "replace_vocabulary true to keep the rows of common tokens and make the others from their pieces"
                )
            change = change_vocabulary(source.vocabulary, vocabulary)
            weights = with_vocabulary(weights, change, config.model.vocab_size)
            lines += change.lines()
        lower_case = read_manifest(data_dir).vocabulary.lower_case
        if source.lower_case not in (None, lower_case):
            cases = {True: "uncased", False: "cased"}
            raise UsageError(
                f"init {config.init}: is {cases[not lower_case]} ({source.case_known_from}), but {data_dir} is "
                f"{cases[lower_case]}; prepare the data with lower_case {str(not lower_case).lower()}"
            )
        _check_shape(config.init, weights.config, config.model)
        yield source, weights, lines


def _check_shape(source: str, found: BertConfig, model: BertConfig) -> None:
    for field in dataclasses.fields(BertConfig):
        theirs, ours = getattr(found, field.name), getattr(model, field.name)
        if theirs != ours and field.name not in MAY_DIFFER:
            raise UsageError(
                f"model.{field.name} is {ours}, but init {source} has {theirs}; leave the setting (and model_size) out"
            )
