"""Rehearsals run real commands under a real mpirun: on every rank as Azure would, killed and started again."""

import importlib
import importlib.util
import json
import re
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from launchers import environment, needs_horovod, skip_without
from pretraining_runs import assert_same_run, settings

from tf_bert.azure import rehearse as rehearsing
from tf_bert.azure.local_nodes import MARK, _marked_processes
from tf_bert.azure.preemption import Preemptions
from tf_bert.azure.snapshot import list_snapshot
from tf_bert.commands.azure_rehearsal import rehearse
from tf_bert.errors import InputError, OtherRankFailed, UsageError
from tf_bert.files import sha256_of
from tf_bert.run_log import read_metrics

ROOT = Path(__file__).resolve().parents[2]
DATASTORE = "azureml://datastores/bert/paths"
# What a rank sees, as a file of the output `run` with the rank's number.
TELL = """\
import json, os, pathlib, sys
rank = os.environ.get("OMPI_COMM_WORLD_RANK", "0")
seen = {"environment": dict(os.environ), "directory": os.getcwd(), "arguments": sys.argv[1:]}
seen["files"] = sorted(str(path) for path in pathlib.Path(".").rglob("*"))
(pathlib.Path(os.environ["AZURE_ML_OUTPUT_run"]) / f"{rank}.json").write_text(json.dumps(seen))
"""
# Counts 20 steps; what it has written to the output survives it, what it has written elsewhere does not.
COUNT = """\
import os, pathlib, time
done = pathlib.Path(os.environ["AZURE_ML_OUTPUT_run"]) / "done"
log = done.with_name("attempts")
log.write_text((log.read_text() if log.exists() else "") + os.getcwd() + "\\n")
assert not pathlib.Path("here").exists()
pathlib.Path("here").touch()
for step in range(int(done.read_text()) + 1 if done.exists() else 1, 21):
    time.sleep(0.05)
    done.write_text(str(step))
    print(f"step {step}/20 | loss 1.0")
"""


@pytest.fixture(autouse=True, scope="module")
def _import_mlflow_first():
    """Its import closes the stream of absl's log unless that is sys.stderr, which it is not where capsys is at work."""
    if importlib.util.find_spec("mlflow"):
        importlib.import_module("mlflow")


@pytest.fixture
def write_job(tmp_path):
    """Writes a job in a folder of its own; returns its file."""

    def write(command="python tell.py", files=None, **changes):
        code = tmp_path / "code"
        for name, text in {"tell.py": TELL, "count.py": COUNT, **(files or {})}.items():
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            (code / name).write_text(text, encoding="utf-8")
        job = {
            "name": "A job",
            "experiment": "rehearsals",
            "code": "code",
            "command": command if "${{outputs." in command else f"{command} ${{{{outputs.run}}}}",
            "outputs": {"run": {"path": f"{DATASTORE}/runs/one"}},
            "compute": "cluster",
            "environment": {"name": "tf_bert", "image": "tf_bert:gpu"},
            **changes,
        }
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(job), encoding="utf-8")
        return path

    return write


@pytest.fixture
def run(tmp_path):
    """Rehearses a job with command line arguments, in `reh` of the test's folder; returns that folder."""

    def call(path, *arguments):
        rehearse([str(path), "--output", str(tmp_path / "reh"), *map(str, arguments)])
        return tmp_path / "reh"

    return call


@pytest.fixture
def needs_mpirun():
    skip_without("mpi")


def told(reh, rank=0, output="datastores/bert/runs/one"):
    return json.loads((reh / output / f"{rank}.json").read_text())


# --- what a rank sees ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("needs_mpirun")
def test_ranks_are_on_nodes_with_a_directory_of_their_own_each(write_job, run, monkeypatch):
    monkeypatch.setenv("AZUREML_RUN_TOKEN", "of somebody's real job")
    reh = run(write_job(nodes=2, processes_per_node=2, environment_variables={"NCCL_DEBUG": "WARN"}))
    ranks = [told(reh, rank) for rank in range(4)]
    attempt = reh.resolve() / "jobs/job/attempt-1"
    found = [
        (
            seen["environment"]["OMPI_COMM_WORLD_LOCAL_RANK"],
            seen["environment"]["OMPI_COMM_WORLD_LOCAL_SIZE"],
            seen["environment"]["OMPI_COMM_WORLD_SIZE"],
            seen["directory"],
        )
        for seen in ranks
    ]
    assert found == [
        ("0", "2", "4", f"{attempt}/node-0"),
        ("1", "2", "4", f"{attempt}/node-0"),
        ("0", "2", "4", f"{attempt}/node-1"),
        ("1", "2", "4", f"{attempt}/node-1"),
    ]
    assert len({seen["environment"]["TMPDIR"] for seen in ranks}) == 2
    for seen in ranks:
        variables = seen["environment"]
        assert variables["AZUREML_RUN_ID"] == "rehearsal_job"
        assert variables["AZUREML_ARM_PROJECT_NAME"] == "rehearsals"
        assert variables["AZUREML_NODE_COUNT"] == "2"
        assert variables["AZ_BATCH_MASTER_NODE"] == "127.0.0.1:6000"
        assert variables["AZUREML_CR_DATA_CAPABILITY_PATH"] == f"{attempt}/cap/data-capability/wd"
        assert variables["NCCL_DEBUG"] == "WARN"
        assert "AZUREML_RUN_TOKEN" not in variables


@pytest.mark.usefixtures("needs_mpirun")
def test_nodes_and_processes_of_the_command_line_win(write_job, run):
    reh = run(write_job(nodes=16, processes_per_node=4), "--nodes", 1, "--processes", 2)
    assert [told(reh, rank)["environment"]["OMPI_COMM_WORLD_SIZE"] for rank in (0, 1)] == ["2", "2"]
    assert {path.name for path in (reh / "datastores/bert/runs/one").iterdir()} == {"0.json", "1.json"}


def test_a_single_process_needs_no_mpirun(write_job, run, monkeypatch, tmp_path):
    monkeypatch.setattr(rehearsing, "check_mpirun", lambda: pytest.fail("is not needed"))
    seen = told(run(write_job()))
    assert not [name for name in seen["environment"] if name.startswith("OMPI_")]
    assert seen["environment"]["AZUREML_NODE_COUNT"] == "1" and "AZ_BATCH_MASTER_NODE" not in seen["environment"]


def test_the_snapshot_is_a_copy_of_what_amlignore_leaves(write_job, run, tmp_path):
    files = {
        ".amlignore": "/data/\n*.bin\n",
        ".gitignore": "settings.yaml\n",
        "settings.yaml": "a: 1\n",
        "data/corpus.txt": "text",
        "package/weights.bin": "0",
        "package/module.py": "",
    }
    path = write_job("echo b >> settings.yaml && python tell.py", files)
    seen = told(run(path))
    assert {"settings.yaml", "package/module.py", "tell.py", "outputs", "logs"} <= set(seen["files"])
    assert not {"data/corpus.txt", "package/weights.bin"} & set(seen["files"])
    assert (tmp_path / "code/settings.yaml").read_text() == "a: 1\n"


def test_the_snapshot_of_this_repository_is_the_package_its_settings_and_its_images():
    files = list_snapshot(ROOT)
    found = {path.parts[0] for path in files}
    assert {"tf_bert", "configs", "docker", "scripts", "requirements.lock", "pyproject.toml", "setup.py"} <= found
    assert not {"tests", "docs", "notebooks", "benchmarks", "data", "runs", ".git", ".venv", ".cache"} & found
    assert len(files) < 1000 and sum((ROOT / path).stat().st_size for path in files) < 10e6


def test_inputs_are_seen_where_azure_mounts_them(write_job, run, tmp_path):
    stored = tmp_path / "reh/datastores/bert/data/stored"
    stored.mkdir(parents=True)
    local = tmp_path / "a folder"
    local.mkdir()
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    inputs = {
        "stored": {"path": f"{DATASTORE}/data/stored"},
        "asset": {"path": "azureml:corpus:3"},
        "vocab": {"path": "https://example.com/vocab.txt", "type": "uri_file"},
        "beside": {"path": "vocab.txt", "type": "uri_file", "mode": "download"},
    }
    command = (
        "python tell.py ${{inputs.stored}}/x ${{inputs.asset}} ${{inputs.vocab}} ${{inputs.beside}} ${{outputs.run}}"
    )
    path = write_job(command, inputs=inputs)
    reh = run(path, "--input", f"asset={local}", "--input", f"vocab={tmp_path / 'vocab.txt'}")
    mounts = reh.resolve() / "jobs/job/attempt-1/cap/data-capability/wd"
    seen = told(reh)
    assert seen["arguments"] == [
        f"{mounts}/INPUT_stored/x",
        f"{mounts}/INPUT_asset",
        f"{mounts}/INPUT_vocab/vocab.txt",
        f"{mounts}/INPUT_beside/vocab.txt",
        f"{mounts}/run",
    ]
    assert seen["environment"]["AZURE_ML_INPUT_asset"] == f"{mounts}/INPUT_asset"
    assert (mounts / "INPUT_stored").resolve() == stored.resolve()
    assert (mounts / "INPUT_asset").resolve() == local.resolve()
    assert (mounts / "INPUT_beside/vocab.txt").read_text() == "[PAD]\n"
    assert not (mounts / "INPUT_beside/vocab.txt").is_symlink()


def test_outputs_stay_in_the_datastore_and_are_the_next_jobs_inputs(write_job, run, tmp_path):
    outputs = {
        "run": {"path": f"{DATASTORE}/runs/one"},
        "late": {"path": f"{DATASTORE}/late", "mode": "upload"},
        "own": {"path": f"{DATASTORE}/runs/${{{{name}}}}"},
        "new": {},
    }
    command = (
        "date +%N >> ${{outputs.run}}/times && touch ${{outputs.own}}/file "
        "&& ls ${{outputs.new}} > ${{outputs.late}}/list && touch ${{outputs.new}}/file"
    )
    path = write_job(command, outputs=outputs)
    for _ in range(2):
        reh = run(path)
    stores = reh / "datastores/bert"
    assert len((stores / "runs/one/times").read_text().split()) == 2
    assert (stores / "runs/rehearsal_job/file").exists()
    assert (stores / "late/list").read_text() == ""  # the second attempt saw nothing of the first one's
    next_job = write_job(
        "cat ${{inputs.times}}/times > ${{outputs.run}}/copy",
        inputs={"times": {"path": f"{DATASTORE}/runs/one"}},
        outputs={"run": {"path": f"{DATASTORE}/runs/two"}},
    )
    run(next_job)
    assert (stores / "runs/two/copy").read_text() == (stores / "runs/one/times").read_text()


def test_a_run_of_a_sweep_has_values_of_its_space(write_job, run):
    space = {"rate": {"log_uniform": [1e-5, 1e-3]}, "batch": {"choice": [16, 32]}, "drop": {"uniform": [0.1, 0.2]}}
    command = "python tell.py ${{search_space.rate}} ${{search_space.batch}} ${{search_space.drop}} ${{outputs.run}}"
    sweep = {"metric": "dev/accuracy", "parameters": space, "max_total_trials": 2}
    path = write_job(command, sweep=sweep, outputs={"run": {"path": f"{DATASTORE}/sweep/${{{{name}}}}"}})
    drawn = []
    for seed in (1, 1, 2):
        seen = told(run(path, "--seed", seed), output=f"datastores/bert/sweep/rehearsal_job_{seed}")
        drawn.append(seen["arguments"][:3])
    assert drawn[0] == drawn[1] != drawn[2]
    for rate, batch, drop in drawn:
        assert 1e-5 <= float(rate) <= 1e-3 and batch in ("16", "32") and 0.1 <= float(drop) <= 0.2


def test_mlflow_finds_files_in_the_place_of_azures_server(write_job, run, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    log = "import os, mlflow; mlflow.log_metric('train/loss', 2.5, step=3); mlflow.set_tag('is', os.getcwd())"
    reh = run(write_job(f'python -c "{log}" && python tell.py', tags={"recipe": "small"}))
    variables = told(reh)["environment"]
    assert variables["MLFLOW_TRACKING_URI"] == (reh.resolve() / "mlflow").as_uri()
    recorded = mlflow.MlflowClient(variables["MLFLOW_TRACKING_URI"]).get_run(variables["MLFLOW_RUN_ID"])
    assert recorded.data.metrics == {"train/loss": 2.5}
    assert recorded.data.tags["recipe"] == "small" and recorded.data.tags["is"].endswith("attempt-1/node-0")


# --- how a job ends ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("needs_mpirun")
def test_the_exit_code_is_the_jobs(write_job, run, capsys):
    with pytest.raises(OtherRankFailed) as caught:
        run(write_job("echo rank $OMPI_COMM_WORLD_RANK && exit $((3 * OMPI_COMM_WORLD_RANK)) #", processes_per_node=2))
    assert caught.value.exit_code == 3
    printed = capsys.readouterr().out
    assert "A job: ended with exit code 3; what it printed is in " in printed
    assert {"rank 0", "rank 1"} <= set(printed.splitlines())


def test_a_signal_that_ends_the_job_is_its_exit_code(write_job, run):
    with pytest.raises(OtherRankFailed) as caught:
        run(write_job("kill -SEGV $$ #"))
    assert caught.value.exit_code == 128 + signal.SIGSEGV


@pytest.mark.usefixtures("needs_mpirun")
def test_a_preempted_job_starts_anew_with_nothing_but_its_outputs(write_job, run, capsys):
    # Another node's rank does nothing, and would outlive the test if it were not killed too.
    path = write_job("[ $OMPI_COMM_WORLD_RANK = 1 ] && exec sleep 3; exec python count.py", nodes=2)
    reh = run(path, "--preempt", 2, "--seed", 9)
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


def test_a_job_that_is_done_before_its_kill_fails_the_rehearsal(write_job, run):
    message = (
        "the job was done before it could be preempted, with 1 of 1 kills to come; let it take more steps, or print"
    )
    with pytest.raises(InputError, match=message):
        run(write_job("echo step 1,000,000"), "--preempt", 1)


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


# --- what cannot be rehearsed --------------------------------------------------------------------------------------


def test_an_input_that_the_job_has_written_to(write_job, run, tmp_path):
    (tmp_path / "data").mkdir()
    path = write_job("touch ${{inputs.data}}/new ${{outputs.run}}", inputs={"data": {"path": f"{DATASTORE}/data"}})
    message = (
        rf"inputs.data: the job has changed {tmp_path}/data/new, but Azure mounts this input for reading only; write"
    )
    with pytest.raises(InputError, match=message):
        run(path, "--input", f"data={tmp_path / 'data'}")


INPUT = {"data": {"path": f"{DATASTORE}/data/rows"}}
READ = "ls ${{inputs.data}} ${{outputs.run}}"
MISTAKES = {
    "no data": (
        {"command": READ, "inputs": INPUT},
        [],
        InputError,
        r"inputs.data: there is no .*/reh/datastores/bert/data/rows, which stands for azureml://datastores/bert/paths/data/"
        r"rows; put the data there, or give --input data=PATH",
    ),
    "no such path": (
        {"command": READ, "inputs": INPUT},
        ["--input", "data=absent"],
        InputError,
        "inputs.data: there is no absent; give --input data another path",
    ),
    "not a folder": (
        {"command": READ, "inputs": INPUT},
        ["--input", f"data={__file__}"],
        InputError,
        r"inputs.data: .*test_rehearse.py: expected a folder, as its type is uri_folder; give --input data another",
    ),
    "on the web": (
        {"command": READ, "inputs": {"data": {"path": "https://example.com/data"}}},
        [],
        InputError,
        "inputs.data: https://example.com/data is not fetched in a rehearsal; give --input data=PATH",
    ),
    "unknown input": (
        {"command": READ, "inputs": INPUT},
        ["--input", "dta=."],
        UsageError,
        "--input dta: .*job.yaml has no such input; expected one of: data",
    ),
    "no path": (
        {},
        ["--input", "data"],
        UsageError,
        "--input: found 'data', expected NAME=PATH, such as --input data=",
    ),
    "out of the datastore": (
        {"outputs": {"run": {"path": f"{DATASTORE}/../../../home"}}},
        [],
        UsageError,
        r"outputs.run: azureml://datastores/bert/paths/../../../home leads out of its datastore; write it without '\.",
    ),
    "ranks in ranks": (
        {"command": "tf-bert pretrain --ranks 4", "nodes": 2},
        [],
        UsageError,
        "command: --ranks would start ranks in each of 2 processes; leave it out, for Azure starts the command once",
    ),
    "launcher in ranks": (
        {"command": "mpirun -np 2 true", "processes_per_node": 2},
        [],
        UsageError,
        "command: mpirun would start ranks in each of 2 processes",
    ),
    "too many processes": (
        {"nodes": 1000, "processes_per_node": 4},
        [],
        UsageError,
        r"has 1000 x 4 = 4000 processes, and this machine \d+ cores; rehearse it with fewer, such as --nodes 2 --proc",
    ),
    "no number": ({}, ["--processes", "0"], UsageError, "--processes: found 0, expected 1 or more"),
    "a secret": (
        {"files": {"key.txt": "AccountKey=" + "Zm9v" * 21 + "Zg==" + "\n"}},
        [],
        InputError,
        "key.txt: line 1: looks like .*, and would be uploaded",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_rehearsed_is_told_before_anything_runs(mistake, write_job, run, tmp_path):
    changes, arguments, kind, message = MISTAKES[mistake]
    path = write_job(**changes)
    with pytest.raises(kind, match=message):
        run(path, *arguments)
    assert not (tmp_path / "reh").exists()


def test_a_machine_without_open_mpi(write_job, run, monkeypatch, tmp_path):
    path = write_job(processes_per_node=2)
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin/python"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(
        InputError, match=r"mpirun was not found, .*install Open MPI .*or rehearse with --nodes 1 --processes 1"
    ):
        run(path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mpirun").write_text("#!/bin/sh\necho HYDRA build details:\n")
    (tmp_path / "bin/mpirun").chmod(0o755)
    with pytest.raises(InputError, match=r"bin/mpirun: found 'HYDRA build details:', expected Open MPI; install"):
        run(path)


# --- the real thing ------------------------------------------------------------------------------------------------


@needs_horovod
@pytest.mark.usefixtures("needs_mpirun")
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_nodes_of_two_ranks_preempted_twice_train_the_same_model(data_dir, tmp_path, capsys):
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
