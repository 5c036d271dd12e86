"""Which documents are left out, and why, by the text of each alone."""

import unicodedata
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_bert.config import PrepareConfig, QualityConfig, load
from tf_bert.corpus.quality import (
    EXCLUDED,
    OTHER_SCRIPT,
    TOO_SHORT,
    QualityFilter,
    ngram_hashes,
    script_share,
    word_hashes,
)
from tf_bert.errors import InputError, UsageError


def crc32s(words: str) -> list[int]:
    return [zlib.crc32(word.encode()) for word in words.split()]


# --- words and n-grams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The U.S. didn't – “pay” 1,000\n\tsnake_case!", "the u s didn t pay 1 000 snake case"),
        ("Ünïted ﬁelds Ⅳ Straße", "ünïted fields iv strasse"),
        ("u\u0308ber\ncafe\u0301", "über café"),  # combining marks
        ("हिन्दी भाषा, ภาษาไทย", "हिन्दी भाषा ภาษาไทย"),  # vowel signs are marks
        ("東京タワー 2号", "東 京 タ ワ ー 2 号"),
        ("한국어 조선말", "한국어 조선말"),
        ("nice🎉day 𝔘nicode 𐌰𐌱", "nice day unicode 𐌰𐌱"),
        (" \n.;-_\n", ""),
    ],
)
def test_words(text, words):
    expected = crc32s(unicodedata.normalize("NFKC", words))
    assert word_hashes(text).tolist() == expected
    assert word_hashes(text).dtype == np.uint64


@given(st.lists(st.integers(0, 2**32 - 1), max_size=30), st.integers(1, 12))
def test_ngrams_are_equal_where_their_words_are(words, size):
    array = np.array(words, np.uint64)
    hashes = ngram_hashes(array, size).tolist()
    ngrams = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
    assert len(hashes) == len(ngrams)
    assert len(set(zip(hashes, ngrams, strict=True))) == len(set(hashes)) == len(set(ngrams))


# --- short documents -----------------------------------------------------------------------------------------


def test_min_words_is_the_least_that_is_kept():
    keep = QualityFilter(QualityConfig(min_words=4))
    assert keep.reason("just four words, see?") is None
    assert keep.reason("no more: three") == TOO_SHORT
    assert keep.reason("四つの字") is None
    assert keep.reason("") == TOO_SHORT


def test_nothing_is_left_out_unless_asked_for():
    assert [QualityFilter(QualityConfig()).reason(text) for text in ("", "x", "Привет", "1234")] == [None] * 4


# --- scripts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "scripts", "share"),
    [
        ("abcd", ("latin",), 1.0),
        ("abcdefghi я, 12345!", ("latin",), 0.9),
        ("abcdefghi я, 12345!", ("cyrillic",), 0.1),
        ("abcdefghi я, 12345!", ("cyrillic", "latin"), 1.0),
        ("ＡＢ ｱ", ("latin",), 2 / 3),  # full and half width
        ("漢字かなカナ", ("han", "hiragana"), 4 / 6),
        ("हिन्दी", ("devanagari",), 1.0),  # three letters; the marks do not count
        ("µ𝔘", ("latin", "greek"), 0.0),  # symbols of mathematics and measure are of no script
        ("123 !?", ("latin",), 0.0),
        ("", ("latin",), 0.0),
    ],
)
def test_script_share(text, scripts, share):
    assert script_share(text, scripts) == share


def test_script_share_of_a_long_text():
    assert script_share("ab я " * 500_000, ("latin",)) == 2 / 3


@pytest.mark.parametrize(
    "script", ["arabic", "cyrillic", "devanagari", "greek", "han", "hangul", "hebrew", "hiragana", "katakana", "latin"]
)
def test_letters_belong_to_the_scripts_that_unicode_gives_them(script):
    regex = pytest.importorskip("regex", reason="the regex library knows Unicode's scripts")
    letters = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)).startswith("L")]
    # Signs such as U+00AA, tiny letters of phonetics and old variants of kana have no script in their names.
    plain = "".join(letter for letter in letters if not is_odd(letter))
    assert len(plain) > 0.98 * len(letters)
    inside = regex.sub(rf"\P{{Script={script}}}", "", plain)
    outside = regex.sub(rf"\p{{Script={script}}}", "", plain)
    assert len(inside) > 50 and script_share(inside, (script,)) == 1.0
    assert script_share(outside, (script,)) == 0.0


def is_odd(letter: str) -> bool:
    odd = [
        "MODIFIER",
        "HENTAIGANA",
        "SIGN",
        "MARK",
        "INDICATOR",
        "TATWEEL",
        "TURNED",
        "NUMERAL",
        "SUPERSCRIPT",
        "ROMAN",
    ]
    return not set(odd).isdisjoint(unicodedata.name(letter, "").split())


def test_the_share_is_kept_from_the_threshold_on():
    text = "abcdefghi я"
    assert QualityFilter(QualityConfig(scripts=("latin",), min_script_share=0.9)).reason(text) is None
    assert QualityFilter(QualityConfig(scripts=("latin",), min_script_share=0.9001)).reason(text) == OTHER_SCRIPT
    assert QualityFilter(QualityConfig(scripts=("latin",))).reason("2026-11-23") == OTHER_SCRIPT


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"scripts": "latn"}, r"quality\.scripts: found 'latn'; did you mean 'latin'\?"),
        ({"scripts": ["latin", "Greek"]}, r"quality\.scripts: found 'Greek'; did you mean 'greek'\?"),
        ({"scripts": "zzz"}, r"quality\.scripts: found 'zzz'; expected some of arabic, armenian, "),
        ({"min_script_share": 0}, r"quality\.min_script_share: found 0: .*greater than 0"),
        ({"min_script_share": 1.01}, r"quality\.min_script_share: found 1\.01: .*less than or equal to 1"),
        ({"near_duplicate_threshold": 0.49}, r"quality\.near_duplicate_threshold: found 0\.49: .* equal to 0\.5"),
        ({"near_duplicate_threshold": 1.1}, r"quality\.near_duplicate_threshold: found 1\.1: .*or equal to 1"),
        ({"near_duplicate_permutations": 8}, r"quality\.near_duplicate_permutations: found 8: .*16"),
        ({"exclude_ngram_words": 0}, r"quality\.exclude_ngram_words: found 0: .*1"),
        ({"min_word": 3}, r"unknown key 'quality\.min_word'; did you mean 'quality\.min_words'\?"),
        (
            {"near_duplicate_threshold": 0.8, "drop_exact_duplicates": False},
            r"near_duplicate_threshold 0\.8 .* drop_exact_duplicates false keeps exact ones; set it to true, or the",
        ),
    ],
)
def test_settings_that_do_not_fit(overrides, message):
    with pytest.raises(UsageError, match=message) as caught:
        load(PrepareConfig, None, {"input": "a.txt"} | {f"quality.{key}": value for key, value in overrides.items()})
    assert "\n" not in str(caught.value)


# --- excluded n-grams ----------------------------------------------------------------------------------------


def filter_of(files: dict[str, str], directory: Path, **settings) -> QualityFilter:
    for name, content in files.items():
        (directory / name).write_text(content, encoding="utf-8")
    return QualityFilter(QualityConfig(exclude=tuple(str(directory / name) for name in files), **settings))


def test_an_ngram_is_found_whatever_is_around_it(tmp_path):
    keep = filter_of({"test.txt": "One two three four five.\n"}, tmp_path, exclude_ngram_words=4)
    assert keep.reason("And then: TWO, three\nfour – five!") == EXCLUDED
    assert keep.reason("two three four") is None
    assert keep.reason("one two four three five") is None
    assert keep.reason("one two three, and four five") is None


def test_ngrams_do_not_span_lines_and_fields(tmp_path):
    keep = filter_of({"test.tsv": "a b c\td e f\ng h i\n"}, tmp_path, exclude_ngram_words=3)
    assert [keep.reason(text) for text in ("a b c", "d e f", "g h i")] == [EXCLUDED] * 3
    assert [keep.reason(text) for text in ("b c d", "e f g")] == [None] * 2


def test_the_strings_of_json_lines_are_looked_for(tmp_path):
    lines = (
        '{"id": 7, "question": "who \\u00e0 la mode", "answers": {"text": ["the cat sat", "yes"]}}\n\n["on a mat"]\n'
    )
    keep = filter_of({"test.jsonl": lines}, tmp_path, exclude_ngram_words=3)
    assert [keep.reason(text) for text in ("who à la", "the cat sat", "on a mat")] == [EXCLUDED] * 3
    assert [keep.reason(text) for text in ("id question who", "sat yes on", "question text answers")] == [None] * 3


def test_so_many_different_ngrams_must_be_shared(tmp_path):
    files = {"1.txt": "a b c d e\n", "2.txt": "v w x y z\n"}
    keep = filter_of(files, tmp_path, exclude_ngram_words=3, exclude_min_ngrams=3)
    assert keep.reason("a b c and b c d and a b c again a b c") is None  # two different ones
    assert keep.reason("a b c d and v w x") == EXCLUDED


def test_reasons_have_an_order(tmp_path):
    keep = filter_of({"a.txt": "э ю я"}, tmp_path, exclude_ngram_words=3, min_words=3, scripts=("latin",))
    assert keep.reason("э ю") == TOO_SHORT
    assert keep.reason("э ю я") == OTHER_SCRIPT
    assert keep.reason("a very long latin introduction to the three letters э ю я") == EXCLUDED


@pytest.mark.parametrize("task", ["SST-2", "MRPC", "WNLI", "CoLA"])
def test_a_real_test_set_does_not_leak(shared_dir, task):
    path = shared_dir / "glue" / task / "test.tsv"
    keep = QualityFilter(QualityConfig(exclude=(str(path),)))
    wikitext = (shared_dir / "wikitext" / "wiki.valid.tokens").read_text(encoding="utf-8")
    paragraphs = [line for line in wikitext.split("\n") if len(line.split()) > 40][:300]
    assert Counter(map(keep.reason, paragraphs)) == {None: 300}
    sentences = [field for line in path.read_text(encoding="utf-8").split("\n")[1:] for field in line.split("\t")]
    for number, sentence in enumerate(sentences):
        paragraph = paragraphs[number % 300]
        planted = f"{paragraph[:200]} {sentence.upper().replace(' ', '  ')}\n{paragraph[200:]}"
        assert keep.reason(planted) == (EXCLUDED if len(word_hashes(sentence)) >= 13 else None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "test.tsv",
            b"",
            r"test\.tsv: no line or field of it has the 13 words of an n-gram, .*; lower quality\.excl",
        ),
        ("test.tsv", b"a few words\tand as many more words as are wanted\n", r"test\.tsv: no line or field of it has"),
        ("test.tsv", b"fine\n\xe4h\n", r"test\.tsv: line 2: byte 0xe4 at column 1 is not UTF-8; convert the file"),
        ("test.jsonl", b"{}\n{\n", r"test\.jsonl: line 2: is not valid JSON \(.*\); expected one object a line"),
        (".", None, r"cannot be read: Is a directory"),
        ("absent.tsv", None, r"absent\.tsv: cannot be read: No such file or directory"),
    ],
)
def test_excluded_files_that_cannot_be_used(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        QualityFilter(QualityConfig(exclude=(str(tmp_path / name),)))
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)
