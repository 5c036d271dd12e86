"""Small files in the exact format of SQuAD 1.1 and 2.0, which a tiny model can learn.

The answer to every question is the word after `here`; a context without this word answers nothing.
"""

import json
import random
from pathlib import Path

MARKER = "here"
ANSWERS = ("river", "castle", "engine", "garden", "letter", "winter", "copper", "violin")
OTHERS = ("the", "old", "was", "seen", "by", "many", "people", "before", "it", "fell", "and", "then", "came", "back")
QUESTION = "which word is marked ?"
WORDS = (*ANSWERS, *OTHERS, MARKER, *QUESTION.split(), ".")
"""All words of the files, in lower case."""


def squad_record(context: str, qas: list[dict]) -> dict:
    """A whole file with one context."""
    return {"version": "1.1", "data": [{"title": "One", "paragraphs": [{"context": context, "qas": qas}]}]}


def squad_question(number: str, question: str, *answers: tuple[str, int], is_impossible: bool | None = None) -> dict:
    """One entry of qas."""
    record: dict = {"id": number, "question": question}
    record["answers"] = [{"text": text, "answer_start": start} for text, start in answers]
    if is_impossible is not None:
        record["is_impossible"] = is_impossible
    return record


def write_squad(directory: Path, split: str, version: str = "1.1", questions: int = 24) -> Path:
    """Writes `train-v1.1.json` and the like; returns its path.

    Every second question shares the context of the one before it. In version 2.0 every third context answers nothing.
    A dev file has three people's answers, a train file one.
    """
    generator = random.Random(f"{split} {version}")
    articles: list[dict] = []
    for number in range(0, questions, 2):
        is_impossible = version == "2.0" and number % 3 == 0
        words = [generator.choice(OTHERS) for _ in range(generator.randrange(8, 16))]
        answer = generator.choice(ANSWERS)
        if not is_impossible:
            place = generator.randrange(len(words) - 1)
            words[place : place + 2] = [MARKER, answer]
        context = " ".join(words).capitalize() + " ."
        start = context.lower().find(f"{MARKER} {answer}") + len(MARKER) + 1
        qas = []
        for i in range(number, min(number + 2, questions)):
            gold = {"text": answer, "answer_start": start}
            record: dict = {"question": QUESTION.capitalize(), "id": f"{split}-{i:04}"}
            record["answers"] = [] if is_impossible else [gold] * (3 if split == "dev" else 1)
            if version == "2.0":
                record["is_impossible"] = is_impossible
                if is_impossible:
                    record["plausible_answers"] = [{"text": words[0].capitalize(), "answer_start": 0}]
            qas.append(record)
        if number % 8 == 0:
            articles.append({"title": f"Article_{number // 8}", "paragraphs": []})
        articles[-1]["paragraphs"].append({"context": context, "qas": qas})
    path = directory / f"{split}-v{version}.json"
    path.write_text(json.dumps({"data": articles, "version": f"v{version}" if version == "2.0" else version}))
    return path
