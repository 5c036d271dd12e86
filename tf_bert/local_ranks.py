"""`tf-bert pretrain --ranks N`: N ranks on this machine, for people without a launcher at hand."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

from tf_bert import distributed
from tf_bert.errors import InputError, UsageError
from tf_bert.training.stopping import STOP_SIGNALS

GRACE_SECONDS = 20.0  # after one rank failed, until the others are killed
_POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1  # of prctl(2)


def run_local_ranks(ranks: int, command: Sequence[str]) -> int:
    """Runs `command` once per rank and waits for all; SIGTERM, Ctrl-C and SIGUSR1 are passed on to every rank.

    Args:
      ranks: how many.
      command: what each runs.

    Returns:
      The largest of the ranks' exit codes: 0 if all are done.

    Raises:
      InputError: if Horovod is not installed, or a rank was ended by a signal.
      UsageError: if a launcher started this process, so that the ranks are there already.
    """
    if launcher := distributed.launched_by():
        raise UsageError(f"--ranks starts ranks, but this process is one already ({launcher} is set); leave it out")
    end_with_parent = _prepare_end_with_parent()
    with distributed.rendezvous(ranks) as environments:
        # Each in a session of its own: a terminal's Ctrl-C then reaches it through us alone, once.
        processes = [
            subprocess.Popen(
                command, env={**os.environ, **environment}, start_new_session=True, preexec_fn=end_with_parent
            )
            for environment in environments
        ]
        with _passing_on_signals(processes):
            codes = _wait(processes)
    for rank, code in enumerate(codes):
        if code < 0:
            raise InputError(
                f"rank {rank} was ended by {signal.Signals(-code).name} (by hand, or for want of memory); the same "
                "command goes on from the last complete checkpoint"
            )
    return max(codes)


def _wait(processes: Sequence["subprocess.Popen[bytes]"]) -> list[int]:
    """Exit codes, negative numbers of signals among them; 1 for a rank killed for another's end."""
    killed: set[int] = set()
    kill_at: float | None = None
    while any(process.poll() is None for process in processes):
        if kill_at is None and any(process.returncode for process in processes):
            kill_at = time.monotonic() + GRACE_SECONDS
        if kill_at is not None and time.monotonic() > kill_at:
            for process in processes:
                if process.poll() is None:
                    killed.add(process.pid)
                    process.kill()
        time.sleep(_POLL_SECONDS)
    return [1 if process.pid in killed else process.returncode for process in processes]


@contextlib.contextmanager
def _passing_on_signals(processes: Sequence["subprocess.Popen[bytes]"]) -> Iterator[None]:
    def pass_on(number: int, frame: object) -> None:
        for process in processes:
            process.send_signal(number)

    earlier = {number: signal.signal(number, pass_on) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _prepare_end_with_parent() -> Callable[[], None]:
    """For a new process to call: ranks without their launcher would train on beside those that it starts next."""
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
