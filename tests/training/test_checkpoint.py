"""Checkpoints are whole or absent, and restore bit for bit."""

import os
import random
import resource
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from tf_bert.errors import InputError
from tf_bert.training.checkpoint import CheckpointManager, read_checkpoint


def make_variables(value=0.0):
    """Of the kinds that a run has: float32, an integer counter, and the uint32 or int64 state of a seed."""
    generator = keras.random.SeedGenerator(3, name="dropout")
    return [
        keras.Variable(np.full((40, 30), value, "float32"), name="kernel"),
        keras.Variable(int(value), dtype="int64", trainable=False, name="step"),
        generator.state,
    ]


@pytest.fixture
def manager(tmp_path):
    return CheckpointManager(tmp_path / "checkpoints", keep=2)


def test_every_variable_comes_back_bit_for_bit(manager):
    variables = make_variables()
    variables[0].assign(np.random.default_rng(0).normal(size=(40, 30)))
    variables[1].assign(2**40)
    manager.save(7, variables, {"data_position": 7})
    others = make_variables()
    checkpoint, warnings = manager.latest()
    checkpoint.restore(others)
    assert warnings == [] and checkpoint.step == 7 and checkpoint.state == {"data_position": 7}
    for ours, theirs in zip(variables, others, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_only_the_newest_stay(manager):
    for step in (5, 10, 15, 100_000_000):
        manager.save(step, make_variables(step), {})
    assert sorted(path.name for path in manager.directory.iterdir()) == ["step-00000015", "step-100000000"]
    assert manager.latest()[0].step == 100_000_000


def test_without_checkpoints_there_is_none(manager):
    assert manager.latest() == (None, [])


DAMAGES = {
    "truncated": (lambda path: os.truncate(path / "tensors.safetensors", 100), r"found 100 bytes, expected \d+"),
    "flipped byte": (
        lambda path: _flip(path / "tensors.safetensors"),
        r"tensors.safetensors: its content is not what was written",
    ),
    "missing tensors": (lambda path: (path / "tensors.safetensors").unlink(), r"tensors.safetensors: is missing"),
    "missing manifest": (
        lambda path: (path / "manifest.json").unlink(),
        r"manifest.json: cannot be read: No such file",
    ),
    "empty manifest": (lambda path: os.truncate(path / "manifest.json", 0), r"manifest.json: is not valid JSON"),
    "other manifest": (
        lambda path: (path / "manifest.json").write_text("[1]"),
        r"manifest.json: is not the manifest of a checkpoint",
    ),
}


def _flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_passed_over_and_named(manager, damage):
    manager.save(1, make_variables(1), {})
    newest = manager.save(2, make_variables(2), {})
    spoil, message = DAMAGES[damage]
    spoil(newest)
    checkpoint, warnings = manager.latest()
    assert checkpoint.step == 1
    with pytest.raises(InputError, match=message):
        read_checkpoint(newest)
    assert len(warnings) == 1 and warnings[0].startswith("passing over a damaged checkpoint: ")


def test_a_checkpoint_of_another_model_is_refused_by_name(manager):
    manager.save(1, make_variables(), {})
    checkpoint, _ = manager.latest()
    with pytest.raises(InputError, match=r"holds 3 tensors, expected 2; the first that differs is dropout/seed_gener"):
        checkpoint.restore(make_variables()[:2])
    wider = [keras.Variable(np.zeros((41, 30), "float32"), name="kernel"), *make_variables()[1:]]
    with pytest.raises(InputError, match=r"kernel: found shape \(40, 30\), expected \(41, 30\)"):
        checkpoint.restore(wider)


_SAVE_FOREVER = """
import itertools, sys
from pathlib import Path
import keras, numpy as np
from tf_bert.training.checkpoint import CheckpointManager
variables = [keras.Variable(np.zeros((400, 300), "float32"), name=f"v{i}") for i in range(20)]
manager = CheckpointManager(Path(sys.argv[1]), keep=2)
for step in itertools.count(int(sys.argv[2])):
    for variable in variables:
        variable.assign(np.full((400, 300), step, "float32"))
    manager.save(step, variables, {})
    print(step, flush=True)
"""


def test_a_process_killed_while_it_saves_leaves_whole_checkpoints(tmp_path):
    rng = random.Random(4)
    last = 0
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", _SAVE_FOREVER, str(tmp_path), str(last + 1)], stdout=subprocess.PIPE, text=True
        )
        reported = int(process.stdout.readline())
        time.sleep(rng.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        reported = max([reported, *map(int, process.communicate()[0].split())])
        checkpoint, warnings = CheckpointManager(tmp_path, keep=2).latest()
        assert warnings == [], "a half-written checkpoint was taken for a finished one"
        # The kill may fall between the rename and the report.
        assert checkpoint.step in (reported, reported + 1)
        variables = [keras.Variable(np.zeros((400, 300), "float32"), name=f"v{i}") for i in range(20)]
        checkpoint.restore(variables)
        assert all(np.all(np.array(variable) == checkpoint.step) for variable in variables)
        last = checkpoint.step


def test_a_full_disk_is_one_line_and_leaves_no_checkpoint(manager):
    manager.save(1, make_variables(1), {})
    # A limit on the size of files stands in for a full disk: the operating system refuses the write.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(InputError, match=r"tensors.safetensors: cannot be written: .*File too large"):
            manager.save(2, make_variables(2), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in manager.directory.iterdir()] == ["step-00000001"]
