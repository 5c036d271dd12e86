"""Starting two real ranks, under each launcher that this machine has."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCHERS = {
    "gloo": ["horovodrun", "-np", "2", "--gloo", "--disable-cache"],
    "mpi": ["mpirun", "-np", "2", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none"],
}
needs_horovod = pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="Horovod is not built here (no compiler at set-up)"
)


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without what an outer launcher may have set, the virtual environment's tools first."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("HOROVOD_", "OMPI_"))}
    plain["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), plain["PATH"]])
    return plain | extra


def skip_without(launcher: str) -> None:
    """Skips the test where the launcher is missing."""
    if launcher == "mpi" and not (shutil.which("mpirun") and shutil.which("mpicxx")):
        pytest.skip("Open MPI is not installed, so Horovod is built without it")


def run_ranks(launcher: str, command: list[str]) -> None:
    """Runs `command` on two ranks and waits for both; skips the test where the launcher is missing."""
    skip_without(launcher)
    done = subprocess.run(
        [*LAUNCHERS[launcher], *command],
        env=environment(TF_CPP_MIN_LOG_LEVEL="2"),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
