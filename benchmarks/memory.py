"""Peak memory of a training step beside tf-models', and what activation checkpointing saves and costs.

python benchmarks/memory.py [--size base] [--shapes 8x128 2x512] [--precisions float32 mixed_bfloat16] [--repeats 3]
    [--json FILE]

Every figure is of a process of its own: its largest resident memory over some updates, less what it had before the
model was built (libraries, and all that a tiny model of that side takes). Weights, gradients and moments are in it. The
floor is 16 bytes a parameter: weights, gradient and two moments in float32. Sides take turns; medians over the turns.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from random_rows import random_batch
from sides import Step, TfModels, machine, machine_line, our_step, our_trainer, seconds_of

from tf_bert.config import BertConfig
from tf_bert.config.settings import MODEL_SIZES
from tf_bert.models.flops import count_parameters

SIDES = ("tf_bert", "checkpointing", "tf_models")
UPDATES = 5  # of which the first, which builds the graph, is not timed


def peak() -> int:
    """Most resident memory so far, in bytes; the one of getrusage begins with that of the process that started this."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def make(side: str, config: BertConfig, precision: str, rows: int, length: int) -> Step:
    """A step of a side on full rows."""
    batch = random_batch(config, rows, length)
    if side == "tf_models":
        return TfModels(config, precision).step(batch)
    return our_step(our_trainer(config, precision, activation_checkpointing=side == "checkpointing"), batch)


def measure(side: str, size: str, precision: str, shape: str) -> dict[str, float]:
    """Bytes and seconds, in this process."""
    rows, length = map(int, shape.split("x"))
    make(side, BertConfig(**MODEL_SIZES["tiny"]), precision, 2, 32)()
    before = peak()
    step = make(side, BertConfig(**MODEL_SIZES[size]), precision, rows, length)
    step()
    seconds = statistics.median(seconds_of(step) for _ in range(UPDATES - 1))
    return {"bytes": peak() - before, "seconds": seconds}


def main() -> None:
    """Parses, measures, prints."""
    if sys.argv[1:2] == ["_one"]:
        print(json.dumps(measure(*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", choices=MODEL_SIZES)
    parser.add_argument("--shapes", nargs="+", default=["8x128", "2x512"], help="rows x tokens")
    parser.add_argument("--precisions", nargs="+", default=["float32", "mixed_bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="where to write all numbers")
    options = parser.parse_args()
    print(f"{machine_line()}; bert-{options.size}")
    floor = 16 * count_parameters(BertConfig(**MODEL_SIZES[options.size]))
    results = []
    for precision in options.precisions:
        for shape in options.shapes:
            runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
            for _ in range(options.repeats):
                for side in SIDES:
                    words = [sys.executable, __file__, "_one", side, options.size, precision, shape]
                    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                    runs[side].append(json.loads(done.stdout.splitlines()[-1]))
            found = {
                side: {name: statistics.median(run[name] for run in runs[side]) for name in ("bytes", "seconds")}
                for side in SIDES
            }
            ours, saving, theirs = (found[side] for side in SIDES)
            print(
                f"{precision:<15} {shape:<7} tf_bert {ours['bytes'] / 1e9:.2f} GB, tf_models "
                f"{theirs['bytes'] / 1e9:.2f} GB: {ours['bytes'] / theirs['bytes']:.2f} x; checkpointing "
                f"{saving['bytes'] / theirs['bytes']:.2f} x theirs, {saving['bytes'] / ours['bytes']:.2f} x ours, for "
                f"{saving['seconds'] / ours['seconds']:.2f} x the time; floor {floor / 1e9:.2f} GB",
                flush=True,
            )
            results.append({"precision": precision, "shape": shape, "floor": floor, **found})
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": machine(), "rows": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
