"""Jobs, sweeps, pipelines and models as the YAML files of SDK v2 and of the `az ml` command; no SDK is needed.

Field by field the schemas at https://azuremlschemas.azureedge.net/latest. Paths are relative to the directory that the
files are written to.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_bert.azure.job import SERVERLESS, AzureJob, JobFile, JobInput, JobOutput, ModelPart
from tf_bert.azure.pipeline import PipelineFile
from tf_bert.azure.sweep import SweepPart
from tf_bert.config import ParameterConfig

_SCHEMAS = "https://azuremlschemas.azureedge.net/latest"
JOB_FILE = "job.yml"
COMPONENTS_DIR = "components"


def definitions(work: JobFile | PipelineFile, directory: Path, tags: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The files of a job, sweep or pipeline, by their names; the first is the one to send.

    Args:
      work: what to run.
      directory: where they will be written.
      tags: added to the job's or pipeline's own.
    """
    if isinstance(work, PipelineFile):
        return _pipeline(work, directory, tags)
    make = _command if work.job.sweep is None else _sweep
    return {JOB_FILE: make(work, directory, {**work.job.tags, **tags})}


def model_definition(part: ModelPart, run: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """A model made of what the run of that name has written."""
    path = f"azureml://jobs/{run}/outputs/{part.output}/paths/{part.path}"
    return _without_empty(
        {
            "$schema": f"{_SCHEMAS}/model.schema.json",
            "name": part.name,
            "path": path,
            "type": "custom_model",
            "description": part.description,
            "tags": {**part.tags, **tags},
        }
    )


def log_bounds(parameter: ParameterConfig) -> tuple[float, float]:
    """The bounds of log_uniform as both SDKs want them: natural logarithms, of which they draw uniformly."""
    assert parameter.log_uniform is not None
    low, high = parameter.log_uniform
    return math.log(low), math.log(high)


def _command(file: JobFile, directory: Path, tags: Mapping[str, str]) -> dict[str, Any]:
    job = file.job
    definition = {
        "$schema": f"{_SCHEMAS}/commandJob.schema.json",
        "type": "command",
        **_titles(job),
        "code": _relative(file.code_dir, directory),
        "command": job.command,
        **_data(file, directory, {}),
        "environment": _environment(file, directory),
        **_machines(job),
        "environment_variables": job.environment_variables,
        "limits": _job_limits(job),
        "tags": dict(tags),
    }
    return _without_empty(definition)


def _sweep(file: JobFile, directory: Path, tags: Mapping[str, str]) -> dict[str, Any]:
    job, sweep = file.job, file.job.sweep
    assert sweep is not None
    machines = _machines(job)
    trial = {
        "code": _relative(file.code_dir, directory),
        "command": job.command,
        "environment": _environment(file, directory),
        "environment_variables": job.environment_variables,
        "distribution": machines.pop("distribution", None),
        "resources": machines.pop("resources"),
    }
    limits = {
        "max_total_trials": sweep.max_total_trials,
        "max_concurrent_trials": sweep.max_concurrent_trials,
        "timeout": _seconds(sweep.time_limit_minutes),
        "trial_timeout": _seconds(job.time_limit_minutes),
    }
    definition = {
        "$schema": f"{_SCHEMAS}/sweepJob.schema.json",
        "type": "sweep",
        **_titles(job),
        "trial": _without_empty(trial),
        **_data(file, directory, {}),
        **machines,
        "sampling_algorithm": _without_empty({"type": sweep.sampling, "seed": sweep.seed}),
        "search_space": {name: _search_space(parameter) for name, parameter in sweep.parameters.items()},
        "objective": {"goal": sweep.goal, "primary_metric": sweep.metric},
        "early_termination": _early_termination(sweep),
        "limits": _without_empty(limits),
        "tags": dict(tags),
    }
    return _without_empty(definition)


def _pipeline(file: PipelineFile, directory: Path, tags: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The pipeline's own file and those of its components."""
    components: dict[str, dict[str, Any]] = {}
    nodes: dict[str, Any] = {}
    for name, job_file in file.jobs.items():
        component = f"{COMPONENTS_DIR}/{name}.yml"
        components[component] = _component(name, job_file, directory / COMPONENTS_DIR)
        nodes[name] = _node(component, job_file, directory, file.pipeline.steps[name].inputs)
    pipeline = file.pipeline
    definition = {
        "$schema": f"{_SCHEMAS}/pipelineJob.schema.json",
        "type": "pipeline",
        "display_name": pipeline.name,
        "experiment_name": pipeline.experiment,
        "description": pipeline.description,
        "jobs": nodes,
        "tags": {**pipeline.tags, **tags},
    }
    return {JOB_FILE: _without_empty(definition), **components}


def _component(name: str, file: JobFile, directory: Path) -> dict[str, Any]:
    job = file.job
    definition = {
        "$schema": f"{_SCHEMAS}/commandComponent.schema.json",
        "type": "command",
        "name": name,
        "display_name": job.name,
        "description": job.description,
        "is_deterministic": False,  # what it writes lies in a datastore, where an earlier run's must not stand for it
        "code": _relative(file.code_dir, directory),
        "command": job.command,
        "inputs": {key: {"type": given.type} for key, given in job.inputs.items()},
        "outputs": {key: {"type": output.type} for key, output in job.outputs.items()},
        "environment": _environment(file, directory),
    }
    return _without_empty(definition)


def _node(component: str, file: JobFile, directory: Path, bound: Mapping[str, str]) -> dict[str, Any]:
    definition = {
        "type": "command",
        "component": f"./{component}",
        **_data(file, directory, bound),
        **_machines(file.job),
        "environment_variables": file.job.environment_variables,
        "limits": _job_limits(file.job),
    }
    return _without_empty(definition)


def _titles(job: AzureJob) -> dict[str, Any]:
    return {"display_name": job.name, "experiment_name": job.experiment, "description": job.description}


def _data(file: JobFile, directory: Path, bound: Mapping[str, str]) -> dict[str, Any]:
    """Inputs and outputs; `bound` names those that other steps of a pipeline write, as STEP.OUTPUT."""

    def path_of(name: str, given: JobInput) -> str:
        if name in bound:
            step, _, output = bound[name].partition(".")
            return f"${{{{parent.jobs.{step}.outputs.{output}}}}}"
        return _relative(file.local_path(given.path), directory) if given.is_local else given.path

    def output_of(output: JobOutput) -> dict[str, Any]:
        return _without_empty({"type": output.type, "path": output.path, "mode": output.mode})

    inputs = {
        name: {"type": given.type, "path": path_of(name, given), "mode": given.mode}
        for name, given in file.job.inputs.items()
    }
    return {"inputs": inputs, "outputs": {name: output_of(output) for name, output in file.job.outputs.items()}}


def _environment(file: JobFile, directory: Path) -> Any:
    environment = file.job.environment
    if environment.version is not None:
        return f"azureml:{environment.name}:{environment.version}"
    if environment.image is not None:
        return {"image": environment.image}
    # Without a name: Azure names an environment by what it is built from, and builds no image twice.
    return {"build": {"path": _relative(file.code_dir, directory), "dockerfile_path": environment.dockerfile}}


def _machines(job: AzureJob) -> dict[str, Any]:
    resources = {"instance_count": job.nodes, "shm_size": job.shm_size}
    machines: dict[str, Any] = {"resources": resources}
    if job.compute == SERVERLESS:
        resources["instance_type"] = job.vm_size or ""
        # A cluster's machines are spot or not by themselves.
        machines["queue_settings"] = {"job_tier": "spot"} if job.priority == "spot" else None
    else:
        machines["compute"] = f"azureml:{job.compute}"
    if job.is_distributed:
        machines["distribution"] = {"type": "mpi", "process_count_per_instance": job.processes_per_node}
    return machines


def _job_limits(job: AzureJob) -> dict[str, Any]:
    return _without_empty({"timeout": _seconds(job.time_limit_minutes)})


def _search_space(parameter: ParameterConfig) -> dict[str, Any]:
    if parameter.choice is not None:
        return {"type": "choice", "values": list(parameter.choice)}
    low, high = parameter.uniform or log_bounds(parameter)
    return {"type": "uniform" if parameter.uniform else "loguniform", "min_value": low, "max_value": high}


def _early_termination(sweep: SweepPart) -> dict[str, Any]:
    bandit = sweep.bandit
    if bandit.slack_factor is None:
        return {}
    return {
        "type": "bandit",
        "slack_factor": bandit.slack_factor,
        "evaluation_interval": bandit.evaluation_interval,
        "delay_evaluation": bandit.delay_evaluation,
    }


def _seconds(minutes: int | None) -> int | None:
    return None if minutes is None else 60 * minutes


def _relative(path: Path, directory: Path) -> str:
    return Path(os.path.relpath(path, directory.resolve())).as_posix()


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, "", {})}
