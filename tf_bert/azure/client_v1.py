"""A workspace as SDK v1 (azureml-core) reaches it."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_bert.azure.job import JobFile, ModelPart
from tf_bert.azure.pipeline import PipelineFile
from tf_bert.azure.runs import Cluster, Run, Trial
from tf_bert.azure.sdk_v1 import build, job_of, output_place
from tf_bert.azure.sdks import one_line
from tf_bert.azure.workspace import WorkspaceName
from tf_bert.errors import InputError


class ClientV1:
    """A workspace through SDK v1; see `runs.Client`.

    Args:
      workspace: an `azureml.core.Workspace`.
    """

    def __init__(self, workspace: Any) -> None:
        self._workspace = workspace

    @classmethod
    def connect(cls, workspace: WorkspaceName, credential: Any) -> "ClientV1":
        from azureml.core import Workspace
        from azureml.core.authentication import TokenAuthentication

        def token(resource: str) -> str:
            return str(credential.get_token(f"{resource.rstrip('/')}/.default").token)

        with _azure_errors():
            return cls(
                Workspace(
                    workspace.subscription_id,
                    workspace.resource_group,
                    workspace.workspace_name,
                    auth=TokenAuthentication(token),
                )
            )

    def clusters(self) -> Sequence[Cluster]:
        with _azure_errors():
            return [
                Cluster(
                    name,
                    found.vm_size,
                    str(found.vm_priority).lower() == "lowpriority",
                    found.scale_settings.maximum_node_count,
                )
                for name, found in self._workspace.compute_targets.items()
                if found.type == "AmlCompute"
            ]

    def datastores(self) -> Sequence[str]:
        with _azure_errors():
            return list(self._workspace.datastores)

    def submit(self, work: JobFile | PipelineFile, directory: Path, tags: Mapping[str, str]) -> Run:
        from azureml.core import Environment, Experiment

        file = job_of(work)
        built = build(file)
        with _azure_errors():
            environment = file.job.environment
            if environment.version is not None:
                run_config = built.run_config if file.job.sweep is None else built.run_config.run_config
                run_config.environment = Environment.get(self._workspace, environment.name, environment.version)
            run = Experiment(self._workspace, file.job.experiment).submit(built, tags={**file.job.tags, **tags})
            run.display_name = file.job.name
            return _run(run)

    def newest(self, experiment: str, tag: str, value: str) -> Run | None:
        from azureml.core import Experiment

        with _azure_errors():
            runs = Experiment(self._workspace, experiment).get_runs(tags={tag: value})  # the newest first
            return next((_run(run) for run in runs), None)

    def get(self, name: str) -> Run:
        return _run(self._get(name))

    def follow_logs(self, name: str) -> None:
        run = self._get(name)
        with _azure_errors():
            run.wait_for_completion(show_output=True, raise_on_error=False)

    def download(self, name: str, output: str | None, file: JobFile | None, directory: Path) -> None:
        if output is None:
            run = self._get(name)
            with _azure_errors():
                run.download_files(output_directory=str(directory))
            return
        assert file is not None
        datastore, path = output_place(file.job, output, name)
        self._download_folder(datastore, path, directory)

    def cancel(self, name: str) -> None:
        run = self._get(name)
        with _azure_errors():
            run.cancel()

    def trials(self, name: str, metric: str, goal: str) -> Sequence[Trial]:
        run = self._get(name)
        with _azure_errors():
            trials = []
            for child in run.get_children_sorted_by_primary_metric():
                values = json.loads(child["hyperparameters"] or "{}")
                found = Run(child["run_id"], child["status"])
                trials.append(Trial(found, values, child["best_primary_metric"]))
            return trials

    def register(self, part: ModelPart, run: str, file: JobFile, tags: Mapping[str, str]) -> str:
        from azureml.core import Model

        datastore, path = output_place(file.job, part.output, run)
        with tempfile.TemporaryDirectory() as scratch:
            self._download_folder(datastore, f"{path}/{part.path}".rstrip("/"), Path(scratch))
            with _azure_errors():
                model = Model.register(
                    self._workspace,
                    model_path=scratch,
                    model_name=part.name,
                    tags={**part.tags, **tags},
                    description=part.description or None,
                )
                return f"{model.name}:{model.version}"

    def _get(self, name: str) -> Any:
        from azureml.core.run import Run as AzureRun

        with _azure_errors():
            return AzureRun.get(self._workspace, name)

    def _download_folder(self, datastore: str, path: str, directory: Path) -> None:
        """Copies what is below `path`; the SDK would keep `path` itself in the copies' names."""
        from azureml.core import Datastore

        with tempfile.TemporaryDirectory() as scratch:
            with _azure_errors():
                found = Datastore.get(self._workspace, datastore).download(scratch, prefix=path, show_progress=False)
            if not found:
                raise InputError(f"Azure: there is nothing in {path} on the datastore {datastore}")
            shutil.copytree(Path(scratch) / path, directory, dirs_exist_ok=True)


def _run(run: Any) -> Run:
    return Run(run.id, run.get_status(), run.get_portal_url())


@contextlib.contextmanager
def _azure_errors() -> Iterator[None]:
    """Turns what Azure refuses, or a network that is down, into one line."""
    from azure.core.exceptions import AzureError
    from azureml.exceptions import AzureMLException
    from requests.exceptions import RequestException

    try:
        yield
    except (AzureMLException, AzureError, RequestException) as error:
        raise InputError(f"Azure: {one_line(error)}") from error
