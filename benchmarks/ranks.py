"""What ranks lose to each other: step time and the share of the all-reduce, for one rank and two, by accumulation.

python benchmarks/ranks.py [--steps 10] [--repeats 3] [--json FILE]

A model of 4 layers of 256 trains on the real dump excerpt in rows of 64 tokens. Every rank has one thread and the same
microbatches to work through, so two ranks do twice the work in, at best, the same time. Two cores of one machine slow
each other down whatever they do; so what two ranks of a run lose to communication is told against two runs of one rank
each, side by side. Commands take turns, and the table shows medians.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from inputs import EXCERPT

from tf_bert.run_log import METRICS_FILE, read_metrics

MICROBATCH = 8
ACCUMULATIONS = (1, 8, 32)
WARM_UP = 2  # updates before those that are measured


def start(*words: object) -> subprocess.Popen[bytes]:
    """Starts `tf-bert` with one thread a process."""
    threads = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "tf_bert.cli", *map(str, words)]
    return subprocess.Popen(command, env={**os.environ, **threads}, stdout=subprocess.DEVNULL)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Waits for a command that must end well."""
    if process.wait():
        sys.exit(f"{process.args} failed")


def prepare(directory: Path) -> Path:
    """Makes the data directory."""
    vocab, data = directory / "vocab.txt", directory / "data"
    finish(start("vocab", "train", "--input", EXCERPT, "--vocab_size", 4000, "--output", vocab))
    finish(start("prepare", "--input", EXCERPT, "--vocab", vocab, "--output_dir", data, "--max_seq_length", 64))
    return data


def train(data: Path, output_dir: Path, ranks: int, accumulation: int, steps: int) -> subprocess.Popen[bytes]:
    """Starts a run."""
    settings = {
        "output_dir": output_dir,
        "model.vocab_size": 4000,
        "model.hidden_size": 256,
        "model.num_hidden_layers": 4,
        "model.num_attention_heads": 4,
        "model.intermediate_size": 1024,
        "model.max_position_embeddings": 64,
        "data.data_dir": data,
        "optimizer.num_warmup_steps": 0,
        "training.num_train_steps": WARM_UP + steps,
        "training.global_batch_size": MICROBATCH * accumulation * ranks,
        "training.microbatch_size": MICROBATCH,
        "cadence.log_every": WARM_UP,
        "cadence.evaluation_batches": 2,
    }
    words = [word for key, value in settings.items() for word in (f"--{key}", value)]
    return start("pretrain", *words, "--ranks", ranks)


def read(output_dir: Path) -> tuple[float, float]:
    """Of a run's later log lines: seconds an update, and the share of them that the all-reduce takes."""
    lines = [entry for entry in read_metrics(output_dir / METRICS_FILE) if "time/step_seconds" in entry][1:]
    return (
        statistics.median(entry["time/step_seconds"] for entry in lines),
        statistics.median(entry["time/all_reduce_share"] for entry in lines),
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10, help="updates that are measured in a run (default: 10)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind (default: 3)")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    options = parser.parse_args()
    alone: dict[int, list[float]] = {accumulation: [] for accumulation in ACCUMULATIONS}
    together: dict[int, list[tuple[float, float]]] = {accumulation: [] for accumulation in ACCUMULATIONS}
    with tempfile.TemporaryDirectory() as directory:
        data = prepare(Path(directory))
        for repeat in range(options.repeats):
            for accumulation in ACCUMULATIONS:
                name = f"{directory}/run-{repeat}-{accumulation}"
                singles = [Path(f"{name}-one-{index}") for index in range(2)]
                for process in [train(data, single, 1, accumulation, options.steps) for single in singles]:
                    finish(process)
                alone[accumulation].append(statistics.mean(read(single)[0] for single in singles))
                finish(train(data, Path(f"{name}-two"), 2, accumulation, options.steps))
                together[accumulation].append(read(Path(f"{name}-two")))

    print(f"{platform.machine()}, {os.cpu_count()} cores, a thread a rank; medians of {options.repeats} runs\n")
    print("| microsteps | two runs of a rank, s | a run of two ranks, s | all-reduce | lost |\n|---|---|---|---|---|")
    table = []
    for accumulation in ACCUMULATIONS:
        one = statistics.median(alone[accumulation])
        two, share = map(statistics.median, zip(*together[accumulation], strict=True))
        table.append({"microsteps": accumulation, "one": one, "two": two, "all_reduce": share, "lost": 1 - one / two})
        print(f"| {accumulation} | {one:.3f} | {two:.3f} | {share:.1%} | {1 - one / two:.1%} |")
    if options.json:
        options.json.write_text(json.dumps(table))


if __name__ == "__main__":
    main()
