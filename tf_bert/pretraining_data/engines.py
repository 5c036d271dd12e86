"""Where the tasks of a build run."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from tf_bert.errors import InputError


@contextlib.contextmanager
def local_executor(workers: int) -> Iterator[Executor | None]:
    """Processes on this machine; None, which stands for this process, where one worker is asked for.

    Args:
      workers: how many; 0 for as many as there are cores.

    Raises:
      InputError: if the operating system ends a worker.
    """
    workers = workers or len(os.sched_getaffinity(0))
    if workers == 1:
        yield None
        return
    # A forked copy of a process that runs TensorFlow's threads hangs, so workers start anew.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_interrupts_to_the_parent) as executor:
        try:
            yield executor
        except BrokenProcessPool as error:
            raise InputError(
                f"one of {workers} workers was ended from outside, most likely for want of memory; use fewer workers "
                "or a smaller shard_megabytes, and run the same command again: it goes on from the finished shards"
            ) from error


def _leave_interrupts_to_the_parent() -> None:
    # Ctrl-C reaches every process of a terminal; the tracebacks of the workers would bury the parent's one line.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
