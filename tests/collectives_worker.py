"""What every rank of test_distributed.py runs: each collective on values that differ by rank, results to a file."""

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_bert import distributed

LARGE = 1 << 24  # the last odd number that float32 holds exactly is just below


def main(directory: Path) -> None:
    """Writes `rank<number>.json` into `directory`."""
    world = distributed.init()
    mine = float(world.rank + 1)
    tensors = [tf.fill([2, 3], mine), tf.constant(10.0 * mine), tf.fill([0], mine)]

    @tf.function
    def in_graph(x: tf.Tensor) -> list[tf.Tensor]:
        """Two collectives in a row around a loop, as a train step has them."""
        (total,) = world.all_reduce_sum([x])
        _, accumulated = tf.while_loop(lambda i, _: i < 3, lambda i, sum_: (i + 1, sum_ + x / total), (0, tf.zeros(())))
        return world.all_reduce_sum([accumulated, total])

    variables = [
        keras.Variable(tf.fill([2], mine), dtype="float32", name="weights"),
        keras.Variable(tf.fill([2], LARGE + 1 + world.rank), dtype="int32", name="step"),
        keras.Variable(tf.constant([2**32 - 1 - world.rank, 7], tf.uint32), dtype="uint32", name="seed_state"),
        keras.Variable(tf.fill([2], mine), dtype="bfloat16", name="half"),
    ]
    world.broadcast_variables(variables)
    from_last = keras.Variable(mine, dtype="float32", name="from_last")
    world.broadcast_variables([from_last], root=world.world_size - 1)

    generator = np.random.default_rng(world.rank)
    wide = [generator.normal(size=1000).astype("float32") * size for size in (1e-20, 1.0, 1e20)]
    odd = [np.array([mine, value], "float32") for value in (np.nan if world.rank else 1.0, np.inf, 0.0)]
    reductions = (world.all_reduce_sum_float16, world.all_reduce_sum)
    half, exact = ([total.numpy() for total in reduction(wide)] for reduction in reductions)

    results = {
        "rank": world.rank,
        "local_rank": world.local_rank,
        "world_size": world.world_size,
        "eager": [tensor.numpy().tolist() for tensor in world.all_reduce_sum(tensors)],
        "integers": world.all_reduce_sum([tf.constant(LARGE + 1, tf.int64)])[0].numpy().tolist(),
        "graph": [[tensor.numpy().tolist() for tensor in in_graph(tf.constant(mine))] for _ in range(3)],
        "variables": [keras.ops.convert_to_numpy(variable).astype("float64").tolist() for variable in variables],
        "float16_error": [float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in zip(half, exact, strict=True)],
        "float16_odd": [np.isfinite(total.numpy()).tolist() for total in world.all_reduce_sum_float16(odd)],
        "float16_zero": world.all_reduce_sum_float16([np.zeros(2, "float32")])[0].numpy().tolist(),
        "from_last": float(from_last.value),
        "object": world.broadcast_object(
            {"checkpoint": "step-7", "naïve": [1, None]} if world.rank == 0 else "ignored"
        ),
        "long_object": len(world.broadcast_object("x" * 1_000_000 if world.rank == 0 else None)),
    }
    arrived = directory / f"arrived{world.rank}"
    arrived.touch()
    world.barrier()
    results["cycle_time"] = os.environ.get("HOROVOD_CYCLE_TIME")
    results["arrived_before_the_barrier_opened"] = len(list(directory.glob("arrived*")))
    (directory / f"rank{world.rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
