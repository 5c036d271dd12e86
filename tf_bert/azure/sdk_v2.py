"""SDK v2 (azure-ai-ml): the objects that are sent."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tf_bert.azure.definitions import JOB_FILE, definitions, model_definition
from tf_bert.azure.job import JobFile, ModelPart
from tf_bert.azure.pipeline import PipelineFile
from tf_bert.azure.sdks import one_line
from tf_bert.errors import InputError, UsageError
from tf_bert.files import atomic_writer


def write_files(work: JobFile | PipelineFile, directory: Path, tags: Mapping[str, str]) -> Path:
    """Writes what is sent as YAML; returns the file to hand to `load_work`, or to `az ml job create -f`.

    Args:
      work: a job, sweep or pipeline.
      directory: where to write; made if it is not there.
      tags: added to those of the job or pipeline.
    """
    for name, definition in definitions(work, directory, tags).items():
        _write_yaml(directory / name, definition)
    return directory / JOB_FILE


def load_work(path: Path) -> Any:
    """The SDK's object for a job, sweep or pipeline that `write_files` wrote: Command, SweepJob or PipelineJob.

    Raises:
      UsageError: if the SDK refuses the file; nothing is asked of Azure.
    """
    from azure.ai.ml import load_job

    with _refusals(path):
        job: Any = load_job(path)
        if job.type == "pipeline":
            result = job._validate()  # the public one asks Azure
            if not result.passed:
                key, message = next(iter(result.error_messages.items()))
                raise UsageError(f"{path}: {key}: {message}")
    return job


def load_model(part: ModelPart, run: str, tags: Mapping[str, str], path: Path) -> Any:
    """Writes the YAML of a model made of a run's output, and loads it with the SDK."""
    from azure.ai.ml import load_model

    _write_yaml(path, model_definition(part, run, tags))
    with _refusals(path):
        return load_model(path)


def load_endpoint(export_dir: Path) -> tuple[Any, Any]:
    """The managed online endpoint and its deployment that `tf-bert export` has described beside an export.

    Raises:
      InputError: if the files are not there.
      UsageError: if the SDK refuses them.
    """
    from azure.ai.ml import load_online_deployment, load_online_endpoint

    loaded = []
    for name, load in (("endpoint.yml", load_online_endpoint), ("deployment.yml", load_online_deployment)):
        path = export_dir / "azureml" / name
        if not path.is_file():
            raise InputError(f"{path}: does not exist; expected a directory that `tf-bert export` wrote")
        with _refusals(path):
            loaded.append(load(path))
    return loaded[0], loaded[1]


def quiet_sdk() -> None:
    """Keeps the SDK's remarks on its own experimental parts from the console."""
    for name in ("azure.ai.ml", "azure.identity", "azure.core"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _write_yaml(path: Path, definition: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(path) as file:
        file.write(yaml.safe_dump(dict(definition), sort_keys=False, allow_unicode=True, width=110).encode())


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    from azure.ai.ml.exceptions import MlException
    from marshmallow.exceptions import ValidationError

    quiet_sdk()
    try:
        yield
    except (MlException, ValidationError) as error:
        raise UsageError(f"{path}: Azure's SDK refuses it: {one_line(error)}") from error
