"""`tf-bert glue`: GLUE's tasks with several seeds, one table, and the files for the GLUE site; reads top to bottom.

A run that is done has a `result.json` and is not run again, so an interrupted command goes on with what is missing.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_bert import distributed
from tf_bert.config import FinetuneConfig, GlueConfig
from tf_bert.distributed import World
from tf_bert.errors import InputError, UsageError
from tf_bert.files import read_json, sha256_of, write_json
from tf_bert.finetuning.derived import LEARNING_FIELDS, derive
from tf_bert.finetuning.examples import find_file, read_examples
from tf_bert.finetuning.glue_table import TaskResults, format_table, in_order, write_tables
from tf_bert.finetuning.model_directory import MODEL_DIR, open_finetuned_model
from tf_bert.finetuning.run import Notify, Result, finetune_once, finished
from tf_bert.finetuning.submission import write_predictions, write_zip
from tf_bert.finetuning.tables import quoted
from tf_bert.finetuning.tasks import TASKS, Task, find_task
from tf_bert.finetuning.text import TextFamily
from tf_bert.models.directory import WEIGHTS_FILE

SUBMISSION_DIR = "submission"
SUBMISSION_FILE = "submission.zip"
MADE_OF_FILE = "made_of.json"
"""In `SUBMISSION_DIR`: the SHA-256 of the weights and of the file that predictions were made with."""

ALL = "all"
MNLI = "MNLI"
FROM_MNLI = ("RTE", "MRPC", "STS-B")
"""Tasks that gain from starting at an MNLI model (Liu et al. 2019, https://arxiv.org/abs/1907.11692, section 5.1)."""

_MAY_OVERRIDE = (*LEARNING_FIELDS, "init", "seed", "seeds", "evaluate_every", "early_stopping")


@dataclass(frozen=True)
class PlannedTask:
    """What is to be done for one task."""

    task: Task
    runs: tuple[FinetuneConfig, ...]
    """One a seed, each with a directory of its own."""
    predicted: tuple[tuple[Task, str, Path], ...]
    """Task, split and file of what its model predicts."""


def glue(config: GlueConfig, world: World | None = None, notify: Notify = print) -> list[TaskResults]:
    """Trains, evaluates, predicts, and writes tables and the zip into `config.model_dir`.

    Args:
      config: tasks, files, weights to start from, settings.
      world: the ranks that train together; None: those that a launcher has started.
      notify: is told what people want to know.

    Raises:
      UsageError, InputError: if something does not fit, a named task's file is missing, a file is damaged, or a signal
        stops a run.
      OtherRankFailed: if another rank tells why it ends.
    """
    world = world or distributed.init()
    with world.speaking_once():
        return _glue(config, world, notify if world.rank == 0 else (lambda line: None))


def _glue(config: GlueConfig, world: World, tell: Notify) -> list[TaskResults]:
    directory = Path(config.model_dir)
    with world.together():
        planned = plan(config, tell)
        for task in planned:
            _check_files(task)

    done: list[TaskResults] = []
    for task in planned:
        results = TaskResults(task.task, tuple(_train(task, world, tell)))
        done = in_order([*done, results])
        with world.together():
            if world.rank == 0:
                _predict(task, results.median_result, directory / SUBMISSION_DIR, tell)
                written = write_tables(directory, done)

    with world.together():
        if world.rank == 0:
            for line in ("", *format_table(done), "", *written):
                tell(line)
            if any(task.predicted for task in planned):
                tell(str(write_zip(directory / SUBMISSION_DIR, directory / SUBMISSION_FILE)))
    return done


# --- what to do ----------------------------------------------------------------------------------------------------


def plan(config: GlueConfig, notify: Notify) -> list[PlannedTask]:
    """What to do, in its order.

    Args:
      config: the settings.
      notify: is told which tasks are left out, and why.

    Raises:
      UsageError: if there is no task or setting of a name, or a setting does not fit.
      InputError: if a file of a named task is missing, or those of all tasks.
    """
    named = [_find("tasks", name).name for name in config.tasks if name.casefold() != ALL]
    wanted = list(TASKS) if len(named) < len(config.tasks) else [name for name in TASKS if name in named]
    overrides = {_find("overrides", name).name: values for name, values in config.overrides.items()}
    found: dict[str, Path] = {}
    for name in wanted:
        try:
            found[name] = _directory_of(TASKS[name], config.data)
        except InputError as error:
            if name in named:
                raise
            notify(f"{name}: is left out: {error}")
    trained = [name for name in found if TASKS[name].predicted_by is None]
    for name in found:
        if (model := TASKS[name].predicted_by) and model not in trained:
            if name in named:
                raise UsageError(
                    f"tasks: {name} is predicted with the model of {model}, which is not among them; add it"
                )
            notify(f"{name}: is left out: it is predicted with the model of {model}, which is not trained")
    if not trained:
        raise InputError(f"{config.data}: has the files of none of GLUE's tasks; `tf-bert fetch glue` downloads them")
    if config.from_mnli and MNLI not in trained:
        raise UsageError(f"from_mnli: found true without the task {MNLI}; add it, or set from_mnli to false")
    if config.from_mnli:
        trained.sort(key=lambda name: name != MNLI)
    return [
        PlannedTask(
            TASKS[name],
            tuple(_runs(config, name, found[name], overrides)),
            tuple(_predicted(name, found, notify)),
        )
        for name in trained
    ]


def _find(where: str, name: str) -> Task:
    try:
        return find_task(name.replace("_", "-"))  # flags have no dashes in their names
    except UsageError as error:
        raise UsageError(f"{where}: {str(error).removeprefix('task: ')}") from None


def _directory_of(task: Task, data: str) -> Path:
    """The task's directory, with all that it is trained and evaluated on; raises `InputError` if a file is missing."""
    folders = [Path(data) / folder for folder in task.folders]
    directory = next((folder for folder in folders if folder.is_dir()), None)
    if directory is None:
        place = Path(data)
        names = sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []
        raise InputError(
            f"{data}: has no directory {' or '.join(task.folders)}, found {quoted(names)}; `tf-bert fetch glue --tasks "
            f"{task.name}` downloads it"
        )
    for split in task.splits:
        if split.has_labels:
            find_file(task, directory, split.name)
    return directory


def _runs(
    config: GlueConfig, name: str, directory: Path, overrides: dict[str, dict[str, Any]]
) -> Iterator[FinetuneConfig]:
    fixed = {"task": name, "data": str(directory)}
    if config.from_mnli and name in FROM_MNLI:
        first = overrides.get(MNLI, {}).get("seed", config.seed)
        fixed["init"] = str(_run_dir(config, MNLI, first) / MODEL_DIR)
    whole = derive(config, overrides.get(name, {}), _MAY_OVERRIDE, f"overrides.{name}", **fixed)
    for seed in range(whole.seed, whole.seed + whole.seeds):
        yield dataclasses.replace(whole, model_dir=str(_run_dir(config, name, seed)), seed=seed, seeds=1)


def _run_dir(config: GlueConfig, name: str, seed: int) -> Path:
    return Path(config.model_dir) / name / f"seed-{seed}"


def _predicted(name: str, found: dict[str, Path], notify: Notify) -> Iterator[tuple[Task, str, Path]]:
    """What the model of a task predicts, of what is there."""
    for task in TASKS.values():
        if task.name in found and name in (task.name, task.predicted_by):
            for split in task.test_splits:
                try:
                    yield task, split.name, find_file(task, found[task.name], split.name)
                except InputError as error:
                    notify(f"{split.submission}: is not predicted: {error}")


def _check_files(planned: PlannedTask) -> None:
    """Reads all files of runs that are not done, so that what is wrong with one is told before hours of training."""
    if not all(map(finished, planned.runs)):
        for split in planned.task.splits:
            if split.has_labels:
                for _ in read_examples(planned.task, planned.runs[0].data, split.name):
                    pass
        for task, name, file in planned.predicted:
            for _ in read_examples(task, file, name):
                pass


# --- doing it ------------------------------------------------------------------------------------------------------


def _train(planned: PlannedTask, world: World, notify: Notify) -> list[Result]:
    """What the runs came to; those that are not done are run."""
    family, data = TextFamily(planned.task), planned.runs[0].data
    with world.together():
        remaining = [run.seed for run in planned.runs if finished(run) is None]
    remaining = world.broadcast_object(remaining)
    with world.together():
        train = family.read(data, "train") if remaining else []
        dev = {split: family.read(data, split) for split in family.dev_splits} if remaining else {}
    results = []
    for run in planned.runs:
        if run.seed in remaining:
            notify(f"\n{planned.task.name}, seed {run.seed}")
        results.append(finetune_once(run, family, train, dev, world, notify))
    return results


def _predict(planned: PlannedTask, median: Result, directory: Path, notify: Notify) -> None:
    """Predicts the test files with the model of the median run, but for those that it has predicted already."""
    if not planned.predicted:
        return
    run = next(run for run in planned.runs if run.seed == median.seed)
    model_dir = Path(run.model_dir) / MODEL_DIR
    made_of_path = directory / MADE_OF_FILE
    made_of = read_json(made_of_path) if made_of_path.exists() else {}
    weights = sha256_of(model_dir / WEIGHTS_FILE)
    predictor = None
    for task, split, file in planned.predicted:
        name = str(task.split(split).submission)
        sources = {"weights": weights, "file": sha256_of(file)}
        if made_of.get(name) == sources and (directory / f"{name}.tsv").exists():
            continue
        predictor = predictor or open_finetuned_model(model_dir, run.precision)
        notify(f"{name}: predicting with {model_dir}")
        examples = list(read_examples(task, file, split))
        ids = {label: number for number, label in enumerate(task.labels)}
        told = predictor.predict(examples)
        values = [answer["score"] if task.kind == "regression" else ids[answer["label"]] for answer in told]
        write_predictions(directory, task, split, [example.index for example in examples], values)
        made_of[name] = sources
        write_json(made_of_path, made_of)
