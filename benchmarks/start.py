"""How long `tf-bert pretrain` takes from its start to its first step.

python benchmarks/start.py [--size base] [--length 128] [--rows 8] [--repeats 5] [--json FILE]

Whole commands, one after the other, on rows of the real dump excerpt: libraries, model, the look at the data, one batch
of the first evaluation, the graph of the train step, and the first step itself. The table has medians. The floor is
one later step of that run, and what importing TensorFlow and Keras takes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from inputs import EXCERPT, read_texts, write_inputs
from sides import machine, machine_line, seconds_of

from tf_bert.config import PrepareConfig
from tf_bert.config.settings import MODEL_SIZES
from tf_bert.pretraining_data.build import build
from tf_bert.run_log import METRICS_FILE, read_metrics

STEPS = 4
MARKS = {"libraries and model": " parameters", "first evaluation": "validation", "first step": "step 1/"}
"""Parts of the lines that end each part of the start."""


def prepare(directory: Path, length: int) -> Path:
    """Makes the data directory."""
    sentences, vocab = write_inputs(read_texts(EXCERPT), directory)
    build(
        PrepareConfig(
            input=str(sentences),
            output_dir=str(directory / "data"),
            vocab=str(vocab),
            max_seq_length=length,
            sentence_splitter="line",
        )
    )
    return directory / "data"


def run(data: Path, output_dir: Path, size: str, rows: int) -> dict[str, float]:
    """Seconds from the start of the process to each of the marks, and those of a later step."""
    settings = {
        "output_dir": output_dir,
        "model_size": size,
        "data.data_dir": data,
        "optimizer.num_warmup_steps": 0,
        "training.num_train_steps": STEPS,
        "training.global_batch_size": rows,
        "training.microbatch_size": rows,
        "cadence.log_every": 1,
        "cadence.evaluation_batches": 1,
    }
    words = [str(word) for key, value in settings.items() for word in (f"--{key}", value)]
    command = [sys.executable, "-m", "tf_bert.cli", "pretrain", *words]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found: dict[str, float] = {}
    for line in process.stdout:
        last = line
        for name, mark in MARKS.items():
            if mark in line:
                found.setdefault(name, time.perf_counter() - began)
    if process.wait():
        sys.exit(f"{' '.join(command)}: {last}")
    logged = [
        entry["time/step_seconds"] for entry in read_metrics(output_dir / METRICS_FILE) if "time/step_seconds" in entry
    ]
    return {**found, "a later step": statistics.median(logged[1:])}


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", choices=MODEL_SIZES)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rows", type=int, default=8, help="of a batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="where to write all numbers")
    options = parser.parse_args()
    print(f"{machine_line()}; bert-{options.size}, {options.rows} x {options.length}")
    imports = [sys.executable, "-c", "import keras, tensorflow"]
    with tempfile.TemporaryDirectory() as directory:
        data = prepare(Path(directory), options.length)
        runs = [run(data, Path(directory) / f"run-{i}", options.size, options.rows) for i in range(options.repeats)]
        libraries = statistics.median(
            seconds_of(lambda: subprocess.run(imports, check=True, capture_output=True)) for _ in range(options.repeats)
        )
    found = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    for name, seconds in found.items():
        print(f"{name:<20} {seconds:>6.1f} s")
    print(f"{'floor':<20} {libraries + found['a later step']:>6.1f} s")
    if options.json:
        rows = [{**found, "libraries": libraries}]
        Path(options.json).write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
