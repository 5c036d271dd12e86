"""The nodes of a cluster on this machine: a command on all of them under Open MPI's mpirun, as Azure starts it.

Two nodes or more are two daemons of mpirun, each with its ranks, its working directory and its place for temporary
files, so that local ranks count from 0 on each. mpirun would start daemons on other machines with ssh; a script takes
its place.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tf_bert.errors import InputError

MARK = "AZUREML_CR_DATA_CAPABILITY_PATH"
"""A variable of Azure's that is another one in every attempt: all processes of an attempt are found by it."""

_POLL_SECONDS = 0.02
_LEFT_OUT = ("AZUREML_", "AZURE_ML_", "AZ_BATCH", "MLFLOW_", "HOROVOD_", "OMPI_", "PMIX_", "PRTE_", "SLURM_")

# Called as ssh would be, with the name of a host and a command for its shell.
_INSTEAD_OF_SSH = """\
host=$1
shift
TMPDIR="$(dirname "$0")/$host"
export TMPDIR
mkdir -p "$TMPDIR"
exec /bin/sh -c "$*"
"""


class LocalJob:
    """A command that has been started on every rank.

    Args:
      command: for bash.
      work_dirs: of the nodes, as many as there are nodes.
      processes_per_node: ranks on each; with a single rank in all, no mpirun is needed.
      variables: environment of every rank, besides this process's own; `MARK` is among them.
      scratch_dir: an empty directory with a short path; see `scratch_directory`.

    Raises:
      InputError: if there is no mpirun.
    """

    def __init__(
        self,
        command: str,
        work_dirs: Sequence[Path],
        processes_per_node: int,
        variables: Mapping[str, str],
        scratch_dir: Path,
    ) -> None:
        self._mark = f"{MARK}={variables[MARK]}".encode()
        words = ["bash", "-c", command]
        environment = {**_own_environment(), **variables}
        if len(work_dirs) * processes_per_node > 1:
            words = _mpirun(words, work_dirs, processes_per_node)
            environment |= _mpi_variables(len(work_dirs), scratch_dir)
        self._process = subprocess.Popen(
            words,
            cwd=work_dirs[0],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # a terminal's Ctrl-C is for us alone
        )

    def lines(self) -> Iterator[str]:
        """What the ranks print, line by line, until all have ended."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield line.rstrip("\n")

    def wait(self) -> int:
        """The exit code: of the rank that failed first, 0 if none did, 128 + N where signal N ended it."""
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def kill(self) -> bool:
        """Kills mpirun, its daemons and all ranks, as if the power of all nodes were cut; False if it had ended."""
        was_running = self._process.poll() is None
        while found := _marked_processes(self._mark):
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
        return was_running


def check_mpirun() -> None:
    """Raises `InputError` if Open MPI is not installed."""
    mpirun = shutil.which("mpirun", path=_own_environment()["PATH"])
    advice = (
        "install Open MPI (Debian: apt install openmpi-bin libopenmpi-dev), or rehearse with --nodes 1 --processes 1"
    )
    if mpirun is None:
        raise InputError(f"mpirun was not found, which starts the job's processes; {advice}")
    told = subprocess.run([mpirun, "--version"], capture_output=True, text=True).stdout
    if "Open MPI" not in told:
        raise InputError(f"{mpirun}: found {told.partition(chr(10))[0]!r}, expected Open MPI; {advice}")


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """For mpirun's daemons: its path is short, as sockets need it, and without the spaces that mpirun splits it at."""
    with tempfile.TemporaryDirectory(prefix="tf_bert-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


def _own_environment() -> dict[str, str]:
    """This process's variables without those of launchers and of Azure; this Python's commands are found first."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
    plain["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), plain.get("PATH", os.defpath)])
    return plain


def _mpirun(words: Sequence[str], work_dirs: Sequence[Path], processes_per_node: int) -> list[str]:
    line = ["mpirun", "--bind-to", "none", "--oversubscribe"]
    if os.geteuid() == 0:
        line.append("--allow-run-as-root")
    for number, work_dir in enumerate(work_dirs):
        host = ["--host", f"node-{number}:{processes_per_node}"] if len(work_dirs) > 1 else []
        line += [*([":"] if number else []), *host, "-np", str(processes_per_node), "-wdir", str(work_dir), *words]
    return line


def _mpi_variables(nodes: int, scratch_dir: Path) -> dict[str, str]:
    variables = {"OMPI_MCA_mpi_yield_when_idle": "1"}  # all nodes share this machine's cores
    if nodes > 1:
        script = scratch_dir / "instead_of_ssh"
        script.write_text(_INSTEAD_OF_SSH, encoding="utf-8")
        agent = f"/bin/sh {script}"
        variables |= {
            "OMPI_MCA_plm_rsh_agent": agent,
            "PRTE_MCA_plm_ssh_agent": agent,  # Open MPI 5
            # Shared memory is named by host and local rank, which two nodes on one machine have alike.
            "OMPI_MCA_btl": "self,tcp",
            "OMPI_MCA_btl_tcp_if_include": "lo",
        }
    return variables


def _marked_processes(mark: bytes) -> list[int]:
    found = []
    for directory in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if directory.name.isdecimal() and mark in (directory / "environ").read_bytes().split(b"\0"):
                found.append(int(directory.name))
    return found
