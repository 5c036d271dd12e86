"""Where the time of a run goes: waiting for input, computing, all-reduce, evaluation, checkpoints."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import keras
import tensorflow as tf

Pause = Literal["evaluation", "checkpoint"]


@dataclass(frozen=True)
class Lap:
    """The time between two log lines."""

    steps: int
    """Updates in it."""
    tokens: float
    """Trained on in it, over all ranks."""
    seconds: float
    """Of training: evaluation and checkpoints do not count."""
    shares: dict[str, float]
    """Of the whole time, adding up to 1: `input`, `compute`, `all_reduce`, `evaluation`, `checkpoint`."""


class RunClock:
    """Measures laps.

    Args:
      last_step: updates of the whole run.
      first_step, first_tokens: where this process begins.
      all_reduce_seconds: what one step's all-reduce of the gradients takes, see `time_all_reduce`.
    """

    def __init__(self, last_step: int, first_step: int, first_tokens: float, all_reduce_seconds: float) -> None:
        self._last_step, self._step, self._tokens = last_step, first_step, first_tokens
        self._all_reduce_seconds = all_reduce_seconds
        self._seconds_per_step = 0.0
        self._start()

    def _start(self) -> None:
        self._began = time.perf_counter()
        self._waited = 0.0
        self._paused = {"evaluation": 0.0, "checkpoint": 0.0}

    @contextmanager
    def paused(self, what: Pause) -> Iterator[None]:
        """Time spent inside is no training time."""
        began = time.perf_counter()
        yield
        self._paused[what] += time.perf_counter() - began

    def waited(self, seconds: float) -> None:
        """Counts time of a step that passed before its batch was there."""
        self._waited += seconds

    def lap(self, step: int, tokens: float) -> Lap:
        """Ends a lap and begins the next.

        Args:
          step: updates done since the start of the run; more than at the last lap.
          tokens: trained on since the start of the run.
        """
        whole = time.perf_counter() - self._began
        steps, training = step - self._step, whole - sum(self._paused.values())
        waited = min(self._waited, training)
        all_reduce = min(steps * self._all_reduce_seconds, training - waited)
        seconds = {"input": waited, "compute": training - waited - all_reduce, "all_reduce": all_reduce, **self._paused}
        lap = Lap(steps, tokens - self._tokens, training, {name: value / whole for name, value in seconds.items()})
        self._seconds_per_step = training / steps
        self._step, self._tokens = step, tokens
        self._start()
        return lap

    def seconds_left(self) -> float:
        """At the pace of the last lap."""
        return (self._last_step - self._step) * self._seconds_per_step


class InputWait(keras.callbacks.Callback):
    """Reports how long each step waited for its batch, by the clock that `Trainer.train_step` reads when it has it.

    The first step of a process builds the graph before it asks for its batch, so it reports nothing. What calling the
    step takes, a fraction of a millisecond, counts as waiting.
    """

    def __init__(self, report: Callable[[float], None]) -> None:
        super().__init__()
        self._report = report
        self._began: float | None = None

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._began = time.time() if batch else None

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self._began is not None:
            self._report(max(0.0, float(self.model.batch_arrived) - self._began))


def time_all_reduce(
    all_reduce: Callable[[Sequence[tf.Tensor]], Sequence[tf.Tensor]], variables: Sequence[keras.Variable]
) -> float:
    """Seconds that the gradients of one update take from rank to rank, timed on its own: the fastest of three.

    Timed inside of a step, the all-reduce would hold the wait for the slowest rank too, and on a GPU, where operations
    are queued, the computation before it. All ranks must call this at the same place.

    Args:
      all_reduce: as `World.all_reduce_sum`.
      variables: whose gradients travel.
    """
    gradients = [tf.zeros(variable.shape) for variable in variables]
    run = tf.function(lambda tensors: [tensor[..., :1] for tensor in all_reduce(tensors)])
    seconds = []
    for _ in range(4):  # the first one builds the graph and makes the connections
        began = time.perf_counter()
        for tensor in run(gradients):
            tensor.numpy()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])
