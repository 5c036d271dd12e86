"""What to run on Azure Machine Learning, free of Azure's SDKs: a YAML file, from which either SDK's job is made.

The command has placeholders as SDK v2 writes them: `${{inputs.NAME}}` and `${{outputs.NAME}}` become the paths under
which the job sees its inputs and outputs, and `${{search_space.NAME}}` what a sweep has drawn.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tf_bert.azure.sweep import SweepPart
from tf_bert.azure.vm_sizes import check_processes
from tf_bert.config import load
from tf_bert.config.fields import STRICT, PositiveInt
from tf_bert.errors import InputError, UsageError

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]  # of an input or output: a placeholder and a variable
AzureName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,254}$")]
ComputeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{1,31}$")]

SERVERLESS = "serverless"  # instead of a cluster's name
RUN_NAME = "${{name}}"  # in the path of an output: Azure's name of the run
PLACEHOLDER = re.compile(r"\$\{\{\s*(?P<key>[^{}\s]*)\s*\}\}")
DATASTORE_PATH = re.compile(r"azureml://datastores/(?P<datastore>[A-Za-z0-9_]+)/paths/(?P<path>[^?#\s]*)")
_DATA_ASSET = re.compile(r"azureml:[A-Za-z0-9][A-Za-z0-9_.-]*(:[A-Za-z0-9_.-]+|@latest)")


@dataclass(frozen=True, config=STRICT)
class JobInput:
    """Data that the job reads."""

    path: str
    """azureml://datastores/NAME/paths/..., azureml:NAME:VERSION, https://..., or a local path, which is uploaded."""
    mode: Literal["ro_mount", "download"] = "ro_mount"
    """Read over the network while it is used, or copied to the node's disk before the job starts."""
    type: Literal["uri_folder", "uri_file"] = "uri_folder"
    """A folder or one file."""

    def __post_init__(self) -> None:
        _check_azure_path(self.path, assets=True)

    @property
    def is_local(self) -> bool:
        """Whether `path` is on the machine that submits; it is relative to the job's file."""
        return not self.path.startswith(("azureml:", "https://"))

    @property
    def datastore(self) -> str | None:
        """The datastore that `path` is on, or None."""
        return _datastore(self.path)


@dataclass(frozen=True, config=STRICT)
class JobOutput:
    """A folder that the job writes."""

    path: str | None = None
    """azureml://datastores/NAME/paths/...: the same folder in every attempt, or one for each run where ${{name}} is in
    it; null: wherever Azure likes."""
    mode: Literal["rw_mount", "upload"] = "rw_mount"
    """Written over the network while the job runs, or uploaded when it has ended."""
    type: Literal["uri_folder"] = "uri_folder"
    """A folder."""

    def __post_init__(self) -> None:
        if self.path is not None:
            _check_azure_path(self.path, assets=False)

    @property
    def datastore(self) -> str | None:
        """The datastore that `path` is on, or None."""
        return None if self.path is None else _datastore(self.path)


@dataclass(frozen=True, config=STRICT)
class EnvironmentConfig:
    """The image in which the command runs: one of dockerfile, image and version."""

    name: AzureName
    """Under which the workspace keeps it."""
    dockerfile: str | None = None
    """Azure builds the image from the job's code with this file in it, anew whenever the code changes (SDK v2)."""
    image: str | None = None
    """An image that exists, with its registry and tag, e.g. myregistry.azurecr.io/tf_bert:gpu."""
    version: str | None = None
    """An environment that the workspace has by this name and version."""

    def __post_init__(self) -> None:
        kinds = ("dockerfile", "image", "version")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"found {' and '.join(given) or 'nothing'}, expected one of {', '.join(kinds)}")


@dataclass(frozen=True, config=STRICT)
class ModelPart:
    """What of the job's outputs becomes a registered model."""

    name: AzureName
    """Of the model; every registration is a new version of it."""
    output: Name
    """The output that holds it."""
    path: str = ""
    """Below that output, such as `model`; empty: all of it."""
    description: str = ""
    """For people who look at the registry."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Of the model; the job's name and the lineage are added."""

    def __post_init__(self) -> None:
        if self.path.startswith("/") or ".." in Path(self.path).parts:
            raise ValueError(f"path: found {self.path!r}, expected a path below the output, such as 'model'")


@dataclass(frozen=True, config=STRICT)
class AzureJob:
    """One job: a command on the nodes of a cluster, as many processes on each as it has GPUs."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    """Shown in the studio."""
    experiment: AzureName
    """The group of runs it belongs to."""
    command: str
    """With placeholders such as ${{inputs.data}}; it runs in `code`, once per process."""
    compute: ComputeName
    """The cluster; serverless: machines of vm_size that Azure finds (SDK v2)."""
    environment: EnvironmentConfig
    """The image."""
    description: str = ""
    """For people who look at the run."""
    code: str = "."
    """The folder that is uploaded, relative to the job's file; `.amlignore` in it says what is left out."""
    inputs: dict[Name, JobInput] = Field(default_factory=dict)
    """Data to read, by name."""
    outputs: dict[Name, JobOutput] = Field(default_factory=dict)
    """Folders to write, by name."""
    vm_size: str | None = None
    """The size of the cluster's machines, e.g. Standard_ND40rs_v2; null: whatever the cluster has."""
    nodes: PositiveInt = 1
    """Machines."""
    processes_per_node: PositiveInt = 1
    """Processes on each, one a GPU; with more than one in all, Azure starts them with mpirun."""
    shm_size: Annotated[str, Field(pattern=r"^[1-9][0-9]*[bkmg]$")] = "8g"
    """Shared memory of the container, through which the ranks of one machine talk."""
    priority: Literal["dedicated", "spot"] = "dedicated"
    """spot: cheaper machines that Azure may take away; the job has to go on by itself when it is started again."""
    time_limit_minutes: PositiveInt | None = None
    """End the job after so long; null: do not."""
    environment_variables: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = Field(
        default_factory=dict
    )
    """Set for every process. No secrets: anyone who sees the run sees them."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Of the run; the lineage (version, commit, hash of the job's file) is added when it is sent."""
    sweep: SweepPart | None = None
    """Repeat the job with other values; null: run it once."""
    register: ModelPart | None = None
    """What `tf-bert azure register` makes a model of; null: nothing."""

    def __post_init__(self) -> None:
        _check_placeholders(self)
        if self.vm_size is not None:
            try:
                check_processes(self.vm_size, self.processes_per_node)
            except UsageError as error:
                raise ValueError(str(error)) from None
        if self.compute == SERVERLESS and self.vm_size is None:
            raise ValueError(f"compute is {SERVERLESS}, so vm_size says which machines; set it")
        for name, output in self.outputs.items():
            if self.sweep is not None and output.path is not None and RUN_NAME not in output.path:
                raise ValueError(
                    f"outputs.{name}: every run of the sweep would write to {output.path}; put {RUN_NAME} in its path"
                )
        if self.register is not None and self.register.output not in self.outputs:
            raise ValueError(f"register.output {self.register.output} is not among the outputs{_listed(self.outputs)}")

    @property
    def is_distributed(self) -> bool:
        """Whether the job is an MPI job: more than one process in all."""
        return self.nodes * self.processes_per_node > 1


@dataclasses.dataclass(frozen=True)
class JobFile:
    """A job and the file that describes it."""

    job: AzureJob
    """What to run."""
    path: Path
    """The YAML file."""

    @property
    def code_dir(self) -> Path:
        """The folder that is uploaded."""
        return (self.path.parent / self.job.code).resolve()

    def local_path(self, path: str) -> Path:
        """The place of an input that is local, which may be relative to the job's file."""
        return (self.path.parent / path).resolve()


def read_job(path: Path, overrides: Mapping[str, Any] | None = None) -> JobFile:
    """Reads a job's YAML file and checks that the folders and files it names are there.

    Args:
      path: the file.
      overrides: values by dotted names that go before the file's.

    Raises:
      UsageError: if a key is unknown, a value does not fit or a placeholder has no declaration.
      InputError: if the file, its code, its Dockerfile or a local input is missing.
    """
    file = JobFile(load(AzureJob, str(path), overrides), path)
    if not file.code_dir.is_dir():
        raise InputError(f"{path}: code: {file.code_dir} is not a folder; it is relative to this file")
    dockerfile = file.job.environment.dockerfile
    if dockerfile is not None and not (file.code_dir / dockerfile).is_file():
        raise InputError(f"{path}: environment.dockerfile: there is no {dockerfile} in {file.code_dir}")
    for name, given in file.job.inputs.items():
        if given.is_local and not file.local_path(given.path).exists():
            raise InputError(
                f"{path}: inputs.{name}: {file.local_path(given.path)} does not exist; expected a local path, "
                "azureml://datastores/NAME/paths/..., azureml:NAME:VERSION or https://..."
            )
    return file


def placeholders_of(command: str) -> tuple[str, ...]:
    """The placeholders of a command in their order, such as `inputs.data`; one that occurs twice is named once."""
    return tuple(dict.fromkeys(match["key"] for match in PLACEHOLDER.finditer(command)))


def fill_placeholders(command: str, values: Mapping[str, str]) -> str:
    """The command with a value in the place of every placeholder; `values` has keys such as `inputs.data`.

    Raises:
      KeyError: if a value is missing.
    """
    return PLACEHOLDER.sub(lambda match: values[match["key"]], command)


def _check_placeholders(job: AzureJob) -> None:
    declared: dict[str, Mapping[str, object]] = {
        "inputs": job.inputs,
        "outputs": job.outputs,
        "search_space": job.sweep.parameters if job.sweep else {},
    }
    used = placeholders_of(job.command)
    for key in used:
        group, _, name = key.partition(".")
        if group not in declared:
            raise ValueError(
                f"command: found ${{{{{key}}}}}, expected ${{{{inputs.NAME}}}}, ${{{{outputs.NAME}}}} or "
                "${{search_space.NAME}}"
            )
        if name not in declared[group]:
            where = "sweep.parameters" if group == "search_space" else group
            raise ValueError(
                f"command: ${{{{{key}}}}} is not declared; add {name} to {where}{_listed(declared[group])}"
            )
    for group, entries in declared.items():
        for name in entries:
            if f"{group}.{name}" not in used:
                raise ValueError(
                    f"{group}.{name} is declared, but the command does not use it; write ${{{{{group}.{name}}}}} "
                    "in the command, or leave it out"
                )


def _listed(names: Mapping[str, object]) -> str:
    return f" ({', '.join(names)})" if names else ", of which there are none"


def _datastore(path: str) -> str | None:
    match = DATASTORE_PATH.fullmatch(path)
    return match["datastore"] if match else None


def _check_azure_path(path: str, assets: bool) -> None:
    if path.startswith("azureml://"):
        if not DATASTORE_PATH.fullmatch(path):
            raise ValueError(f"path: found {path!r}, expected azureml://datastores/NAME/paths/...")
    elif not assets:
        raise ValueError(f"path: found {path!r}, expected azureml://datastores/NAME/paths/..., or null for a new place")
    elif path.startswith("azureml:") and not _DATA_ASSET.fullmatch(path):
        raise ValueError(f"path: found {path!r}, expected azureml:NAME:VERSION or azureml:NAME@latest")
    elif re.match(r"[a-z][a-z0-9+.-]*://", path) and not path.startswith(("https://", "azureml:")):
        raise ValueError(
            f"path: found {path!r}, expected azureml://datastores/NAME/paths/..., azureml:NAME:VERSION, https://... or "
            "a local path"
        )
