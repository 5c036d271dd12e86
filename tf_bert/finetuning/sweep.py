"""`tf-bert sweep`: one task with many settings, one run after the other; reads top to bottom.

`sweep.json` holds what each run came to and is written after each, so an interrupted command goes on with the run that
it was at, from its newest checkpoint.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from tf_bert import distributed
from tf_bert.config import FinetuneConfig, SweepConfig, to_dict
from tf_bert.config.mounts import without_mounts
from tf_bert.distributed import World
from tf_bert.errors import Diverged, InputError, UsageError
from tf_bert.files import atomic_writer, read_json, reporting_disk_errors, write_json
from tf_bert.finetuning.bandit import falls_behind
from tf_bert.finetuning.derived import LEARNING_FIELDS, derive
from tf_bert.finetuning.evaluations import EVALUATIONS_FILE
from tf_bert.finetuning.hparams import Value, write_experiment, write_session
from tf_bert.finetuning.model_directory import MODEL_DIR
from tf_bert.finetuning.run import Notify, finetune_once, read_task
from tf_bert.finetuning.sweep_space import Parameters, draw
from tf_bert.finetuning.sweep_table import State, SweepTable, Trial, describe, plain
from tf_bert.models.directory import LINEAGE_FILE
from tf_bert.run_log import read_metrics

STATE_FILE = "sweep.json"
MARKDOWN_FILE = "sweep.md"

_MAY_CHANGE = ("num_runs", "model_dir", "log_every", "checkpoint_every", "keep_checkpoints", "stop_deadline_seconds")
"""Settings that a sweep that goes on need not share with its beginning."""

Evaluated = Sequence[Mapping[str, Any]]
"""Evaluations of a run: `step`, and `metrics` by split."""


def sweep(config: SweepConfig, world: World | None = None, notify: Notify = print) -> list[Trial]:
    """Runs what is missing of a sweep, and writes `STATE_FILE`, `MARKDOWN_FILE` and TensorBoard's files.

    Args:
      config: the task, what is tried, when a run is given up.
      world: the ranks that train together; None: those that a launcher has started.
      notify: is told what people want to know.

    Returns:
      The runs in their order; none on ranks other than 0.

    Raises:
      UsageError: if a setting does not fit, or the directory holds another sweep.
      InputError: if something is damaged or a signal stops a run; with several ranks also if one diverges.
      OtherRankFailed: if another rank tells why it ends.
    """
    world = world or distributed.init()
    with world.speaking_once():
        return _Sweep(config, world, notify if world.rank == 0 else (lambda line: None)).run()


class _Sweep:
    """What is the same for all runs. Rank 0 alone knows `trials`, and decides."""

    def __init__(self, config: SweepConfig, world: World, tell: Notify) -> None:
        self.config, self.world, self.tell = config, world, tell
        self.directory = Path(config.model_dir)
        self.is_first = world.rank == 0
        with world.together():
            self.runs = [
                derive(
                    config, parameters, LEARNING_FIELDS, "space", model_dir=str(self.directory / f"run-{number:03d}")
                )
                for number, parameters in enumerate(draw(config), start=1)
            ]
            self.trials = self._earlier_trials() if self.is_first else []
            self.family, self.train, self.dev = read_task(config, tell)
        self.metric, self.higher_is_better = self.family.primary_metric

    def _earlier_trials(self) -> list[Trial]:
        """What is written down of an earlier process; raises `UsageError` if that was another sweep."""
        path = self.directory / STATE_FILE
        if not path.exists():
            return []
        state = read_json(path)
        try:
            earlier, trials = dict(state["settings"]), pydantic.TypeAdapter(list[Trial]).validate_python(state["runs"])
        except (KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{path}: is not the state of a sweep ({reason}); restore the file or remove it"
            ) from error
        for key, value in self._settings().items():
            if earlier.get(key) != value:
                raise UsageError(
                    f"{path}: holds a sweep with {key} {earlier.get(key)}, found {value}; choose another model_dir, or "
                    "remove this one to start over"
                )
        return trials[: len(self.runs)]

    def _settings(self) -> dict[str, Any]:
        return {key: without_mounts(value) for key, value in to_dict(self.config).items() if key not in _MAY_CHANGE}

    def run(self) -> list[Trial]:
        if self.config.search == "random" and len(self.runs) < self.config.num_runs:
            self.tell(
                f"space: holds {len(self.runs)} settings, fewer than num_runs {self.config.num_runs}; all are tried"
            )
        with self.world.together():
            if self.is_first:
                self._write_experiment()
        done = int(self.world.broadcast_object(len(self.trials)))
        for number, run in enumerate(self.runs[done:], start=done + 1):
            self.tell(f"\nrun {number} of {len(self.runs)}: {describe(self._parameters(run))}")
            state, seconds, metrics = self._try(run)
            with self.world.together():
                if self.is_first:
                    self._record(number, run, state, seconds, metrics)
        if self.is_first:
            for line in ("", *self._table().text(), "", self.directory / MARKDOWN_FILE, self.directory / STATE_FILE):
                self.tell(str(line))
            self.tell(f"curves and settings: tensorboard --logdir {self.directory}")
        return self.trials

    def _try(self, run: FinetuneConfig) -> tuple[State, float, dict[str, dict[str, float]]]:
        """How a run ended, the seconds it took, and the metrics of its last evaluation."""
        began = time.monotonic()
        try:
            result = finetune_once(
                run, self.family, self.train, self.dev, self.world, self.tell, stop=self._falls_behind
            )
            return "finished", result.seconds, result.metrics
        except Diverged as error:
            if self.world.world_size > 1:
                raise  # the other ranks have ended
            self.tell(str(error))
            return "diverged", time.monotonic() - began, {}

    def _falls_behind(self, evaluations: Evaluated) -> bool:
        others = [trial.values for trial in self.trials]
        return falls_behind(self.config.bandit, self.higher_is_better, self._values(evaluations), others)

    def _values(self, evaluations: Evaluated) -> list[float]:
        split = next(iter(self.dev))
        return [evaluation["metrics"][split][self.metric] for evaluation in evaluations]

    # --- writing down ----------------------------------------------------------------------------------------------

    def _record(
        self, number: int, run: FinetuneConfig, state: State, seconds: float, metrics: dict[str, dict[str, float]]
    ) -> None:
        directory = Path(run.model_dir)
        path = directory / EVALUATIONS_FILE
        evaluations = read_metrics(path) if path.exists() else []
        if state == "finished" and self._falls_behind(evaluations):
            updates = read_json(directory / MODEL_DIR / LINEAGE_FILE)["finetuning"]
            if updates["step"] < updates["num_train_steps"]:
                self.tell(f"run {number} is given up after evaluation {len(evaluations)}: it is far behind the best")
                state = "given up"
        values, steps = self._values(evaluations), [evaluation["step"] for evaluation in evaluations]
        trial = Trial(number, self._parameters(run), run.model_dir, state, seconds, values, steps, metrics)
        tried = {name: _as_hparam(value) for name, value in trial.parameters.items()}
        write_session(directory, directory.name, tried, "FAILURE" if state == "diverged" else "SUCCESS", seconds)
        self.trials.append(trial)
        table = self._table()
        plain_trials = [dataclasses.asdict(trial) for trial in self.trials]
        content = {"settings": self._settings(), "best": table.best(), "runs": plain_trials}
        write_json(self.directory / STATE_FILE, content)
        with atomic_writer(self.directory / MARKDOWN_FILE) as file:
            file.write("".join(f"{line}\n" for line in table.markdown()).encode())

    def _table(self) -> SweepTable:
        return SweepTable(self.trials, self.metric, self.higher_is_better)

    def _parameters(self, run: FinetuneConfig) -> Parameters:
        return {name: getattr(run, name) for name in self.config.space}

    def _write_experiment(self) -> None:
        tags = [f"{split}/{self.metric}" for split in self.dev]
        values: dict[str, list[Value]] = {}
        ranges = {}
        for name, parameter in self.config.space.items():
            if bounds := parameter.uniform or parameter.log_uniform:
                ranges[name] = bounds
            else:
                values[name] = [_as_hparam(getattr(run, name)) for run in self.runs]
        with reporting_disk_errors(self.directory):
            write_experiment(self.directory, values, ranges, tags)


def _as_hparam(value: Any) -> Value:
    return value if isinstance(value, bool | int | float | str) else plain(value)
