"""What runs of GLUE's tasks came to: median and range over the seeds, the GLUE score, as text, Markdown, JSON, PNG."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_bert.files import atomic_writer, write_json
from tf_bert.finetuning.metrics import METRICS
from tf_bert.finetuning.result_table import markdown_table, text_table
from tf_bert.finetuning.run import Result
from tf_bert.finetuning.tasks import TASKS, Task
from tf_bert.pictures import NOT_DRAWN, open_pyplot, save_picture
from tf_bert.run_log import format_seconds

MARKDOWN_FILE = "glue.md"
JSON_FILE = "glue.json"
PICTURE_FILE = "glue.png"

_OFFICIAL = {"CoLA": ("matthews",), "STS-B": ("pearson", "spearman")}
"""The metrics of the GLUE site, where a task has others beside them."""
_SCORED = tuple(name for name, task in TASKS.items() if task.predicted_by is None)  # all but AX
_LEFT = 3  # columns of words


@dataclass(frozen=True)
class TaskResults:
    """The runs of one task that are done."""

    task: Task
    results: tuple[Result, ...]
    """One a seed."""

    def values(self, split: str, metric: str) -> list[float]:
        """A metric of every run."""
        return [result.metrics[split][metric] for result in self.results]

    @property
    def splits(self) -> tuple[str, ...]:
        """What was evaluated."""
        return tuple(self.results[0].metrics)

    @property
    def seconds(self) -> float:
        """Median of the runs' times."""
        return statistics.median(result.seconds for result in self.results)

    @property
    def median_result(self) -> Result:
        """The run in the middle by the primary metric of the first split; of two middle ones the lower."""
        split, metric = self.splits[0], self.task.primary_metric
        ascending = sorted(self.results, key=lambda result: result.metrics[split][metric])
        return ascending[(len(ascending) - 1) // 2]

    @property
    def score(self) -> float:
        """What the task adds to the GLUE score: the mean over its official metrics and splits, of the medians."""
        metrics = _OFFICIAL.get(self.task.name, self.task.metrics)
        return statistics.mean(
            statistics.median(self.values(split, metric)) for split in self.splits for metric in metrics
        )


def in_order(tasks: Iterable[TaskResults]) -> list[TaskResults]:
    """Tasks as the GLUE tables have them."""
    return sorted(tasks, key=lambda results: list(TASKS).index(results.task.name))


def glue_score(tasks: Iterable[TaskResults]) -> float | None:
    """The macro-average over GLUE's nine tasks, 0 to 100; None unless all are there.

    As on the GLUE site a task with two metrics counts with their mean, and MNLI with the mean of its two files
    (Wang et al. 2019, https://arxiv.org/abs/1804.07461).
    """
    scores = {results.task.name: results.score for results in tasks}
    return 100.0 * statistics.mean(scores[name] for name in _SCORED) if scores.keys() >= set(_SCORED) else None


def format_table(tasks: Sequence[TaskResults]) -> list[str]:
    """Lines for the console."""
    return [*text_table(_rows(tasks), _LEFT), *(f"\n{line}" for line in _score_lines(tasks))]


def write_tables(directory: Path, tasks: Sequence[TaskResults]) -> list[str]:
    """Writes `MARKDOWN_FILE`, `JSON_FILE` and `PICTURE_FILE`.

    Returns:
      What to tell the user: the paths, or why there is no picture.

    Raises:
      InputError: if the operating system refuses to write.
    """
    lines = ["# GLUE", "", *markdown_table(_rows(tasks), _LEFT), *(f"\n{line}" for line in _score_lines(tasks))]
    with atomic_writer(directory / MARKDOWN_FILE) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    write_json(directory / JSON_FILE, _plain(tasks))
    paths = [str(directory / name) for name in (MARKDOWN_FILE, JSON_FILE)]
    return [*paths, _draw(tasks, directory / PICTURE_FILE)]


def _rows(tasks: Sequence[TaskResults]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("task", "file", "metric", "median", "lowest", "highest", "seeds", "time of a run")]
    for results in tasks:
        first = (results.task.name, str(len(results.results)), format_seconds(results.seconds))
        for split in results.splits:
            for metric in results.task.metrics:
                values = results.values(split, metric)
                numbers = (statistics.median(values), min(values), max(values))
                name, seeds, seconds = first
                rows.append((name, split, metric, *(f"{number:.4f}" for number in numbers), seeds, seconds))
                first = ("", "", "")
    return rows


def _score_lines(tasks: Sequence[TaskResults]) -> list[str]:
    score = glue_score(tasks)
    if score is not None:
        return [f"GLUE score of the dev files, the mean of the nine tasks' medians: {score:.1f}"]
    there = {results.task.name for results in tasks}
    missing = ", ".join(name for name in _SCORED if name not in there)
    return [f"No GLUE score: it is the mean over nine tasks, of which {missing} are not here."]


def _plain(tasks: Sequence[TaskResults]) -> dict[str, Any]:
    return {
        "glue_score": glue_score(tasks),
        "tasks": {
            results.task.name: {
                "seeds": [result.seed for result in results.results],
                "median_seed": results.median_result.seed,
                "seconds": _spread([result.seconds for result in results.results]),
                "metrics": {
                    split: {metric: _spread(results.values(split, metric)) for metric in results.task.metrics}
                    for split in results.splits
                },
            }
            for results in tasks
        },
    }


def _spread(values: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values), "values": values}


def _draw(tasks: Sequence[TaskResults], path: Path) -> str:
    """A dot for every seed and a line at the median, by task and metric; errors, which have no common scale, not."""
    pyplot = open_pyplot()
    if pyplot is None:
        return NOT_DRAWN
    bars = []
    for results in tasks:
        for split in results.splits:
            for metric in results.task.metrics:
                if METRICS[metric].higher_is_better:
                    name = f"{results.task.name}  {metric}" + (f"  ({split})" if len(results.splits) > 1 else "")
                    bars.append((name, results.values(split, metric)))
    figure, axis = pyplot.subplots(figsize=(9, 1.6 + 0.34 * len(bars)), layout="constrained")
    for number, (_, values) in enumerate(bars):
        median = statistics.median(values)
        axis.barh(number, median, height=0.6, color="tab:blue", alpha=0.25)
        axis.plot([median, median], [number - 0.3, number + 0.3], color="tab:blue", linewidth=2)
        axis.plot(values, [number] * len(values), "o", color="black", markersize=4, alpha=0.7)
        axis.text(1.01, number, f"{median:.3f}", transform=axis.get_yaxis_transform(), va="center", fontsize=9)
    axis.set_yticks(range(len(bars)), [name for name, _ in bars])
    axis.invert_yaxis()
    axis.set_xlim(min(0.0, *(min(values) for _, values in bars)) * 1.05, 1.02)
    axis.grid(axis="x", alpha=0.3)
    score = glue_score(tasks)
    axis.set_title("GLUE, dev files" + (f": score {score:.1f}" if score is not None else ""))
    axis.set_xlabel("line: median; dots: seeds")
    return save_picture(pyplot, figure, path)
