"""Paths of a job on Azure Machine Learning, which every attempt has elsewhere."""

import re
from collections.abc import Mapping
from typing import Any

MOUNTS_PATH = "cap/data-capability/wd"
"""Below the folder of an attempt: where a job sees its inputs and outputs."""

_BEFORE_NAMES = re.compile(rf"/\S*/{MOUNTS_PATH}/")


def without_mounts(value: Any) -> Any:
    """Settings, in whatever nesting, whose paths say the same in every attempt of a job; for telling runs apart."""
    if isinstance(value, str):
        return _BEFORE_NAMES.sub("", value)
    if isinstance(value, Mapping):
        return {key: without_mounts(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_mounts(inner) for inner in value]
    return value
