"""Which workspace is meant, and who asks: `config.json`, flags, environment variables; DefaultAzureCredential."""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_bert.errors import InputError, UsageError
from tf_bert.files import read_json

_SCOPE = "https://management.azure.com/.default"

# Settings of a workspace: key in config.json, and the environment variables that set it, the first that is set counts.
# The AZUREML_ARM_ ones are there inside of a job.
_SETTINGS = {
    "subscription_id": ("AZURE_SUBSCRIPTION_ID", "AZUREML_ARM_SUBSCRIPTION"),
    "resource_group": ("AZURE_RESOURCE_GROUP", "AZUREML_ARM_RESOURCEGROUP"),
    "workspace_name": ("AZUREML_WORKSPACE_NAME", "AZUREML_ARM_WORKSPACE_NAME"),
}
_PLACES = ("config.json", ".azureml/config.json")


@dataclasses.dataclass(frozen=True)
class WorkspaceName:
    """A workspace of Azure Machine Learning."""

    subscription_id: str
    resource_group: str
    workspace_name: str


def find_workspace(
    starts: Sequence[Path], flags: Mapping[str, str | None], environ: Mapping[str, str] = os.environ
) -> WorkspaceName:
    """The workspace to use. Flags go before environment variables, and those before the file.

    Args:
      starts: folders in which config.json or .azureml/config.json is looked for, and in those above each of them.
      flags: by the keys of config.json; None where a flag is not given.
      environ: environment variables.

    Raises:
      UsageError: if a setting is nowhere.
      InputError: if the file is not one of a workspace.
    """
    values: dict[str, str] = {}
    for key, variables in _SETTINGS.items():
        given = [flags.get(key), *(environ.get(variable) for variable in variables)]
        if value := next((value for value in given if value), None):
            values[key] = value
    if len(values) < len(_SETTINGS):
        path = _find_file(starts)
        if path is None:
            missing = next(key for key in _SETTINGS if key not in values)
            raise UsageError(
                f"no workspace: found no config.json in {starts[0].resolve()} or above it, and no {missing}; download "
                f"the file from the workspace's page, or give --{missing} or {_SETTINGS[missing][0]}"
            )
        values = {**_read(path), **values}
    return WorkspaceName(**values)


def credential() -> Any:
    """A credential that has been seen to work: the first of azure-identity's usual sources that gives a token.

    Raises:
      InputError: if none does.
    """
    from azure.core.exceptions import ClientAuthenticationError
    from azure.identity import DefaultAzureCredential

    logging.getLogger("azure.identity").setLevel(logging.ERROR)  # it warns at length of what is told in a line
    found = DefaultAzureCredential()
    try:
        found.get_token(_SCOPE)
    except ClientAuthenticationError:
        raise InputError(
            "no Azure credentials: run `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET of "
            "a service principal"
        ) from None
    return found


def _find_file(starts: Sequence[Path]) -> Path | None:
    for directory in (place for start in starts for place in (start.resolve(), *start.resolve().parents)):
        for place in _PLACES:
            path = directory / place
            if path.is_file() and _is_of_workspace(path):
                return path
    return None


def _is_of_workspace(path: Path) -> bool:
    """Any config.json in .azureml is; elsewhere the name is a common one, of model directories among others."""
    if path.parent.name == ".azureml":
        return True
    try:
        values = read_json(path)
    except InputError:
        return True  # told when it is read
    return isinstance(values, dict) and bool(values.keys() & _SETTINGS.keys())


def _read(path: Path) -> dict[str, str]:
    values = read_json(path)
    found = values if isinstance(values, dict) else {}
    for key in _SETTINGS:
        if not isinstance(found.get(key), str) or not found[key]:
            raise InputError(
                f"{path}: {key} is missing; expected subscription_id, resource_group and workspace_name, as in the "
                "file that the workspace's page offers for download"
            )
    return {key: found[key] for key in _SETTINGS}
