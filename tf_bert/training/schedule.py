"""Learning-rate schedules: warmup, then decay, over the finished updates or over the hours of a time budget."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from tf_bert.config import OptimizerConfig, TrainingConfig

Decay = Callable[[Any], Any]  # from the place after the warmup to the rate


class WarmupThenDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly from the initial rate to the peak, then decays.

    Args:
      initial: rate at place 0.
      peak: rate at the end of the warmup.
      warmup: length of the rise; 0 starts with the decay.
      decay: the rate at a place after the warmup.
      first_update: of the optimizer's updates, the one at place 0; negative where the schedule has begun before it.
      hours: a variable that holds the place; None: the place is the number of finished updates.
    """

    def __init__(
        self,
        initial: float,
        peak: float,
        warmup: float,
        decay: Decay,
        first_update: int = 0,
        hours: keras.Variable | None = None,
    ) -> None:
        self.initial = initial
        self.peak = peak
        self.warmup = warmup
        self.decay = decay
        self.first_update = first_update
        self.hours = hours

    def __call__(self, step: Any) -> Any:
        # Updates that were skipped do not count, so an optimizer that is carried on may be a little late.
        updates = ops.maximum(ops.cast(step, "int64") - self.first_update, 0)
        place = ops.cast(updates if self.hours is None else self.hours, "float32")
        rise = self.initial + (self.peak - self.initial) * place / (self.warmup or 1)
        return ops.where(place < self.warmup, rise, self.decay(place))


def build_schedule(
    config: OptimizerConfig, training: TrainingConfig, earlier_updates: int = 0, hours: keras.Variable | None = None
) -> WarmupThenDecay:
    """The schedule that the settings describe.

    Args:
      config: the optimizer's settings.
      training: the run's; the schedule spans its steps or its time budget unless `config` says otherwise.
      earlier_updates: what the optimizer has done before this run.
      hours: what of the time budget is used up; a time_budget schedule reads it at every update.
    """
    initial, peak, end = config.initial_learning_rate, config.learning_rate, config.end_learning_rate
    if config.warmup_hours is not None and training.time_budget_hours is not None:
        decay = polynomial_decay(peak, end, config.warmup_hours, training.time_budget_hours, power=1.0)
        return WarmupThenDecay(initial, peak, config.warmup_hours, decay, hours=hours)
    warmup = config.num_warmup_steps
    if config.decay_rate is not None and config.decay_steps is not None:
        decay = exponential_decay(peak, warmup, config.decay_rate, config.decay_steps)
    else:
        steps = config.schedule_steps or training.num_train_steps
        decay = polynomial_decay(peak, end, warmup, steps, config.decay_power or 1.0)
    return WarmupThenDecay(initial, peak, warmup, decay, earlier_updates - config.schedule_start)


def polynomial_decay(peak: float, end: float, start: float, stop: float, power: float) -> Decay:
    """Falls from the peak at `start` to the end rate at `stop`, and stays there.

    The original `optimization.py` lets the decay begin at step 0 and jumps to it when the warmup is over; here, as in
    NVIDIA's LAMB recipe, the decay begins at the peak.
    """

    def rate(place: Any) -> Any:
        left = ops.clip((stop - place) / max(1e-9, stop - start), 0.0, 1.0)
        return end + (peak - end) * ops.power(left, power)

    return rate


def exponential_decay(peak: float, start: float, factor: float, steps: float) -> Decay:
    """Peak x factor^((place - start) / steps) (`warmup_linear_decay_exp` of AzureML-BERT)."""
    return lambda place: peak * ops.power(factor, (place - start) / steps)
