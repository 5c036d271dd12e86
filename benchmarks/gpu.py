"""Pretraining on one GPU: our models on JAX and on TensorFlow with XLA, beside `transformers` on compiled PyTorch.

python benchmarks/gpu.py [--size large] [--shape 32x512] [--precision mixed_bfloat16] [--attention_dropout 0.0]
    [--mask] [--sides jax tensorflow] [--repeats 10] [--peers_python PYTHON] [--json FILE]

Every side is a process of its own on the same card, one after the other, since two allocators do not share it; the
table has medians. Rows are full of random tokens; a step is forward, backward, clipping and AdamW; dropout is 0.1 but
for that of the attention's probabilities: where it is 0 our models on JAX use flash attention, as PyTorch does.
Attention sees the whole row; with `--mask` every side is told so by a mask, as rows with padding or of several examples
need one. "forward" is the encoder alone. "of the peak" is the rate of the operations (`tf_bert/models/flops.py`) by
that of a large matrix product in the same process; memory is the most that the allocator gave out. Our masked-LM head
scores the masked tokens alone, and there is a next-sentence head; `transformers` scores every token and has none.
On a machine without a GPU it runs on the CPU, which shows that it runs; where there is one, a side that does not see it
is left out. `--peers_python` names an interpreter with PyTorch and `transformers`; without it they are left out.
"""

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from random_rows import MASKED, random_batch
from turns import Side, answer

from tf_bert.config import BertConfig
from tf_bert.config.settings import MODEL_SIZES
from tf_bert.models.flops import RowShape, forward_flops, training_flops

WARM_UP = 3
PEERS = Path(__file__).with_name("pretrain_peers.py")
Task = Callable[[], float]


def timed(run: Callable[[], Any]) -> Task:
    """A task that takes the time until the result has come back to the host."""

    def task() -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    return task


def sees_gpu(library: str, found: bool) -> bool:
    """Whether a side runs on a GPU; it ends where there is one and its library does not see it."""
    if not found and shutil.which("nvidia-smi"):
        sys.exit(f"{library} does not see the GPU")
    return found


def rows_of(settings: dict[str, Any]) -> tuple[BertConfig, dict[str, np.ndarray]]:
    """The model's shape, and the batch."""
    config = BertConfig(**settings["config"])
    batch = random_batch(config, settings["rows"], settings["length"])
    if not settings["mask"]:
        del batch["input_mask"]
    return config, batch


def jax_tasks(settings: dict[str, Any]) -> tuple[dict[str, Task], str]:
    """Our model with Keras's AdamW, each of the two tasks one compiled function."""
    import jax
    import keras

    from tf_bert.models.pretraining import BertForPretraining
    from tf_bert.training.losses import PretrainingObjective

    on_gpu = sees_gpu("jax", jax.default_backend() == "gpu")
    config, rows = rows_of(settings)
    precision = settings["precision"]
    model, objective = BertForPretraining(config, precision), PretrainingObjective()
    optimizer = keras.optimizers.AdamW(1e-4, weight_decay=0.01, global_clipnorm=1.0)
    optimizer.build(model.trainable_variables)
    batch = {name: jax.numpy.asarray(value) for name, value in rows.items()}

    def loss(weights: Any, others: Any, batch: Any) -> Any:
        mapping = [*zip(model.trainable_variables, weights, strict=True)]
        mapping += zip(model.non_trainable_variables, others, strict=True)
        with keras.StatelessScope(state_mapping=mapping) as scope:
            terms = objective.terms(model, batch, training=True)
            total = sum(term.loss_sum / count for term, count in zip(terms, objective.weights(batch), strict=True))
        return total, [scope.get_current_value(variable) for variable in model.non_trainable_variables]

    def update(state: Any, batch: Any) -> Any:
        weights, others, moments = state
        (value, others), gradients = jax.value_and_grad(loss, has_aux=True)(weights, others, batch)
        weights, moments = optimizer.stateless_apply(moments, gradients, weights)
        return value, (weights, others, moments)

    # The state's memory is used again; the variables keep what they have.
    state = jax.tree.map(
        lambda value: value.copy(),
        tuple(
            [variable.value for variable in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
        ),
    )
    compiled = jax.jit(update, donate_argnums=0)

    def step() -> None:
        nonlocal state
        value, state = compiled(state, batch)
        value.block_until_ready()

    @jax.jit
    def encode(weights: Any, batch: Any) -> Any:
        with keras.StatelessScope(state_mapping=zip(model.encoder.trainable_variables, weights, strict=True)):
            return model.encoder(batch)["sequence_output"].astype("float32").sum()

    weights = [variable.value for variable in model.encoder.trainable_variables]
    side = 8192 if on_gpu else 1024
    a = jax.random.normal(jax.random.key(0), (side, side), "float32" if precision == "float32" else "bfloat16")
    product = jax.jit(lambda x: (x @ x).astype("float32").sum())
    device = jax.devices()[0]
    tasks = {
        "step": timed(step),
        "forward": timed(lambda: encode(weights, batch).block_until_ready()),
        "product": timed(lambda: product(a).block_until_ready()),
        "memory": lambda: float((device.memory_stats() or {}).get("peak_bytes_in_use", 0)),
    }
    return tasks | {"side": lambda: float(side)}, f"jax {jax.__version__} on {device.device_kind}"


def tensorflow_tasks(settings: dict[str, Any]) -> tuple[dict[str, Task], str]:
    """The product's own train step, its microstep compiled by XLA."""
    import tensorflow as tf
    from sides import our_trainer

    gpus = tf.config.list_physical_devices("GPU")
    sees_gpu("tensorflow", bool(gpus))
    config, batch = rows_of(settings)
    precision = settings["precision"]
    trainer = our_trainer(config, precision, jit_compile=True)
    given = {name: tf.constant(value[np.newaxis]) for name, value in batch.items()}
    inputs = {name: tf.constant(value) for name, value in batch.items()}
    update = tf.function(trainer.train_step)
    encode = tf.function(
        lambda: tf.reduce_sum(tf.cast(trainer.model.encoder(inputs)["sequence_output"], "float32")), jit_compile=True
    )
    side = 8192 if gpus else 1024
    a = tf.random.normal((side, side), dtype="float32" if precision == "float32" else "bfloat16")
    product = tf.function(lambda: tf.reduce_sum(tf.cast(a @ a, "float32")), jit_compile=True)
    tasks = {
        "step": timed(lambda: float(update(given)["loss"])),
        "forward": timed(lambda: encode().numpy()),
        "product": timed(lambda: product().numpy()),
        "memory": lambda: float(tf.config.experimental.get_memory_info("GPU:0")["peak"]) if gpus else 0.0,
    }
    name = tf.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else "cpu"
    return tasks | {"side": lambda: float(side)}, f"tensorflow {tf.__version__} on {name}"


SIDES = {"jax": jax_tasks, "tensorflow": tensorflow_tasks}


def median(side: Side, task: str, repeats: int) -> float:
    """Of the seconds of a task, after a warm-up."""
    for _ in range(WARM_UP):
        side.ask(task)
    return statistics.median(side.ask(task) for _ in range(repeats))


def main() -> None:
    """Parses, measures, prints."""
    if sys.argv[1:2] == ["_side"]:
        settings = json.loads(sys.argv[3])
        answer(*SIDES[sys.argv[2]](settings))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="large", choices=MODEL_SIZES)
    parser.add_argument("--shape", default="32x512", help="rows x tokens")
    parser.add_argument("--precision", default="mixed_bfloat16", choices=["float32", "mixed_bfloat16"])
    parser.add_argument("--attention_dropout", type=float, default=0.0)
    parser.add_argument("--mask", action="store_true", help="give attention a mask")
    parser.add_argument("--sides", nargs="*", default=list(SIDES), choices=SIDES)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--peers_python", help="an interpreter with PyTorch and transformers")
    parser.add_argument("--json", help="where to write all numbers")
    options = parser.parse_args()
    rows, length = map(int, options.shape.split("x"))
    config = BertConfig(**MODEL_SIZES[options.size], attention_probs_dropout_prob=options.attention_dropout)
    given = {
        "config": dataclasses.asdict(config),
        "rows": rows,
        "length": length,
        "precision": options.precision,
        "mask": options.mask,
    }
    commands = {name: [sys.executable, __file__, "_side", name, json.dumps(given)] for name in options.sides}
    if options.peers_python:
        commands["torch"] = [options.peers_python, str(PEERS), json.dumps({**given, "compiled": True})]
    attention = f"attention dropout {options.attention_dropout}{', with a mask' if options.mask else ''}"
    print(f"bert-{options.size}, {options.shape}, {options.precision}, {attention}")
    results = []
    for name, words in commands.items():
        environment = {**os.environ, "KERAS_BACKEND": name if name in SIDES else "tensorflow"}
        try:
            side = Side(words, environment)
        except SystemExit as ended:
            print(f"{name}: is left out: {ended}", file=sys.stderr)
            continue
        try:
            found = {task: median(side, task, options.repeats) for task in ("step", "forward")}
            found["memory"] = side.ask("memory")
            if name in SIDES:
                found["peak"] = 2 * side.ask("side") ** 3 / median(side, "product", options.repeats)
        finally:
            side.close()
        rates = {task: rows * length / found[task] for task in ("step", "forward")}
        line = f"{name:<11} step {rates['step']:>9.0f} tokens/s, forward {rates['forward']:>9.0f}"
        if "peak" in found:
            work = {
                "step": training_flops(config, RowShape(length, int(MASKED * length), 1)),
                "forward": forward_flops(config, RowShape(length, 0, 1)),
            }
            shares = {task: rows * flops / found[task] / found["peak"] for task, flops in work.items()}
            line += (
                f"; {shares['step']:.0%} and {shares['forward']:.0%} of the peak, {found['peak'] / 1e12:.1f} TFLOP/s"
            )
            found["of_peak"] = shares
        print(f"{line}; {found['memory'] / 1e9:.1f} GB; {side.opening}", flush=True)
        results.append({"side": name, "opening": side.opening, **found, "tokens_per_second": rates})
    if options.json:
        Path(options.json).write_text(json.dumps({"settings": given, "rows": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
