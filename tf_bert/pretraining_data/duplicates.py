"""Near-duplicate documents, found by MinHash and locality-sensitive hashing.

Pass 1 leaves a signature of each document beside the spill: for each of n random orders of all runs of words, the first
that the document has. Two documents agree in an order with a probability that is their Jaccard similarity (Broder 1997,
"On the resemblance and containment of documents"), so the share of orders in which they agree estimates it. Between
the passes, documents whose signatures agree in all orders of some band are compared (Leskovec, Rajaraman and Ullman,
"Mining of Massive Datasets", section 3.4), those at or above the threshold are joined to clusters, and of each cluster
one document stays: that of the smallest `text_key`, whatever was read first.
"""

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from tf_bert.config import QualityConfig
from tf_bert.corpus.quality import ngram_hashes, word_hashes
from tf_bert.errors import InputError
from tf_bert.files import atomic_writer, own_partial, reporting_disk_errors
from tf_bert.pretraining_data.hashing import hash_words, text_key

EXACT = "exact duplicate"
NEAR = "near duplicate"

RECALL = 0.98  # a pair right at the threshold is compared with this probability at least, one above it with a higher
_SHINGLES = 1024  # hashed at a time: what fits into a core's cache
_SIGNATURES = 4096  # read at a time


class MinHasher:
    """Signatures of texts, by the `datasketch` library.

    Args:
      config: the settings.

    Raises:
      InputError: if the library is missing.
    """

    def __init__(self, config: QualityConfig) -> None:
        try:
            from datasketch import MinHash
        except ImportError as error:
            raise InputError(
                "quality.near_duplicate_threshold needs the datasketch library, which is missing; "
                "pip install 'tf_bert[dedup]'"
            ) from error
        self._words = config.near_duplicate_words
        self._minhash = MinHash(config.near_duplicate_permutations, seed=1, hashfunc=int, scheme="affine32")

    def signature(self, text: str) -> np.ndarray | None:
        """uint32 [near_duplicate_permutations]; None for a text without words, which resembles no other.

        A text of fewer words than a run has is a run.
        """
        words = word_hashes(text)
        if not len(words):
            return None
        shingles = (ngram_hashes(words, min(self._words, len(words))) >> np.uint64(32)).tolist()
        self._minhash.clear()
        for start in range(0, len(shingles), _SHINGLES):
            self._minhash.update_batch(shingles[start : start + _SHINGLES])
        return self._minhash.digest()


class SignatureWriter:
    """Writes the signatures of a spill's documents; the file is there once the context is left."""

    def __init__(self, spill: Path, config: QualityConfig) -> None:
        self._hasher = MinHasher(config)
        self._record = _record(config)
        self._path = _signatures_path(spill)
        self._partial = own_partial(self._path)
        with reporting_disk_errors(self._path):
            self._file = open(self._partial, "wb")  # noqa: SIM115, closed by __exit__

    def __enter__(self) -> "SignatureWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        try:
            # Closing writes what is still buffered, so it fails once more where a write has failed.
            with reporting_disk_errors(self._path), self._file:
                self._file.flush()
                os.fsync(self._file.fileno())
                os.replace(self._partial, self._path)
        finally:
            self._partial.unlink(missing_ok=True)

    def add(self, text: str) -> None:
        """Adds a document."""
        signature = self._hasher.signature(text)
        if signature is not None:
            with reporting_disk_errors(self._path):
                self._file.write(np.array((text_key(text.encode()), signature), self._record).tobytes())


def _signatures_path(spill: Path) -> Path:
    return spill.with_suffix(".minhash")


def _record(config: QualityConfig) -> np.dtype:
    return np.dtype([("key", "<u8"), ("signature", "<u4", (config.near_duplicate_permutations,))])


def find_near_duplicates(spills: Sequence[Path], config: QualityConfig, path: Path) -> None:
    """Finds the documents that are to go, unless that is done.

    Args:
      spills: what pass 1 wrote; their signatures are read.
      config: the settings; near_duplicate_threshold is not None.
      path: the file to write, atomically: the text keys, sorted uint64, as .npy.

    Raises:
      InputError: if the disk refuses.
    """
    if path.exists():
        return
    threshold = config.near_duplicate_threshold or 1.0
    signatures = _Signatures(spills, config)
    # A document's number is the rank of its key, so that nothing depends on the order of reading.
    keys, rows = np.unique(signatures.keys(), return_index=True)
    clusters = _Clusters(len(keys))
    with _band_hashes(signatures, own_partial(path), threshold) as hashes:
        for band in hashes:
            for group in _groups(band[rows]):
                if not clusters.are_one(group):
                    _join(group, clusters, signatures, rows, threshold)
    with atomic_writer(path) as file:
        np.save(file, keys[clusters.roots() < np.arange(len(keys))])


def drop_duplicates(texts: Sequence[bytes], near_duplicates: Path | None) -> tuple[list[bytes], Counter[str]]:
    """Drops the documents of a bucket, where all that are equal meet, that another one stands for.

    Args:
      texts: the documents, equal ones side by side.
      near_duplicates: what `find_near_duplicates` wrote; None for exact duplicates alone.

    Returns:
      The documents that stay, in order, and how many were dropped as `EXACT` and as `NEAR` duplicates.
    """
    unique = [text for text, _ in itertools.groupby(texts)]
    dropped = Counter({EXACT: len(texts) - len(unique)})
    if near_duplicates is None:
        return unique, dropped
    found = np.load(near_duplicates, mmap_mode="r")
    kept = []
    for text in unique:
        place = np.searchsorted(found, np.uint64(text_key(text)))
        if place == len(found) or found[place] != text_key(text):
            kept.append(text)
    dropped[NEAR] = len(unique) - len(kept)
    return kept, dropped


def bands(threshold: float, permutations: int) -> tuple[int, int]:
    """How signatures are cut: the number of bands, and the most rows in each that `RECALL` allows.

    Signatures of similarity s agree in all rows of some band with probability 1 - (1 - s^rows)^bands.
    """
    for rows in range(permutations, 1, -1):
        if 1 - (1 - threshold**rows) ** (permutations // rows) >= RECALL:
            return permutations // rows, rows
    return permutations, 1


class _Signatures:
    """The signatures of all spills, one after the other."""

    def __init__(self, spills: Sequence[Path], config: QualityConfig) -> None:
        record = _record(config)
        paths = [path for path in map(_signatures_path, spills) if path.stat().st_size]
        self._files = [np.memmap(path, record, "r") for path in paths]
        self._ends = np.cumsum([len(file) for file in self._files], dtype=np.int64)
        self.permutations = config.near_duplicate_permutations

    def __len__(self) -> int:
        return sum(map(len, self._files))

    def keys(self) -> np.ndarray:
        """The text keys, uint64 [documents]."""
        return np.concatenate([np.zeros(0, np.uint64), *(file["key"] for file in self._files)])

    def batches(self) -> Iterator[np.ndarray]:
        """All signatures in order, uint32 [at most _SIGNATURES, permutations] each."""
        for file in self._files:
            for start in range(0, len(file), _SIGNATURES):
                yield file["signature"][start : start + _SIGNATURES]

    def similarities(self, row: int, others: np.ndarray) -> np.ndarray:
        """Estimates of the Jaccard similarity of one document and each of some others, float64 [others]."""
        signature = self._read(np.array([row]))
        pieces = (others[start : start + _SIGNATURES] for start in range(0, len(others), _SIGNATURES))
        return np.concatenate([(self._read(piece) == signature).mean(axis=1) for piece in pieces])

    def _read(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), self.permutations), np.uint32)
        owners = np.searchsorted(self._ends, rows, side="right")
        for owner in np.unique(owners).tolist():
            file = self._files[owner]
            found[owners == owner] = file["signature"][rows[owners == owner] - self._ends[owner] + len(file)]
        return found


@contextlib.contextmanager
def _band_hashes(signatures: _Signatures, path: Path, threshold: float) -> Iterator[Iterator[np.ndarray]]:
    """Of each band the hashes of all documents, uint64 [documents], by way of a file that is removed afterwards."""
    count, rows = bands(threshold, signatures.permutations)
    documents = len(signatures)
    try:
        with reporting_disk_errors(path), open(path, "wb") as file:
            done = 0
            for batch in signatures.batches():
                cut = batch[:, : count * rows].reshape(len(batch), count, rows)
                hashes = hash_words(*np.moveaxis(cut, 2, 0))
                for band in range(count):
                    file.seek(8 * (band * documents + done))
                    file.write(hashes[:, band].tobytes())
                done += len(batch)
        yield (np.fromfile(path, np.uint64, documents, offset=8 * band * documents) for band in range(count))
    finally:
        path.unlink(missing_ok=True)


def _groups(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """The indices of equal hashes, ascending, where there are two or more of them."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    lengths = np.diff(starts, append=len(order))
    for start, length in zip(starts[lengths > 1].tolist(), lengths[lengths > 1].tolist(), strict=True):
        yield order[start : start + length]


class _Clusters:
    """Which documents belong together: a forest whose roots are the smallest documents of their trees."""

    def __init__(self, documents: int) -> None:
        self._parents = np.arange(documents)

    def _root(self, document: int) -> int:
        while (parent := self._parents[document]) != document:
            self._parents[document] = self._parents[parent]
            document = parent
        return document

    def join(self, a: int, b: int) -> None:
        """Puts two documents, and all that belong to them, together."""
        a, b = sorted((self._root(a), self._root(b)))
        self._parents[b] = a

    def are_one(self, documents: np.ndarray) -> bool:
        """Whether these belong together already."""
        return len({self._root(document) for document in documents.tolist()}) == 1

    def roots(self) -> np.ndarray:
        """The smallest document of each document's cluster, int64 [documents]."""
        roots = self._parents
        while not np.array_equal(higher := roots[roots], roots):
            roots = higher
        return roots


def _join(group: np.ndarray, clusters: _Clusters, signatures: _Signatures, rows: np.ndarray, threshold: float) -> None:
    """Joins those of a group that are similar enough, directly or by way of others of the group.

    A document is compared with those alone that were not reached yet, so a group that is one cluster takes one round.
    """
    left = group
    while len(left):
        reached, left = [int(left[0])], left[1:]
        while reached and len(left):
            document = reached.pop()
            is_similar = signatures.similarities(rows[document], rows[left]) >= threshold
            similar, left = left[is_similar].tolist(), left[~is_similar]
            for other in similar:
                clusters.join(document, other)
            reached += similar
