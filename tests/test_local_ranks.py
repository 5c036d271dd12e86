"""`--ranks N`: ranks that need no launcher, and their end. Each rank here is a small program, not a training."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launchers import environment, needs_horovod

from tf_bert import local_ranks
from tf_bert.cli import main
from tf_bert.errors import InputError, UsageError

LAUNCHER = "import sys; from tf_bert.local_ranks import run_local_ranks; sys.exit(run_local_ranks(2, sys.argv[1:]))"
# Both ranks have one pipe: a line goes into it at once, whatever buffers Python has.
RANK = """
import os, signal, sys, time
rank = int(os.environ["HOROVOD_RANK"])
def say(word): os.write(1, f"{word}\\n".encode())
"""


def run(code):
    return local_ranks.run_local_ranks(2, [sys.executable, "-c", RANK + code])


def launch(code):
    """A launcher in a process of its own, whose two ranks have printed a line each."""
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, sys.executable, "-c", RANK + code],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, sorted(process.stdout.readline().split() for _ in range(2))


@pytest.fixture(autouse=True)
def _no_outer_launcher(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("HOROVOD_", "OMPI_")):
            monkeypatch.delenv(name)


@needs_horovod
@pytest.mark.parametrize(
    ("code", "expected"), [("", 0), ("sys.exit(rank)", 1), ("sys.exit(2 - rank)", 2)], ids=["done", "failed", "usage"]
)
def test_the_exit_code_is_that_of_the_ranks(code, expected):
    assert run(code) == expected


@needs_horovod
def test_a_rank_that_a_signal_ended_is_named():
    message = r"rank 1 was ended by SIGKILL \(by hand, or for want of memory\); the same command goes on from the last"
    with pytest.raises(InputError, match=message):
        run("rank and os.kill(os.getpid(), signal.SIGKILL)")


@needs_horovod
def test_ranks_that_stay_when_one_has_failed_are_killed(monkeypatch):
    monkeypatch.setattr(local_ranks, "GRACE_SECONDS", 0.2)
    assert run("rank or sys.exit(1)\nos.kill(os.getpid(), signal.SIGSTOP)") == 1


@needs_horovod
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_reach_every_rank_once(number):
    process, _ = launch(
        "seen = []\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):\n"
        "    signal.signal(number, lambda n, _: seen.append(n))\n"
        "say(rank)\n"
        "while not seen: time.sleep(0.01)\n"
        "time.sleep(0.3)\n"
        f"say(seen == [{number:d}])\n"
    )
    process.send_signal(number)
    assert process.communicate(timeout=60)[0].split() == ["True", "True"]
    assert process.returncode == 0


@needs_horovod
def test_ranks_end_with_their_launcher():
    process, lines = launch("say(os.getpid()); time.sleep(600)")
    process.kill()
    process.wait()
    folders = [Path(f"/proc/{pid}") for (pid,) in lines]
    while any(folder.exists() and "zombie" not in (folder / "status").read_text() for folder in folders):
        time.sleep(0.01)


def test_without_horovod_there_is_one_rank_only(monkeypatch):
    # Makes the import fail as it does where Horovod is missing, also if a test before has imported it.
    for name in ("horovod", "horovod.runner.common.util.hosts"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"several ranks need Horovod, which is not installed .*run scripts/build_hor"):
        run("")


def test_a_rank_starts_no_ranks(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    with pytest.raises(UsageError, match=r"this process is one already \(OMPI_COMM_WORLD_RANK is set\); leave it out"):
        run("")


@pytest.mark.parametrize("words", [["--ranks"], ["--ranks", "two"], ["--ranks=0"]])
def test_a_number_of_ranks_that_is_none(words, capsys):
    assert main(["pretrain", *words]) == 2
    expected = "tf-bert pretrain: --ranks: expected how many ranks to start on this machine, such as --ranks 2\n"
    assert capsys.readouterr().err == expected


def test_settings_are_checked_before_ranks_are_started(capsys):
    assert main(["pretrain", "--ranks", "2", "--training.sed", "1"]) == 2
    assert capsys.readouterr().err.startswith("tf-bert pretrain: command line: unknown key 'training.sed'")
