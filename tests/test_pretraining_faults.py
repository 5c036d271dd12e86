"""What clusters do to a run: it is killed, stopped, starved of disk and of ranks, and ends with the same weights."""

import os
import random
import re
import shutil
import signal
import time

import keras
import pytest
from launchers import LAUNCHERS, needs_horovod, skip_without
from pretraining_runs import (
    NO_DROPOUT,
    STEPS,
    assert_close_weights,
    assert_same_run,
    command,
    finish,
    kill,
    ranks_of,
    start,
    wait_for,
    wait_for_line,
)

from tf_bert.cli import main
from tf_bert.training.checkpoint import CheckpointManager

# Long enough to be met by a signal in the middle, on a busy machine too.
LONG = {"training.num_train_steps": 150, "cadence.evaluate_every": 75}
END_SECONDS = 60  # within which all ranks end when one has; mostly the launchers' own patience


@pytest.fixture(scope="module")
def twin(data_dir, tmp_path_factory):
    """The directory of an uninterrupted run on one rank."""
    output_dir = tmp_path_factory.mktemp("one") / "twin"
    finish(start(data_dir, output_dir))
    return output_dir


@pytest.fixture(scope="module")
def twin_of_two(data_dir, tmp_path_factory):
    """The same on two ranks, and longer."""
    output_dir = tmp_path_factory.mktemp("two") / "twin"
    finish(start(data_dir, output_dir, "local", **LONG))
    return output_dir


def newest_step(output_dir):
    checkpoint, warnings = CheckpointManager(output_dir / "checkpoints", keep=3).latest()
    assert warnings == []
    return checkpoint.step


def our_lines(printed):
    """What we say when a run ends: everything behind our name, without a launcher's own words."""
    return [line for _, line in re.findall(r"tf-bert( pretrain)?: (.*)", printed)]


def assert_all_end(process, output_dir):
    """Waits for the launcher; returns what it printed."""
    printed = process.communicate(timeout=END_SECONDS)[0]
    assert process.returncode != 0
    assert ranks_of(output_dir) == {}
    return printed


# --- one rank ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_ten_times_at_random_it_ends_bit_for_bit_the_same(twin, data_dir, tmp_path):
    rng = random.Random(11)
    output_dir = tmp_path / "killed"
    for _ in range(10):
        process = start(data_dir, output_dir)
        wait_for_line(process, ": 41,858 parameters")  # starting takes most of the time
        time.sleep(rng.uniform(0.0, 3.0))
        kill(process)
    finish(start(data_dir, output_dir))
    assert_same_run(output_dir, twin)


@pytest.mark.slow
def test_a_deadline_that_is_over_before_the_save_leaves_the_last_checkpoint(twin, data_dir, tmp_path):
    output_dir = tmp_path / "late"
    process = start(data_dir, output_dir, **{"cadence.stop_deadline_seconds": 1e-6, "cadence.checkpoint_every": 15})
    wait_for_line(process, "step 20/")
    # It is saved beside the steps, and may not be there yet.
    wait_for((output_dir / "checkpoints" / "step-00000015").exists, process)
    process.send_signal(signal.SIGTERM)
    lines = our_lines(process.communicate()[0])
    assert process.returncode == 1
    assert lines == [
        "ended 1e-06 seconds after SIGTERM, without saving; the last complete checkpoint stands, and the same command "
        "goes on from it"
    ]
    assert newest_step(output_dir) % 15 == 0
    finish(start(data_dir, output_dir))
    assert_same_run(output_dir, twin)


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "truncated tensors": ("tensors.safetensors", lambda path: os.truncate(path, 1000), "found 1000 bytes, expected"),
    "flipped byte": ("tensors.safetensors", flip_a_byte, "its content is not what was written (SHA-256 differs)"),
    "empty manifest": ("manifest.json", lambda path: os.truncate(path, 0), "is not valid JSON"),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_passed_over_and_made_again(damage, twin, data_dir, tmp_path, capsys):
    output_dir = tmp_path / "damaged"
    shutil.copytree(twin, output_dir)
    name, spoil, message = DAMAGES[damage]
    spoil(output_dir / "checkpoints" / f"step-{STEPS:08d}" / name)
    assert main(command(data_dir, output_dir)[3:]) == 0
    printed = capsys.readouterr().out
    assert "passing over a damaged checkpoint: " in printed and message in printed
    assert f"goes on from step {STEPS - 4}" in printed
    assert newest_step(output_dir) == STEPS
    assert_same_run(output_dir, twin)


@pytest.mark.slow
def test_a_disk_that_is_full_ends_the_run_in_one_line_and_with_room_it_goes_on(twin, data_dir, tmp_path, small_disk):
    # Room for the first checkpoint of about 0.5 MB, not for the second.
    output_dir = small_disk(kilobytes=1000) / "run"
    process = start(data_dir, output_dir)
    (line,) = our_lines(process.communicate()[0])
    assert process.returncode == 1
    assert line.startswith(f"{output_dir}/checkpoints/step-00000008") and "No space left on device" in line
    assert newest_step(output_dir) == 4
    small_disk(kilobytes=20_000)
    assert "goes on from step 4:" in finish(start(data_dir, output_dir))
    assert_same_run(output_dir, twin)


# --- several ranks -----------------------------------------------------------------------------------------------


@needs_horovod
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_ranks_stopped_killed_and_frozen_end_bit_for_bit_the_same(launcher, twin_of_two, data_dir, tmp_path):
    """Dropout is on, and of each rank its own: a checkpoint holds it for all."""
    skip_without(launcher)
    output_dir = tmp_path / "run"
    settings = {**LONG, "training.rank_timeout_seconds": 10}

    # Under Gloo one rank alone hears of the end, mpirun passes it on; all save and leave at the same step.
    process = start(data_dir, output_dir, launcher, **settings, **{"cadence.checkpoint_every": 1000})
    wait_for_line(process, "step 5/")
    if launcher == "gloo":
        os.kill(ranks_of(output_dir)[1], signal.SIGTERM)
    else:
        process.send_signal(signal.SIGUSR1)
    (line,) = our_lines(assert_all_end(process, output_dir))
    stopped_at = newest_step(output_dir)
    heard = "a signal to another rank" if launcher == "gloo" else "SIGUSR1"
    assert line.startswith(f"stopped by {heard} after step {stopped_at}; its checkpoint is in")

    # The rank that saves is killed while it does.
    process = start(data_dir, output_dir, launcher, **settings)
    wait_for(lambda: list(output_dir.glob("checkpoints/*.partial/tensors.safetensors")), process)
    os.kill(ranks_of(output_dir)[0], signal.SIGKILL)
    printed = assert_all_end(process, output_dir)
    assert f"goes on from step {stopped_at}:" in printed
    killed_at = newest_step(output_dir)

    # The other one freezes, as a machine does that is out of reach.
    process = start(data_dir, output_dir, launcher, **settings)
    next_save = output_dir / "checkpoints" / f"step-{killed_at // 4 * 4 + 4:08d}"
    wait_for(next_save.exists, process)
    frozen = ranks_of(output_dir)[1]
    os.kill(frozen, signal.SIGSTOP)
    printed = assert_all_end(process, output_dir)
    assert f"goes on from step {killed_at}:" in printed
    (line,) = our_lines(printed)
    assert line.startswith("ended after 10 seconds without a step (training.rank_timeout_seconds, ten times as long be")

    finish(start(data_dir, output_dir, launcher, **settings))
    assert_same_run(output_dir, twin_of_two)


@needs_horovod
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_changes_from_one_rank_to_two_and_back_ends_with_the_same_weights(data_dir, tmp_path):
    settings = {**NO_DROPOUT, "optimizer.learning_rate": "1e-3"}
    alone, changing = tmp_path / "alone", tmp_path / "changing"
    finish(start(data_dir, alone, **settings))
    for launcher, line in ((None, "step 10/"), ("local", "step 25/")):
        process = start(data_dir, changing, launcher, **settings)
        wait_for_line(process, line)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    finish(start(data_dir, changing, **settings))
    assert_close_weights(changing, alone, 1e-6)


@needs_horovod
@pytest.mark.slow
def test_what_one_rank_cannot_read_ends_all_of_them_in_one_line(data_dir, tmp_path):
    broken, output_dir = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data_dir, broken)
    shard = sorted(broken.glob("train-*"))[0]
    flip_a_byte(shard)
    process = start(broken, output_dir, "local")
    (line,) = our_lines(assert_all_end(process, output_dir))
    assert process.returncode == 1
    assert line.startswith(f"{shard}: found ")


@needs_horovod
@pytest.mark.slow
def test_what_no_rank_can_use_is_said_once(data_dir, tmp_path):
    process = start(data_dir, tmp_path / "run", "local", **{"model.max_position_embeddings": 16})
    (line,) = our_lines(process.communicate()[0])
    assert process.returncode == 2
    assert "more than model.max_position_embeddings 16; raise the latter" in line


@needs_horovod
@pytest.mark.slow
def test_a_checkpoint_that_only_the_first_rank_sees_as_foreign_ends_all(data_dir, tmp_path, twin):
    output_dir = tmp_path / "run"
    shutil.copytree(twin, output_dir)
    for checkpoint in (output_dir / "checkpoints").iterdir():
        shutil.rmtree(checkpoint)
    manager = CheckpointManager(output_dir / "checkpoints", keep=1)
    manager.save(4, [keras.Variable(1.0, name="foreign")], {})
    manager.wait()
    process = start(data_dir, output_dir, "local")
    (line,) = our_lines(assert_all_end(process, output_dir))
    assert "step-00000004: holds 1 tensors, expected" in line


@needs_horovod
@pytest.mark.slow
def test_gradients_that_travel_in_16_bits_train_about_the_same_model(data_dir, tmp_path):
    settings = {**NO_DROPOUT, "training.num_train_steps": 12, "optimizer.learning_rate": "1e-3"}
    exact, rounded = tmp_path / "float32", tmp_path / "float16"
    finish(start(data_dir, exact, "local", **settings))
    finish(start(data_dir, rounded, "local", **settings, **{"training.all_reduce_precision": "float16"}))
    # Weights are of the order of 0.02 to 1 and have moved by up to 12 x 1e-3.
    assert_close_weights(rounded, exact, 1e-3)
    with pytest.raises(AssertionError):
        assert_close_weights(rounded, exact, 0.0)
