"""Jobs that are sent with SDK v2's own objects; only its client is a stub."""

from pathlib import Path
from types import SimpleNamespace

import golden_files
import pytest
from azure_stubs import azure

CONFIGS = golden_files.CONFIGS


def test_v2_sends_an_mpi_job(v2, capsys):
    assert azure("submit", CONFIGS / "pretrain-base.yaml") == 0
    assert capsys.readouterr().out == "run_0: Queued\nhttps://ml.azure.com/runs/run_0\n"
    assert v2.called == [("connect", "the credential", "sub", "group", "space")]
    [job] = v2.sent
    assert type(job).__module__.startswith("azure.ai.ml.entities")
    assert (job.display_name, job.experiment_name, job.compute) == (
        "Pretrain BERT-base",
        "bert-pretraining",
        "gpu-cluster",
    )
    assert (job.distribution.type, job.distribution.process_count_per_instance) == ("mpi", 4)
    assert (job.resources.instance_count, job.resources.shm_size) == (16, "32g")
    assert "--data.data_dir ${{inputs.data}} --output_dir ${{outputs.run}}" in job.component.command
    assert (job.inputs["data"].path, job.inputs["data"].mode) == (
        "azureml://datastores/bert/paths/data/wikipedia-512",
        "download",
    )
    assert (job.outputs["run"].path, job.outputs["run"].mode) == (
        "azureml://datastores/bert/paths/runs/azureml-bert-base",
        "rw_mount",
    )
    assert job.environment.build.dockerfile_path == "docker/gpu.Dockerfile"
    tags = {"recipe", "tf_bert_job", "tf_bert_version", "job_file", "job_file_sha256"}
    assert tags <= set(job.tags) and job.tags["tf_bert_job"] == "Pretrain BERT-base"


def test_v2_sends_a_sweep(v2):
    assert azure("sweep", CONFIGS / "sweep-mrpc.yaml", "--sweep.max_total_trials", "16") == 0
    [job] = v2.sent
    from azure.ai.ml.sweep import BanditPolicy, LogUniform

    policy, space = job.early_termination, job.search_space["learning_rate"]
    assert isinstance(policy, BanditPolicy) and isinstance(space, LogUniform)
    assert (policy.delay_evaluation, policy.evaluation_interval, policy.slack_factor) == (25, 1, 0.1)
    assert (space.min_value, space.max_value) == pytest.approx((-11.5129254649702, -9.21034037197618), abs=1e-12)
    assert (job.limits.max_total_trials, job.limits.max_concurrent_trials) == (16, 2)
    assert (job.objective.goal, job.objective.primary_metric) == ("maximize", "dev/accuracy")


def test_v2_sends_a_pipeline(v2, capsys):
    assert azure("submit", CONFIGS / "pipeline.yaml") == 0
    [job] = v2.sent
    assert job.type == "pipeline" and list(job.jobs) == ["fetch", "prepare", "pretrain", "glue"]
    pretrain = job.jobs["pretrain"]
    assert pretrain.component.command.startswith("tf-bert pretrain --config configs/azureml-bert-large.yaml")
    assert (pretrain.compute, pretrain.resources.instance_count) == ("gpu-cluster", 16)
    assert pretrain.inputs["data"].path == "${{parent.jobs.prepare.outputs.data}}"
    assert azure("status", CONFIGS / "pipeline.yaml") == 0
    assert capsys.readouterr().out.count("run_0: Queued") == 2


def test_a_pipelines_clusters_are_looked_at(v2, capsys):
    v2.compute.list = lambda: []
    assert azure("submit", CONFIGS / "pipeline.yaml") == 2 and v2.sent == []
    assert (
        "fetch.yaml: compute: the workspace has no cluster cpu-cluster; it has none at all" in capsys.readouterr().err
    )


def test_v2_serverless_spot_machines_are_asked_for_by_tier(v2):
    words = ["--compute", "serverless", "--priority", "spot", "--time_limit_minutes", "60"]
    assert azure("submit", CONFIGS / "finetune-mrpc.yaml", *words) == 0
    [job] = v2.sent
    assert job.queue_settings.job_tier.lower() == "spot" and job.compute is None
    assert job.resources.instance_type == "Standard_NC24ads_A100_v4" and job.limits.timeout == 3600


def test_v2_tells_what_azure_refuses_in_a_line(v2, capsys):
    from azure.core.exceptions import HttpResponseError

    v2.error = HttpResponseError("(Forbidden) The caller has no right\nto do this.\nCode: Forbidden")
    assert azure("submit", CONFIGS / "finetune-mrpc.yaml") == 1
    printed = capsys.readouterr().err
    assert printed == "tf-bert azure submit: Azure: (Forbidden) The caller has no right to do this. Code: Forbidden\n"


def test_v2_looks_after_the_newest_run(v2, capsys):
    path = CONFIGS / "finetune-mrpc.yaml"
    for name in ("finetune-mrpc", "finetune-mrpc", "fetch"):
        assert azure("submit", CONFIGS / f"{name}.yaml") == 0
    capsys.readouterr()
    v2.called.clear()
    for words in (("status",), ("logs",), ("cancel",), ("download",), ("download", "--output", "run", "--to", "here")):
        assert azure(words[0], path, *words[1:]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("run_1: Queued\nhttps://ml.azure.com/runs/run_1\nrun_1: is being canceled\n")
    assert "runs/azure/run_1: logs and outputs of run_1\nhere: run of run_1\n" in printed
    calls = [call for call in v2.called if call[0] in ("stream", "cancel", "download")]
    assert calls == [
        ("stream", "run_1"),
        ("cancel", "run_1"),
        ("download", "run_1", {"download_path": Path("runs/azure/run_1"), "output_name": None}),
        ("download", "run_1", {"download_path": Path("here"), "output_name": "run"}),
    ]
    assert azure("status", path, "--run", "run_0") == 0 and capsys.readouterr().out.startswith("run_0: Queued")


def test_v2_no_run(v2, capsys):
    path = CONFIGS / "glue.yaml"
    assert azure("status", path) == 1
    assert f"{path}: the experiment bert-glue has no run of it; `tf-bert azure submit` sends" in capsys.readouterr().err
    assert azure("status", path, "--run", "absent") == 1
    assert (
        capsys.readouterr().err
        == "tf-bert azure status: Azure: (UserError) Job absent was not found. Code: UserError\n"
    )


def test_v2_registers_what_a_run_has_written(v2, capsys):
    path = CONFIGS / "finetune-mrpc.yaml"
    assert azure("submit", path) == 0
    assert azure("register", path) == 1
    assert "run_0: is Queued, expected Completed; wait for it" in capsys.readouterr().err
    v2.status = "Completed"
    assert azure("register", path) == 0
    model = v2.called[-1][1]
    assert (model.name, model.path, model.type) == (
        "bert-mrpc",
        "azureml://jobs/run_0/outputs/run/paths/best",
        "custom_model",
    )
    assert model.tags["run"] == "run_0" and model.tags["tf_bert_job"] == "Finetune BERT-base on MRPC"
    assert capsys.readouterr().out == f"bert-mrpc:{model.version}: registered\n"


def test_v2_a_sweeps_best_run_is_found_by_its_metric(v2, tmp_path, monkeypatch, capsys):
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # of the service that stands in for Azure's
    path = CONFIGS / "sweep-mrpc.yaml"
    assert azure("sweep", path) == 0
    metrics = MlflowClient(tracking_uri=f"file://{tmp_path}/mlruns")
    experiment = metrics.create_experiment("bert-finetuning")
    runs = []
    for rate, accuracies in (("1e-05", (0.70, 0.81)), ("3e-05", (0.86, 0.84)), ("9e-05", ())):
        run = metrics.create_run(experiment).info.run_id
        metrics.log_param(run, "learning_rate", rate)
        for step, accuracy in enumerate(accuracies):
            metrics.log_metric(run, "dev/accuracy", accuracy, step=step)
        runs.append(run)
    v2.children["run_0"] = [SimpleNamespace(name=run, status="Completed", studio_url="") for run in runs]
    capsys.readouterr()
    assert azure("sweep", path, "--results") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"0.8600  {runs[1]}: Completed: learning_rate 3e-05",
        f"0.8100  {runs[0]}: Completed: learning_rate 1e-05",
        f"-  {runs[2]}: Completed: learning_rate 9e-05",
    ]
    assert azure("register", path) == 0
    assert v2.called[-1][1].path == f"azureml://jobs/{runs[1]}/outputs/run/paths/best"


@pytest.fixture
def export_dir(tmp_path):
    """The files that Azure reads of an export."""
    import yaml

    from tf_bert.serving.deployment_files import _azure_definitions

    directory = tmp_path / "exports" / "sst2"
    (directory / "azureml").mkdir(parents=True)
    for name, definition in _azure_definitions("sst2").items():
        (directory / "azureml" / name).write_text(yaml.safe_dump(definition, sort_keys=False))
    return directory


def test_an_export_is_put_behind_an_endpoint(v2, export_dir, capsys):
    assert azure("deploy", export_dir, "--dry-run") == 0
    assert capsys.readouterr().out == f"{export_dir}: endpoint sst2, deployment blue; nothing was sent\n"
    assert v2.called == []
    assert azure("deploy", export_dir) == 0
    assert capsys.readouterr().out == "sst2: https://sst2.example.org/score\n"
    _, first, second, third = v2.called
    assert [call[0] for call in (first, second, third)] == [
        "ManagedOnlineEndpoint",
        "ManagedOnlineDeployment",
        "ManagedOnlineEndpoint",
    ]
    assert third[2] == {"blue": 100}
    assert second[1].environment.image == "docker.io/tensorflow/serving:2.20.0"
    assert (export_dir / "azureml" / second[1].model.path).resolve() == export_dir


def test_a_folder_that_is_no_export(v2, tmp_path, capsys):
    assert azure("deploy", tmp_path) == 1
    printed = capsys.readouterr().err
    assert "endpoint.yml: does not exist; expected a directory that `tf-bert export` wrote" in printed
    (tmp_path / "azureml").mkdir()
    (tmp_path / "azureml" / "endpoint.yml").write_text("name: a\nauth_mode: password\n")
    assert azure("deploy", tmp_path) == 2
    printed = capsys.readouterr().err
    assert "endpoint.yml: Azure's SDK refuses it: " in printed and "auth_mode" in printed and printed.count("\n") == 1
