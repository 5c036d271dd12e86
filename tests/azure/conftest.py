"""Workspaces in the place of Azure's, for tests that send jobs; jobs to write and rehearse, for those that run them."""

import importlib
import importlib.util
import json
from types import SimpleNamespace

import azure_stubs
import pytest
import yaml
from launchers import skip_without
from rehearsed_jobs import COUNT, DATASTORE, TELL

from tf_bert.commands.azure_rehearsal import rehearse


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A folder with a workspace's file, and credentials that nobody asks."""
    values = {"subscription_id": "sub", "resource_group": "group", "workspace_name": "space"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tf_bert.azure.submission.credential", lambda: "the credential")


@pytest.fixture
def v2(workspace, monkeypatch, tmp_path):
    import azure.ai.ml

    stub = azure_stubs.StubMlClient(f"file://{tmp_path}/mlruns")
    monkeypatch.setattr(azure.ai.ml, "MLClient", lambda *given, **how: stub.called.append(("connect", *given)) or stub)
    return stub


@pytest.fixture
def v1(workspace, monkeypatch):
    import azureml.core
    import azureml.core.run

    stub = azure_stubs.StubWorkspace()
    monkeypatch.setattr(azureml.core, "Workspace", lambda *given, **how: stub)
    monkeypatch.setattr(azureml.core, "Experiment", stub.experiment)
    monkeypatch.setattr(azureml.core.run.Run, "get", stub.get_run)
    monkeypatch.setattr(
        azureml.core.Environment, "get", lambda workspace, name, version: SimpleNamespace(got=(name, version))
    )
    return stub


@pytest.fixture(scope="session")
def mlflow_is_imported():
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
def run_job(tmp_path):
    """Rehearses a job with command line arguments, in `reh` of the test's folder; returns that folder."""

    def call(path, *arguments):
        rehearse([str(path), "--output", str(tmp_path / "reh"), *map(str, arguments)])
        return tmp_path / "reh"

    return call


@pytest.fixture
def needs_mpirun():
    skip_without("mpi")
