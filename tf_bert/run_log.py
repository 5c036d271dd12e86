"""What a run tells people: console lines, progress bars, metrics.jsonl and TensorBoard; on rank 0 alone."""

import json
import os
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

METRICS_FILE = "metrics.jsonl"
SKIPPED_FILE = "skipped_steps.jsonl"
TENSORBOARD_DIR = "tensorboard"


class Tracker(Protocol):
    """A service that keeps the numbers of runs. It is called on rank 0 alone, and raises nothing."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Receives numbers by their names, `group/name`."""

    def tags(self, tags: Mapping[str, str]) -> None:
        """Receives what else is to be known of the run."""

    def flush(self) -> None:
        """Returns once all of it is sent, or cannot be in good time."""


@dataclass(frozen=True)
class Reporting:
    """Where the runs of this process report to, besides their own directories."""

    root: Path
    """The directory of the command. Runs in directories below it have their path from here before all names."""
    tracker: Tracker | None
    """Receives numbers and tags; None: nothing does."""
    tensorboard_dir: Path
    """Receives what the runs' own `tensorboard/` does."""

    def prefix(self, directory: Path) -> str:
        """What a run in `directory` has before all names: nothing, or e.g. `run-001/`."""
        return "" if directory == self.root else f"{directory.relative_to(self.root).as_posix()}/"


_reporting: ContextVar[Reporting | None] = ContextVar("reporting", default=None)


@contextmanager
def reporting_to(reporting: Reporting | None) -> Iterator[None]:
    """A block whose runs report there too; None: nowhere but to their directories."""
    token = _reporting.set(reporting)
    try:
        yield
    finally:
        _reporting.reset(token)


class RunLog:
    """The log of one run, to which a resumed run appends; `reporting_to` says where else it goes.

    Args:
      directory: the run's directory; `metrics.jsonl` and `tensorboard/` go there.
      first_step: updates done so far. Entries of later steps, left by a process that was killed, are taken back, and
        all where it is 0, since what comes before the first update is then done again;
        TensorBoard drops such points by itself when a step comes a second time.
      enabled: False on ranks other than 0.
    """

    def __init__(self, directory: Path, first_step: int = 0, enabled: bool = True) -> None:
        self.enabled = enabled
        if not enabled:
            return
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        directory.mkdir(parents=True, exist_ok=True)
        for name in (METRICS_FILE, SKIPPED_FILE):
            _drop_later_steps(directory / name, first_step)
        self._metrics = (directory / METRICS_FILE).open("a", encoding="utf-8")
        self._skipped_path = directory / SKIPPED_FILE
        reporting = _reporting.get()
        self._prefix = reporting.prefix(directory) if reporting else ""
        self._tracker = reporting.tracker if reporting else None
        places = [directory / TENSORBOARD_DIR]
        if reporting:
            places.append(reporting.tensorboard_dir / self._prefix)
        self._events = [EventFileWriter(str(place), flush_secs=10) for place in places]

    def line(self, text: str) -> None:
        """Prints one line to the console, without tearing a progress bar."""
        if self.enabled:
            tqdm.write(text)

    def scalars(self, step: int, group: str, values: Mapping[str, float], descriptions: Mapping[str, str]) -> None:
        """Records numbers as `group/name`: one line of metrics.jsonl and one TensorBoard point each.

        Args:
          step: optimizer updates done.
          group: train or validation.
          values: by name.
          descriptions: what each name means, with its unit; shown beside the chart.
        """
        if not self.enabled:
            return
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        named = {f"{group}/{name}": value for name, value in values.items()}
        self._metrics.write(json.dumps({"step": step, **named}) + "\n")
        self._metrics.flush()
        for name, value in named.items():
            self._add(step, scalar_pb(name, value, descriptions.get(name.partition("/")[2])))
        if self._tracker:
            self._tracker.scalars(step, {self._prefix + name: value for name, value in named.items()})

    def tags(self, tags: Mapping[str, str]) -> None:
        """Tells a tracker what else is to be known of the run."""
        if self.enabled and self._tracker:
            self._tracker.tags({self._prefix + name: value for name, value in tags.items()})

    def skipped(self, step: int, rows: Mapping[str, list[int]]) -> None:
        """Records an update that changed no weight, with the rows that it was made of: their numbers by shard."""
        if not self.enabled:
            return
        with self._skipped_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "rows": rows}) + "\n")
        self.line(f"step {step:,}: skipped, for its gradient is not finite; its rows are in {self._skipped_path}")

    def text(self, step: int, name: str, markdown: str) -> None:
        """Records a text for TensorBoard's text page."""
        if not self.enabled:
            return
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._add(step, text_pb(name, markdown))

    def image(self, step: int, name: str, png: bytes) -> None:
        """Records a picture, a PNG file's bytes, for TensorBoard's image page."""
        if not self.enabled:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.image.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        sizes = [str(size).encode() for size in struct.unpack(">II", png[16:24])]  # width and height in its header
        summary = Summary()
        summary.value.add(
            tag=name,
            tensor=make_tensor_proto([*sizes, png]),
            metadata=create_summary_metadata(display_name=None, description=None),
        )
        self._add(step, summary)

    def close(self) -> None:
        """Flushes to disk."""
        if self.enabled:
            self._metrics.close()
            for events in self._events:
                events.close()
            if self._tracker:
                self._tracker.flush()

    def _add(self, step: int, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        for events in self._events:
            events.add_event(Event(wall_time=time.time(), step=step, summary=summary))


def _drop_later_steps(path: Path, first_step: int) -> None:
    if not path.exists():
        return
    kept = [entry for entry in read_metrics(path) if 0 < first_step >= entry["step"]]
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
    os.replace(partial, path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The entries of a metrics.jsonl: `step` and `group/name` numbers. A torn last line is left out."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:  # killed while writing it
            break
    return entries


@contextmanager
def byte_progress(total: int, description: str, enabled: bool = True) -> Iterator["tqdm[Any]"]:
    """A progress bar in bytes, with rate and time left. Off unless standard error is a terminal."""
    with tqdm(
        total=total, desc=description, unit="B", unit_scale=True, disable=None if enabled else True, leave=False
    ) as bar:
        yield bar


def format_seconds(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03, 02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"
