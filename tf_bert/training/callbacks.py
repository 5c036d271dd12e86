"""When a run logs, evaluates, saves and stops. What each of these does is handed in as a function."""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from tf_bert.config import CadenceConfig

Logs = Mapping[str, Any]

_NEWS = ("stop_requests", "without_data", "median_loss")  # what decides how to go on; no metrics


class Cadence(keras.callbacks.Callback):
    """Calls back on every n-th optimizer update, counted over the whole run.

    Args:
      config: how often.
      first_step: updates that earlier processes of this run have done.
      last_step: updates of the whole run; it is logged, evaluated and saved whatever the cadence.
      hours: of the run's time budget; with them it ends too.
      max_bad_steps, loss_spike_factor: see `TrainingConfig`.
      each_step: called after every update.
      skipped: receives the step whose gradient was not finite, so that it changed no weight.
      log: receives (step, the train step's scalars).
      evaluate, save: receive the step.
    """

    def __init__(
        self,
        config: CadenceConfig,
        first_step: int,
        last_step: int,
        hours: float | None,
        max_bad_steps: int,
        loss_spike_factor: float | None,
        each_step: Callable[[], None],
        skipped: Callable[[int], None],
        log: Callable[[int, dict[str, float]], None],
        evaluate: Callable[[int], None],
        save: Callable[[int], None],
    ) -> None:
        super().__init__()
        self.config = config
        self.done = first_step
        self.last_step = last_step
        self.hours = hours
        self.is_over = False
        self.max_bad_steps = max_bad_steps
        self.loss_spike_factor = loss_spike_factor
        self.trouble: str | None = None  # why the run cannot go on from here
        self.each_step = each_step
        self.skipped = skipped
        self.log = log
        self.evaluate = evaluate
        self.save = save

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        assert logs is not None
        self.done += 1
        self.is_over = is_last = self.done == self.last_step or (self.hours is not None and logs["hours"] >= self.hours)
        # Both are summed over the ranks, so that all of them stop at the same step.
        is_stopping = bool(logs["stop_requests"] > 0)
        if logs["without_data"] > 0:
            self.model.stop_training = True  # and nothing is kept of this step
            return
        self.each_step()
        if logs["bad_steps_in_row"] > 0:
            self.skipped(self.done)
        self.trouble = self._trouble(logs)
        if self.trouble:
            self.model.stop_training = True  # and nothing is kept of this step
            return
        if is_last or self.done % self.config.log_every == 0:
            self.log(self.done, {name: float(value) for name, value in logs.items() if name not in _NEWS})
        if is_last or self.done % self.config.evaluate_every == 0:
            self.evaluate(self.done)
        if is_last or is_stopping or self.done % self.config.checkpoint_every == 0:
            self.save(self.done)
        if is_last or is_stopping:
            self.model.stop_training = True

    def _trouble(self, logs: Logs) -> str | None:
        if int(logs["bad_steps_in_row"]) >= self.max_bad_steps:
            return f"the gradient was not finite for {self.max_bad_steps} steps in a row"
        loss, median = float(logs["loss"]), float(logs["median_loss"])
        if self.loss_spike_factor and loss > self.loss_spike_factor * median:
            factor = f"{self.loss_spike_factor:g} times the median of the last updates"
            return f"the loss {loss:.3f} is more than {factor}, {median:.3f}"
        return None
