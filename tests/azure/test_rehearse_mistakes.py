"""What cannot be rehearsed is one line, mostly before anything runs."""

import pytest
from rehearsed_jobs import DATASTORE

from tf_bert.errors import InputError, UsageError


def test_an_input_that_the_job_has_written_to(write_job, run_job, tmp_path):
    (tmp_path / "data").mkdir()
    path = write_job("touch ${{inputs.data}}/new ${{outputs.run}}", inputs={"data": {"path": f"{DATASTORE}/data"}})
    message = (
        rf"inputs.data: the job has changed {tmp_path}/data/new, but Azure mounts this input for reading only; write"
    )
    with pytest.raises(InputError, match=message):
        run_job(path, "--input", f"data={tmp_path / 'data'}")


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
        r"inputs.data: .*test_rehearse_mistakes.py: expected a folder, as its type is uri_folder; give --input data",
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
def test_what_cannot_be_rehearsed_is_told_before_anything_runs(mistake, write_job, run_job, tmp_path):
    changes, arguments, kind, message = MISTAKES[mistake]
    path = write_job(**changes)
    with pytest.raises(kind, match=message):
        run_job(path, *arguments)
    assert not (tmp_path / "reh").exists()


def test_a_machine_without_open_mpi(write_job, run_job, monkeypatch, tmp_path):
    path = write_job(processes_per_node=2)
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin/python"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(
        InputError, match=r"mpirun was not found, .*install Open MPI .*or rehearse with --nodes 1 --processes 1"
    ):
        run_job(path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mpirun").write_text("#!/bin/sh\necho HYDRA build details:\n")
    (tmp_path / "bin/mpirun").chmod(0o755)
    with pytest.raises(InputError, match=r"bin/mpirun: found 'HYDRA build details:', expected Open MPI; install"):
        run_job(path)
