"""`tf-bert finetune`, `evaluate` and `predict`: from settings and files to models, metrics and answers."""

import dataclasses
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Literal

from tf_bert import distributed
from tf_bert.config import FinetuneConfig, LearningConfig, RunConfig, to_dict
from tf_bert.config.mounts import without_mounts
from tf_bert.distributed import World
from tf_bert.errors import UsageError
from tf_bert.files import atomic_writer, read_json, write_json
from tf_bert.finetuning.entities import EntityFamily
from tf_bert.finetuning.error_analysis import evaluate_with_answers
from tf_bert.finetuning.error_page import PAGE_FILE, has_error_page, log_errors, need_error_page, write_error_page
from tf_bert.finetuning.estimator import BertEstimator, EvalSpec, TrainSpec, train_and_evaluate
from tf_bert.finetuning.examples import find_labels
from tf_bert.finetuning.export_predictor import ExportPredictor
from tf_bert.finetuning.family import Family
from tf_bert.finetuning.model_directory import MODEL_DIR, open_finetuned_model
from tf_bert.finetuning.predictor import READ_AT_ONCE, Predictor
from tf_bert.finetuning.question_answering import QuestionFamily
from tf_bert.finetuning.tasks import custom_task, find_task
from tf_bert.finetuning.text import TextFamily
from tf_bert.run_log import RunLog

RESULT_FILE = "result.json"
PREDICTIONS_FILE = "predictions.jsonl"
"""Of the test file, if one was named."""

Notify = Callable[[str], object]


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run with one seed came to."""

    seed: int
    seconds: float
    """Of the process that ended it: reading, training, evaluating."""
    metrics: dict[str, dict[str, float]]
    """By split, of the last evaluation."""


def family_of(config: FinetuneConfig, notify: Notify) -> Family:
    """The task that a configuration names; `notify` is told which labels were found.

    Raises:
      UsageError, InputError: if there is no such task, or its columns or labels are not in its files.
    """
    task = config.task.casefold()
    if task == "squad":
        return QuestionFamily.of_data(place_of(config, "train"), config.squad, notify)
    if task == "ner":
        return EntityFamily.of_data(place_of(config, "train"), config.tag_column, notify)
    if task != "custom":
        found = find_task(config.task)
        if found.predicted_by:
            raise UsageError(
                f"task: {found.name} has no training file; finetune {found.predicted_by} and predict with it"
            )
        return TextFamily(found)
    if config.train_file is None or config.dev_file is None:
        raise UsageError("task custom: name its files with train_file and dev_file, such as --train_file train.csv")
    files = {"train": config.train_file, "dev": config.dev_file}
    files["test"] = config.test_file or f"test{Path(config.train_file).suffix}"  # the model may predict one later on
    custom = config.custom
    custom_files = custom_task(
        files,
        custom.text_columns,
        custom.label_column,
        custom.kind,
        custom.labels or None,
        columns=custom.columns,
        index_column=custom.index_column,
        label_separator=custom.label_separator,
        primary_metric=custom.primary_metric,
    )
    if custom_files.lacks_labels:
        custom_files = find_labels(custom_files, place_of(config, "train"), notify)
    return TextFamily(custom_files)


def place_of(config: FinetuneConfig, split: Literal["train", "dev", "test"]) -> str:
    """Where a split is read: its own file, as it is named or below `data`; or `data`, where none is named."""
    file: str | None = getattr(config, f"{split}_file")
    below = Path(config.data) / (file or "")
    return str(below if file is None or (below.exists() and not Path(file).exists()) else file)


def read_task(config: FinetuneConfig, notify: Notify) -> tuple[Family, list[Any], dict[str, list[Any]]]:
    """The task that a configuration names, its training examples, and those to evaluate on by split.

    Raises:
      UsageError, InputError: if something does not fit, or a file is missing or damaged.
    """
    family = family_of(config, notify)
    train = family.read(place_of(config, "train"), "train")
    # One file is one set, also for MNLI, which has two.
    splits = family.dev_splits[:1] if config.dev_file else family.dev_splits
    dev = {split: family.read(place_of(config, "dev"), split) for split in splits}
    if len(train) == 1:
        notify(f"{config.task}: there is a single training example; every update will see it alone")
    return family, train, dev


def finetune(config: FinetuneConfig, world: World | None = None, notify: Notify = print) -> list[Result]:
    """Finetunes with one seed or several; those that are done already are not run again.

    Args:
      config: task, files, weights to start from, settings.
      world: the ranks that train together; None: those that a launcher has started.
      notify: is told what people want to know.

    Raises:
      UsageError, InputError: if something does not fit, is damaged, or a signal stops the run.
      OtherRankFailed: if another rank of the run tells why it ends.
    """
    world = world or distributed.init()
    tell = notify if world.rank == 0 else (lambda line: None)
    with world.speaking_once():
        with world.together():
            family, train, dev = read_task(config, tell)
            test = family.read(place_of(config, "test"), "test") if config.test_file else []
        results = []
        for seed in range(config.seed, config.seed + config.seeds):
            results.append(finetune_once(seed_config(config, seed), family, train, dev, world, tell, test=test))
        for line in summary(family, results):
            tell(line)
    return results


def finetune_once(
    config: FinetuneConfig,
    family: Family,
    train: Sequence[Any],
    dev: Mapping[str, Sequence[Any]],
    world: World,
    notify: Notify,
    stop: Callable[[Sequence[Mapping[str, Any]]], bool] | None = None,
    test: Sequence[Any] = (),
) -> Result:
    """Finetunes with one seed, `config.seed`, unless it is done already.

    Args:
      config: settings.
      family: the task.
      train: its training examples.
      dev: the examples to evaluate on, by split.
      world: the ranks that train together.
      notify: is told what people want to know; on rank 0 alone.
      stop: see `EvalSpec.stop`.
      test: examples to predict in the end.

    Raises:
      UsageError, InputError: as `finetune`.
    """
    with world.together():
        done = finished(config) if world.rank == 0 else None
    if found := world.broadcast_object(dataclasses.asdict(done) if done else None):
        notify(f"seed {config.seed}: is done, see {config.model_dir}")
        return Result(**found)
    began = time.monotonic()
    run, learning = (_part(config, cls) for cls in (RunConfig, LearningConfig))
    with world.together():
        estimator = BertEstimator(family, run, learning, config.init, world, notify)
    metrics = train_and_evaluate(estimator, TrainSpec(train), EvalSpec(dev, config.early_stopping, stop=stop))
    result = Result(config.seed, time.monotonic() - began, metrics)
    predictions = list(estimator.predict(test)) if test else []
    evaluated = []
    if has_error_page(family):
        evaluated = [evaluate_with_answers(estimator.predictor, name, held_out) for name, held_out in dev.items()]
    with world.together():
        if world.rank == 0:
            directory = Path(config.model_dir)
            if test:
                write_predictions(iter(predictions), directory / PREDICTIONS_FILE, "jsonl")
            if evaluated:
                write_error_page(directory / PAGE_FILE, family, evaluated)
                with closing(RunLog(directory, estimator.step)) as log:
                    log_errors(log, estimator.step, family, evaluated)
            write_json(directory / RESULT_FILE, {**dataclasses.asdict(result), "settings": _settings(config)})
            notify(f"model directory  {directory / MODEL_DIR}")
    return result


def finished(config: FinetuneConfig) -> Result | None:
    """What a run with one seed came to, if it is done with these settings."""
    path = Path(config.model_dir) / RESULT_FILE
    done = read_json(path) if path.exists() else {}
    if done.get("settings") != _settings(config):
        return None
    return Result(config.seed, done["seconds"], done["metrics"])


def seed_config(config: FinetuneConfig, seed: int) -> FinetuneConfig:
    """The settings of the run with one seed; with more than one, each has a directory of its own."""
    directory = Path(config.model_dir) / f"seed-{seed}" if config.seeds > 1 else Path(config.model_dir)
    return dataclasses.replace(config, model_dir=str(directory), seed=seed, seeds=1)


def summary(family: Family, results: list[Result]) -> Iterator[str]:
    """Median and range of every metric over the seeds."""
    for split, metrics in results[0].metrics.items():
        for name in metrics:
            values = [result.metrics[split][name] for result in results]
            spread = f" ({min(values):.4f} to {max(values):.4f} over {len(values)} seeds)" if len(values) > 1 else ""
            yield f"{family.name} {split}: {name} {statistics.median(values):.4f}{spread}"


def evaluate(model_dir: str, data: str, splits: Sequence[str] = (), page: str | None = None) -> Iterator[str]:
    """The metrics of a finetuned model on files with labels, as lines to print.

    Args:
      model_dir: a finetuned model's directory, or that of its run.
      data: the file, or the directory of the task's files.
      splits: which; none: those that the task is evaluated on, but of a single file the first.
      page: an HTML file to write with the worst errors; None: none.

    Raises:
      UsageError, InputError: if something does not fit or is damaged.
    """
    predictor = open_finetuned_model(Path(model_dir))
    if page:
        need_error_page(predictor.family)
    of_task = predictor.family.dev_splits
    evaluated = []
    for split in splits or (of_task[:1] if Path(data).is_file() else of_task):
        evaluated.append(evaluate_with_answers(predictor, split, predictor.family.read(data, split)))
        metrics = evaluated[-1].metrics
        told = ", ".join(f"{name} {value:.4f}" for name, value in metrics.values.items())
        yield f"{predictor.family.name} {split}: {told}"
        yield from (f"  {note}" for note in metrics.notes)
    if page:
        write_error_page(Path(page), predictor.family, evaluated, f"Errors of {model_dir}")
        yield f"errors: {page}"


def predict(
    predictor: Predictor | ExportPredictor,
    source: str | IO[bytes],
    split: str = "test",
    batch_size: int = READ_AT_ONCE,
) -> Iterator[dict[str, Any]]:
    """Answers for the examples of a file or of a pipe, as they are read.

    Args:
      predictor: a finetuned model or its export.
      source: a file in the format of the task's, or a pipe with an example a line (`Family.read_lines`).
      split: which of the task's files it is.
      batch_size: answers come after so many examples; 1 for somebody who waits for each.

    Raises:
      UsageError, InputError: if something does not fit or is damaged.
    """
    family = predictor.family
    examples = family.read(source, split) if isinstance(source, str) else family.read_lines(source, "standard input")
    remaining = iter(examples)
    while portion := list(itertools.islice(remaining, batch_size)):
        yield from predictor.predict(portion)


def format_predictions(predictions: Iterator[dict[str, Any]], file_format: str) -> Iterator[str]:
    """A line for each: JSON; or for tsv the values with tabs between them, after a line with their names."""
    for number, prediction in enumerate(predictions):
        if file_format == "jsonl":
            yield json.dumps(prediction, ensure_ascii=False)
            continue
        if number == 0:
            yield "\t".join(prediction)
        yield "\t".join(_field(value) for value in prediction.values())


def _field(value: Any) -> str:
    """A value of a TSV, which has no place for tabs and ends of lines; what is no string is JSON."""
    return " ".join(value.split()) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def write_predictions(predictions: Iterator[dict[str, Any]], path: Path, file_format: str) -> int:
    """Writes them into a file, all or nothing; returns how many they are.

    Raises:
      InputError: if the operating system refuses to write.
    """
    count = 0
    with atomic_writer(path) as file:
        for line in format_predictions(predictions, file_format):
            file.write(f"{line}\n".encode())
            count += 1
    return count - (file_format == "tsv")  # whose first line has the names


def _part(config: FinetuneConfig, cls: Any) -> Any:
    return cls(**{field.name: getattr(config, field.name) for field in dataclasses.fields(cls)})


def _settings(config: FinetuneConfig) -> dict[str, Any]:
    """All that a result depends on."""
    irrelevant = ("log_every", "checkpoint_every", "keep_checkpoints", "stop_deadline_seconds", "model_dir")
    return {key: without_mounts(value) for key, value in to_dict(config).items() if key not in irrelevant}
