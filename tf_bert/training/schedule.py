"""Learning-rate schedules: functions of the number of finished updates."""

from typing import Any

import keras
from keras import ops


class LinearWarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly from 0 to the peak, then falls linearly to the end rate (the original `optimization.py`).

    Args:
      peak: rate at `num_warmup_steps`.
      num_warmup_steps: updates of the rise; 0 starts at the peak.
      num_train_steps: updates of the whole run.
      end: rate at `num_train_steps` and after.
    """

    def __init__(self, peak: float, num_warmup_steps: int, num_train_steps: int, end: float = 0.0) -> None:
        self.peak = peak
        self.num_warmup_steps = num_warmup_steps
        self.num_train_steps = num_train_steps
        self.end = end

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rise = self.peak * step / max(1, self.num_warmup_steps)
        left = (self.num_train_steps - step) / max(1, self.num_train_steps - self.num_warmup_steps)
        fall = self.end + (self.peak - self.end) * ops.clip(left, 0.0, 1.0)
        return ops.where(step < self.num_warmup_steps, rise, fall)

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))
