"""How long a checkpoint holds up the training that it is taken from.

python benchmarks/checkpoint.py [--size base] [--shape 8x128] [--repeats 5] [--directory DIR] [--json FILE]

"held" is what the training thread waits for the copy of weights, moments and state; "written" is how long a save takes
to its end where no step is beside it; a step beside a save is told against a quiet one. The floor of what is held is
the bytes at the rate of a copy in memory. All take turns; medians.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from random_rows import random_batch
from sides import WARM_UP, machine, machine_line, our_step, our_trainer, seconds_of

from tf_bert.config import BertConfig
from tf_bert.config.settings import MODEL_SIZES
from tf_bert.training.checkpoint import CheckpointManager


def copy_rate() -> float:
    """Bytes a second that numpy copies in memory that has been touched: the best of several."""
    source = np.ones(64 << 20, np.uint8)
    target = source.copy()
    return source.nbytes / min(seconds_of(lambda: np.copyto(target, source)) for _ in range(10))


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", choices=MODEL_SIZES)
    parser.add_argument("--shape", default="8x128", help="rows x tokens")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--directory", help="where to write checkpoints (default: that of temporary files)")
    parser.add_argument("--json", help="where to write all numbers")
    options = parser.parse_args()
    print(f"{machine_line()}; bert-{options.size}, {options.shape}")
    config = BertConfig(**MODEL_SIZES[options.size])
    trainer = our_trainer(config, "float32")
    step = our_step(trainer, random_batch(config, *map(int, options.shape.split("x"))))
    variables = [*trainer.variables, *trainer.optimizer.variables]
    size = sum(int(np.prod(variable.shape)) * np.dtype(variable.dtype).itemsize for variable in variables)
    times: dict[str, list[float]] = {"held": [], "written": [], "step beside it": [], "quiet step": []}
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        checkpoints = CheckpointManager(Path(directory), keep=2)
        for _ in range(WARM_UP):
            step()
        checkpoints.save(0, variables, {})
        checkpoints.wait()  # its first save touches the memory of the copies
        for number in range(1, options.repeats + 1):
            times["quiet step"].append(seconds_of(step))
            times["held"].append(seconds_of(lambda number=number: checkpoints.save(2 * number, variables, {})))
            times["step beside it"].append(seconds_of(step))
            checkpoints.wait()
            began = time.perf_counter()
            checkpoints.save(2 * number + 1, variables, {})
            checkpoints.wait()
            times["written"].append(time.perf_counter() - began)
    found = {name: statistics.median(values) for name, values in times.items()} | {"floor": size / copy_rate()}
    print(f"{size / 1e9:.2f} GB")
    for name, seconds in found.items():
        print(f"{name:<15} {seconds:>7.3f} s")
    if options.json:
        result = {"machine": machine(), "rows": [{"bytes": size, **found}]}
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
