"""Going back to a checkpoint when a run diverges, past the data that it diverged on.

A rollback is written down and the run then goes on as if it had been killed: from the newest checkpoint, but with the
rows left out that came between the checkpoint and the trouble. What is written down is all that a restarted process
needs, so a run that is killed after a rollback ends with the same weights as one that is not.
"""

import dataclasses
import json
from pathlib import Path

import pydantic

from tf_bert.errors import InputError
from tf_bert.files import atomic_writer

ROLLBACKS_FILE = "rollbacks.jsonl"


@dataclasses.dataclass(frozen=True)
class Rollback:
    """One line of the file."""

    step: int
    """The update at which the run had diverged, counted from 1."""
    to_step: int
    """Updates that the checkpoint holds from which it went on."""
    skipped: int
    """Steps whose rows are left out there."""
    reason: str
    """What was wrong."""
    rows: dict[str, list[int]]
    """Of the update at which it was noticed: by shard, the numbers of its records."""


class Rollbacks:
    """The rollbacks of one run.

    Args:
      path: their file, which need not exist.

    Raises:
      InputError: if the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: list[Rollback] = []
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                self._entries.append(pydantic.TypeAdapter(Rollback).validate_json(line))
            except pydantic.ValidationError as error:
                raise InputError(
                    f"{path}: line {number} is not one of a rollback ({error.errors()[0]['msg']}); restore the file, "
                    "or remove the run's directory to start over"
                ) from error

    def __len__(self) -> int:
        return len(self._entries)

    def skips(self) -> list[tuple[int, int]]:
        """For `training_dataset`: pairs of a step and how many steps' rows are left out right before it."""
        skips: list[tuple[int, int]] = []
        for entry in self._entries:
            # Where a damaged checkpoint made a run go back before an earlier rollback, that one's rows are among these.
            skips = [(at, count) for at, count in skips if at < entry.to_step] + [(entry.to_step, entry.skipped)]
        return skips

    def add(self, step: int, to_step: int, reason: str, rows: dict[str, list[int]]) -> None:
        """Writes one more down.

        Args:
          step: the update that was wrong, counted from 1.
          to_step: updates that the newest checkpoint holds.
          reason: what was wrong.
          rows: of that update.
        """
        since = [count for at, count in self.skips() if at >= to_step and at < step]
        self._entries.append(Rollback(step, to_step, step - to_step + sum(since), reason, rows))
        with atomic_writer(self.path) as file:
            for entry in self._entries:
                file.write((json.dumps(dataclasses.asdict(entry)) + "\n").encode())

    def told(self) -> str:
        """The story so far, for a message."""
        return "; ".join(
            f"at step {entry.step:,} it went back to step {entry.to_step:,}: {entry.reason}" for entry in self._entries
        )
