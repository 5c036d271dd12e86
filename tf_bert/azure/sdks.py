"""Which of Azure's two SDKs is there, and whether its own requirements are met."""

import importlib.metadata
import re
from typing import Literal

from tf_bert.errors import InputError

Sdk = Literal["v1", "v2"]

_EXTRAS = {"v1": "azureml", "v2": "azure"}
_PACKAGES = {"v1": ("azureml-core", "azureml-train-core", "azure-identity"), "v2": ("azure-ai-ml", "azure-identity")}


def require_sdk(sdk: Sdk) -> None:
    """Checks that an SDK can be imported, with versions of what it needs that it can work with.

    Raises:
      InputError: if it is not installed, or something that it requires is missing or has a version it does not take,
        which happens where both SDKs are installed into one environment.
    """
    for package in _PACKAGES[sdk]:
        if not _is_installed(package):
            raise InputError(
                f"Azure's SDK {sdk} is not installed: {package} is missing; pip install 'tf_bert[{_EXTRAS[sdk]}]', in "
                "an environment without the other SDK"
            )
    other: Sdk = "v2" if sdk == "v1" else "v1"
    for package in _PACKAGES[sdk]:
        if conflict := _conflict(package):
            both = (
                f"; SDK {other} is here too, and each wants other versions"
                if _is_installed(_PACKAGES[other][0])
                else ""
            )
            raise InputError(
                f"Azure's SDK {sdk} cannot be used: {conflict}{both}; make an environment of its own and pip install "
                f"'tf_bert[{_EXTRAS[sdk]}]' there"
            )


def one_line(error: Exception) -> str:
    """What an error of an SDK says, without its line breaks."""
    return " ".join(str(getattr(error, "message", None) or error).split())[:500]


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _conflict(package: str) -> str | None:
    """What `package` requires and does not have, or None."""
    from packaging.requirements import Requirement

    for text in importlib.metadata.requires(package) or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return f"{package} requires {requirement.name}, which is missing"
        if not requirement.specifier.contains(version, prereleases=True):
            wanted = re.sub(r"\s", "", str(requirement.specifier))
            return f"{package} requires {requirement.name}{wanted}, found {version}"
    return None
