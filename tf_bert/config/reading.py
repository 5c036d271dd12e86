"""Configurations from YAML, from the command line and from published `bert_config.json` files.

`load` reads a YAML file, lays the command line's `--field value` pairs over it, and names the key, what was found and
what was expected when something does not fit. An unknown key is an error.
"""

import dataclasses
import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml
from pydantic import TypeAdapter

from tf_bert.config.settings import BertConfig
from tf_bert.errors import InputError, UsageError

ConfigT = TypeVar("ConfigT")


def load(
    cls: type[ConfigT],
    path: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    complete: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
) -> ConfigT:
    """Builds `cls` from a YAML file with dotted `overrides` ("model.hidden_size": "256") laid over it.

    Args:
      cls: a configuration class.
      path: the file; None: there is none.
      overrides: values by dotted names.
      complete: adds values that follow from the others, and may raise what it likes.

    Raises:
      UsageError: if a key is unknown, a value does not fit or the fields contradict each other.
      InputError: if the file cannot be read.
    """
    values = _read_yaml(path) if path else {}
    for dotted, value in (overrides or {}).items():
        _lay_over(values, dotted, value)
    return from_dict(cls, complete(values), where=path or "command line")


def from_dict(cls: type[ConfigT], values: Mapping[str, Any], where: str) -> ConfigT:
    """Builds `cls` from plain values; `where` names their origin in messages. Raises `UsageError` as `load` does."""
    try:
        return TypeAdapter(cls).validate_python(values)
    except pydantic.ValidationError as error:
        raise UsageError(f"{where}: {_describe(cls, error)}") from None


def to_dict(config: Any) -> dict[str, Any]:
    """Plain values of a configuration, ready for JSON or YAML."""
    values: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return values


def load_bert_config(path: Path) -> BertConfig:
    """Reads a `bert_config.json` of the original release or a Hugging Face `config.json`.

    Keys that do not change the encoder (architectures, label names, the original pooler_* keys ...) are passed
    over; keys that ask for another architecture are refused.

    Raises:
      InputError: if the file is missing, is not JSON or describes a model that is not BERT.
    """
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: found a JSON {type(values).__name__}, expected an object of BERT settings")
    expected = {"model_type": "bert", "position_embedding_type": "absolute", "is_decoder": False}
    for key, wanted in expected.items():
        if values.get(key, wanted) != wanted:
            raise InputError(f"{path}: {key} is {values[key]!r}, expected {wanted!r}: this is not a BERT encoder")
    known = {field.name for field in dataclasses.fields(BertConfig)}
    try:
        return from_dict(BertConfig, {key: value for key, value in values.items() if key in known}, where=str(path))
    except UsageError as error:
        raise InputError(str(error)) from error


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise UsageError(f"{path}: {line}is not valid YAML: {getattr(error, 'problem', error)}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{path}: found a YAML {type(values).__name__}, expected `key: value` lines")
    return values


def _lay_over(values: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--{dotted}: {parent} is a single value, not a group of settings")
        values = inner
    values[last] = value


def _describe(cls: type, error: pydantic.ValidationError) -> str:
    """The first problem as one line, with the full key and, for an unknown one, the nearest known key."""
    problem = error.errors()[0]
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key '{key}'; {_suggest(cls, location)}"
    if problem["type"] in ("missing", "missing_argument"):
        doc = next((field.doc for field in describe_fields(cls) if field.key == key), "")
        return f"'{key}' is required and missing: {doc}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message if not key else f"{key}: {message}"
    return f"{key}: found {problem['input']!r}: {message}"


def _suggest(cls: type, location: Sequence[str]) -> str:
    keys = [field.key for field in describe_fields(cls)]
    parent, _, name = ".".join(location).rpartition(".")
    prefix = f"{parent}." if parent else ""
    names = dict.fromkeys(key[len(prefix) :].partition(".")[0] for key in keys if key.startswith(prefix))
    siblings = {sibling: prefix + sibling for sibling in names}
    if same := [key for key in keys if key.rpartition(".")[2] == name]:
        return f"did you mean '{same[0]}'?"
    if near := difflib.get_close_matches(name, siblings, n=1):
        return f"did you mean '{siblings[near[0]]}'?"
    if near := difflib.get_close_matches(name, [key.rpartition(".")[2] for key in keys], n=1):
        return f"did you mean '{next(key for key in keys if key.rpartition('.')[2] == near[0])}'?"
    return f"known keys here: {', '.join(siblings)}"


@dataclasses.dataclass(frozen=True)
class FieldDescription:
    """One setting, as help texts and docs/configuration.md show it."""

    key: str
    """Dotted name."""
    default: str
    """Default as YAML, or "required"."""
    doc: str
    """Its docstring."""
    is_switch: bool
    """It is on or off, nothing else."""


def describe_fields(cls: Any, prefix: str = "") -> Iterator[FieldDescription]:
    """Every setting of a configuration class, groups walked into, in order of definition."""
    for name, info in cls.__pydantic_fields__.items():
        if dataclasses.is_dataclass(info.annotation):
            yield from describe_fields(info.annotation, f"{prefix}{name}.")
        else:
            default = "required" if info.is_required() else json.dumps(info.get_default(call_default_factory=True))
            yield FieldDescription(prefix + name, default, _docstring(cls, name), info.annotation is bool)


def _docstring(cls: Any, name: str) -> str:
    # pydantic reads docstrings from the body of the class itself, so an inherited field's is on the parent.
    parents = (parent.__pydantic_fields__ for parent in cls.__mro__ if "__pydantic_fields__" in vars(parent))
    return next((fields[name].description for fields in parents if name in fields and fields[name].description), "")
