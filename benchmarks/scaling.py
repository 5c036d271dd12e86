"""A model of weak scaling to 64 to 1,024 ranks, from constants that are measured.

python benchmarks/scaling.py [--size base] [--shape 8x128] [--accumulations 1 8 32] [--ranks 64 128 256 512 1024]
    [--microbatch_seconds S --update_seconds S] [--agreement S --latency S --bandwidth B] [--json FILE]

Every rank does the same work however many there are. An update takes k microbatches, the optimizer's update, and a ring
all-reduce of the gradients (Patarasuk and Yuan 2009): 2 (n - 1) messages, each of which waits a latency and carries an
n-th of the gradients, after the ranks have agreed that all of them are there. Nothing of it runs beside the backward
pass. Efficiency is the share that is not all-reduce.

Measured here: microbatch and update from steps of one and two microbatches; agreement and bandwidth from Horovod's
all-reduces of a few bytes and of all gradients between two ranks of this machine; latency as half a round trip on its
loopback. A cluster's own numbers are given instead: a step's from a log or `benchmarks/gpu.py`, the network's from this
script's `_rank` under the cluster's launcher.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import tensorflow as tf
from random_rows import random_batch
from sides import in_turns, machine, machine_line, our_step, our_trainer, seconds_of

from tf_bert.config import BertConfig
from tf_bert.config.settings import MODEL_SIZES
from tf_bert.models.flops import count_parameters

SMALL = 16  # floats
ROUND_TRIPS = 1000
OF_STEP = ("microbatch_seconds", "update_seconds")
OF_NETWORK = ("agreement", "latency", "bandwidth")


def ring_seconds(ranks: int, size: float, agreement: float, latency: float, bandwidth: float) -> float:
    """Of a ring all-reduce of so many bytes."""
    return agreement + 2 * (ranks - 1) * (latency + size / ranks / bandwidth)


def loopback_latency() -> float:
    """Seconds that a byte takes from one end of a TCP connection of this machine to the other."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        other, _ = server.accept()
        with other:
            for end in (client, other):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            echo = threading.Thread(target=lambda: [other.sendall(other.recv(1)) for _ in range(ROUND_TRIPS)])
            echo.start()
            times = [seconds_of(lambda: (client.sendall(b"x"), client.recv(1))) for _ in range(ROUND_TRIPS)]
            echo.join()
    return statistics.median(times) / 2


def measure_network(parameters: int) -> dict[str, float]:
    """Agreement and latency in seconds, bandwidth in bytes a second, between two ranks of this machine."""
    launcher = [str(Path(sys.executable).with_name("horovodrun")), "-np", "2", "--gloo"]
    words = [*launcher, sys.executable, __file__, "_rank", str(parameters)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    (line,) = (line for line in done.stdout.splitlines() if "{" in line)
    small, large = json.loads(line[line.index("{") :]).values()
    latency = loopback_latency()
    # Of two ranks each sends half the bytes twice.
    return {"agreement": small - 2 * latency, "latency": latency, "bandwidth": 4 * parameters / (large - small)}


def rank(parameters: int) -> None:
    """One rank: rank 0 prints what all-reduces take."""
    from tf_bert.distributed import init

    world = init()
    found = {}
    for name, count in (("small", SMALL), ("large", parameters)):
        values = [tf.zeros(count)]
        reduce = tf.function(lambda values=values: world.all_reduce_sum(values)[0][0])
        reduce()
        found[name] = statistics.median(seconds_of(lambda reduce=reduce: float(reduce())) for _ in range(10))
    if world.rank == 0:
        print(json.dumps(found), flush=True)


def measure_step(config: BertConfig, shape: str) -> dict[str, float]:
    """Seconds of a microbatch and of an update."""
    trainer = our_trainer(config, "float32")
    batch = random_batch(config, *map(int, shape.split("x")))
    one, two = in_turns({str(count): our_step(trainer, batch, count) for count in (1, 2)}, repeats=5).values()
    return {"microbatch_seconds": two - one, "update_seconds": 2 * one - two}


def main() -> None:
    """Parses, measures, prints."""
    if sys.argv[1:2] == ["_rank"]:
        rank(int(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", choices=MODEL_SIZES)
    parser.add_argument("--shape", default="8x128", help="rows x tokens of a microbatch")
    parser.add_argument("--accumulations", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--ranks", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    for name in (*OF_STEP, *OF_NETWORK):
        parser.add_argument(f"--{name}", type=float, help="measured here if it is not given")
    parser.add_argument("--json", help="where to write all numbers")
    options = parser.parse_args()
    config = BertConfig(**MODEL_SIZES[options.size])
    parameters = count_parameters(config)
    constants = {name: getattr(options, name) for name in (*OF_STEP, *OF_NETWORK)}
    measured: dict[str, float] = {}
    if any(constants[name] is None for name in OF_STEP):
        measured |= measure_step(config, options.shape)
    if any(constants[name] is None for name in OF_NETWORK):
        measured |= measure_network(parameters)
    constants = {name: measured[name] if value is None else value for name, value in constants.items()}
    print(f"{machine_line()}; bert-{options.size}, {options.shape}, {parameters / 1e6:.0f} M parameters")
    print(", ".join(f"{name} {value:.3g}" for name, value in constants.items()) + "\n")
    print("| ranks | gradients travel in | " + " | ".join(f"x {k}" for k in options.accumulations) + " |")
    print("|---|---|" + "---|" * len(options.accumulations))
    rows = []
    for count in options.ranks:
        for precision, width in (("float32", 4), ("float16", 2)):
            network = ring_seconds(count, width * parameters, *(constants[name] for name in OF_NETWORK))
            work = np.array(options.accumulations) * constants["microbatch_seconds"] + constants["update_seconds"]
            efficiency = (work / (work + network)).tolist()
            print(f"| {count:,} | {precision} | " + " | ".join(f"{share:.1%}" for share in efficiency) + " |")
            rows.append({"ranks": count, "precision": precision, "efficiency": efficiency})
    if options.json:
        result = {"machine": machine(), "constants": constants, "rows": rows}
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
