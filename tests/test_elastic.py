"""Ranks are lost and the run goes on with those that are left: Horovod's elastic driver, "hosts" of one machine."""

import os
import signal
import subprocess

import pytest
from launchers import environment, needs_horovod
from pretraining_runs import NO_DROPOUT, assert_close_weights, command, finish, ranks_of, start, wait_for_line

from tf_bert.cli import main
from tf_bert.run_log import read_metrics

SETTINGS = {
    **NO_DROPOUT,
    "training.num_train_steps": 120,
    "training.global_batch_size": 12,
    "training.microbatch_size": 2,
    "cadence.checkpoint_every": 4,
    "optimizer.learning_rate": "1e-3",
}


def start_elastic(hosts, data_dir, output_dir, **changes):
    script = output_dir.parent / "hosts.sh"
    script.write_text("#!/bin/sh\n" + "".join(f"echo {host}\n" for host in hosts))
    script.chmod(0o755)
    ranks = sum(int(host.partition(":")[2]) for host in hosts)
    launcher = ["horovodrun", "-np", str(ranks), "--min-np", "1", "--max-np", str(ranks), "--disable-cache"]
    launcher += ["--host-discovery-script", str(script), "--network-interfaces", "lo"]
    return subprocess.Popen(
        [*launcher, *command(data_dir, output_dir, **changes), "--elastic"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(PYTHONUNBUFFERED="1", TF_CPP_MIN_LOG_LEVEL="2"),
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def alone(data_dir, tmp_path_factory):
    """The same run on one rank, from beginning to end."""
    output_dir = tmp_path_factory.mktemp("alone") / "run"
    finish(start(data_dir, output_dir, **SETTINGS))
    return output_dir


@needs_horovod
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_lost_rank_shrinks_the_world_and_the_weights_end_the_same(alone, data_dir, tmp_path):
    """The first of them, which saves and logs."""
    process = start_elastic(["localhost:1", "127.0.0.1:1"], data_dir, tmp_path / "run", **SETTINGS)
    before = wait_for_line(process, "step 10/")
    os.kill(ranks_of(tmp_path / "run")[0], signal.SIGKILL)
    after = process.communicate(timeout=300)[0]
    assert process.returncode == 0, after
    assert "(3 x 2 a rank)" in before and "(6 x 2 a rank)" in after
    assert "goes on from step " in after
    assert [e["step"] for e in read_metrics(tmp_path / "run" / "metrics.jsonl") if "train/loss" in e][-1] == 120
    assert_close_weights(tmp_path / "run", alone, 1e-6)


def test_without_an_elastic_launcher_it_is_refused(data_dir, tmp_path, capsys):
    assert main([*command(data_dir, tmp_path / "run")[3:], "--elastic"]) == 2
    assert "--elastic: this process was not started by an elastic launcher; start it with horovodrun --min-np 1" in (
        capsys.readouterr().err
    )
