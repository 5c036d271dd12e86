"""Peak memory of three updates on random batches, beyond what the process took before; run as a script.

python peak_memory.py JSON   (config: fields of BertConfig; training: fields of TrainingConfig; row: of RowShape; steps)

Prints bytes.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from batches import packed_batch
from small_runs import make_trainer, stacked

from tf_bert.config import BertConfig, OptimizerConfig, TrainingConfig
from tf_bert.distributed import World
from tf_bert.models.flops import RowShape
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.training.losses import PretrainingObjective
from tf_bert.training.optimizer import build_optimizer
from tf_bert.training.train_step import Trainer


def peak() -> int:
    """Most resident memory so far, in bytes; the one of getrusage begins with that of the process that started this."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def main(settings):
    config, training = BertConfig(**settings["config"]), TrainingConfig(**settings["training"])
    row, accumulation_steps = RowShape(**settings["row"]), settings["accumulation_steps"]

    # What loading the libraries and building any graph takes is in the process's memory before the model's is.
    make_trainer().train_step(stacked(packed_batch(np.random.default_rng(0), 4), 2))
    before = peak()

    model = BertForPretraining(config, training.precision, training.activation_checkpointing)
    optimizer = build_optimizer(OptimizerConfig(), training, model.trainable_variables)
    trainer = Trainer(model, PretrainingObjective(), optimizer, World(), clip_norm=1.0)
    step = tf.function(trainer.train_step)
    rng = np.random.default_rng(0)
    rows = accumulation_steps * training.microbatch_size
    for _ in range(3):
        batch = packed_batch(rng, rows, config, row.length, row.predictions)
        step({name: tf.constant(value) for name, value in stacked(batch, accumulation_steps).items()})
    print(peak() - before)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
