"""Segment pairs: exact properties, and distributions held against a plain rendering of the published method."""

import random

import numpy as np
import pytest

from tf_bert.pretraining_data.hashing import HashRandom
from tf_bert.pretraining_data.pairs import Pairs, TokenizedDocuments, _truncated, make_pairs, make_segments


def documents_of(lengths: list[list[int]]) -> TokenizedDocuments:
    """Documents of sentences of the given lengths; every token is its own index, so a slice tells where it is from."""
    flat = [length for document in lengths for length in document]
    return TokenizedDocuments(
        np.arange(sum(flat), dtype=np.int32),
        np.cumsum([0, *flat]),
        np.cumsum([0, *(len(document) for document in lengths)]),
    )


def random_lengths(documents: int, seed: int = 0, mean: float = 20.0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [(1 + rng.poisson(mean, 1 + rng.poisson(30))).tolist() for _ in range(documents)]


def pairs_of(lengths, max_seq_length=64, short_seq_prob=0.1, random_prob=0.5, seed=1):
    documents = documents_of(lengths)
    return documents, make_pairs(documents, max_seq_length, short_seq_prob, random_prob, HashRandom(seed))


def document_at(documents: TokenizedDocuments, token: int) -> int:
    starts = documents.sentence_offsets[documents.document_offsets]
    return int(np.searchsorted(starts, token, side="right")) - 1


def reference_pairs(lengths, max_seq_length, short_seq_prob, random_prob, seed):
    """The published method, token by token on lists; with one target length drawn per example."""
    rng = random.Random(seed)
    longest = max_seq_length - 3
    documents, token = [], 0
    for document in lengths:
        documents.append([])
        for length in document:
            documents[-1].append(list(range(token, token + length)))
            token += length
    examples = []
    for number, document in enumerate(documents):
        chunk, i = [], 0
        target = rng.randint(2, longest) if rng.random() < short_seq_prob else longest
        while i < len(document):
            chunk.append(document[i])
            if i == len(document) - 1 or sum(map(len, chunk)) >= target:
                split = 1 if len(chunk) == 1 else rng.randint(1, len(chunk) - 1)
                a = [token for sentence in chunk[:split] for token in sentence]
                b = []
                is_random = len(chunk) == 1 or rng.random() < random_prob
                if is_random:
                    other = rng.choice([n for n in range(len(documents)) if n != number])
                    for sentence in documents[other][rng.randint(0, len(documents[other]) - 1) :]:
                        b += sentence
                        if len(b) >= target - len(a):
                            break
                    i -= len(chunk) - split
                else:
                    b = [token for sentence in chunk[split:] for token in sentence]
                while len(a) + len(b) > longest:
                    longer = a if len(a) > len(b) else b
                    longer.pop(0 if rng.random() < 0.5 else -1)
                examples.append((a, b, is_random))
                chunk = []
                target = rng.randint(2, longest) if rng.random() < short_seq_prob else longest
            i += 1
    return examples


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference of the two cumulative distributions (Kolmogorov-Smirnov)."""
    values = np.union1d(ours, theirs)
    return float(
        np.abs(
            np.searchsorted(np.sort(ours), values, "right") / len(ours)
            - np.searchsorted(np.sort(theirs), values, "right") / len(theirs)
        ).max()
    )


@pytest.mark.parametrize(("max_seq_length", "mean"), [(64, 8.0), (128, 25.0), (48, 40.0)])
def test_distributions_are_those_of_the_published_method(max_seq_length, mean):
    lengths = random_lengths(400, mean=mean)
    _, pairs = pairs_of(lengths, max_seq_length)
    reference = reference_pairs(lengths, max_seq_length, 0.1, 0.5, seed=3)
    assert len(pairs.labels) == pytest.approx(len(reference), rel=0.03)
    assert pairs.labels.mean() == pytest.approx(np.mean([label for _, _, label in reference]), abs=0.025)
    a_start, a_end, b_start, b_end = pairs.bounds.T
    # Two samples of some 10,000 are this far apart with a chance below one in a million.
    bound = 2.7 * (1 / len(pairs.labels) + 1 / len(reference)) ** 0.5
    for name, ours, theirs in (
        ("A", a_end - a_start, [len(a) for a, _, _ in reference]),
        ("B", b_end - b_start, [len(b) for _, b, _ in reference]),
        ("A + B", a_end - a_start + b_end - b_start, [len(a) + len(b) for a, b, _ in reference]),
        ("start of A", a_start, [a[0] for a, _, _ in reference]),
        ("start of B", b_start, [b[0] for _, b, _ in reference]),
    ):
        assert distance(ours, np.array(theirs)) < bound, name


def test_segments_are_where_the_labels_say():
    documents, pairs = pairs_of(random_lengths(60))
    assert (pairs.bounds[:, 1] > pairs.bounds[:, 0]).all() and (pairs.bounds[:, 3] > pairs.bounds[:, 2]).all()
    assert pairs.lengths.max() == 64
    for (a_start, a_end, b_start, b_end), label in zip(pairs.bounds.tolist(), pairs.labels.tolist(), strict=True):
        ends = [document_at(documents, token) for token in (a_start, a_end - 1, b_start, b_end - 1)]
        assert ends[0] == ends[1] and ends[2] == ends[3]
        assert (ends[0] != ends[2]) == label
        if not label:
            assert a_end <= b_start


def test_unused_sentences_go_back():
    # Sentences of one token fill the target exactly: nothing is truncated, and each token is used once.
    documents, pairs = pairs_of([[1] * 700, [1] * 512, [1] * 90], short_seq_prob=0.3)
    taken = [np.arange(start, end) for start, end in pairs.bounds[:, :2].tolist()]
    taken += [np.arange(start, end) for start, end in pairs.bounds[pairs.labels == 0, 2:].tolist()]
    assert pairs.labels.sum() > 5
    assert np.sort(np.concatenate(taken)).tolist() == documents.tokens.tolist()


def test_share_of_short_examples():
    # One endless document of one-token sentences and no random B: an example is as long as its target.
    _, pairs = pairs_of([[1] * 400_000, [1]], 64, short_seq_prob=0.25, random_prob=0.0)
    targets = pairs.lengths[:-2] - 3
    is_short = targets < 61
    assert is_short.mean() == pytest.approx(0.25 * 59 / 60, abs=0.02)
    counts = np.bincount(targets[is_short], minlength=61)[2:61]
    assert counts.min() > 0 and counts.max() < 2 * counts.mean()


@pytest.mark.parametrize("random_prob", [0.0, 1.0])
def test_chance_of_a_random_next_at_its_ends(random_prob):
    _, pairs = pairs_of([[3] * 1000, [3] * 1000], random_prob=random_prob, short_seq_prob=0.0)
    # 61 tokens are 21 sentences; with actual neighbours alone, 1000 = 47 x 21 + 13 leaves no single sentence.
    assert set(pairs.labels.tolist()) == {int(random_prob)}


def test_a_chunk_of_one_sentence_gets_a_random_next():
    _, pairs = pairs_of([[5], [6], [7]], random_prob=0.0)
    assert pairs.labels.tolist() == [1, 1, 1]
    assert pairs.bounds[:, :2].tolist() == [[0, 5], [5, 11], [11, 18]]


def test_sentences_longer_than_a_row_are_cut():
    _, pairs = pairs_of([[900, 40, 800], [700]], max_seq_length=32)
    assert len(pairs.labels) >= 3
    assert set(pairs.lengths.tolist()) == {32}


def test_a_bucket_with_one_document_has_actual_neighbours_alone():
    _, pairs = pairs_of([[40, 50, 4, 4, 60]], max_seq_length=32)
    assert pairs.labels.tolist() == [0, 0]
    # 40 | 50 and 4 4 | 60 or 4 | 4 60: a chunk takes in a second sentence.
    a_start, a_end, b_start, b_end = pairs.bounds.T
    assert (a_end <= b_start).all()
    assert a_start[0] < 40 <= b_start[0] < b_end[0] <= 90 <= a_start[1]
    _, pairs = pairs_of([[40, 50, 60]], max_seq_length=32)
    assert len(pairs.labels) == 1  # the last sentence has no neighbour
    _, pairs = pairs_of([[40]])
    assert len(pairs.labels) == 0 and pairs.bounds.shape == (0, 4)


def test_no_document_gives_no_pair():
    _, pairs = pairs_of([])
    assert len(pairs.labels) == 0 and len(pairs.lengths) == 0


def test_truncation_takes_single_tokens_off_the_longer_segment():
    coins = HashRandom(4)
    for longest in (2, 5, 8, 13):
        for a_length in range(1, 20):
            for b_length in range(1, 20):
                a, b = a_length, b_length
                while a + b > longest:
                    a, b = (a - 1, b) if a > b else (a, b - 1)
                a_start, a_end, b_start, b_end = _truncated(100, 100 + a_length, 200, 200 + b_length, longest, coins)
                assert (a_end - a_start, b_end - b_start) == (a, b)
                assert 100 <= a_start < a_end <= 100 + a_length
                assert 200 <= b_start < b_end <= 200 + b_length


def test_truncation_takes_from_front_and_back_alike():
    coins = HashRandom(5)
    fronts = np.array([_truncated(0, 100, 100, 110, 60, coins)[0] for _ in range(2000)])
    # 50 tokens go from A, each from the front with chance 0.5.
    assert fronts.mean() == pytest.approx(25, abs=0.4)
    assert fronts.var() == pytest.approx(12.5, rel=0.15)


def test_equal_draws_give_equal_pairs():
    lengths = random_lengths(20)
    (_, first), (_, again), (_, other) = (pairs_of(lengths, seed=seed) for seed in (1, 1, 2))
    assert first.bounds.tolist() == again.bounds.tolist() != other.bounds.tolist()


# --- single segments -----------------------------------------------------------------------------------------


def segments_of(lengths, max_seq_length=64, short_seq_prob=0.1, seed=1):
    documents = documents_of(lengths)
    return documents, make_segments(documents, max_seq_length, short_seq_prob, HashRandom(seed))


def test_single_segments_hold_every_token_once_and_in_order():
    documents, segments = segments_of(random_lengths(60))
    starts, ends, b_starts, b_ends = segments.bounds.T
    assert np.concatenate([np.arange(*bounds) for bounds in segments.bounds[:, :2]]).tolist() == (
        documents.tokens.tolist()
    )
    assert (starts < ends).all() and (b_starts == b_ends).all() and segments.labels.shape == (0,)
    np.testing.assert_array_equal(segments.lengths, ends - starts + 2)
    assert segments.lengths.max() == 64
    owners = [
        (document_at(documents, start), document_at(documents, end - 1))
        for start, end in zip(starts, ends, strict=True)
    ]
    assert all(first == last for first, last in owners)


def test_share_of_short_single_segments():
    _, segments = segments_of([[1] * 400_000], 64, short_seq_prob=0.25)
    lengths = (segments.lengths - 2)[:-1]
    is_short = lengths < 62
    # Some 7,700 segments: a standard deviation of 0.005.
    assert is_short.mean() == pytest.approx(0.25 * 60 / 61, abs=0.02)
    assert set(lengths[is_short].tolist()) == set(range(2, 62))
    _, segments = segments_of([[1] * 630, [5], [620]], 64, short_seq_prob=0.0)
    assert segments.lengths.tolist() == [*[64] * 10, 12, 7, *[64] * 10]


def test_no_document_gives_no_segment():
    _, segments = segments_of([])
    assert segments.bounds.shape == (0, 4) and segments.lengths.shape == (0,)


def test_passes_are_joined_in_order():
    (_, first), (_, second) = (pairs_of(random_lengths(10), seed=seed) for seed in (1, 2))
    joined = Pairs.joined([first, second])
    assert joined.bounds.tolist() == first.bounds.tolist() + second.bounds.tolist()
    assert joined.labels.tolist() == first.labels.tolist() + second.labels.tolist()
