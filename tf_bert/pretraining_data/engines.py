"""Where the tasks of a build run: processes on this machine, a dask cluster, or the ranks of an MPI job.

Tasks and their results are pickled on their way, between processes of one job that trust each other; no file is.
"""

import contextlib
import dataclasses
import logging
import multiprocessing
import multiprocessing.context
import multiprocessing.forkserver
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

from tf_bert.config import PrepareConfig
from tf_bert.errors import InputError, UsageError
from tf_bert.files import read_json
from tf_bert.pretraining_data.claim import WORK_DIR
from tf_bert.pretraining_data.notes import MEMORY_ADVICE, NOTE_SUFFIX, Note, read_notes


@contextlib.contextmanager
def open_engine(config: PrepareConfig) -> Iterator[tuple[PrepareConfig, Executor | None]]:
    """What runs the tasks of a build, and the configuration as all who run them understand it.

    Yields:
      The configuration and an executor; None stands for this process.

    Raises:
      InputError: if a library, the cluster or other ranks are missing, or a worker is lost for good.
      UsageError: if no scheduler is named.
      SystemExit: with code 0, on every rank of an MPI job but the first, when the first has done its work.
    """
    if config.engine == "dask":
        # The workers have working directories of their own.
        config = dataclasses.replace(
            config,
            input=_absolute(config.input),
            output_dir=_absolute([config.output_dir])[0],
            quality=dataclasses.replace(config.quality, exclude=_absolute(config.quality.exclude)),
        )
        with _dask_executor(config) as executor:
            yield config, executor
    elif config.engine == "mpi":
        with _mpi_executor() as executor:
            yield config, executor
    else:
        with _local_executor(config) as executor:
            yield config, executor


def _absolute(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(Path(name).absolute()) for name in names)


def _notes(config: PrepareConfig) -> list[Note]:
    return read_notes((Path(config.output_dir) / WORK_DIR).rglob(f"*{NOTE_SUFFIX}"))


# --- processes on this machine -------------------------------------------------------------------------------


class _RecordingContext(multiprocessing.context.ForkServerContext):
    """Keeps the processes that were started, so that one can ask how they ended.

    They are forked from a server that has imported TensorFlow and done nothing with it: once for all of them, and they
    share its memory. A copy of this process would hang, for here TensorFlow's threads run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started: list[multiprocessing.context.ForkServerProcess] = []
        self.set_forkserver_preload(["tf_bert.pretraining_data.shards"])
        multiprocessing.forkserver.ensure_running()  # its import and that of this process go on at the same time

    def Process(self, *args: Any, **kwargs: Any) -> multiprocessing.context.ForkServerProcess:  # type: ignore[override]
        process = multiprocessing.context.ForkServerProcess(*args, **kwargs)
        self.started.append(process)
        return process


@contextlib.contextmanager
def _local_executor(config: PrepareConfig) -> Iterator[Executor | None]:
    """As many processes as `workers` says; None, which stands for this process, for one."""
    workers = config.workers or len(os.sched_getaffinity(0))
    if workers == 1:
        yield None
        return
    context = _RecordingContext()
    try:
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as executor:
            yield executor
    except BrokenProcessPool as error:
        raise InputError(_what_broke(context.started, config)) from error


def _what_broke(workers: Sequence[BaseProcess], config: PrepareConfig) -> str:
    """Says which of a broken pool's processes was lost, and at which document."""
    pids = {process.pid for process in workers}
    notes = [note for note in _notes(config) if note.host == socket.gethostname() and note.pid in pids]
    for note in notes:
        note.path.unlink(missing_ok=True)  # it has been told
    # The pool itself ends the others by SIGTERM.
    lost = [process for process in workers if process.exitcode not in (0, -signal.SIGTERM)]
    if not lost:
        return f"the {len(workers)} workers were ended from outside; run the same command again: it goes on"
    code = lost[0].exitcode or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    if code == -signal.SIGKILL:
        how += ", as the system does when memory runs out,"
    place = next((note.place for note in notes if note.pid == lost[0].pid), "its start, before any document")
    return f"worker process {lost[0].pid} {how} at {place}; {MEMORY_ADVICE}"


def _start_worker() -> None:
    # Ctrl-C reaches every process of a terminal; the tracebacks of the workers would bury the parent's one line.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


# --- clusters ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _dask_executor(config: PrepareConfig) -> Iterator[Executor]:
    """The workers of a dask cluster; a task whose worker dies is given to another one."""
    try:
        import dask
        from dask.distributed import Client, KilledWorker
    except ImportError as error:
        raise InputError(f"engine dask: {error}; install it with: pip install 'tf_bert[dask]'") from error
    address = _scheduler_address(config, dask.config.get("scheduler-address", None))
    for name in ("distributed", "distributed.client"):  # the messages below say it in one line
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        client = Client(address, set_as_default=False)
    except OSError as error:
        raise InputError(
            f"engine dask: the scheduler {address} cannot be reached ({' '.join(str(error).split())}); see whether it "
            "runs"
        ) from error
    with client:
        if not client.scheduler_info()["workers"]:
            print(f"the cluster {address} has no worker yet; waiting for one")
        try:
            yield client.get_executor()
        except KilledWorker as error:
            worker = error.last_worker
            places = [note.place for note in _notes(config) if note.pid == worker.pid]
            raise InputError(
                f"{error.allowed_failures + 1} workers of the cluster died of one task, the last of them process "
                f"{worker.pid} at {worker.address}, at {' or '.join(places) or 'no document yet'}; {MEMORY_ADVICE}"
            ) from error
        except ImportError as error:
            raise InputError(
                f"a worker of the cluster {address} cannot import what it needs ({error}); give all workers this "
                "environment"
            ) from error
        except Exception as error:
            if client.status == "running":
                raise
            raise InputError(
                f"engine dask: the scheduler {address} was lost; start the cluster and the same command again: it goes "
                "on"
            ) from error


def _scheduler_address(config: PrepareConfig, default: str | None) -> str:
    address = config.scheduler or default
    if config.scheduler_file:
        values = read_json(Path(config.scheduler_file))
        address = values.get("address") if isinstance(values, dict) else None
        if not isinstance(address, str):
            raise InputError(
                f"{config.scheduler_file}: has no address, expected what `dask scheduler --scheduler-file` writes"
            )
    if not address:
        raise UsageError(
            "engine dask: no scheduler is named; start one with `dask scheduler` and say --scheduler tcp://HOST:8786"
        )
    if not re.fullmatch(r"([a-z]+://)?[^/ ]+:[0-9]+", address):
        raise UsageError(f"engine dask: found the scheduler {address}, expected an address such as tcp://host:8786")
    return address


@contextlib.contextmanager
def _mpi_executor() -> Iterator[Executor]:
    """On the first rank of an MPI job, all other ranks; these run tasks and then end here."""
    try:
        from mpi4py import MPI
        from mpi4py.futures import MPICommExecutor
    except (ImportError, RuntimeError) as error:  # the package, or the MPI library that it looks for
        reason = " ".join(str(error).split())
        raise InputError(
            f"engine mpi: {reason}; install MPI, and the package with: pip install 'tf_bert[mpi]'"
        ) from error
    if MPI.COMM_WORLD.size == 1:
        raise InputError("engine mpi: found a single rank, expected two or more; start it with mpirun -n RANKS tf-bert")
    with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:  # on the others, returns when the first leaves it
        if executor is not None:
            yield cast(Executor, executor)
    if MPI.COMM_WORLD.rank > 0:
        raise SystemExit(0)
