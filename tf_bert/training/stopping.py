"""How a run is stopped from outside: by a signal in good order, by a deadline or a hanging rank at once."""

import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, NoReturn, TypeVar

# mpirun kills on SIGTERM and Ctrl-C, but passes SIGUSR1 on to its ranks.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

Item = TypeVar("Item")


class StopSignals:
    """Inside of its context, SIGTERM, Ctrl-C and SIGUSR1 are remembered instead of ending the process.

    A second one ends it, and so does the deadline. A thread listens for them: Python runs handlers in the main
    thread alone, and not before TensorFlow hands it back, which never happens while another rank hangs.

    Args:
      request: called from another thread at the first signal.
      deadline_seconds: from the first signal until the process ends whatever it is doing; None: no such limit.
      tells: whether to print why the process ends; False on ranks other than 0.
    """

    def __init__(
        self, request: Callable[[], object], deadline_seconds: float | None = None, tells: bool = True
    ) -> None:
        self.received: signal.Signals | None = None
        self._request = request
        self._deadline_seconds = deadline_seconds
        self._tells = tells
        self._earlier_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._earlier_writer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            self._earlier_handlers[number] = signal.signal(number, lambda *_: None)  # the listener does the work
        self._listener = threading.Thread(target=self._listen, name="stop signals", daemon=True)
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._earlier_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._earlier_writer)
        os.close(self._writer)
        self._listener.join()
        os.close(self._reader)

    def _listen(self) -> None:
        deadline = None
        while True:
            seconds_left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._reader], [], [], seconds_left)[0]:
                self._end(f"{self._deadline_seconds:g} seconds after")
            number = os.read(self._reader, 1)
            if not number:
                return
            if number[0] not in self._earlier_handlers:  # of somebody else's handler
                continue
            if self.received:
                self._end("by a second signal after")
            self.received = signal.Signals(number[0])
            self._request()
            if self._deadline_seconds is not None:
                deadline = time.monotonic() + self._deadline_seconds

    def _end(self, how: str) -> NoReturn:
        assert self.received is not None
        _end_at_once(
            f"ended {how} {self.received.name}, without saving; the last complete checkpoint stands, and the same "
            "command goes on from it",
            self._tells,
        )


class Watchdog:
    """Inside of its context, the process ends when it has shown no sign of life for `seconds`.

    A rank that hangs, or is stopped, makes all others wait in a collective for ever, and Horovod's own stall check
    waits with them.

    Args:
      seconds: the limit, ten times as long before the first step, which is traced and compiled; inf: none.
      tells: whether to print why the process ends; False on ranks other than 0.
    """

    def __init__(self, seconds: float, tells: bool = True) -> None:
        self._seconds = seconds
        self._tells = tells
        self._left = threading.Event()

    def __enter__(self) -> "Watchdog":
        self._limit = 10 * self._seconds
        self._due = time.monotonic() + self._limit
        if math.isfinite(self._seconds):
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """From here on no rank waits for another, and nothing is watched."""
        self._left.set()

    def step_done(self) -> None:
        """A sign of life: the limit counts from here."""
        self._limit = self._seconds
        self._due = time.monotonic() + self._limit

    def watched(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items; each is a sign of life."""
        for item in items:
            self._due = max(self._due, time.monotonic() + self._seconds)
            yield item

    def _watch(self) -> None:
        while not self._left.wait(min(1.0, self._seconds / 10)):
            if time.monotonic() >= self._due:
                _end_at_once(
                    f"ended after {self._limit:g} seconds without a step (training.rank_timeout_seconds, ten times as "
                    "long before the first one): a rank hangs, is stopped or cannot be reached; the same command goes "
                    "on from the last complete checkpoint",
                    self._tells,
                )


def _end_at_once(reason: str, tells: bool) -> NoReturn:
    # The main thread may hang for ever in a collective, so neither its cleaning up nor its locks are waited for.
    if tells:
        os.write(sys.stderr.fileno(), f"tf-bert: {reason}\n".encode())
    os._exit(1)
