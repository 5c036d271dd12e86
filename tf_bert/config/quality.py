"""The settings that say which documents of a corpus are left out."""

import difflib
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from tf_bert.config.fields import STRICT, NonNegativeInt, PositiveInt, Strings

_NAMES = """arabic armenian bengali bopomofo cherokee cyrillic devanagari ethiopic georgian greek gujarati gurmukhi han
hangul hebrew hiragana kannada katakana khmer lao latin malayalam mongolian myanmar oriya sinhala syriac tamil telugu
thaana thai tibetan yi"""
SCRIPTS = tuple(_NAMES.split())
"""Writing systems that `scripts` may name; Unicode's names in lower case."""


def _known_scripts(scripts: tuple[str, ...]) -> tuple[str, ...]:
    for script in scripts:
        if script not in SCRIPTS:
            near = difflib.get_close_matches(script.lower(), SCRIPTS, n=1)
            way_out = f"did you mean '{near[0]}'?" if near else f"expected some of {', '.join(SCRIPTS)}"
            raise ValueError(f"found '{script}'; {way_out}")
    return scripts


@dataclass(frozen=True, config=STRICT)
class QualityConfig:
    """Which documents are left out. How many each step left out is in manifest.json."""

    drop_exact_duplicates: bool = True
    """Of documents with the same text one is kept."""
    near_duplicate_threshold: Annotated[float, Field(ge=0.5, le=1.0)] | None = None
    """Documents that share this much or more (Jaccard similarity of their runs of words) count as one; null: none."""
    near_duplicate_words: PositiveInt = 5
    """Near-duplicates: words in such a run."""
    near_duplicate_permutations: Annotated[int, Field(ge=16, le=1024)] = 128
    """Near-duplicates: hashes in a document's signature; n of them estimate a similarity to within 0.5/sqrt(n)."""
    min_words: NonNegativeInt = 0
    """Documents of fewer words are left out; a Chinese or Japanese character counts as a word."""
    scripts: Annotated[Strings, AfterValidator(_known_scripts)] = ()
    """Writing systems that documents must be in, e.g. latin, or han hiragana katakana; empty: any."""
    min_script_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """With scripts: the share of a document's letters that must belong to them; one without letters is left out."""
    exclude: Strings = ()
    """Files of benchmarks (TSV, JSONL, text): documents that share an n-gram with them are left out; empty: none."""
    exclude_ngram_words: PositiveInt = 13
    """With exclude: words in an n-gram. What has fewer words than that in the files is not looked for."""
    exclude_min_ngrams: PositiveInt = 1
    """With exclude: this many different n-grams must be shared."""

    def __post_init__(self) -> None:
        if self.near_duplicate_threshold is not None and not self.drop_exact_duplicates:
            raise ValueError(
                f"near_duplicate_threshold {self.near_duplicate_threshold:g} leaves out near-duplicates, but "
                "drop_exact_duplicates false keeps exact ones; set it to true, or the threshold to null"
            )
