"""The evaluations of a finetuning run: which was best, and whether it is still worth going on."""

import json
from pathlib import Path
from typing import Any

from tf_bert.files import atomic_writer
from tf_bert.run_log import read_metrics

EVALUATIONS_FILE = "evaluations.jsonl"


class Evaluations:
    """Kept in a file, so that a run that goes on knows what came before.

    Args:
      model_dir: of the run.
      primary_metric: its name, and whether higher is better. It is looked up in the first split that is evaluated.
      first_step: updates done so far; entries of later steps, left by a process that was killed, do not count.
      writes: False on ranks other than 0.
    """

    def __init__(self, model_dir: Path, primary_metric: tuple[str, bool], first_step: int, writes: bool = True) -> None:
        self.path = model_dir / EVALUATIONS_FILE
        self.metric, self.higher_is_better = primary_metric
        self._writes = writes
        entries = read_metrics(self.path) if self.path.exists() else []
        self.entries: list[dict[str, Any]] = [entry for entry in entries if entry["step"] <= first_step]

    def add(self, step: int, metrics: dict[str, dict[str, float]]) -> bool:
        """Records one evaluation; returns whether it is the best so far.

        Args:
          step: updates done.
          metrics: by split, values by name.
        """
        self.entries.append({"step": step, "metrics": metrics})
        if self._writes:
            with atomic_writer(self.path) as file:  # a torn file would forget the best
                file.writelines(json.dumps(entry).encode() + b"\n" for entry in self.entries)
        return self._best() == len(self.entries) - 1

    def has(self, step: int) -> bool:
        """Whether there was an evaluation after `step` updates."""
        return any(entry["step"] == step for entry in self.entries)

    def has_stalled(self, patience: int | None) -> bool:
        """Whether the last `patience` evaluations were all no better than the best before; never if it is None."""
        return patience is not None and bool(self.entries) and len(self.entries) - 1 - self._best() >= patience

    @property
    def last(self) -> dict[str, dict[str, float]]:
        """Metrics by split of the newest evaluation; empty if there is none."""
        found: dict[str, dict[str, float]] = self.entries[-1]["metrics"] if self.entries else {}
        return found

    @property
    def best(self) -> dict[str, Any] | None:
        """The best evaluation, the first of equals: `step` and `metrics`."""
        return self.entries[self._best()] if self.entries else None

    def _best(self) -> int:
        sign = 1.0 if self.higher_is_better else -1.0
        values = [sign * next(iter(entry["metrics"].values()))[self.metric] for entry in self.entries]
        return max(range(len(values)), key=values.__getitem__)
