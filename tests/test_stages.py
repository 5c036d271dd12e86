"""A run in stages: short rows, then long ones, in one configuration and with one command."""

import dataclasses
import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from launchers import environment
from pretraining_runs import assert_same_run, configure, kill, wait_for_line
from safetensors.numpy import load_file

from tf_bert.cli import main
from tf_bert.config import PrepareConfig, PretrainConfig, from_dict, stage_runs, to_dict
from tf_bert.errors import UsageError
from tf_bert.pretraining_data.build import build
from tf_bert.run_log import read_metrics

SHORT, LONG = 12, 8  # steps
# One schedule over both stages, and the optimizer's moments carried from the one to the other.
SCHEDULE = {"schedule_steps": SHORT + LONG}
STAGES = [
    {"name": "short", "training": {"num_train_steps": SHORT}, "optimizer": SCHEDULE},
    {
        "name": "long",
        "optimizer_state": "carry",
        "training": {"num_train_steps": LONG, "global_batch_size": 8, "microbatch_size": 4},
        "optimizer": SCHEDULE | {"schedule_start": SHORT},
    },
]


@pytest.fixture(scope="module")
def long_data(data_dir, tmp_path_factory):
    """The same texts in rows of 40 tokens instead of 32."""
    output_dir = tmp_path_factory.mktemp("long") / "prepared"
    build(
        PrepareConfig(
            input=str(data_dir.parent / "articles.txt"),
            output_dir=str(output_dir),
            vocab=str(data_dir / "vocab.txt"),
            max_seq_length=40,
            validation_fraction=0.2,
            shard_megabytes=0.02,
        )
    )
    return output_dir


def write_config(directory, data_dir, long_data, **second):
    """The configuration file of a run in two stages."""
    base = to_dict(configure(data_dir, directory / "run", **{"cadence.checkpoint_every": 3, "cadence.log_every": 1}))
    stages = [STAGES[0], {**STAGES[1], "data": {"data_dir": str(long_data)}, **second}]
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(base | {"stages": stages}))
    return path


def start(config):
    return subprocess.Popen(
        [sys.executable, "-m", "tf_bert.cli", "pretrain", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(PYTHONUNBUFFERED="1"),
        start_new_session=True,
    )


def last_checkpoint(stage_dir):
    return load_file(max(stage_dir.glob("checkpoints/step-*")) / "tensors.safetensors")


@pytest.fixture(scope="module")
def twin(data_dir, long_data, tmp_path_factory):
    """A run that nothing interrupted, and what it printed."""
    directory = tmp_path_factory.mktemp("twin")
    process = start(write_config(directory, data_dir, long_data))
    printed = process.communicate(timeout=240)[0]
    assert process.returncode == 0, printed
    return directory / "run", printed


def test_the_second_stage_goes_on_with_weights_moments_and_schedule(twin):
    run, printed = twin
    assert f"stage short, in {run}/short" in printed and f"stage long, in {run}/long" in printed
    logs = [
        [entry for entry in read_metrics(run / stage / "metrics.jsonl") if "train/loss" in entry]
        for stage in ("short", "long")
    ]
    assert [[entry["step"] for entry in log] for log in logs] == [list(range(1, SHORT + 1)), list(range(1, LONG + 1))]
    rates = [entry["train/learning_rate"] for log in logs for entry in log]
    steps = np.arange(SHORT + LONG)
    np.testing.assert_allclose(rates, 3e-3 * np.where(steps < 4, steps / 4, (20 - steps) / 16), rtol=1e-5)
    ends = [last_checkpoint(run / stage) for stage in ("short", "long")]
    assert [int(end["adamw/iteration"]) for end in ends] == [SHORT, SHORT + LONG]
    # Held-out rows of 40 tokens differ from those of 32: the loss is near, and far from an untrained model's.
    first = next(entry for entry in read_metrics(run / "long" / "metrics.jsonl") if "validation/loss" in entry)
    last = read_metrics(run / "short" / "metrics.jsonl")[-1]
    assert first["step"] == 0
    assert abs(first["validation/masked_lm_loss"] - last["validation/masked_lm_loss"]) < 0.1
    assert last["validation/masked_lm_loss"] < np.log(640) - 0.15


def test_run_again_it_finds_every_stage_done(twin, capsys):
    run, _ = twin
    assert main(["pretrain", "--config", str(run.parent / "config.yaml")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"stage short: is done, see {run}/short",
        f"stage long: is done, see {run}/long",
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_in_either_stage_it_ends_bit_for_bit_the_same(twin, data_dir, long_data, tmp_path):
    rng = random.Random(3)
    config = write_config(tmp_path, data_dir, long_data)
    # Before the first step of a stage too: then it starts from the stage before once more.
    for line in ("stage short, ", f"step 5/{SHORT}", "stage long, ", f"step 5/{LONG}"):
        process = start(config)
        wait_for_line(process, line)
        time.sleep(rng.uniform(0.0, 0.5))
        kill(process)
    process = start(config)
    assert "stage short: is done" in process.communicate(timeout=240)[0]
    for stage in ("short", "long"):
        assert_same_run(tmp_path / "run" / stage, twin[0] / stage)


@pytest.mark.slow
def test_an_optimizer_that_is_reset_begins_anew(twin, data_dir, long_data, tmp_path):
    schedule = {"optimizer_state": "reset", "optimizer": {"num_warmup_steps": 2, "learning_rate": 1e-3}}
    process = start(write_config(tmp_path, data_dir, long_data, **schedule))
    printed = process.communicate(timeout=240)[0]
    assert process.returncode == 0, printed
    run = tmp_path / "run"
    assert int(last_checkpoint(run / "long")["adamw/iteration"]) == LONG
    rates = [e["train/learning_rate"] for e in read_metrics(run / "long" / "metrics.jsonl") if "train/loss" in e]
    np.testing.assert_allclose(rates, 1e-3 * np.array([0, 1 / 2, *(np.arange(6, 0, -1) / 6)]), rtol=1e-5)
    # The weights come from the stage before.
    validation = [e for e in read_metrics(run / "long" / "metrics.jsonl") if "validation/loss" in e]
    carried = [e for e in read_metrics(twin[0] / "long" / "metrics.jsonl") if "validation/loss" in e]
    assert validation[0] == carried[0]


def test_a_damaged_end_of_the_stage_before_is_told(twin, data_dir, long_data, tmp_path, capsys):
    config = write_config(tmp_path, data_dir, long_data)
    (tmp_path / "run").mkdir()
    stage_dir = tmp_path / "run" / "short"
    shutil.copytree(twin[0] / "short", stage_dir)
    tensors = max(stage_dir.glob("checkpoints/step-*")) / "tensors.safetensors"
    size = tensors.stat().st_size
    os.truncate(tensors, 1000)
    assert main(["pretrain", "--config", str(config)]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"{stage_dir}: the next stage starts from its last checkpoint (" in message
    assert f"found 1000 bytes, expected {size}" in message
    assert message.endswith(f"remove {stage_dir}/model and run again, and the stage is ended once more")


# --- the configuration ---------------------------------------------------------------------------------------


def staged(*stages, **base):
    return from_dict(PretrainConfig, {"output_dir": "runs/x", **base, "stages": list(stages)}, "test")


def test_a_stage_is_the_run_with_other_settings():
    config = staged(
        {"name": "a", "training": {"num_train_steps": 900_000}},
        {"name": "b", "optimizer_state": "carry", "data": {"data_dir": "long"}, "cadence": {"log_every": 7}},
        {"name": "c", "optimizer": {"name": "lamb"}},
        training={"seed": 5},
    )
    runs = stage_runs(config)
    assert [run.name for run in runs] == ["a", "b", "c"]
    assert [run.config.output_dir for run in runs] == ["runs/x/a", "runs/x/b", "runs/x/c"]
    assert [run.starts_from for run in runs] == [None, "runs/x/a", "runs/x/b"]
    assert [run.carries_optimizer for run in runs] == [False, True, False]
    assert [run.earlier_updates for run in runs] == [0, 900_000, 0]
    whole = dataclasses.replace(config, stages=())
    replace = dataclasses.replace
    assert runs[1].config == replace(
        whole,
        output_dir="runs/x/b",
        data=replace(whole.data, data_dir="long"),
        cadence=replace(whole.cadence, log_every=7),
    )
    assert runs[2].config.optimizer.name == "lamb" and runs[2].config.training.seed == 5
    (only,) = stage_runs(whole)
    assert only.config == whole and not only.name


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            [{"name": "a"}, {"name": "a"}],
            "stages.1: the name a is taken by an earlier stage; choose another",
        ),
        (
            [{"name": "a", "optimizer_state": "carry"}],
            "stages.0: has optimizer_state carry, but nothing comes before it; leave it out",
        ),
        (
            [{"name": "a", "training": {"num_steps": 5}}],
            "stages.0 (a): unknown key 'training.num_steps'; did you mean 'training.num_train_steps'?",
        ),
        (
            [{"name": "a", "training": {"num_train_steps": 5}}],
            "stages.0 (a): optimizer.num_warmup_steps 10000 exceeds training.num_train_steps 5; shorten the warmup",
        ),
        ([{"name": "a/b"}], "test: stages.0.name: found 'a/b': "),
        ([{"name": "a", "model": {}}], "test: unknown key 'stages.0.model'; "),
    ],
)
def test_stages_that_do_not_fit_are_refused(stages, message):
    with pytest.raises(UsageError) as caught:
        stage_runs(staged(*stages))
    assert str(caught.value).startswith(message)


def test_a_schedule_that_ends_before_the_run_is_refused():
    with pytest.raises(UsageError, match=r"schedule_steps 100000 ends before the run, .* raise .* to 1900000$"):
        from_dict(PretrainConfig, {"optimizer": {"schedule_steps": 100_000, "schedule_start": 900_000}}, "test")
