"""Token ids -> examples: segment pairs with next-sentence labels, or single segments.

Pairs are made as google-research/bert `create_pretraining_data.py` does: sentences are gathered up to a target length;
the first some of them, a random number, are segment A; segment B is either the rest (label 0) or text that starts at a
random sentence of another document (label 1), in which case the rest goes back and is used next; a pair that is too
long loses tokens of its longer segment, each from the front or the back with equal chance.

Three things differ. The target length is drawn for every example instead of once per document and pass, since a single
pass over the data would otherwise cut a whole document into scraps. The other document is one of the same bucket,
which holds a random share of the corpus, and is always another one (the original tries ten times). Where a bucket has
a single document there is no other, so pairs are actual neighbours; a chunk of one sentence then takes in the
sentence after it, or is left out at the document's end.

Single segments are consecutive tokens of one document, cut at the target length wherever that falls: every token is in
one example, and rows fill up.
"""

import dataclasses
import itertools
from bisect import bisect_left

import numpy as np

from tf_bert.pretraining_data.hashing import HashRandom

SPECIAL_TOKENS_PER_EXAMPLE = 3  # [CLS] A [SEP] B [SEP]
SPECIAL_TOKENS_PER_SINGLE = 2  # [CLS] A [SEP]


@dataclasses.dataclass(frozen=True)
class TokenizedDocuments:
    """Documents as one flat array, cut by offsets: a segment is a slice of it.

    No sentence and no document is empty.
    """

    tokens: np.ndarray
    """int32 [tokens]."""
    sentence_offsets: np.ndarray
    """int64 [sentences + 1]: sentence i is tokens[sentence_offsets[i]:sentence_offsets[i + 1]]."""
    document_offsets: np.ndarray
    """int64 [documents + 1], in sentences."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Examples as slices of `TokenizedDocuments.tokens`."""

    bounds: np.ndarray
    """int64 [examples, 4]: start and end of segment A, start and end of segment B. A is never empty; B is in no example
    or in all."""
    labels: np.ndarray
    """int64 [examples]: 0 = B follows A, 1 = B is random; int64 [0] if there is no B."""

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, int64 [examples], special ones included."""
        a_start, a_end, b_start, b_end = self.bounds.T
        special = np.where(b_end > b_start, SPECIAL_TOKENS_PER_EXAMPLE, SPECIAL_TOKENS_PER_SINGLE)
        return a_end - a_start + b_end - b_start + special

    @classmethod
    def joined(cls, passes: list["Pairs"]) -> "Pairs":
        """The examples of several passes over the same documents, one pass after the other."""
        return cls(np.concatenate([one.bounds for one in passes]), np.concatenate([one.labels for one in passes]))


def make_pairs(
    documents: TokenizedDocuments,
    max_seq_length: int,
    short_seq_prob: float,
    next_sentence_random_prob: float,
    random: HashRandom,
) -> Pairs:
    """Cuts documents into examples of at most `max_seq_length` tokens, `[CLS]` and `[SEP]` counted.

    Args:
      documents: the documents of one bucket.
      max_seq_length: tokens in an example at most.
      short_seq_prob: share of examples whose target length is drawn from 2 to `max_seq_length` - 3.
      next_sentence_random_prob: chance of a random B; a chunk of one sentence always gets one.
      random: where all draws come from.
    """
    longest = max_seq_length - SPECIAL_TOKENS_PER_EXAMPLE
    offsets = documents.sentence_offsets.tolist()
    firsts = documents.document_offsets.tolist()
    bounds: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    for document in range(len(firsts) - 1):
        start, last = firsts[document], firsts[document + 1]
        while start < last:
            target = random.integer(2, longest) if random.random() < short_seq_prob else longest
            end = bisect_left(offsets, offsets[start] + target, start + 1, last)
            if len(firsts) == 2:
                end = max(end, start + 2)
                if end > last:
                    break
                is_random = False
            else:
                is_random = end - start == 1 or random.random() < next_sentence_random_prob
            middle = start + random.integer(1, max(1, end - start - 1))
            if is_random:
                b_start, b_end = _random_segment(
                    document, target - offsets[middle] + offsets[start], offsets, firsts, random
                )
                next_start = middle
            else:
                b_start, b_end = offsets[middle], offsets[end]
                next_start = end
            bounds.append(_truncated(offsets[start], offsets[middle], b_start, b_end, longest, random))
            labels.append(int(is_random))
            start = next_start
    return Pairs(np.array(bounds, np.int64).reshape(-1, 4), np.array(labels, np.int64))


def make_segments(
    documents: TokenizedDocuments, max_seq_length: int, short_seq_prob: float, random: HashRandom
) -> Pairs:
    """Cuts documents into examples of one segment: for masked LM without next-sentence prediction.

    Args:
      documents, max_seq_length, short_seq_prob, random: as in `make_pairs`; target lengths go up to
        `max_seq_length` - 2.
    """
    longest = max_seq_length - SPECIAL_TOKENS_PER_SINGLE
    edges = documents.sentence_offsets[documents.document_offsets].tolist()
    bounds: list[tuple[int, int, int, int]] = []
    for start, last in itertools.pairwise(edges):
        while start < last:
            target = random.integer(2, longest) if random.random() < short_seq_prob else longest
            end = min(start + target, last)
            bounds.append((start, end, end, end))
            start = end
    return Pairs(np.array(bounds, np.int64).reshape(-1, 4), np.zeros(0, np.int64))


def _random_segment(
    document: int, wanted: int, offsets: list[int], firsts: list[int], random: HashRandom
) -> tuple[int, int]:
    """Whole sentences of a document other than `document`, from a random one on until `wanted` tokens or its end."""
    other = random.integer(0, len(firsts) - 3)
    other += other >= document
    start = random.integer(firsts[other], firsts[other + 1] - 1)
    return offsets[start], offsets[bisect_left(offsets, offsets[start] + wanted, start + 1, firsts[other + 1])]


def _truncated(
    a_start: int, a_end: int, b_start: int, b_end: int, longest: int, random: HashRandom
) -> tuple[int, int, int, int]:
    """Takes single tokens off the longer segment (off B where both are equal) until both fit into `longest`.

    What is left has a closed form; how many of the tokens go from the front is a sum of coin tosses.
    """
    a_length, b_length = a_end - a_start, b_end - b_start
    if a_length + b_length <= longest:
        return a_start, a_end, b_start, b_end
    a_kept = min(a_length, max(longest - b_length, (longest + 1) // 2))
    b_kept = longest - a_kept
    a_start += random.heads(a_length - a_kept)
    b_start += random.heads(b_length - b_kept)
    return a_start, a_start + a_kept, b_start, b_start + b_kept
