"""Checkpoints are whole or absent, and restore bit for bit."""

import contextlib
import itertools
import multiprocessing
import os
import random
import resource
import signal
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


def save(manager, step, value=0.0):
    """Writes a checkpoint and waits for it; returns its directory."""
    path = manager.save(step, make_variables(value), {})
    manager.wait()
    return path


@pytest.fixture
def manager(tmp_path):
    return CheckpointManager(tmp_path / "checkpoints", keep=2)


def test_every_variable_comes_back_bit_for_bit(manager):
    variables = make_variables()
    variables[0].assign(np.random.default_rng(0).normal(size=(40, 30)))
    variables[1].assign(2**40)
    manager.save(7, variables, {"data_position": 7})
    manager.wait()
    others = make_variables()
    checkpoint, warnings = manager.latest()
    checkpoint.restore(others)
    assert warnings == [] and checkpoint.step == 7 and checkpoint.state == {"data_position": 7}
    for ours, theirs in zip(variables, others, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_only_the_newest_stay(manager):
    for step in (5, 10, 15, 100_000_000):
        save(manager, step, step)
    assert sorted(path.name for path in manager.directory.iterdir()) == ["step-00000015", "step-100000000"]
    assert manager.latest()[0].step == 100_000_000


def test_every_so_many_stay_for_good(tmp_path):
    manager = CheckpointManager(tmp_path, keep=1, keep_every=10)
    for step in range(5, 40, 5):
        save(manager, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-000000{step}" for step in (10, 20, 30, 35)]


def test_what_changes_after_a_save_has_begun_is_not_in_it(manager):
    variables = make_variables(1)
    for step in (1, 2):  # the second one copies into memory that the first one has used
        manager.save(step, variables, {})
        variables[0].assign(variables[0] + 1)
    manager.wait()
    for step in (1, 2):
        read_checkpoint(manager.directory / f"step-{step:08d}").restore(variables)
        np.testing.assert_array_equal(variables[0], np.full((40, 30), step))


def test_a_save_begins_when_the_one_before_is_done(manager):
    manager.save(1, make_variables(), {})
    manager.save(2, make_variables(), {})
    assert read_checkpoint(manager.directory / "step-00000001").step == 1


def test_damaged_checkpoints_that_a_run_passed_over_push_out_no_sound_one(tmp_path):
    manager = CheckpointManager(tmp_path, keep=1)
    save(manager, 10)
    os.truncate(save(manager, 20) / "manifest.json", 0)
    save(manager, 12)  # as a run does that went on from step 10
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000012"]


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
    save(manager, 1, 1)
    newest = save(manager, 2, 2)
    spoil, message = DAMAGES[damage]
    spoil(newest)
    checkpoint, warnings = manager.latest()
    assert checkpoint.step == 1
    with pytest.raises(InputError, match=message):
        read_checkpoint(newest)
    assert len(warnings) == 1 and warnings[0].startswith("passing over a damaged checkpoint: ")


def test_a_checkpoint_of_another_model_is_refused_by_name(manager):
    save(manager, 1)
    checkpoint, _ = manager.latest()
    with pytest.raises(InputError, match=r"holds 3 tensors, expected 2; the first that differs is dropout/seed_gener"):
        checkpoint.restore(make_variables()[:2])
    wider = [keras.Variable(np.zeros((41, 30), "float32"), name="kernel"), *make_variables()[1:]]
    with pytest.raises(InputError, match=r"kernel: found shape \(40, 30\), expected \(41, 30\)"):
        checkpoint.restore(wider)


def save_forever(directory, first, reports):
    """Saves one checkpoint after the other, every variable full of its step, and reports each that is done."""
    variables = [keras.Variable(np.zeros((400, 300), "float32"), name=f"v{i}") for i in range(20)]
    manager = CheckpointManager(directory, keep=2)
    for step in itertools.count(first):
        for variable in variables:
            variable.assign(np.full((400, 300), step, "float32"))
        manager.save(step, variables, {})
        manager.wait()
        reports.send(step)


class Killed:
    """A process that saves for ever, to be killed, over and over, in one directory."""

    def __init__(self, directory):
        self.directory = directory
        self.last = 0
        # Its server imports TensorFlow once and forks before it is used.
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(["tf_bert.training.checkpoint"])

    def kill_when(self, is_time):
        """Starts it, kills it when `is_time()` holds, and checks what it leaves."""
        receiver, sender = self.processes.Pipe(duplex=False)
        process = self.processes.Process(target=save_forever, args=(self.directory, self.last + 1, sender))
        process.start()
        sender.close()
        reported = receiver.recv()
        while not is_time():
            pass
        process.kill()
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                reported = receiver.recv()
        checkpoint, warnings = CheckpointManager(self.directory, keep=2).latest()
        assert warnings == [], "a half-written checkpoint was taken for a finished one"
        # The kill may fall between the rename and the report.
        assert checkpoint.step in (reported, reported + 1)
        variables = [keras.Variable(np.zeros((400, 300), "float32"), name=f"v{i}") for i in range(20)]
        checkpoint.restore(variables)
        assert all(np.all(np.array(variable) == checkpoint.step) for variable in variables)
        self.last = checkpoint.step


def test_killed_at_any_time_a_save_leaves_whole_checkpoints(tmp_path):
    killed, rng = Killed(tmp_path), random.Random(4)
    for _ in range(3):
        started = time.monotonic()
        delay = rng.uniform(0.0, 0.3)
        killed.kill_when(lambda started=started, delay=delay: time.monotonic() > started + delay)


def files_in(directory):
    """Paths of all files in a directory that changes meanwhile."""
    return [
        os.path.relpath(os.path.join(folder, name), directory)
        for folder, _, names in os.walk(directory)
        for name in names
    ]


def is_being_removed(files):
    """Whether an old checkpoint is: only then does the suffix stand beside a newer one in place."""
    newest = max((name.split("/")[0] for name in files if ".partial/" not in name), default="")
    return any(".partial/" in name and name < newest for name in files)


STAGES = {
    "tensors": lambda files: any(name.endswith(".partial/tensors.safetensors") for name in files),
    "manifest begun": lambda files: any(name.endswith(".partial/manifest.json.partial") for name in files),
    "manifest done": lambda files: any(name.endswith(".partial/manifest.json") for name in files),
    "old one goes": is_being_removed,
}


def test_killed_at_every_stage_a_save_leaves_whole_checkpoints(tmp_path):
    killed = Killed(tmp_path)
    for is_stage in STAGES.values():
        killed.kill_when(lambda is_stage=is_stage: is_stage(files_in(tmp_path)))


def test_a_failed_save_is_told_by_whatever_comes_next(manager):
    def tell_by_check(manager):
        while True:  # says nothing as long as the save is under way
            manager.check()

    next_calls = [tell_by_check, CheckpointManager.wait, lambda manager: save(manager, 3)]
    save(manager, 1, 1)
    for next_call in next_calls:
        with limited_file_size(1000):
            manager.save(2, make_variables(2), {})
            with pytest.raises(InputError, match=r"tensors.safetensors: cannot be written: .*File too large"):
                next_call(manager)
        manager.check()  # told once
        assert [path.name for path in manager.directory.iterdir()] == ["step-00000001"]
    save(manager, 4, 4)
    assert manager.latest()[0].step == 4


@contextlib.contextmanager
def limited_file_size(bytes_):
    """Stands in for a full disk where tests may not mount one: the operating system refuses the write."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_one_line_and_leaves_the_checkpoints_there_are(small_disk):
    manager = CheckpointManager(small_disk(kilobytes=20) / "checkpoints", keep=2)
    save(manager, 1, 1)
    with pytest.raises(InputError, match=r"step-00000002.*: cannot be written: .*No space left on device.*; free spac"):
        save(manager, 2, 2)
    checkpoint, warnings = manager.latest()
    assert checkpoint.step == 1 and warnings == []
    small_disk(kilobytes=60)
    save(manager, 2, 2)
    assert manager.latest()[0].step == 2
