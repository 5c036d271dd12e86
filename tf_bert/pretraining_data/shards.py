"""Pass 2 of a build: one task makes one bucket into one shard and its entry.

A task depends on nothing but its bucket and the configuration, writes the shard atomically and its entry after it, and
does nothing where a valid entry exists; so tasks may run anywhere, in any order, and be killed and run again.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydantic
import tensorflow as tf

from tf_bert.config import PrepareConfig
from tf_bert.corpus.sentences import SentenceSplitter
from tf_bert.errors import InputError
from tf_bert.files import atomic_writer, fsync_directory, own_partial, reporting_disk_errors, write_json
from tf_bert.pretraining_data.buckets import read_bucket
from tf_bert.pretraining_data.duplicates import drop_duplicates
from tf_bert.pretraining_data.hashing import HashRandom, Stream, hash_words, permutation, text_key
from tf_bert.pretraining_data.manifest import Counts, Lengths, Shard
from tf_bert.pretraining_data.masking import Masking
from tf_bert.pretraining_data.notes import NOTE_SUFFIX, NoteWriter, noting
from tf_bert.pretraining_data.original import mask_rows
from tf_bert.pretraining_data.packing import Rows, pack
from tf_bert.pretraining_data.pairs import Pairs, TokenizedDocuments, make_pairs, make_segments
from tf_bert.pretraining_data.schema import Lists, serialize_rows
from tf_bert.tokenization.tokenizer import Tokenizer, load_tokenizer
from tf_bert.tokenization.vocab import Vocabulary

NO_TOKEN = "no token"
TOKENIZER_BATCH = 2048  # sentences
ROWS_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One bucket to be made into one shard. Small, and can be sent to another machine that sees the same files."""

    config: PrepareConfig
    """The build's configuration; the vocabulary is in its output_dir."""
    vocabulary_sha256: str
    """Of that vocabulary."""
    spills: tuple[Path, ...]
    """What pass 1 wrote."""
    bucket: int
    """Which bucket."""
    name: str
    """Of the shard, without suffix."""
    entry_dir: Path
    """Where the entry goes."""
    near_duplicates: Path | None = None
    """What `find_near_duplicates` wrote; None where they are not looked for."""
    passes: int = 1
    """How often the documents are cut into examples."""
    threads: int | None = None
    """Threads that TensorFlow may use in a worker process; None leaves them as they are."""


@dataclasses.dataclass(frozen=True)
class ShardEntry:
    """What a task reports."""

    shard: Shard
    """The file; one of no records is not written."""
    counts: Counts
    """Of the bucket."""
    lengths: Lengths
    """Of its examples and rows."""
    dropped: dict[str, int]
    """Documents of the bucket that were left out, by reason."""


def build_shard(task: ShardTask) -> ShardEntry:
    """Runs one task, unless a valid entry says that it was done.

    Returns:
      The entry. The counts of every token id in the shard's rows, `[CLS]` and `[SEP]` aside, are left beside it for
      `read_token_counts`.

    Raises:
      InputError: if the disk refuses.
    """
    output_dir = Path(task.config.output_dir)
    entry = read_entry(task.entry_dir, task.name)
    if entry and _matches(entry.shard, output_dir):
        return entry
    with noting(task.entry_dir / f"{task.name}{NOTE_SUFFIX}", task.name, "its documents, being read") as note:
        return _build(task, output_dir, note)


def _build(task: ShardTask, output_dir: Path, note: NoteWriter) -> ShardEntry:
    if task.threads is not None:
        _limit_threads(task.threads)
    tokenizer = _tokenizer(output_dir, task.vocabulary_sha256)
    vocabulary = tokenizer.vocabulary
    seed = task.config.seed
    texts = _in_order(read_bucket(list(task.spills), task.bucket), seed)
    dropped = Counter[str]()
    if task.config.quality.drop_exact_duplicates:
        texts, dropped = drop_duplicates(texts, task.near_duplicates)
    threads = task.threads or len(os.sched_getaffinity(0))
    documents = _tokenize(texts, _splitter(task.config), tokenizer, functools.partial(note.at, task.name), threads)
    note.at(task.name, f"the rows of its {len(texts):,} documents")
    random = HashRandom(Stream.PAIRS, seed, task.bucket)
    pairs = Pairs.joined([_examples(documents, task.config, random) for _ in range(task.passes)])
    rows = pack(pairs.lengths, task.config.max_seq_length, examples_per_row(task.config))
    order = permutation(hash_words(Stream.ROW_ORDER, seed, task.bucket, np.arange(len(rows))))
    serialized = _serialized(_features(documents.tokens, pairs, rows, order, vocabulary), task, vocabulary)
    shard = _write_shard(output_dir / f"{task.name}.tfrecord", task.entry_dir, serialized)
    counts = Counts(
        documents=len(documents.document_offsets) - 1,
        sentences=len(documents.sentence_offsets) - 1,
        tokens=len(documents.tokens),
        examples=len(pairs.bounds),
        random_next=int(pairs.labels.sum()),
        rows=len(rows),
        row_tokens=int(pairs.lengths.sum()),
    )
    row_lengths = np.add.reduceat(pairs.lengths[rows.examples], rows.offsets[:-1]) if len(rows) else pairs.lengths
    lengths = Lengths.of(pairs.lengths, row_lengths, task.config.max_seq_length)
    with atomic_writer(_token_counts_path(task.entry_dir, task.name), contended=True) as file:
        np.save(file, _count_tokens(documents.tokens, pairs, len(vocabulary)))
    dropped[NO_TOKEN] = len(texts) - counts.documents
    entry = ShardEntry(shard, counts, lengths, dict(dropped))
    write_json(_entry_path(task.entry_dir, task.name), dataclasses.asdict(entry), contended=True)
    return entry


def examples_per_row(config: PrepareConfig) -> int:
    """K, the examples that a row of `config.row_format` holds at most."""
    return config.max_examples_per_row if config.row_format == "packed" else 1


def read_token_counts(entry_dir: Path, name: str) -> np.ndarray:
    """How often each token id occurs in the rows of a shard, int64 [vocab_size]; `[CLS]` and `[SEP]` not counted."""
    return np.load(_token_counts_path(entry_dir, name))


def _token_counts_path(entry_dir: Path, name: str) -> Path:
    return entry_dir / f"{name}.npy"


def _count_tokens(tokens: np.ndarray, pairs: Pairs, vocab_size: int) -> np.ndarray:
    # Segments may overlap, so a token counts as often as segments cover it.
    changes = np.zeros(len(tokens) + 1, np.int64)
    for column, change in ((0, 1), (1, -1), (2, 1), (3, -1)):
        np.add.at(changes, pairs.bounds[:, column], change)
    covered = np.cumsum(changes[:-1])
    return np.bincount(tokens, weights=covered, minlength=vocab_size).astype(np.int64)


def read_entry(entry_dir: Path, name: str) -> ShardEntry | None:
    """What the task of the shard `name` reported, if it has come to its end."""
    try:
        return pydantic.TypeAdapter(ShardEntry).validate_json(_entry_path(entry_dir, name).read_bytes())
    except (OSError, pydantic.ValidationError):
        return None


def _entry_path(entry_dir: Path, name: str) -> Path:
    return entry_dir / f"{name}.json"


def _matches(shard: Shard, output_dir: Path) -> bool:
    """Whether the file is as `shard` says."""
    try:
        return not shard.records or _crc32(output_dir / shard.name) == shard.crc32
    except OSError:
        return False


@functools.cache
def _limit_threads(threads: int) -> None:
    # Where TensorFlow already runs in this process (a thread pool, a worker used before) it keeps what it has.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


@functools.lru_cache(1)
def _tokenizer(data_dir: Path, vocabulary_sha256: str) -> Tokenizer:
    # The hash is a part of the cache's key: the directory may be made anew with another vocabulary.
    return load_tokenizer(data_dir)


@functools.lru_cache(1)
def _splitter(config: PrepareConfig) -> SentenceSplitter:
    return SentenceSplitter(config)


def _in_order(texts: list[bytes], seed: int) -> list[bytes]:
    """Texts in an order that depends on the texts and the seed, not on how they came."""
    return sorted(texts, key=lambda text: (hash_words(Stream.DOCUMENT_ORDER, seed, text_key(text)), text))


def _tokenize(
    texts: list[bytes],
    splitter: SentenceSplitter,
    tokenizer: Tokenizer,
    on_document: Callable[[bytes], None],
    threads: int,
) -> TokenizedDocuments:
    def tokenize(batch: tuple[list[str], list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sentences, documents = batch
        ragged = tokenizer.tokenize(tf.constant(sentences, tf.string))
        return ragged.flat_values.numpy(), ragged.row_lengths().numpy(), np.array(documents, np.int64)

    batches = _batches_of_sentences(texts, splitter, on_document)
    done = [(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))]
    if threads == 1:  # one by one, so that the note says at which document memory ran out
        done += map(tokenize, batches)
    else:
        # TensorFlow lets go of Python's lock while it tokenizes; finding sentences, which does not, is done before.
        with ThreadPoolExecutor(threads) as pool:
            done += pool.map(tokenize, list(batches))
    tokens, lengths, owners = zip(*done, strict=True)
    all_lengths = np.concatenate(lengths)
    owner = np.concatenate(owners)[all_lengths > 0]  # a sentence of control characters alone has no token
    sentences_of = np.bincount(owner, minlength=len(texts))
    return TokenizedDocuments(
        np.concatenate(tokens), _offsets(all_lengths[all_lengths > 0]), _offsets(sentences_of[sentences_of > 0])
    )


def _batches_of_sentences(
    texts: list[bytes], splitter: SentenceSplitter, on_document: Callable[[bytes], None]
) -> Iterator[tuple[list[str], list[int]]]:
    """Sentences and, for each, the index of its document; few at a time, for strings take much memory."""
    sentences: list[str] = []
    documents: list[int] = []
    for index, text in enumerate(texts):
        on_document(text)
        for sentence in splitter.split(text.decode()):
            sentences.append(sentence)
            documents.append(index)
        if len(sentences) >= TOKENIZER_BATCH:
            yield sentences, documents
            sentences, documents = [], []
    if sentences:
        yield sentences, documents


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def _examples(documents: TokenizedDocuments, config: PrepareConfig, random: HashRandom) -> Pairs:
    """The examples of one pass over the documents of a bucket."""
    if not config.next_sentence:
        return make_segments(documents, config.max_seq_length, config.short_seq_prob, random)
    return make_pairs(documents, config.max_seq_length, config.short_seq_prob, config.next_sentence_random_prob, random)


def _serialized(features: Iterator[dict[str, Lists]], task: ShardTask, vocabulary: Vocabulary) -> Iterator[bytes]:
    """Rows in the format that the configuration asks for."""
    config = task.config
    serialized = itertools.chain.from_iterable(map(serialize_rows, features))
    if config.row_format == "packed":
        return serialized
    masking = Masking.from_settings(config, vocabulary, config.max_seq_length, config.seed)
    return mask_rows(serialized, config.max_seq_length, vocabulary.pad_id, masking, task.bucket)


def _features(
    tokens: np.ndarray, pairs: Pairs, rows: Rows, order: np.ndarray, vocabulary: Vocabulary
) -> Iterator[dict[str, Lists]]:
    """The features of packed rows, in `order`, `ROWS_AT_ONCE` at a time."""
    with_special = np.concatenate([tokens, np.array([vocabulary.cls_id, vocabulary.sep_id], np.int32)])
    cls, sep = len(tokens), len(tokens) + 1
    for first in range(0, len(order), ROWS_AT_ONCE):
        chunk = order[first : first + ROWS_AT_ONCE]
        firsts, counts = rows.offsets[chunk], np.diff(rows.offsets)[chunk]
        examples = rows.examples[_ranges(firsts, counts)]
        a_start, a_end, b_start, b_end = pairs.bounds[examples].T
        has_b = (b_end > b_start).astype(np.int64)
        one = np.ones_like(a_start)
        # What an example is made of: [CLS], A, [SEP], B and, where there is a B, another [SEP].
        starts = np.stack([one * cls, a_start, one * sep, b_start, one * sep], axis=1)
        lengths = np.stack([one, a_end - a_start, one, b_end - b_start, has_b], axis=1)
        example_offsets = _offsets(counts)
        label_counts = counts if len(pairs.labels) else counts * 0
        yield {
            "input_ids": Lists(
                with_special[_ranges(starts.ravel(), lengths.ravel())],
                _offsets(lengths.sum(axis=1))[example_offsets],
            ),
            "example_lengths": Lists(lengths.sum(axis=1), example_offsets),
            "segment_a_lengths": Lists(lengths[:, :3].sum(axis=1), example_offsets),
            "next_sentence_labels": Lists(
                pairs.labels[examples] if len(pairs.labels) else pairs.labels, _offsets(label_counts)
            ),
        }


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The integers from starts[i] to starts[i] + lengths[i], for one i after the other."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1])


def _write_shard(path: Path, work_dir: Path, rows: Iterator[bytes]) -> Shard:
    """Writes rows as a TFRecord file that appears whole or not at all; none for no rows."""
    partial = own_partial(work_dir / path.name)
    records = 0
    with reporting_disk_errors(path):
        try:
            with tf.io.TFRecordWriter(str(partial)) as writer:
                for row in rows:
                    writer.write(row)
                    records += 1
            shard = Shard(name=path.name, records=records, bytes=partial.stat().st_size, crc32=_crc32(partial))
            with open(partial, "rb") as file:
                os.fsync(file.fileno())
            if records:
                os.replace(partial, path)
                fsync_directory(path.parent)
        except tf.errors.OpError as error:
            raise InputError(
                f"{path}: cannot be written: {error.message}; free space or choose another directory"
            ) from error
        finally:
            partial.unlink(missing_ok=True)
    return shard


def _crc32(path: Path) -> str:
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"
