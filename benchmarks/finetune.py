"""Finetuning beside KerasHub and `transformers` with PyTorch: how fast, and whether it ends as well.

python benchmarks/finetune.py speed --data GLUE --init MODEL [--tasks MRPC SST-2] [--repeats 3] [--json FILE]
python benchmarks/finetune.py quality --data GLUE --init MODEL [--tasks MRPC CoLA SST-2] [--seeds 3] [--json FILE]

Peers are opt-in: a side whose packages are missing is left out. `--peers_python` names the interpreter that has PyTorch
and `transformers`, `--keras_hub_python` one with TensorFlow and KerasHub; both default to this one.

speed: same shape, examples, batch (32), length (128) and precision; sides take turns, each run in a process of its
own; the table has the median over the runs of the median over the updates after a warm-up. KerasHub and `transformers`
pad to the length, as their own examples do; "x 4" accumulates over four microbatches. quality: the same
hyper-parameters (length 128, batch 32, rate 2e-5, 3 epochs, a tenth of warmup); `transformers` pads to the longest of a
batch there, which changes no score.
"""

import argparse
import dataclasses
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from finetune_peers import Settings

from tf_bert.config import LearningConfig, RunConfig
from tf_bert.finetuning.estimator import BertEstimator
from tf_bert.finetuning.examples import Example
from tf_bert.finetuning.tasks import find_task
from tf_bert.finetuning.text import TextFamily
from tf_bert.run_log import METRICS_FILE, read_metrics

PEERS = Path(__file__).with_name("finetune_peers.py")
SST_ROWS = 10_000  # of SST-2's training file, for the quality


def write_rows(path: Path, examples: list[Example]) -> str:
    """Texts and labels as the peers read them."""
    lines = (json.dumps({"texts": example.texts, "label": example.label}) for example in examples)
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def ours(settings: Settings, family: TextFamily, accumulation: int, directory: str) -> dict[str, float]:
    """One run of the estimator in this process: its speed, and its metrics where there is a dev file."""
    train, dev = (
        [
            Example("", tuple(row["texts"]), row["label"], "0")
            for row in map(json.loads, Path(path).read_text(encoding="utf-8").splitlines())
        ]
        for path in (settings.train, settings.dev)
    )
    run = RunConfig(
        model_dir=directory,
        log_every=max(1, settings.warm_up),
        checkpoint_every=10**9,
        seed=settings.seed,
        precision="float32" if settings.precision == "float32" else "mixed_bfloat16",
    )
    learning = LearningConfig(
        max_seq_length=settings.length,
        global_batch_size=settings.batch_size,
        microbatch_size=settings.batch_size // accumulation,
        learning_rate=settings.learning_rate,
    )
    estimator = BertEstimator(family, run, learning, settings.model)
    estimator.train(train, max_steps=settings.steps)
    logged = [entry for entry in read_metrics(Path(directory) / METRICS_FILE) if "train/examples_per_second" in entry]
    rates = [entry["train/examples_per_second"] for entry in logged[1:-1] or logged]
    return {"examples_per_second": statistics.median(rates), **(estimator.evaluate(dev).values if dev else {})}


class Sides:
    """Runs each side in a process of its own."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options, self.directory, self.count = options, directory, 0
        self.missing: dict[str, str] = {}

    def run(self, side: str, settings: Settings, task: str) -> dict[str, float] | None:
        """The result of one run; None where the side cannot run here."""
        if side in self.missing:
            return None
        self.count += 1
        given, result = self.directory / f"{self.count}.json", self.directory / f"{self.count}-result.json"
        given.write_text(json.dumps(dataclasses.asdict(settings)))
        accumulation = side.partition(" x ")[2] or "1"
        pythons = {"transformers": self.options.peers_python, "keras_hub": self.options.keras_hub_python}
        if side in pythons:
            words = [pythons[side], str(PEERS), side, str(given), str(result)]
        else:
            work = str(self.directory / f"run-{self.count}")
            words = [sys.executable, __file__, "_ours", task, str(given), str(result), accumulation, work]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["failed"]
            self.missing[side] = lines[-1]
            print(f"{side}: is left out: {lines[-1]}", file=sys.stderr)
            return None
        return json.loads(result.read_text())


def measure_speed(options: argparse.Namespace, directory: Path) -> list[dict]:
    """Rows of the table, and medians of alternating runs."""
    sides, rows = Sides(options, directory), []
    for task_name in options.tasks or ["MRPC", "SST-2"]:
        family = TextFamily(find_task(task_name))
        train = write_rows(directory / f"{task_name}.jsonl", family.read(options.data, "train"))
        (directory / "empty.jsonl").touch()
        settings = Settings(
            options.init, train, str(directory / "empty.jsonl"), len(family.labels), options.steps, options.warm_up,
            precision=options.precision,
        )  # fmt: skip
        found: dict[str, list[float]] = {}
        for _ in range(options.repeats):
            for side in ("tf_bert", "tf_bert x 4", "keras_hub", "transformers"):
                result = sides.run(side, settings, task_name)
                if result:
                    found.setdefault(side, []).append(result["examples_per_second"])
        medians = {side: statistics.median(rates) for side, rates in found.items()}
        for side, rate in medians.items():
            rows.append(
                {
                    "task": task_name,
                    "side": side,
                    "examples_per_second": rate,
                    "tf_bert_over_it": medians["tf_bert"] / rate,
                    "runs": found[side],
                }
            )
            print(
                f"{task_name:<6} {side:<13} {rate:>8.1f} examples/s   tf_bert is {medians['tf_bert'] / rate:.2f} x it"
            )
    return rows


def measure_quality(options: argparse.Namespace, directory: Path) -> list[dict]:
    """Metrics of several seeds, for each task and side."""
    sides, rows = Sides(options, directory), []
    for task_name in options.tasks or ["MRPC", "CoLA", "SST-2"]:
        task = find_task(task_name)
        family = TextFamily(task)
        examples = family.read(options.data, "train")[: SST_ROWS if task_name == "SST-2" else None]
        train = write_rows(directory / f"{task_name}.jsonl", examples)
        dev = write_rows(directory / f"{task_name}-dev.jsonl", family.read(options.data, "dev"))
        steps = math.ceil(3 * len(examples) / 32)
        found: dict[str, list[dict[str, float]]] = {}
        for seed in range(options.seeds):
            for side in ("tf_bert", "transformers"):
                began = time.monotonic()
                settings = Settings(
                    options.init, train, dev, len(family.labels), steps, 10, seed=seed, pads_to_length=False,
                    precision=options.precision,
                )  # fmt: skip
                if result := sides.run(side, settings, task_name):
                    seconds = time.monotonic() - began
                    found.setdefault(side, []).append({**result, "seconds": seconds})
                    print(
                        f"{task_name} {side} seed {seed}: {result[task.primary_metric]:.4f}, {seconds:.0f} s",
                        flush=True,
                    )
        for side, results in found.items():
            values = [result[task.primary_metric] for result in results]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            seconds = statistics.median(result["seconds"] for result in results)
            rows.append(
                {"task": task_name, "side": side, "metric": task.primary_metric, "values": values, "results": results}
            )
            print(
                f"{task_name:<6} {side:<13} {task.primary_metric} median {statistics.median(values):.4f}, standard "
                f"deviation {spread:.4f}, {seconds:.0f} s a run"
            )
    return rows


def main() -> None:
    """Parses, measures, prints."""
    if sys.argv[1:2] == ["_ours"]:
        task, given, result, accumulation, work = sys.argv[2:]
        settings = Settings(**json.loads(Path(given).read_text()))
        Path(result).write_text(json.dumps(ours(settings, TextFamily(find_task(task)), int(accumulation), work)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "quality"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--init", required=True)
    parser.add_argument("--tasks", nargs="*")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warm_up", type=int, default=8)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--peers_python", default=sys.executable)
    parser.add_argument("--keras_hub_python", default=sys.executable)
    parser.add_argument("--json", help="where to write all numbers")
    options = parser.parse_args()
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, tensorflow {version('tensorflow')}")
    with tempfile.TemporaryDirectory() as directory:
        rows = {"speed": measure_speed, "quality": measure_quality}[options.what](options, Path(directory))
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
