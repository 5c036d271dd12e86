"""`tf-bert pretrain --dry-run`: whether a run can start and what it will take. Nothing is built, trained or written."""

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tf_bert.config import PretrainConfig, StageRun, accumulation_steps, stage_runs
from tf_bert.errors import InputError, UsageError
from tf_bert.initial_weights import check_initial_weights
from tf_bert.models.flops import RowShape, count_parameters, training_flops
from tf_bert.pretraining import check_length, check_vocabulary, row_shape
from tf_bert.pretraining_data.dataset import training_dataset, validation_dataset
from tf_bert.pretraining_data.manifest import TRAIN, VALIDATION, Manifest, read_manifest
from tf_bert.run_directory import CHECKPOINTS_DIR, check_output_directory
from tf_bert.run_log import METRICS_FILE, read_metrics
from tf_bert.training.devices import Device, find_device, format_flops
from tf_bert.training.memory import FLOAT32, OPTIMIZER_SLOTS, TOLERANCE, estimate_memory

SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class Outlook:
    """What the command line adds to a configuration."""

    world_size: int = 1
    """Ranks that will train."""
    tokens_per_second: float | None = None
    """Of all ranks together, padding not counted, as the run log gives it; None: not known."""
    price: float | None = None
    """Of one device's hour, in any currency; None: not known."""


def preflight(config: PretrainConfig, outlook: Outlook) -> None:
    """Prints the plan of a run, then one line for every check.

    Raises:
      InputError: if the data directory has no manifest, or a check of data or machine failed.
      UsageError: if a check of the configuration failed.
    """
    failures, count = [], 0
    for stage in stage_runs(config):
        if stage.name:
            print(f"--- stage {stage.name} ---")
        manifest = read_manifest(Path(stage.config.data.data_dir))
        device = find_device(stage.config.training.precision)
        for label, text in plan(stage.config, manifest, device, outlook):
            print(f"{label:<14}{text}")
        for name, check in checks(stage, manifest, device, outlook.world_size):
            count += 1
            try:
                print(f"ok      {name}: {check()}")
            except (InputError, UsageError) as failure:
                failures.append(failure)
                print(f"FAILED  {name}: {failure}")
    if failures:
        raise type(failures[0])(f"--dry-run: {len(failures)} of {count} checks failed, see the lines above")
    print("Nothing was started; the same command without --dry-run does.")


# --- the plan ----------------------------------------------------------------------------------------------------


def plan(config: PretrainConfig, manifest: Manifest, device: Device, outlook: Outlook) -> Iterator[tuple[str, str]]:
    """Pairs of a label and what is planned, the numbers by themselves and with what they follow from."""
    training, train = config.training, manifest.splits[TRAIN]
    row = row_shape(config, manifest)
    rows = training.num_train_steps * training.global_batch_size
    tokens = rows * row.length * train.fill
    row_flops = training_flops(config.model, row)
    yield "model", f"{count_parameters(config.model):,} parameters, {training.precision}"
    yield "device", f"{outlook.world_size} x {device}"
    yield "steps", f"{training.num_train_steps:,} of {training.global_batch_size:,} rows of {row.length} tokens"
    yield "epochs", f"{rows / train.records:.2f} of {train.records:,} rows"
    yield "tokens", f"{tokens:.4g}, padding not counted (rows are {train.fill:.1%} full)"
    yield "each rank", _share_of_a_rank(config, manifest, outlook.world_size)
    yield (
        "operations",
        f"{format_flops(rows * row_flops)} in all, {format_flops(training.global_batch_size * row_flops)} a step, "
        f"{format_flops(row_flops / row.length)} a token",
    )
    yield "memory", _memory_line(config, row, outlook.world_size)
    yield "checkpoints", _checkpoints_line(config)
    seconds, basis = _duration(config, rows * row_flops, tokens, device, outlook)
    budget = 3600 * (training.time_budget_hours or math.inf)
    if seconds > budget:
        steps = training.num_train_steps * budget / seconds
        seconds, basis = budget, f"training.time_budget_hours, which end it after about {steps:,.0f} steps {basis}"
    yield "time", f"{seconds / SECONDS_PER_DAY:.3g} days ({basis})"
    if outlook.price is not None:
        hours = seconds / 3600 * outlook.world_size
        yield "cost", f"{hours * outlook.price:,.2f} for {hours:,.1f} device hours at {outlook.price:g}"


def _share_of_a_rank(config: PretrainConfig, manifest: Manifest, world_size: int) -> str:
    shards = manifest.splits[TRAIN].shards
    size = sum(shard.bytes for shard in shards)
    rows = config.training.global_batch_size // world_size
    # Groups of shards are shuffled jointly, and a step's rows come from all over a group, so no rank can leave one out.
    held = sum(sorted(shard.bytes for shard in shards)[-2 * config.data.shuffle_shards :])
    return (
        f"{rows:,} rows a step, {manifest.splits[TRAIN].records / world_size:,.0f} an epoch; reads all {len(shards):,} "
        f"shards in an epoch, {_bytes(size)}, and holds up to {_bytes(held)} of them in memory"
    )


def _memory_line(config: PretrainConfig, row: RowShape, world_size: int) -> str:
    estimate = estimate_memory(config.model, config.training, row, _microsteps(config, world_size))
    recomputed = ", recomputed" if config.training.activation_checkpointing else ""
    return (
        f"about {_bytes(estimate.total)} a device: weights {_bytes(estimate.weights)}, gradients "
        f"{_bytes(estimate.gradients)}, optimizer {_bytes(estimate.optimizer)}, activations of "
        f"{config.training.microbatch_size} rows {_bytes(estimate.activations)}{recomputed}"
    )


def _microsteps(config: PretrainConfig, world_size: int) -> int:
    """Of an update; where the batch cannot be divided, which is a check of its own, as nearly as can be."""
    return max(1, config.training.global_batch_size // (config.training.microbatch_size * world_size))


def _checkpoints_line(config: PretrainConfig) -> str:
    return (
        f"{_kept_checkpoints(config)} of {_bytes(checkpoint_bytes(config))} and the model directory of "
        f"{_bytes(FLOAT32 * count_parameters(config.model))} in {config.output_dir}"
    )


def _kept_checkpoints(config: PretrainConfig) -> int:
    """At the end: the newest ones, and before them those that stay for good."""
    cadence, steps = config.cadence, config.training.num_train_steps
    for_good = steps // cadence.keep_every if cadence.keep_every else 0
    saved = -(-steps // cadence.checkpoint_every)
    return min(saved, cadence.keep_checkpoints + for_good)


def _duration(
    config: PretrainConfig, flops: float, tokens: float, device: Device, outlook: Outlook
) -> tuple[float, str]:
    """Seconds of the whole run without evaluation and checkpoints, and what they are derived from."""
    if outlook.tokens_per_second:
        return tokens / outlook.tokens_per_second, f"at the given {outlook.tokens_per_second:,.0f} tokens/s"
    metrics = Path(config.output_dir) / METRICS_FILE
    logged = (
        [entry for entry in read_metrics(metrics) if "train/tokens_per_second" in entry] if metrics.exists() else []
    )
    if logged:
        speed = logged[-1]["train/tokens_per_second"]
        return tokens / speed, f"at {speed:,.0f} tokens/s, as {metrics} says of step {logged[-1]['step']:,}"
    seconds = flops / (outlook.world_size * device.peak_flops)
    return seconds, "at least: at the peak of all devices; give --tokens-per-second for more than a bound"


# --- the checks --------------------------------------------------------------------------------------------------


def checks(
    stage: StageRun, manifest: Manifest, device: Device, world_size: int
) -> Iterator[tuple[str, Callable[[], str]]]:
    """Names of checks with what performs them: it returns what was found to be good, or raises."""
    config = stage.config
    data_dir, training = Path(config.data.data_dir), config.training
    row = row_shape(config, manifest)

    def vocabulary() -> str:
        check_vocabulary(config, manifest)
        return f"{manifest.vocabulary.size:,} tokens, model.vocab_size {config.model.vocab_size:,}"

    def length() -> str:
        check_length(config, manifest)
        return f"rows of {row.length} tokens, model.max_position_embeddings {config.model.max_position_embeddings}"

    def batch() -> str:
        try:
            microsteps = accumulation_steps(training, world_size)
        except ValueError as error:
            raise UsageError(str(error)) from error
        return (
            f"{training.global_batch_size:,} rows = {world_size} ranks x {microsteps} microsteps x "
            f"{training.microbatch_size}"
        )

    def shards() -> str:
        training_dataset(
            data_dir,
            config.data,
            seed=training.seed,
            global_batch_size=training.microbatch_size,
            microbatch_size=training.microbatch_size,
            accumulation_steps=1,
            rank=0,
            world_size=1,
            first_step=0,
        )
        count = len(manifest.splits[TRAIN].shards)
        return f"{count:,} training shards of the size that the manifest says, and the vocabulary that it names"

    def validation() -> str:
        validation_dataset(data_dir, config.data, training.microbatch_size)
        return f"{manifest.splits[VALIDATION].records:,} rows, their shards read and sound"

    if config.init and not stage.starts_from:
        yield "init", lambda: check_initial_weights(config)
    yield "vocabulary", vocabulary
    yield "length", length
    yield "masks", lambda: _check_masks(config, manifest, row)
    yield "batch", batch
    yield "data", shards
    yield "validation", validation
    yield "memory", lambda: _check_memory(config, row, device, world_size)
    yield "disk", lambda: _check_disk(config)
    yield "output", lambda: _check_output(config)


def _check_masks(config: PretrainConfig, manifest: Manifest, row: RowShape) -> str:
    wanted = round(row.length * config.data.masked_lm_prob)
    stored = manifest.max_predictions_per_seq is not None
    if not stored and row.predictions < wanted:
        raise UsageError(
            f"data.max_predictions_per_seq {row.predictions} is less than data.masked_lm_prob "
            f"{config.data.masked_lm_prob:g} of {row.length} tokens, {wanted}: masks would be left out; set it to "
            f"{wanted} or more, or to 0"
        )
    if row.predictions > row.length:
        raise UsageError(
            f"data.max_predictions_per_seq {row.predictions} is more than the {row.length} tokens of a row; set it to "
            f"{wanted} or more, or to 0"
        )
    return f"room for {row.predictions} a row of {row.length} tokens{', as stored' if stored else ''}"


def _check_memory(config: PretrainConfig, row: RowShape, device: Device, world_size: int) -> str:
    needed = estimate_memory(config.model, config.training, row, _microsteps(config, world_size)).total
    if device.memory_bytes is None:
        return f"about {_bytes(needed)} needed; what {device.name} has is not known"
    if needed > device.memory_bytes:
        raise InputError(
            f"about {_bytes(needed)} needed (within a factor of {TOLERANCE:g}), {device.name} has "
            f"{_bytes(device.memory_bytes)}; lower training.microbatch_size {config.training.microbatch_size}, or set "
            "training.activation_checkpointing to true"
        )
    return f"about {_bytes(needed)} of the {_bytes(device.memory_bytes)} of {device.name}"


def checkpoint_bytes(config: PretrainConfig) -> int:
    """Size of one checkpoint: weights and the optimizer's moments, float32."""
    return (1 + OPTIMIZER_SLOTS) * FLOAT32 * count_parameters(config.model)


def _check_disk(config: PretrainConfig) -> str:
    """A checkpoint is written whole before the oldest goes, so there is one more than are kept."""
    output_dir = Path(config.output_dir)
    existing = next(path for path in (output_dir, *output_dir.absolute().parents) if path.exists())
    count, size = _kept_checkpoints(config) + 1, checkpoint_bytes(config)
    present = sum(file.stat().st_size for file in (output_dir / CHECKPOINTS_DIR).rglob("*") if file.is_file())
    needed = max(0, count * size - present) + FLOAT32 * count_parameters(config.model)
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise InputError(
            f"{output_dir}: {_bytes(needed)} needed for {count} checkpoints of {_bytes(size)} and the model directory, "
            f"{_bytes(free)} free; lower cadence.keep_checkpoints, free space or choose another output_dir"
        )
    return f"{_bytes(needed)} needed at most, {_bytes(free)} free"


def _check_output(config: PretrainConfig) -> str:
    output_dir = Path(config.output_dir)
    goes_on = check_output_directory(output_dir, config)
    return f"{output_dir} {'holds this run, which goes on' if goes_on else 'is new'}"


def _bytes(count: float) -> str:
    for exponent, unit in ((12, "TB"), (9, "GB"), (6, "MB")):
        if count >= 10**exponent:
            return f"{count / 10**exponent:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
