"""Builds by several processes: the same bytes, and one line when a worker is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def command(config, **changes):
    words = [sys.executable, "-m", "tf_bert.cli", "prepare"]
    for key in ("output_dir", "vocab", "max_seq_length", "validation_fraction", "shard_megabytes", "sentence_splitter"):
        words += [f"--{key}", str(getattr(config, key))]
    for key, value in {"input": config.input[0], **changes}.items():
        words += [f"--{key}", str(value)]
    return words


def files_of(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def workers_of(parent: int) -> list[int]:
    """Process ids of the pool's workers, which multiprocessing starts as `spawn_main`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                is_child = f"PPid:\t{parent}\n" in (entry / "status").read_text()
                if is_child and b"spawn_main" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:  # it has ended meanwhile
                continue
    return found


def test_two_processes_write_what_one_writes(data_dir, prepare_config, tmp_path):
    done = subprocess.run(command(prepare_config(tmp_path / "two"), workers=2), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert files_of(tmp_path / "two") == files_of(data_dir)


def test_a_lost_worker_is_one_line_and_the_build_goes_on_later(data_dir, prepare_config, tmp_path):
    config = prepare_config(tmp_path / "lost")
    process = subprocess.Popen(command(config, workers=2), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(workers := workers_of(process.pid)) < 2:
        time.sleep(0.02)
    os.kill(workers[0], signal.SIGKILL)
    _, complaint = process.communicate()
    assert process.returncode == 1
    assert complaint.startswith(
        "tf-bert prepare: one of 2 workers was ended from outside, most likely for want of memory"
    )
    assert complaint.count("\n") == 1
    assert not (tmp_path / "lost" / "manifest.json").exists()
    assert subprocess.run(command(config, workers=1), capture_output=True).returncode == 0
    assert files_of(tmp_path / "lost") == files_of(data_dir)
