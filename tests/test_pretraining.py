"""`tf-bert pretrain`: what a run writes, that resuming is exact, what is refused."""

import json
import os
import random
import shutil
import signal
import time

import numpy as np
import pytest
from launchers import needs_horovod, run_ranks
from pretraining_runs import (
    NO_DROPOUT,
    STEPS,
    assert_close_weights,
    assert_same_run,
    command,
    configure,
    finish,
    start,
    wait_for,
    wait_for_line,
    weights,
)
from safetensors.numpy import load_file

from tf_bert.cli import main
from tf_bert.errors import InputError, UsageError
from tf_bert.models.directory import load_model
from tf_bert.pretraining import pretrain
from tf_bert.run_log import read_metrics
from tf_bert.training.checkpoint import CheckpointManager


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    """The directory and the console output of an uninterrupted run."""
    output_dir = tmp_path_factory.mktemp("runs") / "finished"
    return output_dir, finish(start(data_dir, output_dir))


# --- what a run leaves -------------------------------------------------------------------------------------------


def test_a_run_learns_and_leaves_everything_to_look_at(finished):
    output_dir, printed = finished
    assert {path.name for path in output_dir.iterdir()} == {
        "config.yaml",
        "run.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "model",
        "report.png",
    }
    metrics = read_metrics(output_dir / "metrics.jsonl")
    validation = {entry["step"]: entry for entry in metrics if "validation/masked_lm_loss" in entry}
    assert sorted(validation) == [0, 20, 40]
    # An untrained model guesses about evenly among its 640 tokens.
    assert abs(validation[0]["validation/masked_lm_loss"] - np.log(640)) < 0.1
    assert validation[40]["validation/masked_lm_loss"] < validation[0]["validation/masked_lm_loss"] - 0.3
    train = [entry for entry in metrics if "train/loss" in entry]
    assert [entry["step"] for entry in train] == list(range(5, 41, 5))
    # The k-th update has k - 1 behind it: after the warmup of 4 the rate falls linearly over 36 steps.
    assert train[3]["train/learning_rate"] == pytest.approx(3e-3 * (40 - 19) / 36, rel=1e-5)
    rows = [16 * entry["step"] for entry in train]
    fills = [entry["train/tokens_seen"] / (32 * count) for entry, count in zip(train, rows, strict=True)]
    assert all(0.9 < fill <= 1.0 for fill in fills)
    assert (
        "step 5/40 | loss " in printed
        and " tokens/s, " in printed
        and "% of peak | rate " in printed
        and "validation at step 40: masked LM" in printed
    )
    assert printed.splitlines()[-3:] == [
        f"model directory  {output_dir}/model",
        f"report           {output_dir}/report.png",
        f"tensorboard      tensorboard --logdir {output_dir}",
    ]


def test_the_report_is_a_picture_with_curves(finished):
    from matplotlib import image

    picture = image.imread(finished[0] / "report.png")[..., :3]
    assert picture.shape[0] > 500 and picture.shape[1] > 800
    # Lines are drawn in colour on white: some pixels, by far not most.
    coloured = np.mean(np.ptp(picture, axis=-1) > 0.2)
    assert 0.002 < coloured < 0.2


def test_tensorboard_shows_the_configuration_and_the_models_guesses(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished[0] / "tensorboard")).Reload()
    (settings_text,) = events.Tensors("config")[0].tensor_proto.string_val
    assert b"hidden_size: 32" in settings_text
    guesses = events.Tensors("validation/guesses")
    assert [guess.step for guess in guesses] == [0, 20, 40]
    lines = guesses[-1].tensor_proto.string_val[0].decode().splitlines()
    assert lines[0] == "| text | right | guesses |" and len(lines) > 6
    assert all("**[?]**" in line and line.count("%") >= 3 for line in lines[2:])


def test_the_model_directory_opens_and_is_the_last_checkpoint(finished):
    output_dir, _ = finished
    model = load_model(output_dir / "model")
    checkpoint, _ = CheckpointManager(output_dir / "checkpoints", keep=3).latest()
    tensors = load_file(checkpoint.path / "tensors.safetensors")
    assert checkpoint.step == STEPS
    for variable in model.trainable_variables:
        np.testing.assert_array_equal(variable, tensors[variable.path])
    lineage = json.loads((output_dir / "model" / "lineage.json").read_text())
    assert lineage["pretraining"]["training"]["num_train_steps"] == STEPS
    assert lineage["data"]["sources"][0]["path"].endswith("articles.txt")
    assert (output_dir / "model" / "vocab.txt").read_text().count("\n") == 600


def test_a_finished_run_started_again_from_its_own_config_changes_nothing(finished, data_dir, tmp_path):
    output_dir = tmp_path / "again"
    shutil.copytree(finished[0], output_dir)
    before = weights(output_dir)
    assert main(["pretrain", "--config", str(output_dir / "config.yaml"), "--output_dir", str(output_dir)]) == 0
    after = weights(output_dir)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert (output_dir / "metrics.jsonl").read_text() == (finished[0] / "metrics.jsonl").read_text()


# --- resuming ----------------------------------------------------------------------------------------------------


def test_killed_at_random_and_started_again_it_ends_bit_for_bit_the_same(finished, data_dir, tmp_path):
    """Dropout is on: its random state is a part of the checkpoint."""
    rng = random.Random(3)
    output_dir = tmp_path / "killed"
    for _ in range(3):
        process = start(data_dir, output_dir)
        wait_for_line(process, "step ")
        wait_for(
            lambda: any(output_dir.glob("checkpoints/step-????????")), process
        )  # the first: on its way to the disk
        time.sleep(rng.uniform(0.0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert "goes on from step" in finish(start(data_dir, output_dir))
    assert_same_run(output_dir, finished[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_saves_and_leaves_and_the_same_command_goes_on(number, finished, data_dir, tmp_path):
    output_dir = tmp_path / "stopped"
    process = start(data_dir, output_dir, **{"cadence.checkpoint_every": 1000})
    wait_for_line(process, "step 10/")
    process.send_signal(number)
    printed = process.communicate()[0]
    assert process.returncode == 1
    message = printed.splitlines()[-1]
    checkpoint, _ = CheckpointManager(output_dir / "checkpoints", keep=3).latest()
    assert 10 <= checkpoint.step < STEPS
    assert f"tf-bert pretrain: stopped by {number.name} after step {checkpoint.step}; its checkpoint is in" in message
    assert f"goes on from step {checkpoint.step}" in finish(start(data_dir, output_dir))
    assert_same_run(output_dir, finished[0])


def test_a_damaged_newest_checkpoint_is_passed_over(finished, data_dir, tmp_path, capsys):
    output_dir = tmp_path / "damaged"
    shutil.copytree(finished[0], output_dir)
    newest = output_dir / "checkpoints" / f"step-{STEPS:08d}" / "tensors.safetensors"
    os.truncate(newest, 1000)
    assert main(command(data_dir, output_dir)[3:]) == 0
    printed = capsys.readouterr().out
    assert "passing over a damaged checkpoint: " in printed and "found 1000 bytes, expected" in printed
    assert f"goes on from step {STEPS - 4}" in printed
    assert_same_run(output_dir, finished[0])


@needs_horovod
def test_two_ranks_train_the_same_model_as_one(data_dir, tmp_path):
    no_dropout = {**NO_DROPOUT, "training.num_train_steps": 12}
    alone, together = tmp_path / "alone", tmp_path / "together"
    pretrain(configure(data_dir, alone, **no_dropout))
    run_ranks("gloo", command(data_dir, together, **no_dropout))
    assert_close_weights(alone, together, 1e-5)
    logs = [read_metrics(directory / "metrics.jsonl") for directory in (alone, together)]
    assert [entry["step"] for entry in logs[0]] == [entry["step"] for entry in logs[1]]
    assert logs[0][-1]["validation/loss"] == pytest.approx(logs[1][-1]["validation/loss"], rel=1e-5)


@pytest.mark.slow
def test_a_time_budget_ends_the_run_and_counts_over_restarts(data_dir, tmp_path):
    budget = {
        "training.num_train_steps": 1_000_000,
        "training.time_budget_hours": 8 / 3600,
        "optimizer.num_warmup_steps": 0,
        "optimizer.schedule": "time_budget",
        "optimizer.warmup_hours": 2 / 3600,
        "cadence.checkpoint_every": 50,
        "cadence.evaluate_every": 1_000_000,
    }
    process = start(data_dir, tmp_path / "run", **budget)
    wait_for_line(process, "step 60/")
    process.send_signal(signal.SIGTERM)
    process.communicate()
    log = [entry for entry in finish_and_read(data_dir, tmp_path / "run", budget) if "train/hours" in entry]
    hours = np.array([entry["train/hours"] for entry in log])
    assert (np.diff(hours) > 0).all() and hours[-2] < 8 / 3600 <= hours[-1] < 9 / 3600
    # The rate of an update follows from the hours before it: those logged, less the step's own.
    rates = np.array([entry["train/learning_rate"] for entry in log])
    triangle = 3e-3 * np.minimum(hours * 3600 / 2, (8 - hours * 3600) / 6)
    assert np.abs(rates - triangle).max() < 3e-4 and rates.max() > 2.5e-3 and rates[-1] < 2e-4
    assert finish_and_read(data_dir, tmp_path / "run", budget)[-1]["step"] == log[-1]["step"]


def finish_and_read(data_dir, output_dir, settings):
    finish(start(data_dir, output_dir, **settings))
    assert (output_dir / "model" / "model.safetensors").exists()
    return read_metrics(output_dir / "metrics.jsonl")


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.vocab_size": 500},
            r"model.vocab_size 500 is smaller than the vocabulary of .*, 600 tokens; set model.vocab_size to 600 or m",
        ),
        (
            {"model.max_position_embeddings": 16},
            r"hold max_seq_length 32 tokens, more than model.max_position_embeddings 16; raise the latter",
        ),
        ({"data.data_dir": "absent"}, r"absent/manifest.json: not found, expected the manifest"),
    ],
)
def test_what_does_not_fit_the_data_is_refused_before_anything_is_written(data_dir, tmp_path, changes, message):
    with pytest.raises((UsageError, InputError), match=message):
        pretrain(configure(data_dir, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_an_output_directory_that_holds_something_else_is_refused(data_dir, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"holds files but no run.json of a run, e.g. thesis.tex; choose an empty"):
        pretrain(configure(data_dir, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.hidden_size": 64}, r"holds a run with model.hidden_size 32, found 64; choose another output_dir"),
        ({"training.seed": 7}, r"holds a run with training.seed 12345, found 7"),
        ({"data.masked_lm_prob": 0.3}, r"holds a run with data.masked_lm_prob 0.15, found 0.3"),
    ],
)
def test_another_runs_directory_is_refused_by_what_differs(finished, data_dir, changes, message):
    with pytest.raises(UsageError, match=message):
        pretrain(configure(data_dir, finished[0], **changes))


def test_a_shard_that_does_not_match_its_manifest_ends_the_run_by_name(data_dir, tmp_path):
    broken = tmp_path / "data"
    shutil.copytree(data_dir, broken)
    shard = sorted(broken.glob("train-*"))[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    message = rf"{shard.name}: found {len(content)} bytes with CRC-32 [0-9a-f]+, expected {len(content)} with [0-9a-f]+"
    with pytest.raises(InputError, match=message):
        pretrain(configure(broken, tmp_path / "run"))
