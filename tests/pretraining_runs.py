"""Pretraining runs of a tiny model, in real processes, on one rank or two."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from launchers import LAUNCHERS, environment
from safetensors.numpy import load_file

from tf_bert import config as configuration
from tf_bert.run_log import read_metrics

STEPS = 40
SETTINGS = {
    "model.vocab_size": 640,  # more than the vocabulary's 600
    "model.hidden_size": 32,
    "model.num_hidden_layers": 2,
    "model.num_attention_heads": 2,
    "model.intermediate_size": 64,
    "model.max_position_embeddings": 40,
    "optimizer.learning_rate": "3e-3",
    "optimizer.num_warmup_steps": 4,
    "training.num_train_steps": STEPS,
    "training.global_batch_size": 16,
    "training.microbatch_size": 8,
    "cadence.log_every": 5,
    "cadence.evaluate_every": 20,
    "cadence.checkpoint_every": 4,
}
NO_DROPOUT = {"model.hidden_dropout_prob": 0, "model.attention_probs_dropout_prob": 0}
RANK_VARIABLES = (b"HOROVOD_RANK=", b"OMPI_COMM_WORLD_RANK=")


def settings(data_dir, output_dir, **changes):
    return {**SETTINGS, "data.data_dir": str(data_dir), "output_dir": str(output_dir), **changes}


def configure(data_dir, output_dir, **changes):
    return configuration.load(configuration.PretrainConfig, None, settings(data_dir, output_dir, **changes))


def command(data_dir, output_dir, **changes):
    words = [sys.executable, "-m", "tf_bert.cli", "pretrain"]
    for key, value in settings(data_dir, output_dir, **changes).items():
        words += [f"--{key}", str(value)]
    return words


def start(data_dir, output_dir, launcher=None, **changes):
    """Starts a run: one process, or two ranks under `launcher` ("local": our own); one pipe for all it prints."""
    words = [*LAUNCHERS.get(launcher, []), *command(data_dir, output_dir, **changes)]
    if launcher == "local":
        words += ["--ranks", "2"]
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(PYTHONUNBUFFERED="1"),
        start_new_session=True,
    )


def finish(process):
    """Waits for a run that must end well; returns what it printed."""
    printed = process.communicate(timeout=240)[0]
    assert process.returncode == 0, printed
    return printed


def wait_for_line(process, part):
    """Reads what the run prints up to a line with `part` in it, and returns it."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if part in line:
            return "".join(lines)
    raise AssertionError(f"the run ended without '{part}':\n{''.join(lines)}")


def wait_for(condition, process):
    """Returns once `condition()` holds or the process has ended, within a millisecond or so."""
    while not condition() and process.poll() is None:
        time.sleep(0.0005)


def ranks_of(output_dir):
    """Process ids of the run's ranks, by rank."""
    found = {}
    for directory in Path("/proc").iterdir():
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
            variables = (directory / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if str(output_dir).encode() not in words or words[0] != sys.executable.encode():
            continue
        for variable in variables:
            if variable.startswith(RANK_VARIABLES):
                found[int(variable.partition(b"=")[2])] = int(directory.name)
    return found


def kill(process):
    """SIGKILL for the launcher, if any, and all its ranks: as if the machine's power were cut."""
    children = [process.pid]
    for pid in children:
        for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
            children += [int(child) for child in tasks.read_text().split()]
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def weights(output_dir):
    return load_file(output_dir / "model" / "model.safetensors")


def _is_timing(key):
    return key.startswith("time/") or "per_second" in key or key == "train/utilisation"


def assert_same_run(output_dir, finished_dir):
    """Weights and metrics bit for bit, but for the metrics that are about time."""
    ours, theirs = weights(output_dir), weights(finished_dir)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    timeless = [
        [{key: value for key, value in entry.items() if not _is_timing(key)} for entry in read_metrics(path)]
        for path in (output_dir / "metrics.jsonl", finished_dir / "metrics.jsonl")
    ]
    assert timeless[0] == timeless[1]


def assert_close_weights(output_dir, finished_dir, tolerance):
    ours, theirs = weights(output_dir), weights(finished_dir)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=tolerance, err_msg=name)
