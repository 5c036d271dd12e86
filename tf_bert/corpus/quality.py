"""Which documents are worth keeping: long enough, in the right script, and not out of a benchmark's test set.

A word, here and for near-duplicates, is a run of letters, marks and digits, or a single Chinese or Japanese character,
without regard to case and to the compatibility forms of Unicode (NFKC); spacing and punctuation do not matter. Words
are compared by 32 bits of a hash, n-grams by 64.
"""

import functools
import re
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tf_bert.config import QualityConfig
from tf_bert.corpus.text import read_json_lines, read_lines
from tf_bert.errors import InputError

TOO_SHORT = "too short"
OTHER_SCRIPT = "other script"
EXCLUDED = "excluded n-gram"

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_SYMBOLS = "\U0001f000-\U0001faff"  # of the characters past U+FFFF those that text has; the others count as letters
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that no bit of a word is lost
_SCRIPT_PIECE = 1 << 20  # characters


def word_hashes(text: str) -> np.ndarray:
    """The words of a text, in order, as uint64 [words] below 2**32: the CRC-32 of each."""
    lines = text.split("\n")
    words = [word for line in lines for word in _word().findall(unicodedata.normalize("NFKC", line).casefold())]
    encoded = " ".join(words).encode().split(b" ") if words else []
    return np.fromiter(map(zlib.crc32, encoded), np.uint64, len(encoded))


@functools.cache
def _word() -> re.Pattern[str]:
    # Python's \w knows no marks, which are inside the words of many scripts, so what is between words is listed.
    between = (chr(code) for code in range(0x10000) if unicodedata.category(chr(code))[0] not in "LMN")
    return re.compile(rf"[{_CJK}]|[^{''.join(map(re.escape, between))}{_SYMBOLS}{_CJK}]+")


def ngram_hashes(words: np.ndarray, size: int) -> np.ndarray:
    """Hashes of every run of `size` words.

    Args:
      words: uint64 [n], as `word_hashes` makes them.
      size: words in a run.

    Returns:
      uint64 [n - size + 1] in the order of the text, empty for fewer than `size` words. The upper half is the better
      mixed one.
    """
    if len(words) < size:
        return np.zeros(0, np.uint64)
    powers = np.array([pow(_MULTIPLIER, power, 1 << 64) for power in range(1, size + 1)], np.uint64)
    return np.lib.stride_tricks.sliding_window_view(words, size) @ powers


class QualityFilter:
    """Says of a document why it is to be left out, by the text of that document alone.

    Args:
      config: the settings; the files of `exclude` are read.

    Raises:
      InputError: if such a file is missing, is damaged or has no n-gram.
    """

    def __init__(self, config: QualityConfig) -> None:
        self._config = config
        self._excluded = _excluded_ngrams(config) if config.exclude else None

    def reason(self, text: str) -> str | None:
        """`TOO_SHORT`, `OTHER_SCRIPT` or `EXCLUDED`, the first that is true; None for a document to keep."""
        config = self._config
        words = word_hashes(text) if config.min_words or self._excluded is not None else np.zeros(0, np.uint64)
        if len(words) < config.min_words:
            return TOO_SHORT
        if config.scripts and script_share(text, config.scripts) < config.min_script_share:
            return OTHER_SCRIPT
        if self._excluded is not None:
            ngrams = ngram_hashes(words, config.exclude_ngram_words)
            # The place of each n-gram among the excluded ones; past the last one it is compared with that.
            places = np.minimum(np.searchsorted(self._excluded, ngrams), len(self._excluded) - 1)
            shared = np.unique(ngrams[self._excluded[places] == ngrams])
            if len(shared) >= config.exclude_min_ngrams:
                return EXCLUDED
        return None


# --- scripts -------------------------------------------------------------------------------------------------


def script_share(text: str, scripts: tuple[str, ...]) -> float:
    """The share of a text's letters (Unicode category L) that belong to `scripts`; 0 where there is no letter."""
    kinds = _letter_kinds(scripts)
    counts = np.zeros(3, np.int64)
    for start in range(0, len(text), _SCRIPT_PIECE):
        codes = np.frombuffer(text[start : start + _SCRIPT_PIECE].encode("utf-32-le"), np.uint32)
        counts += np.bincount(kinds[codes], minlength=3)
    _, others, inside = counts.tolist()
    return inside / (inside + others) if inside + others else 0.0


@functools.lru_cache(1)
def _letter_kinds(scripts: tuple[str, ...]) -> np.ndarray:
    """uint8 [code points]: 0 for what is no letter, 1 for a letter of another script, 2 for one of `scripts`.

    The script is told from a letter's Unicode name: "CYRILLIC SMALL LETTER A", "FULLWIDTH LATIN SMALL LETTER A".
    """
    wanted = {"CJK" if script == "han" else script.upper() for script in scripts}
    kinds = np.zeros(0x110000, np.uint8)
    for code in range(len(kinds)):
        if unicodedata.category(chr(code)).startswith("L"):
            is_wanted = not wanted.isdisjoint(unicodedata.name(chr(code), "").split()[:2])
            kinds[code] = 2 if is_wanted else 1
    return kinds


# --- excluded files ------------------------------------------------------------------------------------------


def _excluded_ngrams(config: QualityConfig) -> np.ndarray:
    """Hashes of the n-grams of all files of `exclude`, uint64, sorted and each once."""
    size = config.exclude_ngram_words
    found: list[np.ndarray] = []
    for name in config.exclude:
        ngrams = [ngram_hashes(word_hashes(text), size) for text in _texts(Path(name))]
        if not sum(map(len, ngrams)):
            raise InputError(
                f"{name}: no line or field of it has the {size} words of an n-gram, so nothing would be excluded; "
                "lower quality.exclude_ngram_words, or check the file"
            )
        found += ngrams
    return np.unique(np.concatenate(found))


def _texts(path: Path) -> Iterator[str]:
    """What is looked for: lines, between tabs; the strings of JSONL."""
    if ".jsonl" in path.suffixes:
        for _, value in read_json_lines(path):
            yield from _strings(value)
    else:
        for _, line in read_lines(path):
            yield from line.split("\t")


def _strings(value: Any) -> Iterator[str]:
    """The strings in a JSON value, names aside."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
