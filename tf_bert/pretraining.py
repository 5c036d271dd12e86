"""`tf-bert pretrain`, from data directory to model directory. Reads top to bottom."""

import functools
import math
from contextlib import closing
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import yaml

from tf_bert import distributed
from tf_bert.config import PretrainConfig, StageRun, accumulation_steps, stage_runs, to_dict
from tf_bert.distributed import World
from tf_bert.errors import InputError, UsageError
from tf_bert.files import sha256_of
from tf_bert.initial_weights import check_initial_weights, load_initial_weights
from tf_bert.models.flops import RowShape, training_flops
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.pretraining_data.dataset import training_dataset, validation_dataset
from tf_bert.pretraining_data.manifest import MANIFEST_FILE, Manifest, read_manifest
from tf_bert.pretraining_data.masking import predictions_per_row
from tf_bert.report import draw_report
from tf_bert.run_directory import (
    CHECKPOINTS_DIR,
    MODEL_DIR,
    REPORT_FILE,
    check_output_directory,
    claim_output_directory,
    is_done,
    resume,
    roll_back,
    start_from,
    write_model_directory,
)
from tf_bert.run_log import TENSORBOARD_DIR, RunLog, format_seconds
from tf_bert.tokenization.tokenizer import load_tokenizer
from tf_bert.training.callbacks import Cadence
from tf_bert.training.checkpoint import CheckpointManager
from tf_bert.training.clock import InputWait, Lap, RunClock, time_all_reduce
from tf_bert.training.devices import Device, find_device, format_flops
from tf_bert.training.guesses import guesses_table
from tf_bert.training.losses import PretrainingObjective
from tf_bert.training.optimizer import build_optimizer
from tf_bert.training.profiling import ProfileSteps
from tf_bert.training.rollback import ROLLBACKS_FILE, Rollbacks
from tf_bert.training.stopping import StopSignals, Watchdog
from tf_bert.training.train_step import Trainer

DESCRIPTIONS = {
    "loss": "masked-LM plus next-sentence loss, nats",
    "masked_lm_loss": "mean cross-entropy of the masked tokens, nats",
    "masked_lm_accuracy": "share of masked tokens guessed right",
    "next_sentence_loss": "mean cross-entropy of the next-sentence labels, nats",
    "next_sentence_accuracy": "share of next-sentence labels guessed right",
    "gradient_norm": "global norm of the gradient before clipping",
    "learning_rate": "learning rate of the update",
    "loss_scale": "factor on the loss against underflow in float16; 1 otherwise",
    "tokens_seen": "tokens trained on since the start of the run, padding not counted",
    "hours": "of the time budget that are used up",
    "tokens_per_second": "tokens trained on per second over all ranks, padding not counted",
    "model_flops_per_second": "operations of the model's matrix products per second over all ranks; padding counts",
    "utilisation": "model_flops_per_second as a share of the peak of all ranks' devices",
    "step_seconds": "seconds of training per update, evaluation and checkpoints not counted",
    "input_share": "share of the whole time in which a step waited for its batch",
    "compute_share": "share of the whole time that is none of the others",
    "all_reduce_share": "share of the whole time by one all-reduce of the gradients, timed alone before the first step",
    "evaluation_share": "share of the whole time spent in evaluation",
    "checkpoint_share": "share of the whole time in which a checkpoint held up the training",
    "bad_steps_in_row": "updates in a row that were skipped for a gradient that is not finite",
}


def pretrain(config: PretrainConfig, elastic: bool = False) -> None:
    """Runs or resumes one pretraining run, stage by stage if it has such.

    Args:
      config: the run.
      elastic: go on from the last checkpoint with the ranks that are left when others are lost.

    Raises:
      UsageError: if the configuration does not fit the data, the model or the number of ranks.
      InputError: if data or checkpoints are damaged, the disk refuses, or the run had to stop early.
      OtherRankFailed: if another rank of the run tells why it ends.
    """
    if elastic:
        distributed.run_elastic(functools.partial(_run_stages, config))
        return
    world = distributed.init()
    with world.speaking_once():
        _run_stages(config, world)


def _run_stages(config: PretrainConfig, world: World) -> None:
    for stage in stage_runs(config):
        with world.together():
            done = world.rank == 0 and bool(stage.name) and is_done(stage.config)
        if world.broadcast_object(done):
            if world.rank == 0:
                print(f"stage {stage.name}: is done, see {stage.config.output_dir}")
            continue
        patience = stage.config.training.rank_timeout_seconds if world.world_size > 1 else math.inf
        is_over = False
        while not is_over:
            keras.backend.clear_session()  # of what an earlier attempt or stage has left
            with Watchdog(patience, tells=world.rank == 0) as watchdog:
                is_over = _pretrain(stage, world, watchdog)


def _pretrain(stage: StageRun, world: World, watchdog: Watchdog) -> bool:
    """Runs one stage from its newest checkpoint on; returns whether it is over, or is to go on from there once more."""
    config = stage.config
    output_dir, data_dir = Path(config.output_dir), Path(config.data.data_dir)
    training = config.training

    # What is asked for, checked before anything is built.
    with world.together():
        manifest = read_manifest(data_dir)
        microsteps = check_against_data(config, manifest, world.world_size)
        if world.rank == 0:
            is_new = not check_output_directory(output_dir, config)
            if is_new and config.init and not stage.starts_from:
                check_initial_weights(config)
            claim_output_directory(output_dir, config)

    # Model, optimizer, train step.
    keras.utils.set_random_seed(training.seed)
    model = BertForPretraining(
        config.model, training.precision, training.activation_checkpointing, dropout_seed=training.seed
    )
    hours = keras.Variable(0.0, dtype="float64", trainable=False, name="hours") if training.time_budget_hours else None
    optimizer = build_optimizer(config.optimizer, training, model.trainable_variables, stage.earlier_updates, hours)
    jit_compile = bool(tf.config.list_physical_devices("GPU")) if training.jit_compile is None else training.jit_compile
    trainer = Trainer(
        model,
        PretrainingObjective(),
        optimizer,
        world,
        config.optimizer.clip_norm,
        jit_compile,
        training.all_reduce_precision,
        hours,
    )
    variables = [*trainer.variables, *optimizer.variables]

    # Where an earlier process of this run has come to.
    cadence = config.cadence
    checkpoints = CheckpointManager(output_dir / CHECKPOINTS_DIR, cadence.keep_checkpoints, cadence.keep_every)
    with world.together():
        first_step, notes = resume(checkpoints, variables) if world.rank == 0 else (0, [])
        if world.rank == 0 and first_step == 0 and stage.starts_from:
            carried = [*model.variables, *(optimizer.variables if stage.carries_optimizer else [])]
            start_from(Path(stage.starts_from), output_dir, carried)
        elif world.rank == 0 and first_step == 0 and config.init:
            notes += load_initial_weights(config, model)
    rollbacks_path = output_dir / ROLLBACKS_FILE
    with world.together():
        skips = Rollbacks(rollbacks_path).skips() if world.rank == 0 else []
    first_step, skips = world.broadcast_object((first_step, skips))
    synchronise(world, model, variables)
    log = RunLog(output_dir, first_step, enabled=world.rank == 0)
    log.tags({"data_manifest_sha256": sha256_of(data_dir / MANIFEST_FILE)})
    for note in notes:
        log.line(note)

    # Data.
    with world.together():
        tokenizer = load_tokenizer(data_dir)
        rows = training_dataset(
            data_dir,
            config.data,
            seed=training.seed,
            global_batch_size=training.global_batch_size,
            microbatch_size=training.microbatch_size,
            accumulation_steps=microsteps,
            rank=world.rank,
            world_size=world.world_size,
            first_step=first_step,
            skips=skips,
        )
        held_out = validation_dataset(data_dir, config.data, batch_size=training.microbatch_size)
    evaluation_batches = held_out.take(cadence.evaluation_batches or -1)
    own_share = evaluation_batches.shard(world.world_size, world.rank)

    # What happens every so many steps.
    device = find_device(training.precision)
    all_reduce_seconds = 0.0
    if world.world_size > 1:
        all_reduce_seconds = time_all_reduce(trainer.all_reduce_gradients, model.trainable_variables)
    step_flops = training.global_batch_size * training_flops(config.model, row_shape(config, manifest))
    clock = RunClock(training.num_train_steps, first_step, float(trainer.tokens_seen.value), all_reduce_seconds)

    def after_each_step() -> None:
        watchdog.step_done()
        checkpoints.check()

    def skipped(step: int) -> None:
        if log.enabled:
            log.skipped(step, rows.names(step - 1))

    def log_step(step: int, values: dict[str, float]) -> None:
        lap = clock.lap(step, values["tokens_seen"])
        values |= speeds(lap, step_flops, device, world.world_size)
        log.scalars(step, "train", values, DESCRIPTIONS)
        log.scalars(step, "time", time_split(lap), DESCRIPTIONS)
        seconds_left = clock.seconds_left()
        if training.time_budget_hours:
            seconds_left = min(seconds_left, max(0.0, 3600 * (training.time_budget_hours - values["hours"])))
        log.line(_console_line(step, training.num_train_steps, values, seconds_left))

    def evaluate(step: int) -> None:
        with clock.paused("evaluation"):
            values = trainer.evaluate_on(watchdog.watched(own_share))
            log.scalars(step, "validation", values, DESCRIPTIONS)
            log.line(_evaluation_line(step, values, manifest))
            if log.enabled:
                batch = next(iter(held_out))
                guesses = guesses_table(model, batch, tokenizer.vocabulary.tokens, tokenizer.to_text)
                log.text(step, "validation/guesses", guesses)

    def save(step: int) -> None:
        with clock.paused("checkpoint"):
            if world.rank == 0:
                checkpoints.save(step, variables, {"config": to_dict(config), "data_position": step})

    # Train.
    if stage.name:
        log.line(f"stage {stage.name}, in {output_dir}")
    log.line(_opening_line(manifest, model, microsteps, config, first_step))
    log.line(f"on {world.world_size} x {device}; {format_flops(step_flops)} a step")
    if first_step == 0:
        log.text(0, "config", f"```yaml\n{yaml.safe_dump(to_dict(config), sort_keys=False)}```")
        evaluate(0)
    stop = StopSignals(lambda: trainer.stop_requested.assign(1.0), cadence.stop_deadline_seconds, tells=world.rank == 0)
    callback = Cadence(
        cadence,
        first_step,
        training.num_train_steps,
        training.time_budget_hours,
        training.max_bad_steps,
        training.loss_spike_factor,
        after_each_step,
        skipped,
        log_step,
        evaluate,
        save,
    )
    callbacks = [InputWait(clock.waited), callback]
    if config.profile_steps and world.rank == 0:
        first, last = map(int, config.profile_steps.split(":"))
        callbacks.insert(0, ProfileSteps(output_dir / TENSORBOARD_DIR, (first, last), first_step))
    steps = training.num_train_steps - first_step
    callback.is_over = steps == 0 or is_used_up(training.time_budget_hours, hours)
    with closing(log), closing(checkpoints), stop:
        if not callback.is_over:
            trainer.fit(rows.dataset, steps_per_epoch=steps, epochs=1, callbacks=callbacks, verbose=0, shuffle=False)
        # Launchers end all ranks as soon as one fails, so none leaves before the last checkpoint is on disk.
        with world.together():
            rows.raise_errors()
            checkpoints.wait()
    watchdog.end()
    if callback.trouble:
        with world.together():
            if world.rank == 0:
                names = rows.names(callback.done - 1)
                roll_back(Rollbacks(rollbacks_path), callback.done, callback.trouble, names, checkpoints, training)
        return False
    if not callback.is_over:
        signal_name = stop.received.name if stop.received else "a signal to another rank"
        stopped = InputError(
            f"stopped by {signal_name} after step {callback.done}; its checkpoint is in {checkpoints.directory}, and "
            "the same command goes on from there"
        )
        raise world.alike(stopped)

    # What stays.
    if world.rank == 0:
        model_dir = output_dir / MODEL_DIR
        write_model_directory(model_dir, model, config)
        report = draw_report(output_dir, output_dir / REPORT_FILE, manifest.validation_unigram_loss)
        print(f"model directory  {model_dir}")
        print(f"report           {report}")
        print(f"tensorboard      tensorboard --logdir {output_dir}")
    return True


def check_against_data(config: PretrainConfig, manifest: Manifest, world_size: int) -> int:
    """Holds the configuration against the data it will read; returns the accumulation steps.

    Raises:
      UsageError: if the vocabulary, the length or the batch does not fit.
    """
    check_vocabulary(config, manifest)
    check_length(config, manifest)
    try:
        return accumulation_steps(config.training, world_size)
    except ValueError as error:
        raise UsageError(str(error)) from error


def check_vocabulary(config: PretrainConfig, manifest: Manifest) -> None:
    """Raises `UsageError` if a token of the data has no row in the embedding: it would train to NaN."""
    if config.model.vocab_size < manifest.vocabulary.size:
        raise UsageError(
            f"model.vocab_size {config.model.vocab_size} is smaller than the vocabulary of {config.data.data_dir}, "
            f"{manifest.vocabulary.size} tokens; set model.vocab_size to {manifest.vocabulary.size} or more"
        )


def check_length(config: PretrainConfig, manifest: Manifest) -> None:
    """Raises `UsageError` if rows are longer than the model can read."""
    if manifest.max_seq_length > config.model.max_position_embeddings:
        raise UsageError(
            f"the rows of {config.data.data_dir} hold max_seq_length {manifest.max_seq_length} tokens, more than "
            f"model.max_position_embeddings {config.model.max_position_embeddings}; raise the latter or prepare "
            "shorter rows"
        )


def is_used_up(time_budget_hours: float | None, hours: keras.Variable | None) -> bool:
    """Whether a resumed run has no time left."""
    return time_budget_hours is not None and hours is not None and float(hours.value) >= time_budget_hours


def synchronise(world: World, model: BertForPretraining, variables: list[keras.Variable]) -> None:
    """Gives every rank the state of rank 0, but a dropout of its own."""
    world.broadcast_variables(variables)
    state = model.encoder.seed_generator.state
    state.assign(state + np.array([world.rank, 0]))


def row_shape(config: PretrainConfig, manifest: Manifest) -> RowShape:
    """What the model computes on every row of the data."""
    predictions = manifest.max_predictions_per_seq  # of rows that were masked for good
    if predictions is None:
        predictions = predictions_per_row(config.data, manifest.max_seq_length)
    return RowShape(manifest.max_seq_length, predictions, manifest.max_examples_per_row)


def speeds(lap: Lap, step_flops: float, device: Device, world_size: int) -> dict[str, float]:
    """Tokens and operations per second of training, and the latter as a share of what all devices could do at most."""
    flops_per_second = lap.steps * step_flops / lap.seconds
    return {
        "tokens_per_second": lap.tokens / lap.seconds,
        "model_flops_per_second": flops_per_second,
        "utilisation": flops_per_second / (world_size * device.peak_flops),
    }


def time_split(lap: Lap) -> dict[str, float]:
    """Where the time since the last log line went."""
    shares = {f"{name}_share": share for name, share in lap.shares.items()}
    return {"step_seconds": lap.seconds / lap.steps, **shares}


def _opening_line(manifest: Manifest, model: keras.Model, microsteps: int, config: PretrainConfig, step: int) -> str:
    training = config.training
    rows = manifest.splits["train"].records
    epochs = training.num_train_steps * training.global_batch_size / rows
    begin = f"goes on from step {step:,}" if step else "starts"
    return (
        f"{begin}: {model.count_params():,} parameters, {rows:,} rows of {manifest.max_seq_length} tokens, "
        f"{training.num_train_steps:,} steps of {training.global_batch_size} rows ({microsteps} x "
        f"{training.microbatch_size} a rank) = {epochs:.1f} epochs, {training.precision}"
    )


def _console_line(step: int, last_step: int, values: dict[str, float], seconds_left: float) -> str:
    return (
        f"step {step:,}/{last_step:,} | loss {values['loss']:.3f} | masked LM {values['masked_lm_loss']:.3f} "
        f"({values['masked_lm_accuracy']:.1%}) | next sentence {values['next_sentence_accuracy']:.1%} | "
        f"{values['tokens_per_second']:,.0f} tokens/s, {format_flops(values['model_flops_per_second'])}/s = "
        f"{values['utilisation']:.1%} of peak | rate {values['learning_rate']:.2e} | "
        f"gradient norm {values['gradient_norm']:.2f} | {format_seconds(seconds_left)} left"
    )


def _evaluation_line(step: int, values: dict[str, float], manifest: Manifest) -> str:
    return (
        f"validation at step {step:,}: masked LM {values['masked_lm_loss']:.3f} ({values['masked_lm_accuracy']:.1%}), "
        f"unigrams {manifest.validation_unigram_loss:.3f} | next sentence {values['next_sentence_accuracy']:.1%}"
    )
