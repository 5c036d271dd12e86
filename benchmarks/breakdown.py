"""Where a training step's time goes, by operation: ours and tf-models', from TensorFlow's profiler.

python benchmarks/breakdown.py [--size base] [--shape 8x128] [--precision float32] [--top 14] [--json FILE]

One step of each after a warm-up, on one thread, so that times add up and none waits for another. Products are those of
matrices; the rest reads and writes memory.
"""

import argparse
import collections
import json
import tempfile
from pathlib import Path

import tensorflow as tf
from random_rows import random_batch
from sides import WARM_UP, Step, TfModels, machine, machine_line, our_step, our_trainer

from tf_bert.config import BertConfig
from tf_bert.config.settings import MODEL_SIZES

AROUND = ("Process", "Run", "Call", "StatefulPartitionedCall", "PartitionedCall", "If", "StatelessIf", "While")
"""Events that have others inside."""


def milliseconds_by_operation(step: Step) -> collections.Counter[str]:
    """Of one call: every operation's kernel, under the name of its type."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as directory:
        with tf.profiler.experimental.Profile(directory):
            step()
        (path,) = Path(directory).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    total: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                # "scope/name:Type", where the profiler's own events have no or two colons.
                place, colon, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
                if colon and not place.startswith("$") and ":" not in place and kind not in AROUND and "__" not in kind:
                    total[kind.removeprefix("_Mkl").removeprefix("NativeFused")] += event.duration_ps / 1e9
    return total


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", choices=MODEL_SIZES)
    parser.add_argument("--shape", default="8x128", help="rows x tokens")
    parser.add_argument("--precision", default="float32", choices=["float32", "mixed_bfloat16"])
    parser.add_argument("--top", type=int, default=14, help="operations to show")
    parser.add_argument("--json", help="where to write all numbers")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    config = BertConfig(**MODEL_SIZES[options.size])
    batch = random_batch(config, *map(int, options.shape.split("x")))
    print(f"{machine_line()}; bert-{options.size}, {options.shape}, {options.precision}")
    sides = {
        "tf_bert": our_step(our_trainer(config, options.precision), batch),
        "tf_models": TfModels(config, options.precision).step(batch),
    }
    found = {}
    for name, step in sides.items():
        for _ in range(WARM_UP):
            step()
        found[name] = milliseconds_by_operation(step)
    for name, total in found.items():
        everything = sum(total.values())
        products = sum(value for kind, value in total.items() if "MatMul" in kind or kind == "Einsum")
        print(f"\n{name}: {everything / 1e3:.2f} s, products {products / everything:.0%}")
        for kind, value in total.most_common(options.top):
            print(f"  {kind:<36} {value:>8.0f} ms  {value / everything:>6.1%}")
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": machine(), "rows": [found]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
