"""Several jobs, each of which starts when what it reads is there: a YAML file that names the files of its jobs."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field
from pydantic.dataclasses import dataclass

from tf_bert.azure.job import AzureName, JobFile, Name, read_job
from tf_bert.config import load
from tf_bert.config.fields import STRICT
from tf_bert.errors import UsageError


@dataclass(frozen=True, config=STRICT)
class Step:
    """One job of a pipeline."""

    job: str
    """Its YAML file, relative to the pipeline's."""
    inputs: dict[Name, Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$")]] = Field(
        default_factory=dict
    )
    """Inputs that other steps write: STEP.OUTPUT by name; the others are read from where the job says."""


@dataclass(frozen=True, config=STRICT)
class AzurePipeline:
    """Jobs and what they hand on."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    """Shown in the studio."""
    experiment: AzureName
    """The group of runs it belongs to."""
    steps: dict[Name, Step]
    """By name; a step reads of steps above it alone."""
    description: str = ""
    """For people who look at the run."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Of the run."""

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("steps is empty; name jobs")


@dataclasses.dataclass(frozen=True)
class PipelineFile:
    """A pipeline, the file that describes it, and its jobs."""

    pipeline: AzurePipeline
    """What to run."""
    path: Path
    """The YAML file."""
    jobs: Mapping[str, JobFile]
    """By the name of their step."""


def read_pipeline(path: Path, overrides: Mapping[str, Any] | None = None) -> PipelineFile:
    """Reads a pipeline's YAML file and those of its jobs.

    Raises:
      UsageError: if a value does not fit, or a step reads what no step above it writes.
      InputError: if a file is missing.
    """
    pipeline = load(AzurePipeline, str(path), overrides)
    jobs: dict[str, JobFile] = {}
    for name, step in pipeline.steps.items():
        file = read_job(path.parent / step.job)
        if file.job.sweep is not None:
            raise UsageError(f"{path}: steps.{name}: {step.job} is a sweep, which is sent on its own; leave it out")
        for given, source in step.inputs.items():
            where = f"{path}: steps.{name}.inputs.{given}"
            if given not in file.job.inputs:
                raise UsageError(
                    f"{where}: {step.job} has no such input; it has {', '.join(file.job.inputs) or 'none'}"
                )
            earlier, _, output = source.partition(".")
            if earlier not in jobs:
                raise UsageError(f"{where}: there is no step {earlier} above; found {_listed(jobs)}")
            if output not in (outputs := jobs[earlier].job.outputs):
                raise UsageError(
                    f"{where}: step {earlier} has no output {output}; it has {', '.join(outputs) or 'none'}"
                )
        jobs[name] = file
    return PipelineFile(pipeline, path, jobs)


def read_job_or_pipeline(path: Path, overrides: Mapping[str, Any] | None = None) -> JobFile | PipelineFile:
    """Reads the one or the other: a pipeline has `steps`. Raises as `read_job` and `read_pipeline` do."""
    return read_pipeline(path, overrides) if _has_steps(path) else read_job(path, overrides)


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "none"


def _has_steps(path: Path) -> bool:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):  # told by whoever reads it next
        return False
    return isinstance(values, dict) and "steps" in values
