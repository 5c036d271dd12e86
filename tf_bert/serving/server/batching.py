"""Requests that come at the same time are run as one batch."""

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Protocol

import numpy as np

from tf_bert.serving.server.refusal import Refusal, Status
from tf_bert.serving.server.signature import Arrays

Answer = Future[dict[str, np.ndarray]]


class Runnable(Protocol):
    """What a batch is run by: a `Signature`."""

    @property
    def name(self) -> str:
        """What batches are counted by."""

    @property
    def is_batchable(self) -> bool:
        """Requests may be run together."""

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Outputs by name, with an entry for every example where it is batchable."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Waiting:
    signature: Runnable
    inputs: Arrays
    count: int
    deadline: float
    """When it is run even if it is alone, in seconds of `time.monotonic`."""
    answer: Answer


class Batcher:
    """Threads that run what is submitted, oldest first, together with what waits for the same signature.

    Args:
      max_batch_size: examples in a batch.
      timeout_micros: a request waits so long for others.
      threads: batches at the same time.
      max_queued: examples that may wait.
      observe: is told the signature's name and the number of examples of every batch.
    """

    def __init__(
        self,
        max_batch_size: int,
        timeout_micros: int,
        threads: int,
        max_queued: int,
        observe: Callable[[str, int], None],
    ) -> None:
        self._max_batch_size, self._max_queued, self._observe = max_batch_size, max_queued, observe
        self._timeout = timeout_micros / 1e6
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        # Daemons: TensorFlow cannot be interrupted, and a batch that never ends must not keep the process.
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def queued(self) -> int:
        """Examples that wait."""
        with self._changed:
            return self._count()

    def submit(self, signature: Runnable, inputs: Arrays, count: int) -> Answer:
        """The outputs, once there are any. Cancelling it takes the request out of the queue.

        Args:
          signature: what to run.
          inputs: by name, each with `count` entries.
          count: examples.

        Raises:
          Refusal: if too many wait already, or the server stops.
        """
        answer: Answer = Future()
        waiting = _Waiting(signature, inputs, count, time.monotonic() + self._timeout, answer)
        with self._changed:
            if self._is_closed:
                raise Refusal(Status.STOPPING, "the server is stopping")
            if self._count() + count > self._max_queued:
                raise Refusal(
                    Status.TOO_MANY,
                    f"{self._count()} examples wait already, and {self._max_queued} may; try again in a moment",
                )
            self._queue.append(waiting)
            self._changed.notify_all()
        answer.add_done_callback(lambda answer: self._forget(waiting) if answer.cancelled() else None)
        return answer

    def close(self, seconds: float) -> bool:
        """Runs what waits, then ends. False if that is not done after so many seconds."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
        return not any(thread.is_alive() for thread in self._threads)

    def __enter__(self) -> "Batcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(0)

    def _count(self) -> int:
        return sum(waiting.count for waiting in self._queue)

    def _forget(self, waiting: _Waiting) -> None:
        with self._changed:
            if waiting in self._queue:
                self._queue.remove(waiting)

    def _work(self) -> None:
        while batch := self._take():
            _run(batch, self._observe)

    def _take(self) -> list[_Waiting]:
        """The next batch; empty when there will be none."""
        with self._changed:
            while True:
                if self._queue:
                    batch, is_full = self._gather()
                    remaining = batch[0].deadline - time.monotonic()
                    if is_full or remaining <= 0 or self._is_closed:
                        for waiting in batch:
                            self._queue.remove(waiting)
                        if running := [w for w in batch if w.answer.set_running_or_notify_cancel()]:
                            return running
                    else:
                        self._changed.wait(remaining)
                elif self._is_closed:
                    return []
                else:
                    self._changed.wait()

    def _gather(self) -> tuple[list[_Waiting], bool]:
        """The oldest request and those that can be run with it; whether no more can come to them."""
        first = self._queue[0]
        if not first.signature.is_batchable:
            return [first], True
        batch: list[_Waiting] = []
        count = 0
        for waiting in self._queue:
            if waiting.signature is first.signature:
                if count + waiting.count > self._max_batch_size:
                    return batch, True
                batch.append(waiting)
                count += waiting.count
        return batch, count == self._max_batch_size


def _run(batch: list[_Waiting], observe: Callable[[str, int], None]) -> None:
    counts = [waiting.count for waiting in batch]
    observe(batch[0].signature.name, sum(counts))
    try:
        outputs = batch[0].signature.run(_join([waiting.inputs for waiting in batch]))
        answers = [outputs] if len(batch) == 1 else _split(outputs, counts)
    except Exception as error:
        if len(batch) == 1:
            batch[0].answer.set_exception(error)
            return
        for waiting in batch:  # which of them it was, and the others are not to suffer
            _run([waiting], observe)
        return
    for waiting, answer in zip(batch, answers, strict=True):
        waiting.answer.set_result(answer)


def _join(inputs: list[Arrays]) -> Arrays:
    if len(inputs) == 1:
        return inputs[0]
    return {name: np.concatenate([arrays[name] for arrays in inputs]) for name in inputs[0]}


def _split(outputs: Arrays, counts: list[int]) -> list[dict[str, np.ndarray]]:
    for name, array in outputs.items():
        if array.shape[0] != sum(counts):
            raise ValueError(f"output {name} has {array.shape[0]} entries for {sum(counts)} examples")
    ends = np.cumsum(counts)[:-1]
    parts = {name: np.split(array, ends) for name, array in outputs.items()}
    return [{name: part[index] for name, part in parts.items()} for index in range(len(counts))]
