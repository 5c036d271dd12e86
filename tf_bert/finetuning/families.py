"""The families of tasks by name, as plain values, so that a model directory can say what it was finetuned for."""

from collections.abc import Mapping
from typing import Any

from tf_bert.finetuning.entities import EntityFamily
from tf_bert.finetuning.family import Family
from tf_bert.finetuning.question_answering import QuestionFamily
from tf_bert.finetuning.text import TextFamily

FAMILIES: dict[str, Any] = {"text": TextFamily, "question_answering": QuestionFamily, "entities": EntityFamily}
"""By the `family` entry of their settings."""


def family_from(settings: Mapping[str, Any]) -> Family:
    """The family that `Family.settings` told of.

    Raises:
      KeyError, TypeError: if an entry is missing or is no family's.
    """
    values = dict(settings)
    family: Family = FAMILIES[values.pop("family")].from_settings(values)
    return family
