"""What a rehearsed job sees: its ranks, its snapshot, its inputs and outputs, under a real mpirun."""

import json
from pathlib import Path

import pytest
from rehearsed_jobs import DATASTORE

from tf_bert.azure import rehearse as rehearsing
from tf_bert.azure.snapshot import list_snapshot

ROOT = Path(__file__).resolve().parents[2]


def told(reh, rank=0, output="datastores/bert/runs/one"):
    return json.loads((reh / output / f"{rank}.json").read_text())


@pytest.mark.usefixtures("needs_mpirun")
def test_ranks_are_on_nodes_with_a_directory_of_their_own_each(write_job, run_job, monkeypatch):
    monkeypatch.setenv("AZUREML_RUN_TOKEN", "of somebody's real job")
    reh = run_job(write_job(nodes=2, processes_per_node=2, environment_variables={"NCCL_DEBUG": "WARN"}))
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
def test_nodes_and_processes_of_the_command_line_win(write_job, run_job):
    reh = run_job(write_job(nodes=16, processes_per_node=4), "--nodes", 1, "--processes", 2)
    assert [told(reh, rank)["environment"]["OMPI_COMM_WORLD_SIZE"] for rank in (0, 1)] == ["2", "2"]
    assert {path.name for path in (reh / "datastores/bert/runs/one").iterdir()} == {"0.json", "1.json"}


def test_a_single_process_needs_no_mpirun(write_job, run_job, monkeypatch, tmp_path):
    monkeypatch.setattr(rehearsing, "check_mpirun", lambda: pytest.fail("is not needed"))
    seen = told(run_job(write_job()))
    assert not [name for name in seen["environment"] if name.startswith("OMPI_")]
    assert seen["environment"]["AZUREML_NODE_COUNT"] == "1" and "AZ_BATCH_MASTER_NODE" not in seen["environment"]


def test_the_snapshot_is_a_copy_of_what_amlignore_leaves(write_job, run_job, tmp_path):
    files = {
        ".amlignore": "/data/\n*.bin\n",
        ".gitignore": "settings.yaml\n",
        "settings.yaml": "a: 1\n",
        "data/corpus.txt": "text",
        "package/weights.bin": "0",
        "package/module.py": "",
    }
    path = write_job("echo b >> settings.yaml && python tell.py", files)
    seen = told(run_job(path))
    assert {"settings.yaml", "package/module.py", "tell.py", "outputs", "logs"} <= set(seen["files"])
    assert not {"data/corpus.txt", "package/weights.bin"} & set(seen["files"])
    assert (tmp_path / "code/settings.yaml").read_text() == "a: 1\n"


def test_the_snapshot_of_this_repository_is_the_package_its_settings_and_its_images():
    files = list_snapshot(ROOT)
    found = {path.parts[0] for path in files}
    assert {"tf_bert", "configs", "docker", "scripts", "requirements.lock", "pyproject.toml", "setup.py"} <= found
    assert not {"tests", "docs", "notebooks", "benchmarks", "data", "runs", ".git", ".venv", ".cache"} & found
    assert len(files) < 1000 and sum((ROOT / path).stat().st_size for path in files) < 10e6


def test_inputs_are_seen_where_azure_mounts_them(write_job, run_job, tmp_path):
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
    reh = run_job(path, "--input", f"asset={local}", "--input", f"vocab={tmp_path / 'vocab.txt'}")
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


def test_outputs_stay_in_the_datastore_and_are_the_next_jobs_inputs(write_job, run_job, tmp_path):
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
        reh = run_job(path)
    stores = reh / "datastores/bert"
    assert len((stores / "runs/one/times").read_text().split()) == 2
    assert (stores / "runs/rehearsal_job/file").exists()
    assert (stores / "late/list").read_text() == ""  # the second attempt saw nothing of the first one's
    next_job = write_job(
        "cat ${{inputs.times}}/times > ${{outputs.run}}/copy",
        inputs={"times": {"path": f"{DATASTORE}/runs/one"}},
        outputs={"run": {"path": f"{DATASTORE}/runs/two"}},
    )
    run_job(next_job)
    assert (stores / "runs/two/copy").read_text() == (stores / "runs/one/times").read_text()


def test_a_run_of_a_sweep_has_values_of_its_space(write_job, run_job):
    space = {"rate": {"log_uniform": [1e-5, 1e-3]}, "batch": {"choice": [16, 32]}, "drop": {"uniform": [0.1, 0.2]}}
    command = "python tell.py ${{search_space.rate}} ${{search_space.batch}} ${{search_space.drop}} ${{outputs.run}}"
    sweep = {"metric": "dev/accuracy", "parameters": space, "max_total_trials": 2}
    path = write_job(command, sweep=sweep, outputs={"run": {"path": f"{DATASTORE}/sweep/${{{{name}}}}"}})
    drawn = []
    for seed in (1, 1, 2):
        seen = told(run_job(path, "--seed", seed), output=f"datastores/bert/sweep/rehearsal_job_{seed}")
        drawn.append(seen["arguments"][:3])
    assert drawn[0] == drawn[1] != drawn[2]
    for rate, batch, drop in drawn:
        assert 1e-5 <= float(rate) <= 1e-3 and batch in ("16", "32") and 0.1 <= float(drop) <= 0.2


def test_mlflow_finds_files_in_the_place_of_azures_server(write_job, run_job, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    log = "import os, mlflow; mlflow.log_metric('train/loss', 2.5, step=3); mlflow.set_tag('is', os.getcwd())"
    reh = run_job(write_job(f'python -c "{log}" && python tell.py', tags={"recipe": "small"}))
    variables = told(reh)["environment"]
    assert variables["MLFLOW_TRACKING_URI"] == (reh.resolve() / "mlflow").as_uri()
    recorded = mlflow.MlflowClient(variables["MLFLOW_TRACKING_URI"]).get_run(variables["MLFLOW_RUN_ID"])
    assert recorded.data.metrics == {"train/loss": 2.5}
    assert recorded.data.tags["recipe"] == "small" and recorded.data.tags["is"].endswith("attempt-1/node-0")
