"""Tags of words: B-X begins an entity of type X, I-X goes on with it, O is outside (IOB2).

Ramshaw and Marcus 1995, https://arxiv.org/abs/cmp-lg/9505040; Tjong Kim Sang and De Meulder 2003,
https://arxiv.org/abs/cs/0306050. Other schemes are made into this one. Entities are counted by the library `seqeval`,
as `conlleval` counts them; it is in the extra `glue`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from tf_bert.errors import InputError
from tf_bert.finetuning.metrics import Metrics

OUTSIDE = "O"
# First letters of the schemes in use: what each is in IOB2. S and U are entities of one word, E and L their last words.
_SCHEMES = {
    "IOB": {"B": "B", "I": "I"},
    "IOBES": {"B": "B", "I": "I", "E": "I", "S": "B"},
    "BMES": {"B": "B", "M": "I", "E": "I", "S": "B"},
    "BILOU": {"B": "B", "I": "I", "L": "I", "U": "B"},
}


class TagSpan(NamedTuple):
    """An entity by the numbers of its words."""

    type: str
    first_word: int
    last_word: int


class Tagged(NamedTuple):
    """The tags of one sentence of a file."""

    tags: list[str]
    places: list[str]
    """File and line of each word, for messages."""


def to_iob2(sentences: Sequence[Tagged]) -> tuple[list[list[str]], str]:
    """The tags of a file in IOB2, and the name of the scheme they were in: IOB2, IOB1, IOBES, BMES or BILOU.

    In IOB1 an entity begins with I-X, with B-X only where it follows one of the same type.

    Raises:
      InputError: if a tag is of none of these schemes, or tags contradict each other.
    """
    letters: set[str] = set()
    for tags, places in sentences:
        for tag, place in zip(tags, places, strict=True):
            letter, _, kind = tag.partition("-")
            if tag != OUTSIDE and not (kind and any(letter in scheme for scheme in _SCHEMES.values())):
                raise InputError(
                    f"{place}: found the tag {tag!r}, expected O, B-TYPE or I-TYPE; is it the right column?"
                )
            letters.add(letter)
    letters.discard(OUTSIDE)
    name = next((name for name, scheme in _SCHEMES.items() if letters <= scheme.keys()), None)
    if name is None:
        raise InputError(
            f"{sentences[0].places[0]}: the tags in this file begin with {', '.join(sorted(letters))}, which no scheme "
            "has together; expected B-TYPE and I-TYPE"
        )
    scheme = _SCHEMES[name]
    converted = [[tag if tag == OUTSIDE else f"{scheme[tag[0]]}{tag[1:]}" for tag in tags] for tags, _ in sentences]
    wrong = _first_that_goes_on_with_nothing(converted)
    if wrong is None:
        return converted, "IOB2" if name == "IOB" else name
    if name == "IOB" and all(_begins_after_its_like(tags) for tags in converted):
        return [repair(tags) for tags in converted], "IOB1"
    sentence, word = wrong
    tags, places = sentences[sentence]
    before = f"after {tags[word - 1]}" if word else "at the beginning of a sentence"
    raise InputError(
        f"{places[word]}: found {tags[word]} {before}, expected a tag that begins an entity, as elsewhere in the file; "
        "mend the tag"
    )


def _first_that_goes_on_with_nothing(sentences: Sequence[Sequence[str]]) -> tuple[int, int] | None:
    """Sentence and word of the first I-X that follows neither B-X nor I-X."""
    for number, tags in enumerate(sentences):
        for word, (tag, mended) in enumerate(zip(tags, repair(tags), strict=True)):
            if tag != mended:
                return number, word
    return None


def _begins_after_its_like(tags: Sequence[str]) -> bool:
    """Whether every B-X follows B-X or I-X, as in IOB1."""
    return all(tag[0] != "B" or before[2:] == tag[2:] for before, tag in zip([OUTSIDE, *tags], tags, strict=False))


def repair(tags: Sequence[str]) -> list[str]:
    """Valid IOB2: an I-X that follows neither B-X nor I-X becomes B-X, as `conlleval` reads it."""
    return [
        f"B{tag[1:]}" if tag[0] == "I" and before[1:] != tag[1:] else tag
        for before, tag in zip([OUTSIDE, *tags], tags, strict=False)
    ]


def tag_spans(tags: Sequence[str]) -> list[TagSpan]:
    """The entities of a sentence, in its order; invalid tags are read as `repair` makes them."""
    spans: list[TagSpan] = []
    for word, tag in enumerate(repair(tags)):
        if tag[0] == "B":
            spans.append(TagSpan(tag[2:], word, word))
        elif tag[0] == "I":
            spans[-1] = spans[-1]._replace(last_word=word)
    return spans


def ner_metrics(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Metrics:
    """`precision`, `recall` and `f1` of entities, over all and as `f1/TYPE` and so on for every type, from 0 to 1.

    An entity is right if its type, its first and its last word are. `entities` says how many there are.

    Args:
      gold: tags of every sentence.
      predicted: the same number of tags.
    """
    from seqeval.metrics import classification_report

    gold, predicted = [repair(tags) for tags in gold], [repair(tags) for tags in predicted]
    types, found = (sorted({tag[2:] for tags in part for tag in tags} - {""}) for part in (gold, predicted))
    notes = []
    if not types:
        notes.append("no sentence has an entity: recall and f1 are undefined and reported as 0")
    if not found:
        notes.append("no entity is predicted: precision is undefined and reported as 0")
    if not types and not found:
        return Metrics({"precision": 0.0, "recall": 0.0, "f1": 0.0, "entities": 0.0}, tuple(notes))
    report = classification_report(gold, predicted, output_dict=True, zero_division=0)
    values = {name: float(report["micro avg"][key]) for name, key in _REPORTED.items()}
    for kind in sorted({*types, *found}):
        values |= {f"{name}/{kind}": float(report[kind][key]) for name, key in _REPORTED.items()}
    return Metrics(values, tuple(notes))


_REPORTED = {"precision": "precision", "recall": "recall", "f1": "f1-score", "entities": "support"}
"""Our names of what the library reports."""
