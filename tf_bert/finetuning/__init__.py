"""Finetuning with an estimator: GLUE and other tasks on texts, SQuAD, NER.

The names below are imported when they are first used, since the estimator brings TensorFlow and the tables of tasks do
without.
"""

import importlib
from typing import Any

_HOMES = {
    "BertEstimator": "estimator",
    "EntityFamily": "entities",
    "EvalSpec": "estimator",
    "QuestionFamily": "question_answering",
    "TextFamily": "text",
    "TrainSpec": "estimator",
    "custom_task": "tasks",
    "find_task": "tasks",
    "train_and_evaluate": "estimator",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
