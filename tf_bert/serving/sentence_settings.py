"""What sentence-transformers keeps beside a model: how token vectors become the vector of a text.

`modules.json` names the steps in order: a Transformer, a Pooling (`1_Pooling/config.json`) and perhaps a Normalize.
Where it is missing, sentence-transformers takes the mean and does not normalise, and so does this.
"""

import dataclasses
from pathlib import Path
from typing import Any

from tf_bert.errors import InputError, UsageError
from tf_bert.files import read_json
from tf_bert.tokenization.tokenizer import TOKENIZER_CONFIG_FILE

MODULES_FILE = "modules.json"
POOLING_FILE = "config.json"
TRANSFORMER_FILE = "sentence_bert_config.json"
PROMPTS_FILE = "config_sentence_transformers.json"
SHORTEST = 3
"""Least max_seq_length: `[CLS]`, a token and `[SEP]`."""

_POOLINGS = ("mean", "cls")
_STEPS = ["Transformer", "Pooling", "Normalize"]
# Of releases before 6; from then on one entry, pooling_mode.
_OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclasses.dataclass(frozen=True)
class SentenceSettings:
    """How a model directory makes vectors of texts."""

    directory: Path
    """Where its weights and its tokenizer are."""
    pooling: str
    """mean or cls, or what was asked for."""
    normalize: bool
    """Whether vectors are scaled to length 1."""
    max_seq_length: int | None
    """Tokens of a text that are read, if the directory says so."""
    lower_case: bool
    """Whether texts are lower-cased before a tokenizer that does not do so."""


def read_sentence_settings(model_dir: Path, pooling: str | None = None) -> SentenceSettings:
    """Reads sentence-transformers' files, as far as they are there.

    Args:
      model_dir: a model directory.
      pooling: in the place of what the directory says.

    Raises:
      InputError: if a file is damaged, or asks for what is not done here.
    """
    if not model_dir.is_dir():
        raise InputError(f"{model_dir}: no such directory; expected a model directory, as `tf-bert pretrain` writes it")
    steps = _read_steps(model_dir)
    directory = steps["Transformer"]
    _refuse_prompt(model_dir / PROMPTS_FILE)
    settings = _read(directory / TRANSFORMER_FILE)
    return SentenceSettings(
        directory,
        pooling or (_read_pooling(steps["Pooling"] / POOLING_FILE) if "Pooling" in steps else "mean"),
        "Normalize" in steps,
        _read_length(directory / TRANSFORMER_FILE, settings),
        settings.get("do_lower_case") is True,
    )


def choose_length(settings: SentenceSettings, longest: int, asked: int | None) -> int:
    """The max_seq_length to use.

    Args:
      settings: of the model directory.
      longest: what the model can read.
      asked: in the place of what the directory says.

    Raises:
      UsageError: if it is impossible, and was asked for.
      InputError: if it is impossible, and the directory says so.
    """
    if asked is not None:
        if not SHORTEST <= asked <= longest:
            raise UsageError(
                f"--max_seq_length: found {asked}, expected {SHORTEST} to {longest}, which is the most the model reads"
            )
        return asked
    if settings.max_seq_length is None:
        # A tokenizer without a limit has a huge number here.
        limit = _read(settings.directory / TOKENIZER_CONFIG_FILE).get("model_max_length")
        return min(limit, longest) if isinstance(limit, int) and limit >= SHORTEST else longest
    if settings.max_seq_length > longest:
        raise InputError(
            f"{settings.directory / TRANSFORMER_FILE}: max_seq_length is {settings.max_seq_length}, but the model "
            f"reads at most {longest} tokens; give --max_seq_length"
        )
    return settings.max_seq_length


def _read_steps(model_dir: Path) -> dict[str, Path]:
    """The folder of every step, by its kind."""
    path = model_dir / MODULES_FILE
    if not path.exists():
        return {"Transformer": model_dir}
    modules = read_json(path)
    try:
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        folders = [Path(module["path"]) for module in modules]
    except (TypeError, KeyError):
        raise InputError(f"{path}: expected a list of modules with type and path; restore the file") from None
    if not kinds or kinds != _STEPS[: len(kinds)]:
        raise InputError(
            f"{path}: names the steps {', '.join(kinds) or '(none)'}, expected {', '.join(_STEPS)}: without the others "
            "vectors would be of another kind than sentence-transformers'"
        )
    if outside := [folder for folder in folders if folder.is_absolute() or ".." in folder.parts]:
        raise InputError(f"{path}: names the folder {str(outside[0])!r}, expected one inside of the model directory")
    return {kind: model_dir / folder for kind, folder in zip(kinds, folders, strict=True)}


def _read_pooling(path: Path) -> str:
    settings = _read(path, required=True)
    modes = settings.get("pooling_mode") or [mode for key, mode in _OLD_MODES.items() if settings.get(key)] or ["mean"]
    modes = modes if isinstance(modes, list) else [modes]
    if len(modes) > 1 or modes[0] not in _POOLINGS:
        raise InputError(
            f"{path}: pools by {' and '.join(map(str, modes))}, expected {' or '.join(_POOLINGS)}; give --pooling to "
            "pool otherwise than the model was trained for"
        )
    return str(modes[0])


def _read_length(path: Path, settings: dict[str, Any]) -> int | None:
    length = settings.get("max_seq_length")
    if length is not None and (not isinstance(length, int) or length < SHORTEST):
        raise InputError(f"{path}: max_seq_length is {length!r}, expected a number of {SHORTEST} or more, or none")
    return length


def _refuse_prompt(path: Path) -> None:
    settings = _read(path)
    name = settings.get("default_prompt_name")
    if name is not None:
        raise InputError(
            f"{path}: default_prompt_name is {name!r}, a prompt before every text; expected null: remove the entry "
            "and write the prompt before the texts yourself"
        )


def _read(path: Path, required: bool = False) -> dict[str, Any]:
    if not required and not path.exists():
        return {}
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise InputError(f"{path}: found a JSON {type(settings).__name__}, expected an object; restore the file")
    return settings
