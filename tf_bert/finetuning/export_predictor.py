"""Answers of an export for its task, in the order of the examples; told as `Predictor` tells those of its model."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_bert.errors import InputError
from tf_bert.finetuning.entities import tell_entities
from tf_bert.finetuning.examples import Example
from tf_bert.finetuning.family import Family
from tf_bert.finetuning.model_directory import TASK_FILE, find_task_file, read_task
from tf_bert.finetuning.ner import Sentence
from tf_bert.finetuning.ner_tags import repair
from tf_bert.finetuning.predictor import READ_AT_ONCE
from tf_bert.finetuning.question_answering import QuestionFamily
from tf_bert.finetuning.squad import Question
from tf_bert.finetuning.text import TextFamily
from tf_bert.serving.export import Measure
from tf_bert.serving.exported import DEFAULT, Exported, load_export

ASKED_AT_ONCE = 32  # examples: each is padded to the longest of them

Outputs = Mapping[str, Any]
"""Of one example: arrays, numbers and bytes by name."""


@dataclasses.dataclass(frozen=True)
class _Way:
    """How an export is asked for a task."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    """Those that are read."""
    texts: Callable[[Any], tuple[str, ...]]
    """Of an example, as the inputs are."""
    tell: Callable[[Any, Outputs], dict[str, Any]]
    """As `Family.decode`, of one example."""
    signature: str = DEFAULT


class ExportPredictor:
    """An export with its task.

    Args:
      exported: the export.
      family: the task of the model that it was made of.

    Raises:
      InputError: if the export is of another task.
    """

    def __init__(self, exported: Exported, family: Family) -> None:
        self.exported, self.family = exported, family
        self._way = way = _way_of(family)
        function = exported.signatures.get(way.signature)
        inputs = exported.inputs(way.signature) if function else {}
        outputs = function.structured_outputs if function else {}
        if set(inputs) != set(way.inputs) or not set(way.outputs) <= set(outputs):
            raise InputError(
                f"{exported.directory}: the signature {way.signature} takes {_listed(inputs)} and tells "
                f"{_listed(outputs)}, but {family.name} takes {_listed(way.inputs)} and tells {_listed(way.outputs)}; "
                "export the model again"
            )

    def predict(self, examples: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """As `Predictor.predict`."""
        remaining = iter(examples)
        while portion := list(itertools.islice(remaining, READ_AT_ONCE)):
            texts = [self._way.texts(example) for example in portion]
            order = sorted(range(len(portion)), key=lambda i: sum(map(len, texts[i])))
            told: dict[int, dict[str, Any]] = {}
            for start in range(0, len(order), ASKED_AT_ONCE):
                some = order[start : start + ASKED_AT_ONCE]
                columns = zip(*(texts[i] for i in some), strict=True)
                found = self.exported(dict(zip(self._way.inputs, columns, strict=True)), self._way.signature)
                for row, i in enumerate(some):
                    told[i] = self._way.tell(portion[i], {name: value[row] for name, value in found.items()})
            yield from (told[i] for i in range(len(portion)))


def open_export(directory: Path) -> ExportPredictor:
    """Loads the newest version of a finetuned model's export, or the version whose own directory is named.

    Raises:
      InputError: if there is none, it cannot be loaded, or is of a model without a task.
    """
    exported = load_export(directory)
    path = exported.directory / TASK_FILE
    if not path.exists():
        raise InputError(
            f"{exported.directory}: has no {TASK_FILE}, so it is not of a finetuned model; export one, or ask this "
            "one with `tf-bert serve`"
        )
    return ExportPredictor(exported, read_task(path)[0])


def measure_on(family: Family, examples: Sequence[Any]) -> Measure:
    """A measure of exports: the metrics of a task on examples with labels, and how many `examples` they are."""

    def measure(exported: Exported) -> dict[str, float]:
        metrics = family.evaluate(examples, ExportPredictor(exported, family).predict(examples))
        return {**metrics.values, "examples": float(len(examples))}

    return measure


def measure_on_files(model_dir: str, data: str, split: str | None = None) -> Measure:
    """As `measure_on`, of the task of a finetuned model.

    Args:
      model_dir: its directory, or that of its run.
      data: a file with labels, or the directory of the task's files.
      split: which of the task's files it is; None: the first that the task is evaluated on.

    Raises:
      UsageError, InputError: if something does not fit or is damaged.
    """
    family, _ = read_task(find_task_file(Path(model_dir)))
    return measure_on(family, family.read(data, split or family.dev_splits[0]))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


# --- texts -----------------------------------------------------------------------------------------------------------

_OUTPUTS_OF_TEXTS = {
    "classification": ("label", "labels", "scores"),
    "multilabel": ("labels", "predicted", "scores"),
    "regression": ("score",),
}


def _way_of(family: Family) -> _Way:
    if isinstance(family, TextFamily):
        inputs = ("text", "text_pair")[: len(family.task.text_columns)]
        return _Way(inputs, _OUTPUTS_OF_TEXTS[family.task.kind], lambda example: example.texts, _tell_text)
    if isinstance(family, QuestionFamily):
        told = ("answer", "score", "start", "end", "answers", "answer_scores")
        more = ("best_text", "null_score_difference") if family.has_impossible else ()
        return _Way(
            ("question", "context"),
            (*told, *more),
            lambda question: (question.question, question.context),
            _tell_answer,
        )
    # A file has its own words, which may be others than those of their text.
    return _Way(
        ("words",), ("tags", "word_count"), lambda sentence: ("\n".join(sentence.words),), _tell_entities, "words"
    )


def _tell_text(example: Example, outputs: Outputs) -> dict[str, Any]:
    if "labels" not in outputs:
        return {"index": example.index, "score": float(outputs["score"])}
    labels = [label.decode() for label in outputs["labels"]]
    scores = dict(zip(labels, outputs["scores"].tolist(), strict=True))
    if "predicted" in outputs:
        chosen = [label for label, is_chosen in zip(labels, outputs["predicted"], strict=True) if is_chosen]
        return {"index": example.index, "labels": chosen, "scores": scores}
    return {"index": example.index, "label": outputs["label"].decode(), "scores": scores}


def _tell_answer(question: Question, outputs: Outputs) -> dict[str, Any]:
    answers = zip(outputs["answers"].tolist(), outputs["answer_scores"].tolist(), strict=True)
    told = {
        "id": question.id,
        "answer": outputs["answer"].decode(),
        "probability": float(outputs["score"]),
        "start": int(outputs["start"]),
        "end": int(outputs["end"]),
        # Where there are fewer, the rest is filled up.
        "answers": [{"text": text.decode(), "probability": score} for text, score in answers if text or score],
    }
    if "best_text" in outputs:
        told["best_text"] = outputs["best_text"].decode()
        told["null_score_difference"] = float(outputs["null_score_difference"])
    return told


def _tell_entities(sentence: Sentence, outputs: Outputs) -> dict[str, Any]:
    tags = repair([tag.decode() for tag in outputs["tags"][: outputs["word_count"]]])
    return tell_entities(sentence, tags)
