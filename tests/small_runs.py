"""Twenty updates of a tiny model on random batches; run as a script, one rank's part of them.

python small_runs.py WEIGHTS.npz MICROSTEPS
"""

import itertools
import sys

import keras
import numpy as np
import tensorflow as tf
from batches import TINY, packed_batch

from tf_bert import distributed
from tf_bert.config import OptimizerConfig, TrainingConfig
from tf_bert.distributed import World
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.training.losses import PretrainingObjective
from tf_bert.training.optimizer import build_optimizer
from tf_bert.training.train_step import Trainer

OPTIMIZER = OptimizerConfig(learning_rate=1e-3, num_warmup_steps=4)
STEPS = 20


def make_trainer(precision="float32", optimizer=OPTIMIZER, jit_compile=False, world=None) -> Trainer:
    keras.utils.set_random_seed(5)
    model = BertForPretraining(TINY, precision, dropout_seed=5)
    training = TrainingConfig(num_train_steps=STEPS, precision=precision)
    return Trainer(
        model,
        PretrainingObjective(),
        build_optimizer(optimizer, training, model.trainable_variables),
        world or World(),
        optimizer.clip_norm,
        jit_compile,
    )


def stacked(batch, accumulation_steps):
    """Splits the rows of a global batch into microbatches."""
    return {name: np.reshape(v, (accumulation_steps, -1, *v.shape[1:])) for name, v in batch.items()}


def global_batches(rows=32, steps=STEPS):
    rng = np.random.default_rng(9)
    return [packed_batch(rng, rows) for _ in range(steps)]


def fit(trainer, batches, *accumulation_steps):
    """Trains on each batch once; several `accumulation_steps` take turns."""
    stacks = [stacked(batch, steps) for batch, steps in zip(batches, itertools.cycle(accumulation_steps))]
    rows = [None, None] if len(accumulation_steps) > 1 else stacks[0]["input_ids"].shape[:2]
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(stacks),
        output_signature={name: tf.TensorSpec([*rows, *v.shape[2:]], v.dtype) for name, v in stacks[0].items()},
    )
    history = trainer.fit(dataset, steps_per_epoch=len(stacks), epochs=1, verbose=0, shuffle=False)
    return {name: values[-1] for name, values in history.history.items()}


def main(path, microsteps):
    """Trains on this rank's share of every global batch; rank 0 writes weights and last logs."""
    world = distributed.init()
    share = 32 // world.world_size
    own = slice(world.rank * share, (world.rank + 1) * share)
    batches = [{name: value[own] for name, value in batch.items()} for batch in global_batches()]
    trainer = make_trainer(world=world)
    logs = fit(trainer, batches, int(microsteps))
    if world.rank == 0:
        np.savez(path, **{v.path: np.array(v) for v in trainer.model.trainable_variables}, **logs)


if __name__ == "__main__":
    main(*sys.argv[1:])
