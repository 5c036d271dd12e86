"""SDK v1 (azureml-core), for workspaces that still run on it: the objects that are sent.

A datastore's folders are mounted as data references, as v1's notebooks did: they can be read and written under the same
path in every attempt. The service puts their places into the command.
"""

import json
import os
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_bert.azure.definitions import log_bounds
from tf_bert.azure.job import DATASTORE_PATH, RUN_NAME, SERVERLESS, AzureJob, JobFile, fill_placeholders
from tf_bert.azure.pipeline import PipelineFile
from tf_bert.config import ParameterConfig
from tf_bert.errors import UsageError
from tf_bert.files import write_json

SENT_FILE = "job.json"
LAUNCHER = "scripts/run_tf_bert.py"  # HyperDrive hands values to a script, not to a command
_DEFAULT_STORE = "workspaceblobstore"
# Sections of v1's run configuration for other kinds of runs; they go along with their defaults.
_OTHER_KINDS = (
    "hdi",
    "spark",
    "databricks",
    "tensorflow",
    "pytorch",
    "paralleltask",
    "amlcompute",
    "kubernetescompute",
)


def build(file: JobFile) -> Any:
    """The SDK's object for a job: a `ScriptRunConfig`, or a `HyperDriveConfig` for a sweep. Nothing is asked of Azure.

    Raises:
      UsageError: if the job has what SDK v1 cannot send.
    """
    from azureml.core import ScriptRunConfig
    from azureml.core.runconfig import DockerConfiguration, MpiConfiguration

    job = file.job
    _check_supported(file)
    script = _script(file) if job.sweep else {"command": fill_placeholders(job.command, _places(job))}
    limit = {} if job.time_limit_minutes is None else {"max_run_duration_seconds": 60 * job.time_limit_minutes}
    config = ScriptRunConfig(
        source_directory=str(file.code_dir),
        compute_target=job.compute,
        environment=_environment(job),
        distributed_job_config=MpiConfiguration(job.processes_per_node, job.nodes) if job.is_distributed else None,
        docker_runtime_config=DockerConfiguration(use_docker=True, shm_size=job.shm_size),
        **script,
        **limit,
    )
    config.run_config.environment_variables = dict(job.environment_variables)
    _add_data(config.run_config, job)
    return config if job.sweep is None else _hyperdrive(config, job)


def describe(file: JobFile, directory: Path, tags: Mapping[str, str]) -> dict[str, Any]:
    """What is sent, as JSON values: the run configuration without its empty fields, and the sweep around it.

    Args:
      file: the job.
      directory: where the description will be written, to which the code's folder is named relative.
      tags: added to the job's own.
    """
    from azureml.core.script_run_config import get_run_config_from_script_run

    built = build(file)
    run = built if file.job.sweep is None else built.run_config
    configuration = _cleaned(json.loads(repr(get_run_config_from_script_run(run))))
    if file.job.environment.version is not None:  # what else belongs to it is in the workspace
        configuration["environment"] = {"name": file.job.environment.name, "version": file.job.environment.version}
    description = {
        "experiment": file.job.experiment,
        "display_name": file.job.name,
        "tags": {**file.job.tags, **tags},
        "snapshot": Path(os.path.relpath(file.code_dir, directory.resolve())).as_posix(),
        "run_configuration": configuration,
    }
    if file.job.sweep is not None:
        description["hyperdrive"] = {
            "generator": built._generator_config,
            "policy": built._policy_config,
            "primary_metric": built._primary_metric_config,
            "max_total_runs": built._max_total_runs,
            "max_concurrent_runs": built._max_concurrent_runs,
            "max_duration_minutes": built._max_duration_minutes,
        }
    return description


def write_files(work: JobFile | PipelineFile, directory: Path, tags: Mapping[str, str]) -> Path:
    """Writes what is sent as JSON, and has the SDK read its run configuration again; returns the file.

    Raises:
      UsageError: if the job has what SDK v1 cannot send.
    """
    from azureml.core.runconfig import RunConfiguration

    description = describe(job_of(work), directory, tags)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "job.runconfig"
        write_json(path, description["run_configuration"])
        RunConfiguration.load(str(path))
    write_json(directory / SENT_FILE, description)
    return directory / SENT_FILE


def job_of(work: JobFile | PipelineFile) -> JobFile:
    """The job; raises `UsageError` for a pipeline."""
    if isinstance(work, PipelineFile):
        raise UsageError(
            f"{work.path}: pipelines are sent with SDK v2 alone; use --sdk v2, or submit its jobs one by one"
        )
    return work


def _check_supported(file: JobFile) -> None:
    job, where = file.job, file.path
    if job.environment.dockerfile is not None:
        raise UsageError(
            f"{where}: environment: SDK v1 builds no image from a folder; name an image (--environment.image "
            "REGISTRY/NAME:TAG) or an environment of the workspace (--environment.version N), and add "
            "--environment.dockerfile null"
        )
    if job.compute == SERVERLESS:
        raise UsageError(f"{where}: compute: SDK v1 knows no {SERVERLESS} machines; name a cluster")
    for name, given in job.inputs.items():
        if given.is_local:
            raise UsageError(f"{where}: inputs.{name}: SDK v1 uploads no data; copy {given.path} to a datastore first")


def _script(file: JobFile) -> dict[str, Any]:
    """Script and arguments of a sweep, less the flags whose values HyperDrive will add: `--NAME VALUE`."""
    where = f"{file.path}: command"
    words = shlex.split(file.job.command)
    for name in file.job.sweep.parameters if file.job.sweep else ():
        pair = [f"--{name}", f"${{{{search_space.{name}}}}}"]
        at = next((at for at in range(len(words)) if words[at : at + 2] == pair), None)
        if at is None:
            raise UsageError(f"{where}: SDK v1 hands a sweep's values over as flags; write {' '.join(pair)}")
        del words[at : at + 2]
    if words[0] == "tf-bert":
        words = ["python", LAUNCHER, *words[1:]]
    if len(words) < 2 or words[0] not in ("python", "python3") or not (file.code_dir / words[1]).is_file():
        raise UsageError(
            f"{where}: a sweep of SDK v1 runs a script of the code; expected `tf-bert ...` and {LAUNCHER} in "
            f"{file.code_dir}, or `python SCRIPT ...`"
        )
    places = _places(file.job)
    return {"script": words[1], "arguments": [fill_placeholders(word, places) for word in words[2:]]}


def _places(job: AzureJob) -> dict[str, str]:
    """What v1's service replaces with paths, by placeholder."""
    places = {}
    for name, given in job.inputs.items():
        kind = "DatasetConsumptionConfig:" if given.datastore is None else "$AZUREML_DATAREFERENCE_"
        places[f"inputs.{name}"] = kind + name
    for name, output in job.outputs.items():
        kind = "$AZUREML_DATAREFERENCE_" if _is_reference(output.path, output.mode) else "DatasetOutputConfig:"
        places[f"outputs.{name}"] = kind + name
    return places


def _is_reference(path: str | None, mode: str) -> bool:
    """Whether an output is mounted as a data reference, which can neither upload nor have a run's name in its path."""
    return path is not None and RUN_NAME not in path and mode == "rw_mount"


def _add_data(run_config: Any, job: AzureJob) -> None:
    from azureml.core import runconfig

    for name, given in job.inputs.items():
        mode = "download" if given.mode == "download" else "mount"
        if given.datastore is not None:
            datastore, path = _split(given.path)
            run_config.data_references[name] = runconfig.DataReferenceConfiguration(datastore, mode, path)
            continue
        if given.path.startswith("https://"):
            location = runconfig.DataLocation(uri=runconfig.Uri(given.path, given.type == "uri_file"))
        else:
            asset, _, version = given.path.removeprefix("azureml:").partition("@" if "@" in given.path else ":")
            location = runconfig.DataLocation(dataset=runconfig.Dataset(dataset_name=asset, dataset_version=version))
        run_config.data[name] = runconfig.Data(location, False, mode, name)
    for name, output in job.outputs.items():
        if _is_reference(output.path, output.mode):
            datastore, path = _split(output.path or "")
            run_config.data_references[name] = runconfig.DataReferenceConfiguration(datastore, "mount", path)
            continue
        mode = "upload" if output.mode == "upload" else "mount"
        options = runconfig.OutputOptions(
            registration_options=runconfig.RegistrationOptions(),
            upload_options=runconfig.UploadOptions(overwrite=True) if mode == "upload" else None,
            mount_options=runconfig.MountOptions() if mode == "mount" else None,
        )
        place = runconfig.DataPath(*output_place(job, name, "{run-id}"))
        run_config.output_data[name] = runconfig.OutputData(runconfig.DataLocation(data_path=place), mode, options)


def output_place(job: AzureJob, name: str, run: str) -> tuple[str, str]:
    """Datastore and path of an output of the run of that name."""
    path = job.outputs[name].path
    return _split(path.replace(RUN_NAME, run)) if path is not None else (_DEFAULT_STORE, f"dataset/{run}/{name}")


def _split(path: str) -> tuple[str, str]:
    match = DATASTORE_PATH.fullmatch(path)
    assert match is not None, path
    return match["datastore"], match["path"].rstrip("/")


def _environment(job: AzureJob) -> Any:
    from azureml.core import Environment

    if job.environment.image is None:  # the workspace's own, which is asked for when the job is sent
        environment = Environment(name=job.environment.name)
        environment.version = job.environment.version
        return environment
    environment = Environment.from_docker_image(job.environment.name, job.environment.image)
    environment.environment_variables.clear()  # an example of the SDK's
    environment.python.user_managed_dependencies = True  # the image has all that the command needs
    environment.python.conda_dependencies = None
    return environment


def _hyperdrive(config: Any, job: AzureJob) -> Any:
    from azureml.train import hyperdrive

    sweep = job.sweep
    assert sweep is not None

    def expression(parameter: ParameterConfig) -> Any:
        if parameter.choice is not None:
            return hyperdrive.choice(*parameter.choice)
        if parameter.uniform is not None:
            return hyperdrive.uniform(*parameter.uniform)
        return hyperdrive.loguniform(*log_bounds(parameter))

    space = {name: expression(parameter) for name, parameter in sweep.parameters.items()}
    bandit = sweep.bandit
    policy = None
    if bandit.slack_factor is not None:
        policy = hyperdrive.BanditPolicy(
            slack_factor=bandit.slack_factor,
            evaluation_interval=bandit.evaluation_interval,
            delay_evaluation=bandit.delay_evaluation,
        )
    limit = {} if sweep.time_limit_minutes is None else {"max_duration_minutes": sweep.time_limit_minutes}
    return hyperdrive.HyperDriveConfig(
        run_config=config,
        hyperparameter_sampling=hyperdrive.RandomParameterSampling(space),
        policy=policy,
        primary_metric_name=sweep.metric,
        primary_metric_goal=hyperdrive.PrimaryMetricGoal.from_str(sweep.goal),
        max_total_runs=sweep.max_total_trials,
        max_concurrent_runs=sweep.max_concurrent_trials,
        **limit,
    )


def _cleaned(value: Any) -> Any:
    """Without fields that are empty, or of other kinds of runs, or for passwords."""
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, inner in value.items():
        cleaned = _cleaned(inner)
        if key not in (*_OTHER_KINDS, "password", "username") and cleaned not in (None, "", {}, []):
            kept[key] = cleaned
    return kept
