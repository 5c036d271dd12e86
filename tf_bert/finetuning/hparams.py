"""A sweep on TensorBoard's HPARAMS page: the settings that were tried, and what each run came to.

The plugin finds the metrics by the tags of the scalars that the runs' own logs have. With `--logdir` at the sweep's
directory TensorBoard shows the page and the curves of all runs.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tf_bert.run_log import TENSORBOARD_DIR

Value = bool | int | float | str


def write_experiment(
    sweep_dir: Path,
    values: Mapping[str, Sequence[Value]],
    ranges: Mapping[str, tuple[float, float]],
    tags: Sequence[str],
) -> None:
    """Writes what is tried and what is measured.

    Args:
      sweep_dir: the sweep's directory.
      values: all values of a setting that is chosen from a list, by its name.
      ranges: lowest and highest of one that is drawn in between.
      tags: of the scalars that are metrics; the first is the primary one.
    """
    from tensorboard.plugins.hparams import api

    infos = [api.HParam(name, api.RealInterval(*bounds)) for name, bounds in ranges.items()]
    for name, found in values.items():
        is_one_type = len({type(value) for value in found}) == 1
        infos.append(api.HParam(name, api.Discrete(sorted(set(found))) if is_one_type else None))
    metrics = [api.Metric(tag, dataset_type=api.Metric.VALIDATION) for tag in tags]
    _write(sweep_dir / TENSORBOARD_DIR, [api.hparams_config_pb(infos, metrics, time.time())])


def write_session(
    run_dir: Path, name: str, values: Mapping[str, Value], status: Literal["SUCCESS", "FAILURE"], seconds: float
) -> None:
    """Writes the settings of a run that has just ended.

    Args:
      run_dir: the run's directory.
      name: of the run.
      values: its settings.
      status: how it ended.
      seconds: how long it took.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api, api_pb2, summary

    now = time.time()
    end = summary.session_end_pb(api_pb2.Status.Value(f"STATUS_{status}"), now)
    start = api.hparams_pb(dict(values), name, now - seconds)
    _write(run_dir / TENSORBOARD_DIR, [start, Summary.FromString(end.SerializeToString())])


def _write(directory: Path, summaries: Sequence[Any]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    with contextlib.closing(EventFileWriter(str(directory))) as writer:
        for summary in summaries:
            writer.add_event(Event(wall_time=time.time(), summary=summary))
