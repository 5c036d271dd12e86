"""Parts of a job that configs/azure does not use, under both SDKs."""

import json

import golden_files
import pytest
import yaml

from tf_bert.azure.job import read_job
from tf_bert.azure.sdk_v1 import build, describe
from tf_bert.azure.sdk_v2 import load_work, write_files

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # SDK v1's way of reading YAML


@pytest.fixture
def read(tmp_path):
    """Reads a job of one process, with changes."""

    def read(**changes):
        values = {
            "name": "A job",
            "experiment": "trials",
            "code": str(golden_files.ROOT),
            "command": "tf-bert inspect ${{inputs.data}} --png ${{outputs.picture}}",
            "inputs": {"data": {"path": "azureml:wikipedia:3", "mode": "download"}},
            "outputs": {"picture": {}},
            "compute": "cpu-cluster",
            "environment": {"name": "tf_bert", "version": "1"},
            **changes,
        }
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(values))
        return read_job(tmp_path / "job.yaml")

    return read


def of_v2(file, tmp_path):
    path = write_files(file, tmp_path / "v2", {})
    return load_work(path), yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("path", "name", "version"), [("azureml:wikipedia:3", "wikipedia", "3"), ("azureml:w@latest", "w", "latest")]
)
def test_data_assets(read, tmp_path, path, name, version):
    file = read(inputs={"data": {"path": path}})
    job, _ = of_v2(file, tmp_path)
    assert (job.inputs["data"].path, job.inputs["data"].mode) == (path.removeprefix("azureml:"), "ro_mount")
    data = describe(file, tmp_path, {})["run_configuration"]["data"]["data"]
    assert data["dataLocation"] == {"dataset": {"name": name, "version": version}} and data["mechanism"] == "mount"


@pytest.mark.parametrize(
    ("output", "place", "mechanism"),
    [
        ({}, ("workspaceblobstore", "dataset/{run-id}/picture"), "mount"),
        ({"mode": "upload"}, ("workspaceblobstore", "dataset/{run-id}/picture"), "upload"),
        ({"path": "azureml://datastores/bert/paths/a/b/", "mode": "upload"}, ("bert", "a/b"), "upload"),
        ({"path": "azureml://datastores/bert/paths/a/${{name}}/b"}, ("bert", "a/{run-id}/b"), "mount"),
    ],
)
def test_outputs_that_are_no_data_references(read, tmp_path, output, place, mechanism):
    file = read(outputs={"picture": output})
    job, written = of_v2(file, tmp_path)
    assert written["outputs"]["picture"] == {"type": "uri_folder", "mode": "rw_mount", **output}
    assert job.outputs["picture"].path == output.get("path")
    described = describe(file, tmp_path, {})["run_configuration"]
    found = described["outputData"]["picture"]
    assert tuple(found["outputLocation"]["dataPath"].values()) == place and found["mechanism"] == mechanism
    assert described["command"].endswith("--png DatasetOutputConfig:picture") and "dataReferences" not in described


@pytest.mark.parametrize(
    ("values", "v2", "v1"),
    [
        ({"choice": [16, 32]}, {"type": "choice", "values": [16, 32]}, ["choice", [[16, 32]]]),
        (
            {"uniform": [0.0, 0.2]},
            {"type": "uniform", "min_value": 0.0, "max_value": 0.2},
            ["uniform", [0.0, 0.2]],
        ),
    ],
)
def test_values_of_a_sweep(read, tmp_path, values, v2, v1):
    file = read(
        command="tf-bert inspect ${{inputs.data}} --png ${{outputs.picture}} --rows ${{search_space.rows}}",
        sweep={
            "metric": "train/loss",
            "goal": "minimize",
            "parameters": {"rows": values},
            "max_total_trials": 3,
            "time_limit_minutes": 30,
        },
    )
    job, written = of_v2(file, tmp_path)
    assert written["search_space"]["rows"] == v2 and "early_termination" not in written
    assert written["sampling_algorithm"] == {"type": "random"}
    assert job.search_space["rows"].type == v2["type"] and job.limits.timeout == 1800
    hyperdrive = describe(file, tmp_path, {})["hyperdrive"]
    assert hyperdrive["generator"]["parameter_space"] == {"rows": v1}
    assert hyperdrive["primary_metric"] == {"name": "train/loss", "goal": "minimize"}
    assert (hyperdrive["max_duration_minutes"], hyperdrive["policy"]["name"]) == (30, "Default")


def test_an_image_of_a_registry(read, tmp_path):
    file = read(environment={"name": "tf_bert", "image": "registry.azurecr.io/tf_bert:gpu"})
    job, _ = of_v2(file, tmp_path)
    assert job.environment.image == "registry.azurecr.io/tf_bert:gpu"
    environment = build(file).run_config.environment
    assert environment.docker.base_image == "registry.azurecr.io/tf_bert:gpu"
    assert environment.python.user_managed_dependencies and environment.environment_variables == {}
    described = json.dumps(describe(file, tmp_path, {}))
    assert "EXAMPLE" not in described and "password" not in described and "conda" not in described


def test_one_process_is_no_mpi_job(read, tmp_path):
    job, written = of_v2(read(), tmp_path)
    assert job.distribution is None and "distribution" not in written
    assert build(read()).run_config.communicator == "None"
