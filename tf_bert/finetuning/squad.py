"""Questions about contexts, in the JSON files of SQuAD 1.1 and 2.0, read and checked.

The formats: Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250, and 2018, https://arxiv.org/abs/1806.03822. Places
of answers are counted in characters (code points), as in the files.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tf_bert.errors import InputError

NEARBY = 20
"""Characters: an answer that is not where the file says is looked for so far on either side."""

_EXPECTED = {str: "a string", list: "a list", dict: "an object", int: "a whole number", bool: "true or false"}
_HALF_SURROGATES = re.compile("[\ud800-\udfff]")
_MOST_NAMES = 5  # in a note


class Answer(NamedTuple):
    """An answer that people gave."""

    text: str
    start: int | None
    """Its first character in the context; None: the context does not have it."""


@dataclass(frozen=True)
class Question:
    """One question about one context."""

    id: str
    """Names it in predictions."""
    question: str
    context: str
    """The text that holds the answer."""
    answers: tuple[Answer, ...] = ()
    """Of several people, for questions of dev files; empty where there is none or it is not known."""
    is_impossible: bool = False
    """True: the context does not answer it (SQuAD 2.0)."""

    @property
    def target(self) -> Answer | None:
        """The first answer that the context has; None: there is none."""
        return next((answer for answer in self.answers if answer.start is not None), None)


@dataclass(frozen=True)
class SquadData:
    """What a file holds."""

    questions: tuple[Question, ...]
    """In the order of the file; at least one."""
    notes: tuple[str, ...]
    """Lines on what was found wrong with its answers."""

    @property
    def has_impossible(self) -> bool:
        """Whether some question has no answer, as in SQuAD 2.0."""
        return any(question.is_impossible for question in self.questions)


def read_squad(path: str | Path) -> SquadData:
    """Reads a SQuAD file. A question without `answers` is one to be predicted, or an impossible one.

    An answer that lies up to `NEARBY` characters beside its place is moved there; if it is not there either, its start
    is None. Both are said in the notes.

    Raises:
      InputError: if the file is missing, is not UTF-8 or not JSON, lacks a key, holds no question, or an id comes
        twice.
    """
    path = Path(path)
    questions: list[Question] = []
    places: dict[str, str] = {}
    moved: list[str] = []
    lost: list[str] = []
    for context, record, place in _records(_parse(path), str(path)):
        question = _question(context, record, place)
        if question.id in places:
            raise InputError(
                f"{place}.id: {question.id!r} is also the id of {places[question.id]}; expected an id of its own for "
                "every question"
            )
        places[question.id] = place.removeprefix(f"{path}: ")
        if any(answer.start != found["answer_start"] for answer, found in _pairs(question, record)):
            (moved if question.target else lost).append(question.id)
        questions.append(question)
    if not questions:
        raise InputError(f"{path}: holds no question, expected at least one in data[...].paragraphs[...].qas")
    notes = (
        *_note(path, moved, "an answer is not where the file says; it was looked for nearby"),
        *_note(path, lost, "no answer is in the context; not trained on"),
    )
    return SquadData(tuple(questions), notes)


def _note(path: Path, ids: list[str], what: str) -> Iterator[str]:
    if ids:
        listed = ", ".join(ids[:_MOST_NAMES]) + (", ..." if len(ids) > _MOST_NAMES else "")
        yield f"{path}: {len(ids):,} questions: {what}: {listed}"


def _pairs(question: Question, record: dict[str, Any]) -> Iterator[tuple[Answer, dict[str, Any]]]:
    return zip(question.answers, record.get("answers") or (), strict=True)


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        data = json.loads(content.decode("utf-8-sig")) if content.strip() else None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; expected a SQuAD file (.json)") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}: line {line}: found byte {content[error.start]:#04x}, expected UTF-8 text; convert the file, "
            "e.g. with iconv -f LATIN1 -t UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not valid JSON ({error}); expected a SQuAD file, copy it again") from error
    if data is None:
        raise InputError(f"{path}: is empty, expected a SQuAD file; copy it again")
    if not isinstance(data, dict):
        raise InputError(f"{path}: found {_kind_of(data)}, expected an object with data, as SQuAD files have it")
    return data


def _records(data: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Context, question record and its place, of every question."""
    for article, place in _objects(data, "data", f"{path}: "):
        for paragraph, place_of_paragraph in _objects(article, "paragraphs", f"{place}."):
            context = _text(paragraph, "context", f"{place_of_paragraph}.")
            for record, place_of_record in _objects(paragraph, "qas", f"{place_of_paragraph}."):
                yield context, record, place_of_record


def _question(context: str, record: dict[str, Any], place: str) -> Question:
    number = _text(record, "id", f"{place}.")
    question = _text(record, "question", f"{place}.", may_be_empty=True)
    answers = []
    if "answers" in record:
        for answer, place_of_answer in _objects(record, "answers", f"{place}."):
            text = _text(answer, "text", f"{place_of_answer}.")
            start = _value(answer, "answer_start", int, f"{place_of_answer}.")
            answers.append(Answer(text, _place_of(text, start, context)))
    is_impossible = not answers
    if "is_impossible" in record:
        is_impossible = _value(record, "is_impossible", bool, f"{place}.")
    if is_impossible and answers:
        raise InputError(
            f"{place}: is_impossible is true, and there are {len(answers)} answers; expected one or the other"
        )
    return Question(number, question, context, tuple(answers), is_impossible)


def _place_of(text: str, start: int, context: str) -> int | None:
    """Where the answer is, as near to `start` as possible."""
    places = range(max(0, start - NEARBY), min(len(context), start + NEARBY) + 1)
    return min(
        (place for place in places if context.startswith(text, place)),
        key=lambda place: abs(place - start),
        default=None,
    )


# --- one value -----------------------------------------------------------------------------------------------------


def _value(record: dict[str, Any], key: str, kind: type, place: str) -> Any:
    value = record.get(key)
    if type(value) is not kind:
        found = _kind_of(value) if key in record else "missing"
        raise InputError(f"{place}{key}: is {found}, expected {_EXPECTED[kind]}, as SQuAD files have it")
    return value


def _text(record: dict[str, Any], key: str, place: str, may_be_empty: bool = False) -> str:
    value: str = _value(record, key, str, place)
    if not may_be_empty and not value.strip():
        raise InputError(f"{place}{key}: is empty, expected text; write it, or remove the record")
    # JSON can spell half of a surrogate pair, which no encoding can write.
    return value if value.isascii() else _HALF_SURROGATES.sub("\ufffd", value)


def _objects(record: dict[str, Any], key: str, place: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a list, and their places."""
    for number, value in enumerate(_value(record, key, list, place)):
        if not isinstance(value, dict):
            raise InputError(
                f"{place}{key}[{number}]: is {_kind_of(value)}, expected an object, as SQuAD files have it"
            )
        yield value, f"{place}{key}[{number}]"


def _kind_of(value: object) -> str:
    return "null" if value is None else _EXPECTED.get(type(value), f"a {type(value).__name__}")
