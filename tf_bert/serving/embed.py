"""Sentence embeddings: a vector for every text, as sentence-transformers computes it from the same directory."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import tensorflow as tf

from tf_bert.errors import InputError, UsageError
from tf_bert.files import atomic_writer
from tf_bert.models.directory import read_directory
from tf_bert.models.layer import taking_weights
from tf_bert.models.model import BertModel
from tf_bert.models.weights import assign_weights
from tf_bert.serving.sentence_settings import choose_length, read_sentence_settings
from tf_bert.tokenization.tokenizer import TOKENIZER_CONFIG_FILE, Tokenizer, load_tokenizer

POOLINGS = ("mean", "cls", "pooler")
WINDOW = 32
"""So many batches of texts are held at a time and sorted by length, so that little is computed for padding."""
SOURCE = "standard input"


@dataclasses.dataclass(frozen=True)
class EmbeddingOptions:
    """What a caller asks for. None stands for what the model directory says."""

    pooling: str | None = None
    """mean: of the last layer's vectors, those of `[CLS]` and `[SEP]` included; cls: the one of `[CLS]`; pooler: the
    pooler's output for it."""
    normalize: bool | None = None
    """Scale vectors to length 1."""
    max_seq_length: int | None = None
    """Tokens of a text that are read, `[CLS]` and `[SEP]` included."""
    batch_size: int = 64
    """Texts in one forward pass."""

    def __post_init__(self) -> None:
        if self.pooling not in (None, *POOLINGS):
            raise UsageError(f"--pooling: found {self.pooling!r}, expected one of {', '.join(POOLINGS)}")
        if self.batch_size < 1:
            raise UsageError(f"--batch_size: found {self.batch_size}, expected 1 or more")


class SentenceEncoder:
    """Texts to vectors, with a model directory's encoder.

    Args:
      model_dir: a model directory, with sentence-transformers' files or without.
      options: in the place of what the directory says.

    Raises:
      UsageError: if the model cannot do what is asked for.
      InputError: if the directory is damaged, has no tokenizer or no pooler to pool with, or asks for what is not done
        here.
    """

    def __init__(self, model_dir: Path, options: EmbeddingOptions) -> None:
        settings = read_sentence_settings(model_dir, options.pooling)
        weights = read_directory(settings.directory)
        config = weights.config
        if settings.pooling == "pooler" and "pooler" not in weights.parts:
            raise InputError(f"{weights.source}: has no pooler; give --pooling mean or cls")
        self.size = config.hidden_size
        """Numbers in a vector."""
        self.max_seq_length = choose_length(settings, config.max_position_embeddings, options.max_seq_length)
        self._batch_size = options.batch_size
        self._lower_case = settings.lower_case
        self._tokenizer = _open_tokenizer(settings.directory, config.vocab_size)
        parts = ("encoder", "pooler") if settings.pooling == "pooler" else ("encoder",)
        with taking_weights():
            model = BertModel(config, parts=parts)
        assign_weights(model, weights)
        normalize = settings.normalize if options.normalize is None else options.normalize
        self._run = _compile(model, settings.pooling, normalize)

    def embed(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """float32 [size] for every text, in order; the empty text is one too. Texts are read a window at a time."""
        texts = iter(texts)
        while window := list(itertools.islice(texts, WINDOW * self._batch_size)):
            yield from self._embed_window(window)

    def token_ids(self, texts: list[str]) -> list[list[int]]:
        """`[CLS] ... [SEP]` of every text, cut to max_seq_length."""
        strings = tf.constant(texts)
        if self._lower_case:
            strings = tf.strings.lower(strings, "utf-8")
        vocabulary = self._tokenizer.vocabulary
        kept = self.max_seq_length - 2
        tokens: list[list[int]] = self._tokenizer.tokenize(strings)[:, :kept].to_list()
        return [[vocabulary.cls_id, *ids, vocabulary.sep_id] for ids in tokens]

    def _embed_window(self, texts: list[str]) -> np.ndarray:
        ids = self.token_ids(texts)
        lengths = np.array([len(row) for row in ids], np.int32)
        order = np.argsort(-lengths, kind="stable")
        vectors = np.empty((len(texts), self.size), np.float32)
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            input_ids = np.full((len(batch), lengths[batch[0]]), self._tokenizer.vocabulary.pad_id, np.int32)
            for row, index in zip(input_ids, batch.tolist(), strict=True):
                row[: lengths[index]] = ids[index]
            vectors[batch] = self._run(input_ids, lengths[batch])
        return vectors


def embed_lines(model_dir: str, lines: Iterable[bytes], output: str | None, options: EmbeddingOptions) -> Iterator[str]:
    """A vector for every line: the work of `tf-bert embed`, as lines to print.

    Args:
      model_dir: a model directory.
      lines: UTF-8. An empty line is a text too, so that vectors and lines keep their numbers.
      output: a .npy or .jsonl file to write; without, vectors are printed as JSON lists.
      options: how.

    Raises:
      UsageError: if `output` is no such file, or the model cannot do what is asked for.
      InputError: if a line is not UTF-8, the directory is not as it must be, or `output` cannot be written.
    """
    write = {None: None, ".npy": _write_npy, ".jsonl": _write_json_lines}.get(Path(output).suffix if output else None)
    if output and not write:
        raise UsageError(f"--output: found {output}, expected a name that ends with .npy or .jsonl")
    encoder = SentenceEncoder(Path(model_dir), options)
    vectors = encoder.embed(_decode(lines))
    if not output or not write:
        yield from map(_json_line, vectors)
        return
    with atomic_writer(Path(output)) as file:
        count = write(file, vectors, encoder.size)
    yield f"{output}: {count:,} vectors of {encoder.size} numbers"


def _decode(lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{SOURCE}: line {number}: byte {error.start + 1} is not UTF-8; convert the text, e.g. with iconv"
            ) from None


def _json_line(vector: np.ndarray) -> str:
    # numpy writes as many digits as it takes to read the same float32 again.
    return f"[{', '.join(map(str, vector))}]"


def _write_json_lines(file: IO[bytes], vectors: Iterable[np.ndarray], size: int) -> int:
    count = 0
    for vector in vectors:
        file.write(f"{_json_line(vector)}\n".encode())
        count += 1
    return count


def _write_npy(file: IO[bytes], vectors: Iterable[np.ndarray], size: int) -> int:
    def write_header(count: int) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, size)}
        np.lib.format.write_array_header_1_0(file, header)  # which leaves room for any count

    write_header(0)
    count = 0
    for vector in vectors:
        file.write(vector.astype("<f4").tobytes())
        count += 1
    file.seek(0)
    write_header(count)
    return count


def _open_tokenizer(directory: Path, vocab_size: int) -> Tokenizer:
    if not (directory / TOKENIZER_CONFIG_FILE).exists():
        raise InputError(
            f"{directory}: has no {TOKENIZER_CONFIG_FILE}; expected the tokenizer beside the weights: vocab.txt, and "
            f"in {TOKENIZER_CONFIG_FILE} whether it lower-cases, as do_lower_case"
        )
    tokenizer = load_tokenizer(directory)
    if len(tokenizer.vocabulary) > vocab_size:
        raise InputError(
            f"{tokenizer.vocabulary.source}: holds {len(tokenizer.vocabulary)} tokens, more than the model's "
            f"vocab_size {vocab_size}; the two belong to different models"
        )
    return tokenizer


def _compile(model: BertModel, pooling: str, normalize: bool) -> Callable[[np.ndarray, np.ndarray], Any]:
    """Ids [batch, length] and lengths [batch] to vectors [batch, hidden_size], as one graph for all lengths."""

    def run(input_ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        mask = tf.sequence_mask(lengths, tf.shape(input_ids)[1], tf.int32)
        outputs = model({"input_ids": input_ids, "input_mask": mask})
        hidden = outputs["sequence_output"]
        if pooling == "mean":
            real = tf.cast(mask, hidden.dtype)[:, :, None]
            vectors = tf.reduce_sum(hidden * real, axis=1) / tf.cast(lengths, hidden.dtype)[:, None]
        else:
            vectors = outputs["pooled_output"] if pooling == "pooler" else hidden[:, 0]
        if normalize:  # with the least divisor of torch.nn.functional.normalize
            vectors /= tf.maximum(tf.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    signature = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)]
    return tf.function(run, input_signature=signature)
