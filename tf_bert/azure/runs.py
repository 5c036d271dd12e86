"""What both SDKs' clients say of a workspace and its runs, in the same words."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tf_bert.azure.job import SERVERLESS, JobFile, ModelPart
from tf_bert.azure.pipeline import PipelineFile
from tf_bert.azure.vm_sizes import check_processes
from tf_bert.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that the workspace knows."""

    name: str
    """Azure's own name of it."""
    status: str
    """As Azure calls it: Queued, Running, Completed, Failed, Canceled, ..."""
    url: str = ""
    """Its page in the studio."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a sweep."""

    run: Run
    """The run."""
    values: Mapping[str, str]
    """What was drawn for it, by name."""
    metric: float | None
    """The best value of the sweep's metric; None if the run has reported none."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A cluster of a workspace."""

    name: str
    """Its name."""
    vm_size: str
    """The size of its machines."""
    is_spot: bool
    """Whether Azure may take its machines away."""
    max_nodes: int
    """The most machines it grows to."""


class Client(Protocol):
    """A workspace as one of the SDKs reaches it. Every method may raise `InputError` for what Azure refuses."""

    def clusters(self) -> Sequence[Cluster]:
        """The workspace's clusters."""

    def datastores(self) -> Sequence[str]:
        """The names of the workspace's datastores."""

    def submit(self, work: JobFile | PipelineFile, directory: Path, tags: Mapping[str, str]) -> Run:
        """Sends a job, sweep or pipeline, of which the files in `directory` tell what is sent."""

    def newest(self, experiment: str, tag: str, value: str) -> Run | None:
        """The newest run of an experiment that has a tag with this value, or None."""

    def get(self, name: str) -> Run:
        """The run of that name."""

    def follow_logs(self, name: str) -> None:
        """Prints the run's log until it has ended."""

    def download(self, name: str, output: str | None, file: JobFile | None, directory: Path) -> None:
        """Copies the logs and `./outputs` of a run to a folder, or one of the outputs that its job names."""

    def cancel(self, name: str) -> None:
        """Ends a run."""

    def trials(self, name: str, metric: str, goal: str) -> Sequence[Trial]:
        """The runs of a sweep, the best first; those without a metric last."""

    def register(self, part: ModelPart, run: str, file: JobFile, tags: Mapping[str, str]) -> str:
        """Makes a model of what a run has written; returns NAME:VERSION."""


def check_cluster(file: JobFile, clusters: Sequence[Cluster]) -> None:
    """Holds a job against the cluster that it names.

    Raises:
      UsageError: if there is no such cluster, or its machines are too few, too small or of the other priority.
    """
    job = file.job
    if job.compute == SERVERLESS:
        return
    cluster = next((cluster for cluster in clusters if cluster.name.lower() == job.compute.lower()), None)
    if cluster is None:
        there = ", ".join(cluster.name for cluster in clusters) or "none at all"
        raise UsageError(f"{file.path}: compute: the workspace has no cluster {job.compute}; it has {there}")
    where = f"{file.path}: the cluster {cluster.name}"
    if job.vm_size is not None and job.vm_size.lower() != cluster.vm_size.lower():
        raise UsageError(f"{where} has machines of {cluster.vm_size}, not of vm_size {job.vm_size}; choose another")
    if job.nodes > cluster.max_nodes:
        raise UsageError(
            f"{where} grows to {cluster.max_nodes} machines, but nodes is {job.nodes}; lower it, or let it grow"
        )
    if cluster.is_spot != (job.priority == "spot"):
        kind = "spot" if cluster.is_spot else "dedicated"
        raise UsageError(f"{where} is {kind}, but priority is {job.priority}; set it to {kind}, or choose another")
    try:
        check_processes(cluster.vm_size, job.processes_per_node)
    except UsageError as error:
        raise UsageError(f"{file.path}: {error}") from None


def check_datastores(file: JobFile, datastores: Sequence[str]) -> None:
    """Raises `UsageError` if an input or output of a job is on a datastore that the workspace does not have."""
    for group, names in (("inputs", file.job.inputs), ("outputs", file.job.outputs)):
        for name, data in names.items():
            if data.datastore is not None and data.datastore not in datastores:
                raise UsageError(
                    f"{file.path}: {group}.{name}: the workspace has no datastore {data.datastore}; it has "
                    f"{', '.join(datastores) or 'none at all'}"
                )
