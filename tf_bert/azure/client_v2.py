"""A workspace as SDK v2 (azure-ai-ml) reaches it."""

import contextlib
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_bert.azure.job import JobFile, ModelPart
from tf_bert.azure.pipeline import PipelineFile
from tf_bert.azure.runs import Cluster, Run, Trial
from tf_bert.azure.sdk_v2 import load_endpoint, load_model, load_work, quiet_sdk, write_files
from tf_bert.azure.sdks import one_line
from tf_bert.azure.workspace import WorkspaceName
from tf_bert.errors import InputError

_SEARCHED_RUNS = 1000


class ClientV2:
    """A workspace through SDK v2; see `runs.Client`.

    Args:
      ml_client: an `azure.ai.ml.MLClient`.
    """

    def __init__(self, ml_client: Any) -> None:
        self._client = ml_client

    @classmethod
    def connect(cls, workspace: WorkspaceName, credential: Any) -> "ClientV2":
        from azure.ai.ml import MLClient

        quiet_sdk()
        return cls(
            MLClient(
                credential,
                workspace.subscription_id,
                workspace.resource_group,
                workspace.workspace_name,
                enable_telemetry=False,
            )
        )

    def clusters(self) -> Sequence[Cluster]:
        with _azure_errors():
            return [
                Cluster(found.name, found.size, (found.tier or "").lower() == "low_priority", found.max_instances)
                for found in self._client.compute.list()
                if found.type == "amlcompute"
            ]

    def datastores(self) -> Sequence[str]:
        with _azure_errors():
            return [datastore.name for datastore in self._client.datastores.list()]

    def submit(self, work: JobFile | PipelineFile, directory: Path, tags: Mapping[str, str]) -> Run:
        job = load_work(write_files(work, directory, tags))
        with _azure_errors():
            return _run(self._client.jobs.create_or_update(job))

    def newest(self, experiment: str, tag: str, value: str) -> Run | None:
        with _azure_errors():
            jobs = itertools.islice(self._client.jobs.list(), _SEARCHED_RUNS)  # the newest first
            found = (job for job in jobs if job is not None and (job.tags or {}).get(tag) == value)
            return next((_run(job) for job in found if job.experiment_name == experiment), None)

    def get(self, name: str) -> Run:
        with _azure_errors():
            return _run(self._client.jobs.get(name))

    def follow_logs(self, name: str) -> None:
        with _azure_errors():
            self._client.jobs.stream(name)

    def download(self, name: str, output: str | None, file: JobFile | None, directory: Path) -> None:
        with _azure_errors():
            self._client.jobs.download(name, download_path=directory, output_name=output)

    def cancel(self, name: str) -> None:
        with _azure_errors():
            self._client.jobs.begin_cancel(name).wait()

    def trials(self, name: str, metric: str, goal: str) -> Sequence[Trial]:
        from mlflow.tracking import MlflowClient

        with _azure_errors():
            workspace = self._client.workspaces.get(self._client.workspace_name)
            metrics = MlflowClient(tracking_uri=workspace.mlflow_tracking_uri)
            best = max if goal == "maximize" else min
            trials = []
            for job in self._client.jobs.list(parent_job_name=name):
                history = [point.value for point in metrics.get_metric_history(job.name, metric)]
                values = metrics.get_run(job.name).data.params
                trials.append(Trial(_run(job), values, best(history, default=None)))
        sign = -1.0 if goal == "maximize" else 1.0
        return sorted(trials, key=lambda trial: (trial.metric is None, sign * (trial.metric or 0.0)))

    def register(self, part: ModelPart, run: str, file: JobFile, tags: Mapping[str, str]) -> str:
        with tempfile.TemporaryDirectory() as directory, _azure_errors():
            model = self._client.models.create_or_update(load_model(part, run, tags, Path(directory) / "model.yml"))
            return f"{model.name}:{model.version}"

    def deploy(self, export_dir: Path) -> str:
        """Makes or changes the endpoint of an export and gives its deployment all traffic; returns where to ask."""
        endpoint, deployment = load_endpoint(export_dir)
        with _azure_errors():
            self._client.online_endpoints.begin_create_or_update(endpoint).result()
            self._client.online_deployments.begin_create_or_update(deployment).result()
            endpoint.traffic = {deployment.name: 100}
            return str(self._client.online_endpoints.begin_create_or_update(endpoint).result().scoring_uri)


def _run(job: Any) -> Run:
    return Run(job.name, job.status, job.studio_url or "")


@contextlib.contextmanager
def _azure_errors() -> Iterator[None]:
    """Turns what Azure refuses, or a network that is down, into one line."""
    from azure.core.exceptions import AzureError

    try:
        yield
    except AzureError as error:
        raise InputError(f"Azure: {one_line(error)}") from error
