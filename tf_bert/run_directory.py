"""What a pretraining run keeps in its output directory, and how a process finds its way back into it."""

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
import yaml

from tf_bert import __version__
from tf_bert.config import PretrainConfig, TrainingConfig, to_dict
from tf_bert.config.mounts import without_mounts
from tf_bert.errors import InputError, UsageError
from tf_bert.files import (
    atomic_directory,
    atomic_writer,
    read_json,
    reporting_disk_errors,
    sha256_of,
    write_json,
)
from tf_bert.models.directory import LINEAGE_FILE, save_model
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.pretraining_data.manifest import MANIFEST_FILE
from tf_bert.tokenization.tokenizer import load_tokenizer, save_tokenizer
from tf_bert.training.checkpoint import CheckpointManager
from tf_bert.training.rollback import Rollbacks

CONFIG_FILE = "config.yaml"  # all settings, ready for --config
RUN_FILE = "run.json"  # what a resumed run must share with its beginning
CHECKPOINTS_DIR = "checkpoints"
MODEL_DIR = "model"
INIT_FILE = "init.json"  # what the first weights were, if they came from elsewhere
REPORT_FILE = "report.png"

# What settings were that runs of earlier versions did not have.
_EARLIER_VALUES = {"model.tie_word_embeddings": True}


def claim_output_directory(output_dir: Path, config: PretrainConfig) -> None:
    """Makes the run's directory, or checks that an existing one belongs to this run; raises as the check does."""
    check_output_directory(output_dir, config)
    with reporting_disk_errors(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / RUN_FILE, _identity(to_dict(config)))
    with atomic_writer(output_dir / CONFIG_FILE) as file:
        file.write(yaml.safe_dump(to_dict(config), sort_keys=False).encode())


def check_output_directory(output_dir: Path, config: PretrainConfig) -> bool:
    """Whether the directory holds this run already; otherwise it is empty or there is none.

    Raises:
      InputError: if it holds something else.
      UsageError: if it holds a run that this one cannot go on from.
    """
    path = output_dir / RUN_FILE
    identity = _identity(to_dict(config))
    if path.exists():
        earlier = read_json(path)
        for key, value in identity.items():
            before = earlier.get(key, _EARLIER_VALUES.get(key))
            if before != value:
                raise UsageError(
                    f"{output_dir}: holds a run with {key} {before}, found {value}; choose another "
                    "output_dir, or remove this one to start over"
                )
    elif output_dir.exists() and any(output_dir.iterdir()):
        raise InputError(
            f"{output_dir}: holds files but no {RUN_FILE} of a run, e.g. {next(output_dir.iterdir()).name}; "
            "choose an empty or a new output_dir"
        )
    return path.exists()


def _identity(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that a resumed run must share with its beginning, lest it be another run."""
    sections = {f"model.{key}": value for key, value in config["model"].items()}
    sections |= {f"training.{key}": config["training"][key] for key in ("seed", "global_batch_size", "precision")}
    sections |= {f"data.{key}": value for key, value in config["data"].items() if key != "data_dir"}
    sections["init"] = without_mounts(config["init"])
    return {**sections, "data.manifest_sha256": sha256_of(Path(config["data"]["data_dir"]) / MANIFEST_FILE)}


def is_done(config: PretrainConfig) -> bool:
    """Whether a stage has come to its end: its model directory, written last, is of the same settings."""
    lineage = Path(config.output_dir) / MODEL_DIR / LINEAGE_FILE
    return lineage.exists() and read_json(lineage)["pretraining"]["training"] == to_dict(config.training)


def start_from(earlier_dir: Path, output_dir: Path, variables: list[keras.Variable]) -> None:
    """Gives variables the values that they had at the end of an earlier stage, and this one its note of first weights.

    Raises:
      InputError: if its last checkpoint is missing or damaged, or of another model or optimizer.
    """
    checkpoint, warnings = CheckpointManager(earlier_dir / CHECKPOINTS_DIR, keep=1).latest()
    if checkpoint is None or warnings:
        reason = warnings[0] if warnings else "there is none"
        raise InputError(
            f"{earlier_dir}: the next stage starts from its last checkpoint ({reason}); remove "
            f"{earlier_dir / MODEL_DIR} and run again, and the stage is ended once more"
        )
    checkpoint.restore(variables, only_these=True)
    if (earlier_dir / INIT_FILE).exists():
        write_json(output_dir / INIT_FILE, read_json(earlier_dir / INIT_FILE))


def resume(checkpoints: CheckpointManager, variables: list[keras.Variable]) -> tuple[int, list[str]]:
    """Restores the newest sound checkpoint, if any; returns the updates it holds and warnings to show."""
    checkpoint, warnings = checkpoints.latest()
    if checkpoint is None:
        return 0, warnings
    checkpoint.restore(variables)
    return checkpoint.step, warnings


def roll_back(
    rollbacks: Rollbacks,
    step: int,
    trouble: str,
    rows: dict[str, list[int]],
    checkpoints: CheckpointManager,
    training: TrainingConfig,
) -> None:
    """Writes down that the run goes on from its newest checkpoint, past the rows up to those of `step`.

    Raises:
      InputError: if there is no checkpoint, or it has gone back often enough.
    """
    checkpoint, _ = checkpoints.latest()
    if checkpoint is None or len(rollbacks) >= training.max_rollbacks:
        why = "there is no checkpoint to go back to"
        if len(rollbacks):
            why = f"it has gone back {len(rollbacks)} times, training.max_rollbacks {training.max_rollbacks} ("
            why += f"{rollbacks.told()}; see {rollbacks.path})"
        elif checkpoint:
            why = f"training.max_rollbacks {training.max_rollbacks} lets it not go back"
        raise InputError(
            f"step {step}: {trouble}, and {why}; lower optimizer.learning_rate, warm up longer or look at the data of "
            "these steps, then run again: it goes on from the last checkpoint"
        )
    rollbacks.add(step, checkpoint.step, trouble, rows)
    print(
        f"step {step:,}: {trouble}; goes back to the checkpoint of step {checkpoint.step:,}, past the data since then "
        f"({len(rollbacks)} of {training.max_rollbacks} times)"
    )


def write_model_directory(model_dir: Path, model: BertForPretraining, config: PretrainConfig) -> None:
    """Writes weights, configuration, vocabulary and lineage, all or nothing."""
    data_dir = Path(config.data.data_dir)
    tokenizer = load_tokenizer(data_dir)
    with atomic_directory(model_dir) as partial:
        save_model(model, partial, {"pad_token_id": tokenizer.vocabulary.pad_id})
        save_tokenizer(partial, tokenizer.vocabulary, tokenizer.lower_case, tokenizer.strip_accents)
        lineage = {
            "tf_bert": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "pretraining": to_dict(config),
            "data": read_json(data_dir / MANIFEST_FILE),
        }
        if (init := model_dir.parent / INIT_FILE).exists():
            lineage["init"] = read_json(init)
        write_json(partial / LINEAGE_FILE, lineage)
