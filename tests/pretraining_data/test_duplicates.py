"""Near-duplicates: estimates against exact similarities, clusters against all pairs, and builds that leave them out."""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_bert.config import QualityConfig
from tf_bert.corpus.quality import word_hashes
from tf_bert.errors import InputError
from tf_bert.pretraining_data import duplicates
from tf_bert.pretraining_data.duplicates import (
    EXACT,
    NEAR,
    MinHasher,
    SignatureWriter,
    bands,
    drop_duplicates,
    find_near_duplicates,
)
from tf_bert.pretraining_data.hashing import text_key

pytest.importorskip("datasketch", reason="near-duplicates need the extra dedup")

CONFIG = QualityConfig(near_duplicate_threshold=0.8)


def jaccard(a: str, b: str, words: int = 5) -> float:
    """The exact similarity of two texts of plain words."""
    first, second = (
        {tuple(text.split()[i : i + words]) for i in range(len(text.split()) - words + 1)} for text in (a, b)
    )
    return len(first & second) / len(first | second)


def with_changes(text: str, changes: int) -> str:
    """The text with every so many-th word replaced, evenly spread."""
    words = text.split()
    for change in range(changes):
        words[(2 * change + 1) * len(words) // (2 * changes)] = f"changed{change}"
    return " ".join(words)


@pytest.fixture(scope="module")
def paragraphs(shared_dir) -> list[str]:
    """Real paragraphs of 120 to 250 plain words, all different."""
    text = (shared_dir / "wikitext" / "wiki.valid.tokens").read_text(encoding="utf-8").lower()
    plain = (" ".join(word for word in line.split() if word.isalpha()) for line in text.split("\n"))
    return list(dict.fromkeys(line for line in plain if 120 <= len(line.split()) <= 250))


def near_duplicates_of(texts: Sequence[str], directory: Path, config: QualityConfig, spills: int = 1) -> list[str]:
    """The texts that are dropped, sorted."""
    directory.mkdir(exist_ok=True)
    paths = [directory / f"spill-{number}" for number in range(spills)]
    for number, path in enumerate(paths):
        with SignatureWriter(path, config) as writer:
            for text in texts[number::spills]:
                writer.add(text)
    found = directory / "found.npy"
    found.unlink(missing_ok=True)
    find_near_duplicates(paths, config, found)
    keys = np.load(found)
    assert keys.dtype == np.uint64 and (np.diff(keys.astype(object)) > 0).all()
    assert sorted(path.name for path in directory.iterdir()) == ["found.npy", *(f"{p.name}.minhash" for p in paths)]
    return sorted(text for text in set(texts) if text_key(text.encode()) in set(keys.tolist()))


# --- signatures ----------------------------------------------------------------------------------------------


def test_estimates_are_those_of_the_exact_similarity(paragraphs):
    hasher = MinHasher(CONFIG)
    errors = []
    for number, text in enumerate(paragraphs[:200]):
        other = with_changes(text, 1 + number % 12)
        estimate = (hasher.signature(text) == hasher.signature(other)).mean()
        errors.append(estimate - jaccard(text, other))
    # The standard error of one estimate is at most 0.5 / sqrt(128) = 0.044.
    assert np.abs(errors).max() < 5 * 0.044
    assert abs(np.mean(errors)) < 4 * 0.044 / np.sqrt(200)
    assert np.std(errors) < 1.25 * 0.044


def test_signatures_depend_on_words_alone_and_on_their_order():
    hasher = MinHasher(QualityConfig(near_duplicate_threshold=0.8, near_duplicate_permutations=64))
    signature = hasher.signature("One two, three four five six.")
    assert signature is not None and signature.shape == (64,) and signature.dtype == np.uint32
    assert (hasher.signature("ONE  two – three\nfour five: SIX") == signature).all()
    assert (hasher.signature("six five four three two one") != signature).mean() > 0.9
    assert (hasher.signature("one two") == hasher.signature("One, two!")).all()
    assert hasher.signature(" ... \n") is None


def test_signatures_of_long_texts_are_made_in_pieces(monkeypatch, paragraphs):
    text = " ".join(paragraphs[:30])
    whole = MinHasher(CONFIG).signature(text)
    monkeypatch.setattr(duplicates, "_SHINGLES", 7)
    assert np.array_equal(MinHasher(CONFIG).signature(text), whole)


@pytest.mark.parametrize(("threshold", "permutations"), [(0.5, 16), (0.5, 128), (0.8, 128), (0.9, 256), (1.0, 128)])
def test_bands_find_what_is_at_the_threshold(threshold, permutations):
    count, rows = bands(threshold, permutations)

    def recall(rows: int) -> float:
        return 1 - (1 - threshold**rows) ** (permutations // rows)

    assert count * rows <= permutations and recall(rows) >= 0.98
    assert all(recall(more) < 0.98 for more in range(rows + 1, permutations + 1))


def test_a_missing_library_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(
        InputError, match=r"^quality\.near_duplicate_threshold needs .* pip install 'tf_bert\[dedup\]'$"
    ):
        MinHasher(CONFIG)


# --- clusters ------------------------------------------------------------------------------------------------


def test_planted_near_duplicates_are_found_and_nothing_else(paragraphs, tmp_path):
    planted = {text: with_changes(text, 1) for text in paragraphs[:100]}  # 120 words: 5 of 116 runs differ
    others = {text: with_changes(text, 12) for text in paragraphs[100:150]}
    assert all(jaccard(*pair) > 0.9 for pair in planted.items())
    assert all(jaccard(*pair) < 0.7 for pair in others.items())
    texts = [*paragraphs, *planted.values(), *others.values()]
    expected = sorted(max(pair, key=lambda text: text_key(text.encode())) for pair in planted.items())
    assert near_duplicates_of(texts, tmp_path / "work", CONFIG) == expected


@pytest.mark.parametrize("read_at_a_time", [4096, 3])
def test_clusters_are_those_of_all_pairs(paragraphs, tmp_path, monkeypatch, read_at_a_time):
    monkeypatch.setattr(duplicates, "_SIGNATURES", read_at_a_time)
    base = paragraphs[:8]
    chains = [with_changes(text, changes) for text in base for changes in range(0, 7)]
    texts = list(dict.fromkeys(chains))
    config = QualityConfig(near_duplicate_threshold=0.75)
    hasher = MinHasher(config)
    signatures = {text: hasher.signature(text) for text in texts}
    cut = bands(0.75, 128)

    def are_joined(a: str, b: str) -> bool:
        equal = signatures[a] == signatures[b]
        return bool(equal.mean() >= 0.75 and equal[: cut[0] * cut[1]].reshape(cut).all(axis=1).any())

    clusters = {text: {text} for text in texts}
    for a, b in itertools.combinations(texts, 2):
        if are_joined(a, b) and clusters[a] is not clusters[b]:
            clusters[a] |= clusters[b]
            for text in clusters[b]:
                clusters[text] = clusters[a]
    stay = {min(cluster, key=lambda text: text_key(text.encode())) for cluster in clusters.values()}
    assert 8 < len(stay) < len(texts) / 2
    assert near_duplicates_of(texts, tmp_path / "work", config, spills=3) == sorted(set(texts) - stay)


def test_an_estimate_right_at_the_threshold_counts(paragraphs, tmp_path):
    a, b = paragraphs[0], with_changes(paragraphs[0], 3)
    hasher = MinHasher(CONFIG)
    estimate = float((hasher.signature(a) == hasher.signature(b)).mean())
    assert 0.6 < estimate < 0.95
    at, above = (QualityConfig(near_duplicate_threshold=value) for value in (estimate, estimate + 1e-9))
    assert len(near_duplicates_of([a, b], tmp_path / "at", at)) == 1
    assert near_duplicates_of([a, b], tmp_path / "above", above) == []


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_order_of_reading_and_the_number_of_spills_change_nothing(tmp_path_factory, data):
    originals = [" ".join(f"word{text}x{number}" for number in range(300)) for text in range(4)]
    texts = [with_changes(text, changes) for text in originals for changes in (0, 1, 2, 40)] + ["", ".", "a b"]
    directory = tmp_path_factory.mktemp("order")
    expected = near_duplicates_of(texts, directory / "first", CONFIG)
    order = data.draw(st.permutations([*range(len(texts)), 0, 1, 5]))  # some twice
    spills = data.draw(st.integers(1, 5))
    assert len(expected) == 8
    assert near_duplicates_of([texts[i] for i in order], directory / "second", CONFIG, spills) == expected


def test_what_was_found_is_not_looked_for_again(tmp_path):
    np.save(tmp_path / "found.npy", np.zeros(0, np.uint64))
    find_near_duplicates([tmp_path / "not even there"], CONFIG, tmp_path / "found.npy")


def test_no_signature_at_all(tmp_path):
    assert near_duplicates_of([".", "..."], tmp_path / "work", CONFIG, spills=2) == []


# --- dropping ------------------------------------------------------------------------------------------------


def test_the_first_of_equal_documents_stays(tmp_path):
    texts = [b"a", b"a", b"b", b"c", b"c", b"c"]
    assert drop_duplicates(texts, None) == ([b"a", b"b", b"c"], {EXACT: 3})
    np.save(tmp_path / "found.npy", np.sort(np.array([text_key(b"c"), text_key(b"x")], np.uint64)))
    assert drop_duplicates(texts, tmp_path / "found.npy") == ([b"a", b"b"], {EXACT: 3, NEAR: 1})
    np.save(tmp_path / "none.npy", np.zeros(0, np.uint64))
    assert drop_duplicates(texts, tmp_path / "none.npy") == ([b"a", b"b", b"c"], {EXACT: 3, NEAR: 0})


def test_word_hashes_tell_the_words_of_the_paragraphs_apart(paragraphs):
    words = {word for text in paragraphs for word in text.split()}
    assert len({int(word_hashes(word)[0]) for word in words}) == len(words)
