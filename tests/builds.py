"""Builds in processes of their own, what they leave, and catching one of them at a document that is known."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

from launchers import environment

from tf_bert.config import PrepareConfig, to_dict
from tf_bert.pretraining_data.notes import NOTE_SUFFIX, Note, read_notes

BUILD_SCRIPT = """
import json, resource, sys
from tf_bert.config import PrepareConfig
from tf_bert.errors import InputError, UsageError
from tf_bert.pretraining_data.build import build
if limit := json.loads(sys.argv[2]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    build(PrepareConfig(**json.loads(sys.argv[1])))
except InputError as error:
    sys.exit(str(error))
"""


def start_build(config: PrepareConfig, file_size_limit: int | None = None) -> subprocess.Popen:
    """A build in a process of its own, optionally one whose files the system lets grow no longer than a limit."""
    arguments = [json.dumps(to_dict(config)), json.dumps(file_size_limit)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-c", BUILD_SCRIPT, *arguments], stderr=subprocess.PIPE, text=True, env=environment
    )


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def command(config, **changes) -> list[str]:
    """`tf-bert prepare` of a configuration, with other values laid over it."""
    words = [sys.executable, "-m", "tf_bert.cli", "prepare"]
    for key in ("output_dir", "vocab", "max_seq_length", "validation_fraction", "shard_megabytes", "sentence_splitter"):
        words += [f"--{key}", str(getattr(config, key))]
    for key, value in {"input": config.input[0], **changes}.items():
        words += [f"--{key}", str(value)]
    return words


def start(words: list[str], cwd: Path | None = None, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment(**variables)
    )


def kill_at_a_document(output_dir: Path, pids: Callable[[], Collection[int]], folder: str = "_work") -> Note:
    """Kills one of the processes while it is at a document, by SIGKILL; returns what it was at.

    Args:
      output_dir: of the build.
      pids: the processes that there are.
      folder: where its note is: _work for pass 1, _work/entries for pass 2.
    """
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        for note in read_notes((output_dir / folder).glob(f"*{NOTE_SUFFIX}")):
            if note.pid not in pids():
                continue
            os.kill(note.pid, signal.SIGSTOP)
            wait_until(lambda pid=note.pid: "T (stopped)" in Path(f"/proc/{pid}/status").read_text())
            if still := read_notes([note.path]):  # it is in the midst of the task, and stays at this document
                os.kill(note.pid, signal.SIGKILL)
                return still[0]
            os.kill(note.pid, signal.SIGCONT)
    raise AssertionError("no process was found at a document")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.01)


def children(parent: int, name: bytes) -> list[int]:
    """Process ids of the children whose command line contains `name`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                is_child = f"PPid:\t{parent}\n" in (entry / "status").read_text()
                if is_child and name in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found
