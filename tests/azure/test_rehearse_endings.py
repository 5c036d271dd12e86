"""How rehearsals end: as the job does, by Ctrl-C, or preempted and started again, as often as asked."""

import re
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from launchers import environment, needs_horovod
from pretraining_runs import assert_same_run, settings
from rehearsed_jobs import DATASTORE

from tf_bert.azure.local_nodes import MARK, _marked_processes
from tf_bert.azure.preemption import Preemptions
from tf_bert.commands.azure_rehearsal import rehearse
from tf_bert.errors import InputError, OtherRankFailed
from tf_bert.files import sha256_of
from tf_bert.run_log import read_metrics


@pytest.mark.usefixtures("needs_mpirun")
def test_the_exit_code_is_the_jobs(mlflow_is_imported, write_job, run_job, capsys):
    with pytest.raises(OtherRankFailed) as caught:
        run_job(
            write_job("echo rank $OMPI_COMM_WORLD_RANK && exit $((3 * OMPI_COMM_WORLD_RANK)) #", processes_per_node=2)
        )
    assert caught.value.exit_code == 3
    printed = capsys.readouterr().out
    assert "A job: ended with exit code 3; what it printed is in " in printed
    assert {"rank 0", "rank 1"} <= set(printed.splitlines())


def test_a_signal_that_ends_the_job_is_its_exit_code(write_job, run_job):
    with pytest.raises(OtherRankFailed) as caught:
        run_job(write_job("kill -SEGV $$ #"))
    assert caught.value.exit_code == 128 + signal.SIGSEGV


@pytest.mark.usefixtures("needs_mpirun")
def test_a_preempted_job_starts_anew_with_nothing_but_its_outputs(mlflow_is_imported, write_job, run_job, capsys):
    # Another node's rank does nothing, and would outlive the test if it were not killed too.
    path = write_job("[ $OMPI_COMM_WORLD_RANK = 1 ] && exec sleep 3; exec python count.py", nodes=2)
    reh = run_job(path, "--preempt", 2, "--seed", 9)
    attempts = [f"{reh.resolve()}/jobs/job/attempt-{number}" for number in (1, 2, 3)]
    output = reh / "datastores/bert/runs/one"
    assert (output / "attempts").read_text().splitlines() == [f"{attempt}/node-0" for attempt in attempts]
    assert (output / "done").read_text() == "20"
    for attempt in attempts:
        assert _marked_processes(f"{MARK}={attempt}/cap/data-capability/wd".encode()) == []
    printed = [
        [line.split(" |")[0] for line in Path(attempt, "log.txt").read_text().splitlines() if line.startswith("step ")]
        for attempt in attempts
    ]
    assert printed[0][0] == "step 1/20" and printed[2][-1] == "step 20/20"
    assert all("step 20/20" not in steps for steps in printed[:2])
    told = capsys.readouterr().out.splitlines()
    assert told.count("preempted: every process was killed; 1 more to come") == 1
    assert told.count("preempted: every process was killed; 0 more to come") == 1


def test_a_job_that_is_done_before_its_kill_fails_the_rehearsal(write_job, run_job):
    message = (
        "the job was done before it could be preempted, with 1 of 1 kills to come; let it take more steps, or print"
    )
    with pytest.raises(InputError, match=message):
        run_job(write_job("echo step 1,000,000"), "--preempt", 1)


def kills(preemptions):
    """Shares of the steps at which the attempts of a run are killed, one a line every 10 seconds, and the pauses."""
    found = []
    while preemptions.left:
        preemptions.begin_attempt()
        for step in range(0, 2001, 20):
            pause = preemptions.pause_until_kill(f"step {step:,}/2,000 | loss 1.0", now=step / 2)
            if pause is not None:
                found.append((step / 2000, pause))
                preemptions.killed()
                break
    return found


def test_moments_of_kills_are_drawn_and_come_in_the_midst_of_steps():
    found = kills(Preemptions(200, seed=7))
    shares, pauses = zip(*found, strict=True)
    assert list(shares) == sorted(shares) and 0.0 < shares[0] < 0.1 and 0.7 < shares[-1] < 0.82
    assert statistics.mean(shares) == pytest.approx(0.405, abs=0.05)
    assert min(pauses) >= 0.0 and max(pauses) <= 10.0 and statistics.mean(pauses) == pytest.approx(5.0, abs=0.8)
    assert kills(Preemptions(200, seed=7)) == found != kills(Preemptions(200, seed=8))


@pytest.mark.parametrize("line", ["step 1 of 10", "a step 10/10", "steps 10/10", ""])
def test_other_lines_are_no_steps(line):
    assert Preemptions(1, seed=0).pause_until_kill(line, 0.0) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_everything(number, write_job, tmp_path):
    path = write_job("echo here && sleep 300 #", nodes=2)
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "tf_bert.cli", "azure", "rehearse", str(path), "--output", str(tmp_path / "reh")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    until(process, 2, "here")
    mark = f"{MARK}={tmp_path.resolve()}/reh/jobs/job/attempt-1/cap/data-capability/wd".encode()
    assert len(_marked_processes(mark)) >= 5  # mpirun, its daemons, and the ranks
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and errors.startswith("tf-bert azure rehearse: interrupted; ")
    assert _marked_processes(mark) == []


def until(process, count, beginning):
    """Returns when a process has printed so many lines with this beginning."""
    while count:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        count -= line.startswith(beginning)


# --- the real thing ------------------------------------------------------------------------------------------------


@needs_horovod
@pytest.mark.usefixtures("needs_mpirun")
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_nodes_of_two_ranks_preempted_twice_train_the_same_model(mlflow_is_imported, data_dir, tmp_path, capsys):
    """Dropout is on. The twin is rehearsed too, without kills, in a place of its own."""
    mlflow = pytest.importorskip("mlflow")
    code = tmp_path / "code"
    code.mkdir()
    values = settings(
        data_dir, "", **{"training.num_train_steps": 150, "cadence.evaluate_every": 75, "training.microbatch_size": 4}
    )
    del values["data.data_dir"], values["output_dir"]
    nested = {}
    for key, value in values.items():
        group, _, name = key.partition(".")
        nested.setdefault(group, {})[name] = float(value) if isinstance(value, str) else value
    (code / "a.yaml").write_text(yaml.safe_dump(nested), encoding="utf-8")
    job = {
        "name": "Pretrain",
        "experiment": "rehearsals",
        "code": "code",
        "command": "tf-bert pretrain --config a.yaml --data.data_dir ${{inputs.data}} --output_dir ${{outputs.run}}",
        "inputs": {"data": {"path": f"{DATASTORE}/data/prepared"}},
        "outputs": {"run": {"path": f"{DATASTORE}/runs/small"}},
        "compute": "cluster",
        "nodes": 2,
        "processes_per_node": 2,
        "priority": "spot",
        "environment": {"name": "tf_bert", "image": "tf_bert:gpu"},
    }
    path = tmp_path / "pretrain.yaml"
    path.write_text(yaml.safe_dump(job), encoding="utf-8")
    preempted, twin = tmp_path / "preempted", tmp_path / "twin"
    for reh, kills in ((preempted, "2"), (twin, "0")):
        rehearse([str(path), "--input", f"data={data_dir}", "--output", str(reh), "--preempt", kills, "--seed", "5"])
    printed = capsys.readouterr().out
    assert printed.count("preempted: every process was killed") == 2
    assert printed.count("goes on from step ") == 2 and "on 4 x " in printed
    assert_same_run(preempted / "datastores/bert/runs/small", twin / "datastores/bert/runs/small")

    # All attempts report to one run of MLflow. What a kill came before is missing, but for the attempt that ended well.
    metrics = read_metrics(preempted / "datastores/bert/runs/small/metrics.jsonl")
    client = mlflow.MlflowClient((preempted / "mlflow").resolve().as_uri())
    (recorded,) = client.search_runs([client.get_experiment_by_name("rehearsals").experiment_id])
    history = client.get_metric_history(recorded.info.run_id, "train/loss")
    losses = {entry["step"]: entry["train/loss"] for entry in metrics if "train/loss" in entry}
    sent = {point.step: point.value for point in history}
    last_begun = int(re.findall(r"goes on from step (\d+)", printed)[-1])
    assert sent.items() <= losses.items() and {step for step in losses if step > last_begun} <= sent.keys()
    assert recorded.data.tags["data_manifest_sha256"] == sha256_of(data_dir / "manifest.json")

    # TensorBoard's files are also where Azure shows them live, in the directory of the rank that writes them.
    logs = preempted / "jobs/pretrain/attempt-3/node-0/logs/tensorboard"
    assert [path.name.startswith("events.out.tfevents") for path in logs.iterdir()] == [True]
    assert not list((preempted / "jobs/pretrain/attempt-3/node-1/logs").iterdir())
