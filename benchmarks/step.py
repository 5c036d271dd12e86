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
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from random_rows import random_batch
from sides import Step, TfModels, in_turns, machine, machine_line, matrix_rate, our_step, our_trainer

from tf_bert.config import BertConfig
from tf_bert.config.settings import MODEL_SIZES
from tf_bert.models.flops import RowShape, training_flops
from tf_bert.training.train_step import Trainer


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
    print(f"{machine_line()}; bert-{options.size}")
    rows = []
    for precision in options.precisions:
        for shape in options.shapes:
            count, length = map(int, shape.split("x"))
            batch = random_batch(config, count, length)
            trainer = our_trainer(config, precision)
            steps = {"tf_bert": our_step(trainer, batch), "tf_models": TfModels(config, precision).step(batch)}
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
        Path(options.json).write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
