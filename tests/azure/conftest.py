"""Workspaces in the place of Azure's, for tests that send jobs."""

import json
from types import SimpleNamespace

import azure_stubs
import pytest


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
