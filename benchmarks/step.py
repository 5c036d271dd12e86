"""One pretraining step beside that of tf-models: the same shape, equal full batches, in one process, in turns.

python benchmarks/step.py [--size base] [--shapes 8x128 2x512] [--precisions float32 mixed_bfloat16] [--repeats 7]
    [--accumulation 8] [--json FILE]

Theirs is `MaskedLMTask.train_step` over `BertPretrainerV2` with their AdamW. Every row of a batch is full, so packing
is no advantage; 15% of the tokens are masked, dropout is 0.1, gradients are clipped by their global norm. A figure is
the median over the steps after a warm-up. The floor is what the matrix products of a step (`tf_bert/models/flops.py`)
take at the rate of a 2048 x 2048 x 2048 product, measured in the same process. "accumulated" is our step of
`--accumulation` microbatches against so many bare forward and backward passes and one bare update.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from tf_bert.config import BertConfig, OptimizerConfig, TrainingConfig
from tf_bert.config.settings import MODEL_SIZES
from tf_bert.distributed import World
from tf_bert.models.flops import RowShape, training_flops
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.training.losses import PretrainingObjective
from tf_bert.training.optimizer import build_optimizer
from tf_bert.training.train_step import Trainer

Step = Callable[[], Any]
WARM_UP = 2
LEARNING_RATE = 1e-4
STEPS = 1000


def random_batch(config: BertConfig, rows: int, length: int) -> dict[str, np.ndarray]:
    """Full rows of random tokens, two segments each."""
    rng = np.random.default_rng(0)
    predictions = length * 15 // 100
    places = np.stack([np.sort(rng.permutation(np.arange(1, length))[:predictions]) for _ in range(rows)])
    return {
        "input_ids": rng.integers(0, config.vocab_size, (rows, length)).astype("int32"),
        "input_mask": np.ones((rows, length), "int32"),
        "segment_ids": np.tile((np.arange(length) >= length // 2).astype("int32"), (rows, 1)),
        "masked_lm_positions": places.astype("int32"),
        "masked_lm_ids": rng.integers(0, config.vocab_size, (rows, predictions)).astype("int32"),
        "masked_lm_weights": np.ones((rows, predictions), "float32"),
        "next_sentence_labels": rng.integers(0, 2, rows).astype("int32"),
        "next_sentence_weights": np.ones(rows, "float32"),
    }


def our_trainer(config: BertConfig, precision: str) -> Trainer:
    """What `tf-bert pretrain` trains with."""
    model = BertForPretraining(config, precision)
    training = TrainingConfig(num_train_steps=STEPS, global_batch_size=1, microbatch_size=1, precision=precision)
    optimizer = build_optimizer(OptimizerConfig(learning_rate=LEARNING_RATE), training, model.trainable_variables)
    return Trainer(model, PretrainingObjective(), optimizer, World())


def our_step(trainer: Trainer, batch: dict[str, np.ndarray], accumulation: int = 1) -> Step:
    """An update of `accumulation` microbatches."""
    tensors = {name: tf.constant(np.stack([value] * accumulation)) for name, value in batch.items()}
    step = tf.function(trainer.train_step)
    return lambda: float(step(tensors)["loss"])


def bare_passes(trainer: Trainer, batch: dict[str, np.ndarray], count: int) -> Step:
    """So many forward and backward passes whose gradients go into one update, and nothing else."""
    tensors = {name: tf.constant(value) for name, value in batch.items()}
    variables = [variable.value for variable in trainer.model.trainable_variables]

    @tf.function
    def gradients() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            terms = trainer.objective.terms(trainer.model, tensors, training=True)
            loss = tf.add_n([term.loss_sum for term in terms])
        return [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, variables)]

    @tf.function
    def update(found: list[tf.Tensor]) -> None:
        trainer.optimizer.apply(found, trainer.model.trainable_variables)

    def run() -> None:
        for _ in range(count):
            found = gradients()
        update(found)
        trainer.optimizer.iterations.numpy()

    return run


def their_step(config: BertConfig, precision: str, batch: dict[str, np.ndarray]) -> Step:
    """tf-models' task, model and optimizer."""
    import tf_keras
    from official.nlp import optimization
    from official.nlp.configs import bert, encoders
    from official.nlp.data.pretrain_dataloader import BertPretrainDataConfig
    from official.nlp.tasks.masked_lm import MaskedLMConfig, MaskedLMTask

    tf_keras.mixed_precision.set_global_policy(precision)
    encoder = encoders.EncoderConfig(
        type="bert",
        bert=encoders.BertEncoderConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_position_embeddings,
        ),
    )
    head = bert.ClsHeadConfig(inner_dim=config.hidden_size, num_classes=2, dropout_rate=0.1, name="next_sentence")
    pretrainer = bert.PretrainerConfig(encoder=encoder, cls_heads=[head])
    task = MaskedLMTask(MaskedLMConfig(model=pretrainer, train_data=BertPretrainDataConfig()))
    model = task.build_model()
    optimizer = optimization.create_optimizer(LEARNING_RATE, STEPS, STEPS // 10)
    metrics = task.build_metrics(training=True)
    names = {"input_ids": "input_word_ids", "segment_ids": "input_type_ids"}
    inputs = {names.get(name, name): tf.constant(value) for name, value in batch.items()}
    inputs["next_sentence_labels"] = inputs["next_sentence_labels"][:, None]
    step = tf.function(lambda: task.train_step(inputs, model, optimizer, metrics))
    return lambda: float(step()[task.loss])


def matrix_rate(precision: str) -> float:
    """Operations a second of a large matrix product: the best of several."""
    side = 2048
    a, b = (tf.cast(tf.random.normal((side, side)), "float32" if precision == "float32" else "bfloat16") for _ in "ab")
    product = tf.function(lambda: tf.reduce_sum(tf.cast(tf.matmul(a, b), "float32")))
    return 2 * side**3 / min(seconds_of(lambda: float(product())) for _ in range(8))


def seconds_of(step: Step) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def in_turns(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    """Median seconds of each, called in turns."""
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(seconds_of(step))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", choices=MODEL_SIZES)
    parser.add_argument("--shapes", nargs="+", default=["8x128", "2x512"], help="rows x tokens")
    parser.add_argument("--precisions", nargs="+", default=["float32", "mixed_bfloat16"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--accumulation", type=int, default=8, help="0: leave this part out")
    parser.add_argument("--json", help="where to write all numbers")
    options = parser.parse_args()
    config = BertConfig(**MODEL_SIZES[options.size])
    print(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores; tensorflow {version('tensorflow')}, keras "
        f"{keras.__version__}, tf-models-official {version('tf-models-official')}; bert-{options.size}"
    )
    rows = []
    for precision in options.precisions:
        for shape in options.shapes:
            count, length = map(int, shape.split("x"))
            batch = random_batch(config, count, length)
            trainer = our_trainer(config, precision)
            steps = {
                "tf_bert": our_step(trainer, batch),
                "tf_models": their_step(config, precision, batch),
            }
            seconds = in_turns(steps, options.repeats)
            row_shape = RowShape(length, length * 15 // 100, 1)
            rate = matrix_rate(precision)
            floor = count * training_flops(config, row_shape) / rate
            row = {"precision": precision, "shape": shape, **seconds, "floor": floor, "matrix_rate": rate}
            print(
                f"{precision:<15} {shape:<7} tf_bert {seconds['tf_bert']:.3f} s, "
                f"tf_models {seconds['tf_models']:.3f} s: {seconds['tf_bert'] / seconds['tf_models']:.3f} x; "
                f"floor {floor:.3f} s at {rate / 1e9:.0f} GFLOP/s",
                flush=True,
            )
            rows.append(row)
            if options.accumulation and shape == options.shapes[0]:
                del steps
                name = f"accumulated x {options.accumulation}"
                pair = {
                    name: our_step(trainer, batch, options.accumulation),
                    "bare": bare_passes(trainer, batch, options.accumulation),
                }
                seconds = in_turns(pair, max(3, options.repeats // 2))
                print(
                    f"{precision:<15} {shape:<7} {name}: {seconds[name] / seconds['bare']:.3f} x bare passes",
                    flush=True,
                )
                row |= {"accumulated": seconds[name], "bare": seconds["bare"]}
            keras.backend.clear_session()
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
