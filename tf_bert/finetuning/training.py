"""One finetuning run on the custom train step, from its newest checkpoint to its last step."""

import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import tensorflow as tf

from tf_bert.config import CadenceConfig, LearningConfig, OptimizerConfig, RunConfig, TrainingConfig, accumulation_steps
from tf_bert.distributed import World
from tf_bert.errors import Diverged, InputError, UsageError
from tf_bert.finetuning.batches import ExampleOrder, training_dataset
from tf_bert.finetuning.packing import Encoded
from tf_bert.models.model import BertModel
from tf_bert.run_log import RunLog, format_seconds
from tf_bert.training.callbacks import Cadence
from tf_bert.training.checkpoint import CheckpointManager
from tf_bert.training.clock import RunClock
from tf_bert.training.losses import Objective
from tf_bert.training.optimizer import build_optimizer
from tf_bert.training.stopping import StopSignals
from tf_bert.training.train_step import Trainer

COMPILED_MULTIPLE = 4
"""XLA compiles a step for every shape: rows, and examples in a row, come in multiples of this."""
MAX_BAD_STEPS = 100
"""Updates in a row without a finite gradient after which a run ends; the search for a loss scale takes some 20."""

DESCRIPTIONS = {
    "loss": "mean loss of the examples, nats or squared units",
    "gradient_norm": "global norm of the gradient before clipping",
    "learning_rate": "learning rate of the update",
    "loss_scale": "factor on the loss against underflow in float16; 1 otherwise",
    "tokens_seen": "tokens trained on since the start of the run",
    "examples_per_second": "examples trained on per second over all ranks",
    "bad_steps_in_row": "updates in a row that were skipped for a gradient that is not finite",
}


def training_config(run: RunConfig, learning: LearningConfig, steps: int, world_size: int) -> TrainingConfig:
    """The settings of the train step, in the words of pretraining.

    Raises:
      UsageError: if the global batch cannot be divided over ranks and microbatches.
    """
    microbatch_size = learning.microbatch_size or max(1, learning.global_batch_size // world_size)
    try:
        training = TrainingConfig(
            num_train_steps=steps,
            global_batch_size=learning.global_batch_size,
            microbatch_size=microbatch_size,
            precision=run.precision,
            jit_compile=run.jit_compile,
            seed=run.seed,
        )
        accumulation_steps(training, world_size)
    except ValueError as error:
        raise UsageError(str(error).replace("training.", "")) from error
    return training


def optimizer_config(learning: LearningConfig, steps: int) -> OptimizerConfig:
    """AdamW with a linear warmup and a linear decay to 0."""
    warmup = math.ceil(0.1 * steps) if learning.num_warmup_steps is None else learning.num_warmup_steps
    if warmup > steps:
        raise UsageError(f"num_warmup_steps {warmup} exceeds the {steps} steps of the run; shorten it or train longer")
    return OptimizerConfig(
        learning_rate=learning.learning_rate,
        num_warmup_steps=warmup,
        weight_decay_rate=learning.weight_decay_rate,
        bias_correction=learning.bias_correction,
        clip_norm=learning.clip_norm,
    )


class TrainingRun:
    """A run with its variables: what it can be restored to, and trained from.

    Args:
      model: with the weights to start from.
      objective: its losses.
      run, learning: settings.
      steps: optimizer updates of the whole run.
      world: the ranks.
    """

    def __init__(
        self,
        model: BertModel,
        objective: Objective,
        run: RunConfig,
        learning: LearningConfig,
        steps: int,
        world: World,
    ) -> None:
        self.run, self.learning, self.steps, self.world = run, learning, steps, world
        self.training = training_config(run, learning, steps, world.world_size)
        self.optimizer = build_optimizer(optimizer_config(learning, steps), self.training, model.trainable_variables)
        self.compiles = bool(tf.config.list_physical_devices("GPU")) if run.jit_compile is None else run.jit_compile
        self.trainer = Trainer(model, objective, self.optimizer, world, learning.clip_norm, self.compiles)
        self.variables = [*self.trainer.variables, *self.optimizer.variables]

    def train(
        self,
        encoded: Encoded,
        checkpoints: CheckpointManager,
        first_step: int,
        evaluate_every: int,
        evaluate: Callable[[int, RunLog], bool],
    ) -> int:
        """Trains from `first_step` to the end, saving on the way; returns the updates done.

        Args:
          encoded: the training examples.
          checkpoints: where to save.
          first_step: updates that the variables hold.
          evaluate_every: steps.
          evaluate: receives the step and the log; returns whether to stop there, on all ranks alike.

        Raises:
          InputError: if a signal stopped the run.
          Diverged: if its gradients are not finite.
        """
        trainer, world = self.trainer, self.world
        dataset = training_dataset(
            encoded,
            ExampleOrder(len(encoded), self.run.seed),
            row_length=self.learning.max_seq_length,
            global_batch_size=self.training.global_batch_size,
            accumulation_steps=accumulation_steps(self.training, world.world_size),
            rank=world.rank,
            world_size=world.world_size,
            first_step=first_step,
            shape_multiple=COMPILED_MULTIPLE if self.compiles else None,
        )
        log = RunLog(Path(self.run.model_dir), first_step, enabled=world.rank == 0)
        clock = RunClock(self.steps, first_step, float(trainer.tokens_seen.value), 0.0)
        stops_early = False

        def log_step(step: int, values: dict[str, float]) -> None:
            lap = clock.lap(step, values["tokens_seen"])
            values["examples_per_second"] = lap.steps * self.training.global_batch_size / lap.seconds
            log.scalars(step, "train", values, DESCRIPTIONS)
            log.line(
                f"step {step:,}/{self.steps:,} | loss {values['loss']:.4f} | "
                f"{values['examples_per_second']:,.0f} examples/s | rate {values['learning_rate']:.2e} | gradient norm "
                f"{values['gradient_norm']:.2f} | {format_seconds(clock.seconds_left())} left"
            )

        def evaluate_step(step: int) -> None:
            nonlocal stops_early
            with clock.paused("evaluation"):
                stops_early = evaluate(step, log) and step < self.steps
            if stops_early:
                trainer.stop_training = True
                if step % self.run.checkpoint_every:  # otherwise it is saved anyway
                    save(step)

        def save(step: int) -> None:
            with clock.paused("checkpoint"):
                if world.rank == 0:
                    checkpoints.save(step, self.variables, {"data_position": step})

        stop = StopSignals(
            lambda: trainer.stop_requested.assign(1.0), self.run.stop_deadline_seconds, tells=world.rank == 0
        )
        cadence = CadenceConfig(
            log_every=self.run.log_every, evaluate_every=evaluate_every, checkpoint_every=self.run.checkpoint_every
        )
        callback = Cadence(
            cadence,
            first_step,
            self.steps,
            hours=None,
            max_bad_steps=MAX_BAD_STEPS,
            loss_spike_factor=None,
            each_step=checkpoints.check,
            skipped=lambda step: None,
            log=log_step,
            evaluate=evaluate_step,
            save=save,
        )
        with closing(log), closing(checkpoints), stop:
            if first_step < self.steps:
                count = self.steps - first_step
                trainer.fit(dataset, steps_per_epoch=count, epochs=1, callbacks=[callback], verbose=0, shuffle=False)
            else:
                evaluate(first_step, log)  # what ended the run may not have evaluated
            with world.together():
                checkpoints.wait()
        if callback.trouble:
            raise world.alike(
                Diverged(f"step {callback.done}: {callback.trouble}; lower learning_rate or warm up longer")
            )
        if callback.done < self.steps and not stops_early:
            name = stop.received.name if stop.received else "a signal to another rank"
            stopped = InputError(
                f"stopped by {name} after step {callback.done}; its checkpoint is in {checkpoints.directory}, and the "
                "same command goes on from there"
            )
            raise world.alike(stopped)
        return callback.done
