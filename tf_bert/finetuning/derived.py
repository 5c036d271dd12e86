"""The settings of single runs, derived from those of a command that starts many."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from typing import Any

from tf_bert.config import FinetuneConfig, LearningConfig, from_dict, to_dict
from tf_bert.errors import UsageError

LEARNING_FIELDS = tuple(field.name for field in dataclasses.fields(LearningConfig))


def derive(
    config: Any, changes: Mapping[str, Any], may_change: Collection[str], where: str, **fixed: Any
) -> FinetuneConfig:
    """The settings of one run.

    Args:
      config: those of the command; what a single run has too is taken over.
      changes: what is different, by field.
      may_change: the fields that are allowed there.
      where: what messages call `changes`.
      fixed: fields that the command sets itself.

    Raises:
      UsageError: if a field is not allowed there or a value does not fit.
    """
    if unknown := [key for key in changes if key not in may_change]:
        near = difflib.get_close_matches(unknown[0], may_change, n=1)
        advice = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(may_change)}"
        raise UsageError(f"{where}: unknown key '{unknown[0]}'; {advice}")
    known = {field.name for field in dataclasses.fields(FinetuneConfig)}
    values = {key: value for key, value in to_dict(config).items() if key in known}
    return from_dict(FinetuneConfig, {**values, **fixed, **changes}, where)
