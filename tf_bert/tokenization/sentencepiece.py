"""SentencePiece vocabularies (Kudo and Richardson 2018), as an alternative to WordPiece with the same interface.

The model file holds the normalization as well as the pieces, so training, data preparation and a served graph agree on
it: NFKC with the library's rules for spaces (`nmt_nfkc`), and case folding for uncased models (`nmt_nfkc_cf`); accents
stay. The special tokens are control symbols, which no text becomes.

Where two cuts of a unigram model are equally likely, as 00|0 and 0|00, releases of the library choose differently; the
one inside of TensorFlow Text is used throughout.
"""

import dataclasses
import functools
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from tf_bert.config import VocabTrainConfig
from tf_bert.errors import InputError, UsageError
from tf_bert.tokenization.vocab import CLS, MASK, PAD, SEP, UNK, Vocabulary

SUFFIX = ".model"
SPACE = "\u2581"
_CASE_FOLDING = "_cf"
_NORMALIZATION = "nmt_nfkc"
# The sums of unigram training depend on how many threads share the sentences, so their number is fixed.
_THREADS = 4
_LONGEST_LINE = 1 << 16  # bytes; the library passes over longer ones


@dataclasses.dataclass(frozen=True)
class SentencePieceVocabulary(Vocabulary):
    """Pieces by id, and the model that finds them in text. Checked on construction.

    Args:
      tokens, source: as for `Vocabulary`.
      model: the bytes of the model file.

    Raises:
      InputError: if `[CLS]`, `[SEP]` or `[MASK]` is not a control symbol of the model, or there is no padding.
    """

    model: bytes = dataclasses.field(default=b"", repr=False)
    file_name = "spiece.model"

    def __post_init__(self) -> None:
        processor = self.processor
        for token in (CLS, SEP, MASK):
            if token not in self._ids or not processor.is_control(self._ids[token]):
                raise InputError(
                    f"{self.source}: {token} is not a control symbol of the model; expected a SentencePiece model with "
                    f"{CLS} {SEP} {MASK}, as `tf-bert vocab train --kind sentencepiece` writes it"
                )
        if self.pad_id < 0:
            raise InputError(
                f"{self.source}: the model has no padding piece; expected one with a pad_id, as "
                "`tf-bert vocab train --kind sentencepiece` writes it"
            )

    @functools.cached_property
    def processor(self) -> sentencepiece.SentencePieceProcessor:
        """The library's own reader of the model."""
        return sentencepiece.SentencePieceProcessor(model_proto=self.model)

    @property
    def pad_id(self) -> int:
        """Id of the padding, whatever its piece is called."""
        return int(self.processor.pad_id())

    @property
    def unk_id(self) -> int:
        """Id of the unknown piece, whatever it is called."""
        return int(self.processor.unk_id())

    def lower_case_or(self, setting: bool) -> bool:
        """Whether the model folds case, whatever the setting is."""
        return sentencepiece_model_pb2.ModelProto.FromString(self.model).normalizer_spec.name.endswith(_CASE_FOLDING)

    @functools.cached_property
    def continues_word(self) -> np.ndarray:
        """Bool [size]: pieces that do not begin with the mark of a space."""
        return np.array(
            [not token.startswith(SPACE) and not self.processor.is_control(i) for i, token in enumerate(self.tokens)]
        )

    @property
    def _bytes(self) -> bytes:
        return self.model

    @classmethod
    def load(cls, path: Path) -> "SentencePieceVocabulary":
        """Reads and checks a model file.

        Raises:
          InputError: if it is missing, damaged or not a SentencePiece model for BERT.
        """
        try:
            return cls.from_bytes(path.read_bytes(), str(path))
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read: {error.strerror}; expected a SentencePiece model, as "
                "`tf-bert vocab train --kind sentencepiece` writes it"
            ) from error

    @classmethod
    def from_bytes(cls, model: bytes, source: str) -> "SentencePieceVocabulary":
        """As `load`, from the file's content."""
        try:
            proto = sentencepiece_model_pb2.ModelProto.FromString(model)
        except DecodeError as error:
            raise InputError(
                f"{source}: is not a SentencePiece model, or is damaged; copy it again or train one with "
                "`tf-bert vocab train --kind sentencepiece`"
            ) from error
        # A file that is cut off between two fields still parses; what comes after the pieces is then missing.
        if not proto.normalizer_spec.name or proto.trainer_spec.vocab_size != len(proto.pieces):
            raise InputError(
                f"{source}: holds {len(proto.pieces)} pieces, expected the {proto.trainer_spec.vocab_size} that it was "
                "trained for and its normalization: it is cut off; copy it again"
            )
        return cls(tuple(piece.piece for piece in proto.pieces), source, model)


class SentencePieceTokenizer:
    """Text to token ids with a SentencePiece model, in eager code, in `tf.function` and in `tf.data`.

    Args:
      vocabulary: the model.
    """

    strip_accents = False

    def __init__(self, vocabulary: SentencePieceVocabulary) -> None:
        self.vocabulary = vocabulary
        self.lower_case = vocabulary.lower_case_or(True)
        self._tokenizer = tf_text.SentencepieceTokenizer(vocabulary.model, out_type=tf.int32)

    def tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Token ids of every text, int32 [batch, (tokens)], without `[CLS]` and `[SEP]`; see `Tokenizer.tokenize`."""
        return self._tokenizer.tokenize(text)

    def tokenize_with_offsets(self, text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """As `tokenize`, with the bytes of the text where each piece starts and ends, int64 [batch, (tokens)]."""
        found: tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor] = self._tokenizer.tokenize_with_offsets(text)
        return found

    def to_text(self, ids: Sequence[int]) -> str:
        """Joins pieces for people to read."""
        return "".join(self.vocabulary.tokens[token] for token in ids).replace(SPACE, " ").strip()


def train_sentencepiece(texts: Iterable[str], config: VocabTrainConfig) -> SentencePieceVocabulary:
    """Trains a model. Equal texts give equal models.

    Args:
      texts: the corpus, read once; memory is bounded by `config.max_training_lines`.
      config: kind, sizes and case.

    Raises:
      InputError: if there are no texts.
      UsageError: if the corpus has fewer pieces than `config.vocab_size`.
    """
    lines = _lines(texts)
    first = next(lines, None)
    if first is None:
        raise InputError(f"{', '.join(config.input)}: holds no text; check input and format")
    sentencepiece.set_random_generator_seed(0)  # which lines are drawn where there are more than may be kept
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_chain(first, lines),
            model_writer=written,
            model_type=config.sentencepiece_model,
            vocab_size=config.vocab_size,
            character_coverage=config.character_coverage,
            normalization_rule_name=_NORMALIZATION + (_CASE_FOLDING if config.lower_case else ""),
            input_sentence_size=config.max_training_lines,
            shuffle_input_sentence=True,
            max_sentence_length=_LONGEST_LINE,
            num_threads=_THREADS,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            pad_piece=PAD,
            unk_piece=UNK,
            bos_piece=CLS,
            eos_piece=SEP,
            control_symbols=[MASK],
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _told(error, config) from error
    return SentencePieceVocabulary.from_bytes(written.getvalue(), config.output)


def _chain(first: str, others: Iterator[str]) -> Iterator[str]:
    yield first
    yield from others


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Lines, for the library takes sentences; those that are too long for it in pieces."""
    longest = _LONGEST_LINE // 4  # characters of four bytes
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), longest):
                yield line[start : start + longest]


def _told(error: RuntimeError, config: VocabTrainConfig) -> Exception:
    """The library's complaint in words of a user."""
    if found := re.search(r"Vocabulary size too high \((\d+)\).*<= (\d+)", str(error)):
        return UsageError(
            f"vocab_size {found[1]} is more than the corpus has pieces for; set it to {found[2]} or less, or bring "
            "more text"
        )
    if "smaller than required_chars" in str(error):
        sizes = re.findall(r"\d+", str(error).partition("required_chars")[2])
        return UsageError(
            f"vocab_size {config.vocab_size} is less than the corpus has characters"
            + (f" ({sizes[-1]})" if sizes else "")
            + "; raise it, or lower character_coverage"
        )
    return InputError(f"{', '.join(config.input)}: SentencePiece could not be trained: {error}")
