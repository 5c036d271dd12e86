"""What `tf-bert azure` does: checks everything it can before anything is sent, sends it, and looks after it.

A job's runs are found again by a tag; no file on this machine remembers them.
"""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from tf_bert.azure.job import JobFile
from tf_bert.azure.lineage import JOB_TAG, lineage_of
from tf_bert.azure.pipeline import PipelineFile
from tf_bert.azure.runs import Client, Run, Trial, check_cluster, check_datastores
from tf_bert.azure.sdks import Sdk, require_sdk
from tf_bert.azure.secret_scan import find_secret, kind_of_secret
from tf_bert.azure.snapshot import list_snapshot, refuse_secrets
from tf_bert.azure.workspace import credential, find_workspace
from tf_bert.config import to_dict
from tf_bert.errors import InputError, UsageError


@dataclasses.dataclass(frozen=True)
class Target:
    """Where runs are sent, and with what."""

    sdk: Sdk = "v2"
    """Azure's SDK."""
    workspace: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    """subscription_id, resource_group and workspace_name, as far as they were given."""

    def connect(self, start: Path) -> Client:
        """Finds the workspace and signs in; its file is looked for from here upwards, and from `start`.

        Raises:
          UsageError: if there is no workspace.
          InputError: if the SDK or credentials are missing, or Azure refuses.
        """
        name = find_workspace((Path.cwd(), start), self.workspace)
        require_sdk(self.sdk)
        if self.sdk == "v1":
            from tf_bert.azure.client_v1 import ClientV1

            return ClientV1.connect(name, credential())
        from tf_bert.azure.client_v2 import ClientV2

        return ClientV2.connect(name, credential())


def dry_run(
    work: JobFile | PipelineFile, sdk: Sdk, directory: Path, tags: Mapping[str, str] | None = None
) -> list[Path]:
    """Writes exactly what would be sent, after the checks that need no workspace; returns the files.

    Args:
      work: a job, sweep or pipeline.
      sdk: whose files they are.
      directory: where to write.
      tags: of the run; None: its lineage.

    Raises:
      UsageError: if the SDK refuses it.
      InputError: if the SDK is not there, or the code cannot be uploaded.
    """
    check_upload(work)
    require_sdk(sdk)
    tags = _tags(work) if tags is None else tags
    if sdk == "v1":
        from tf_bert.azure.sdk_v1 import write_files

        return [write_files(work, directory, tags)]
    from tf_bert.azure import sdk_v2

    path = sdk_v2.write_files(work, directory, tags)
    sdk_v2.load_work(path)
    return [path, *sorted(path.parent.glob("components/*.yml"))]


def submit(work: JobFile | PipelineFile, target: Target) -> Run:
    """Sends a job, sweep or pipeline, once nothing speaks against it.

    Raises:
      UsageError: if the workspace has no such cluster or datastore, or cannot run the job as it is described.
      InputError: if the code cannot be uploaded, credentials or the SDK are missing, or Azure refuses.
    """
    with tempfile.TemporaryDirectory() as scratch:
        directory, tags = Path(scratch), _tags(work)
        dry_run(work, target.sdk, directory, tags)
        client = target.connect(work.path.parent)
        clusters, datastores = client.clusters(), client.datastores()
        for file in _jobs(work):
            check_cluster(file, clusters)
            check_datastores(file, datastores)
        return client.submit(work, directory, tags)


def check_upload(work: JobFile | PipelineFile) -> None:
    """Holds what would leave this machine against Azure's limits, and looks for secrets in it.

    Raises:
      InputError: if there is too much of it, or something looks like a secret.
    """
    for path in {work.path, *(file.path for file in _jobs(work))}:
        if found := find_secret(path):
            raise InputError(
                f"{path}: line {found.line}: looks like {found.kind}, and whoever sees the run would see it; take it "
                "out (the workspace has a key vault for secrets)"
            )
    for file in _jobs(work):  # with what the command line has changed
        if kind := kind_of_secret(yaml.safe_dump(to_dict(file.job), width=10_000)):
            raise InputError(
                f"{file.path}: a value of the command line looks like {kind}; nothing secret belongs there"
            )
    for code_dir in dict.fromkeys(file.code_dir for file in _jobs(work)):
        refuse_secrets(code_dir, list_snapshot(code_dir))
    for file in _jobs(work):
        for given in file.job.inputs.values():
            if given.is_local:
                path = file.local_path(given.path)
                files = sorted(each.relative_to(path) for each in path.rglob("*") if each.is_file())
                refuse_secrets(path, files or [Path()])


def find_run(work: JobFile | PipelineFile, client: Client, name: str | None) -> Run:
    """The run of that name, or the newest of a job.

    Raises:
      InputError: if there is none.
    """
    if name is not None:
        return client.get(name)
    title, experiment = _title(work)
    run = client.newest(experiment, JOB_TAG, title)
    if run is None:
        raise InputError(
            f"{work.path}: the experiment {experiment} has no run of it; `tf-bert azure submit` sends one, --run NAME "
            "finds one that was sent otherwise"
        )
    return run


def trials(file: JobFile, client: Client, run: Run) -> Sequence[Trial]:
    """The runs of a sweep, the best first.

    Raises:
      UsageError: if the job is none.
    """
    if file.job.sweep is None:
        raise UsageError(f"{file.path}: has no sweep; write one, or use `tf-bert azure status`")
    return client.trials(run.name, file.job.sweep.metric, file.job.sweep.goal)


def register(file: JobFile, client: Client, run: Run) -> str:
    """Makes a model of what a run, or the best of a sweep's, has written; returns NAME:VERSION.

    Raises:
      UsageError: if the job does not say which of its outputs is one.
      InputError: if the run has not ended well.
    """
    part = file.job.register
    if part is None:
        raise UsageError(f"{file.path}: register is missing; name the model, and the output it lies in")
    if file.job.sweep is not None:
        found = [trial for trial in trials(file, client, run) if trial.metric is not None]
        if not found:
            raise InputError(f"{run.name}: no run of the sweep has reported {file.job.sweep.metric} yet")
        run = found[0].run
    if run.status.lower() not in ("completed", "finished"):
        raise InputError(f"{run.name}: is {run.status}, expected Completed; wait for it, or name another with --run")
    return client.register(part, run.name, file, {"run": run.name, **_tags(file)})


def check_deployment(export_dir: Path) -> tuple[str, str]:
    """Has SDK v2 read the files beside an export; returns the names of endpoint and deployment.

    Raises:
      UsageError: if the SDK refuses them.
      InputError: if they are not there, or the SDK is not.
    """
    require_sdk("v2")
    from tf_bert.azure.sdk_v2 import load_endpoint

    endpoint, deployment = load_endpoint(export_dir)
    return endpoint.name, deployment.name


def deploy(export_dir: Path, target: Target) -> str:
    """Puts an export behind an endpoint; returns where to ask it. Raises as `submit` does."""
    from tf_bert.azure.client_v2 import ClientV2

    client = target.connect(export_dir)
    assert isinstance(client, ClientV2)
    return client.deploy(export_dir)


def _jobs(work: JobFile | PipelineFile) -> Iterator[JobFile]:
    yield from work.jobs.values() if isinstance(work, PipelineFile) else (work,)


def _title(work: JobFile | PipelineFile) -> tuple[str, str]:
    described = work.pipeline if isinstance(work, PipelineFile) else work.job
    return described.name, described.experiment


def _tags(work: JobFile | PipelineFile) -> dict[str, str]:
    return lineage_of(_title(work)[0], work.path)
