"""Small files in the exact format of CoNLL 2003, which a tiny model can learn: an entity is told by its words."""

import random
from pathlib import Path

ENTITIES = {
    "PER": (("Anna", "Berg"), ("Carl",), ("Dora", "van", "Dyck"), ("Emil", "Frank")),
    "LOC": (("Vienna",), ("New", "Delhi"), ("Oslo",)),
    "ORG": (("Acme",), ("United", "Mills")),
}
OTHERS = ("the", "old", "was", "seen", "by", "people", "before", "it", "fell", "and", "then", "came", "from", "to")
WORDS = tuple(dict.fromkeys([word for names in ENTITIES.values() for name in names for word in name] + [*OTHERS, "."]))
"""All words of the files, as they are written there."""


def ner_lines(split: str, sentences: int = 30) -> list[list[tuple[str, str]]]:
    """Words with their tags in IOB2."""
    generator = random.Random(split)
    found = []
    for _ in range(sentences):
        rows: list[tuple[str, str]] = []
        for kind in generator.sample(sorted(ENTITIES), generator.randrange(1, 3)):
            rows += [(generator.choice(OTHERS), "O") for _ in range(generator.randrange(1, 4))]
            name = generator.choice(ENTITIES[kind])
            rows += [(word, f"{'I' if i else 'B'}-{kind}") for i, word in enumerate(name)]
        found.append([*rows, (".", "O")])
    return found


def write_ner(directory: Path, split: str, sentences: int = 30) -> Path:
    """Writes `train.txt` and the like, a document every ten sentences; returns its path."""
    lines = []
    for number, rows in enumerate(ner_lines(split, sentences)):
        if number % 10 == 0:
            lines += ["-DOCSTART- -X- -X- O", ""]
        for word, tag in rows:
            lines.append(
                f"{word} {'.' if word == '.' else 'NNP' if tag != 'O' else 'NN'} {'O' if word == '.' else 'B-NP'} {tag}"
            )
        lines.append("")
    path = directory / f"{split}.txt"
    path.write_text("\n".join(lines) + "\n")
    return path
