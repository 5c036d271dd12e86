"""What the runs of a sweep came to, the best first: as text and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tf_bert.finetuning.estimator import BEST_DIR
from tf_bert.finetuning.result_table import markdown_table, text_table
from tf_bert.finetuning.sweep_space import Parameters
from tf_bert.run_log import format_seconds

State = Literal["finished", "given up", "diverged"]


@dataclass(frozen=True)
class Trial:
    """One run that has ended."""

    number: int
    """From 1."""
    parameters: Parameters
    """What it was tried with."""
    model_dir: str
    """The run's directory."""
    state: State
    """given up: by the bandit; diverged: its numbers were not finite any more."""
    seconds: float
    """Of the process that ended it."""
    values: list[float] = field(default_factory=list)
    """The primary metric, evaluation by evaluation."""
    steps: list[int] = field(default_factory=list)
    """The updates done at each."""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """By split, of the last evaluation."""

    def best(self, higher_is_better: bool) -> int:
        """The place of the best in `values`, the first of equals."""
        return self.values.index(max(self.values) if higher_is_better else min(self.values))


@dataclass(frozen=True)
class SweepTable:
    """The runs of a sweep."""

    trials: Sequence[Trial]
    metric: str
    """The primary one."""
    higher_is_better: bool

    def in_order(self) -> list[Trial]:
        """The best first; runs without an evaluation last."""
        evaluated = [trial for trial in self.trials if trial.values]
        evaluated.sort(key=lambda trial: trial.values[self._best(trial)], reverse=self.higher_is_better)
        return [*evaluated, *(trial for trial in self.trials if not trial.values)]

    def _best(self, trial: Trial) -> int:
        return trial.best(self.higher_is_better)

    def text(self) -> list[str]:
        """Lines for the console."""
        return [*text_table(self._rows(), left=1), "", self._verdict()]

    def markdown(self) -> list[str]:
        """Lines of a Markdown file."""
        return ["# Sweep", "", *markdown_table(self._rows(), left=1), "", self._verdict()]

    def best(self) -> dict[str, Any] | None:
        """The best run as plain values; None if none has been evaluated."""
        trial = next(iter(self.in_order()), None)
        if trial is None or not trial.values:
            return None
        place = self._best(trial)
        return {
            "number": trial.number,
            "parameters": trial.parameters,
            self.metric: trial.values[place],
            "step": trial.steps[place],
            "model": str(Path(trial.model_dir) / BEST_DIR),
        }

    def _rows(self) -> list[tuple[str, ...]]:
        names = list(self.trials[0].parameters)
        rows: list[tuple[str, ...]] = [("run", *names, self.metric, "at step", "evaluations", "time", "")]
        for trial in self.in_order():
            place = self._best(trial) if trial.values else None
            rows.append(
                (
                    str(trial.number),
                    *(plain(trial.parameters[name]) for name in names),
                    "" if place is None else f"{trial.values[place]:.4f}",
                    "" if place is None else f"{trial.steps[place]:,}",
                    str(len(trial.values)),
                    format_seconds(trial.seconds),
                    trial.state,
                )
            )
        return rows

    def _verdict(self) -> str:
        best = self.best()
        if best is None:
            return "No run has been evaluated."
        told = describe(best["parameters"])
        return f"Best: run {best['number']} ({told}), {self.metric} {best[self.metric]:.4f}, model in {best['model']}"


def describe(parameters: Parameters) -> str:
    """Settings for people: learning_rate 2e-05, global_batch_size 32."""
    return ", ".join(f"{name} {plain(value)}" for name, value in parameters.items())


def plain(value: Any) -> str:
    """One value, as YAML has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
