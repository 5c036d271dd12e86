"""When a run logs, evaluates, saves and stops. What each of these does is handed in as a function."""

import signal
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import Any

import keras

from tf_bert.config import CadenceConfig
from tf_bert.errors import InputError

Logs = Mapping[str, Any]


class StopSignals:
    """Inside of its context, SIGTERM and Ctrl-C are remembered instead of ending the process; a second one ends it."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._earlier_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._earlier_handlers[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._earlier_handlers.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self.__exit__(None, None, None)


class Cadence(keras.callbacks.Callback):
    """Calls back on every n-th optimizer update, counted over the whole run.

    Args:
      config: how often.
      first_step: updates that earlier processes of this run have done.
      last_step: updates of the whole run; it is logged, evaluated and saved whatever the cadence.
      max_bad_steps: see `TrainingConfig`.
      log: receives (step, the train step's scalars).
      evaluate, save: receive the step.
      stop: tells whether the run is to be saved and left.
    """

    def __init__(
        self,
        config: CadenceConfig,
        first_step: int,
        last_step: int,
        max_bad_steps: int,
        log: Callable[[int, dict[str, float]], None],
        evaluate: Callable[[int], None],
        save: Callable[[int], None],
        stop: StopSignals,
    ) -> None:
        super().__init__()
        self.config = config
        self.done = first_step
        self.last_step = last_step
        self.max_bad_steps = max_bad_steps
        self.log = log
        self.evaluate = evaluate
        self.save = save
        self.stop = stop

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        assert logs is not None
        self.done += 1
        is_last = self.done == self.last_step
        if int(logs["bad_steps_in_row"]) >= self.max_bad_steps:
            raise InputError(
                f"step {self.done}: the gradient was not finite for {self.max_bad_steps} steps in a row; lower "
                "optimizer.learning_rate, warm up longer or look at the data of these steps, then run again: it goes "
                "on from the last checkpoint"
            )
        if is_last or self.done % self.config.log_every == 0:
            self.log(self.done, {name: float(value) for name, value in logs.items()})
        if is_last or self.done % self.config.evaluate_every == 0:
            self.evaluate(self.done)
        if is_last or self.stop.received or self.done % self.config.checkpoint_every == 0:
            self.save(self.done)
        if self.stop.received:
            self.model.stop_training = True
