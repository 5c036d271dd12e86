"""WordPiece vocabularies: one token a line, its line is its id."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer

from tf_bert.config import VocabTrainConfig
from tf_bert.errors import InputError
from tf_bert.files import atomic_writer

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Tokens by id. Checked on construction.

    Args:
      tokens: in order of their ids.
      source: where they come from, for messages.

    Raises:
      InputError: if special tokens are missing, or a token is empty, doubled or holds a line break.
    """

    tokens: tuple[str, ...]
    source: str = "vocabulary"
    file_name: ClassVar[str] = "vocab.txt"
    """In a data directory and a model directory, as Hugging Face calls it."""

    def __post_init__(self) -> None:
        if missing := [token for token in SPECIAL_TOKENS if token not in self._ids]:
            raise InputError(
                f"{self.source}: no line is {', '.join(missing)}; expected a BERT vocabulary with "
                f"{' '.join(SPECIAL_TOKENS)}, one token a line, as `tf-bert vocab train` writes it"
            )
        if len(self._ids) < len(self.tokens):
            first, second = _first_double(self.tokens)
            raise InputError(
                f"{self.source}: lines {first + 1} and {second + 1} are both {self.tokens[second]!r}; expected every "
                "token once: remove one line, unless a model was trained with this file"
            )
        for number, token in enumerate(self.tokens, start=1):
            if not token or "\n" in token or "\r" in token:
                raise InputError(f"{self.source}: line {number} holds {token!r}, expected one token; remove the line")

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def pad_id(self) -> int:
        """Id of `[PAD]`."""
        return self._ids[PAD]

    @property
    def unk_id(self) -> int:
        """Id of `[UNK]`."""
        return self._ids[UNK]

    @property
    def cls_id(self) -> int:
        """Id of `[CLS]`."""
        return self._ids[CLS]

    @property
    def sep_id(self) -> int:
        """Id of `[SEP]`."""
        return self._ids[SEP]

    @property
    def mask_id(self) -> int:
        """Id of `[MASK]`."""
        return self._ids[MASK]

    def lower_case_or(self, setting: bool) -> bool:
        """Whether text is lower-cased: as the setting says, for the file does not say it."""
        return setting

    @functools.cached_property
    def continues_word(self) -> np.ndarray:
        """Bool [size]: tokens that belong to the word of the token before them."""
        return np.array([token.startswith("##") for token in self.tokens])

    @property
    def _bytes(self) -> bytes:
        return "".join(f"{token}\n" for token in self.tokens).encode()

    @functools.cached_property
    def sha256(self) -> str:
        """Hexadecimal digest of the file that `save` writes."""
        return hashlib.sha256(self._bytes).hexdigest()

    def save(self, path: Path) -> None:
        """Writes one token a line, atomically.

        Raises:
          InputError: if the operating system refuses to write.
        """
        with atomic_writer(path) as file:
            file.write(self._bytes)

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Reads and checks a vocabulary file, whatever its line ends.

        Raises:
          InputError: if the file is missing, is not UTF-8 or is not a vocabulary (see `Vocabulary`).
        """
        try:
            text = path.read_bytes().decode()
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read: {error.strerror}; expected a vocabulary, as `tf-bert vocab train` writes it"
            ) from error
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise InputError(
                f"{path}: line {line} is not UTF-8 (byte {error.object[error.start]:#04x}); expected UTF-8 text, one "
                "token a line (the name of a SentencePiece model ends with .model)"
            ) from error
        # Not splitlines: a vocabulary may hold U+2028 and its like as tokens.
        lines = [line.removesuffix("\r") for line in text.split("\n")]
        return cls(tuple(lines[:-1] if lines[-1] == "" else lines), str(path))


def _first_double(tokens: tuple[str, ...]) -> tuple[int, int]:
    seen: dict[str, int] = {}
    for number, token in enumerate(tokens):
        if token in seen:
            return seen[token], number
        seen[token] = number
    raise AssertionError("no token is doubled")


def train_vocabulary(read_texts: Callable[[], Iterable[str]], config: VocabTrainConfig) -> Vocabulary:
    """Trains a WordPiece vocabulary (Schuster and Nakajima 2012), with Hugging Face's `tokenizers`.

    The special tokens get ids 0 to 4. Equal texts give equal vocabularies. A corpus with fewer pieces than
    `config.vocab_size` gives a smaller vocabulary.

    Args:
      read_texts: starts reading the corpus from its beginning; it is streamed twice.
      config: sizes and case.
    """
    # The library numbers the characters that continue a word in the order of a randomly seeded hash map, and breaks
    # ties between merges by these numbers. A first training, without merges, tells which characters they are; given
    # in order, as if they were special, they have the same numbers in every run.
    alphabet = _train(read_texts(), config, list(SPECIAL_TOKENS), vocab_size=0)
    continuing = sorted(token for token in alphabet if token.startswith("##") and len(token) == 3)
    return Vocabulary(
        tuple(_train(read_texts(), config, [*SPECIAL_TOKENS, *continuing], config.vocab_size)), config.output
    )


def _train(texts: Iterable[str], config: VocabTrainConfig, first: list[str], vocab_size: int) -> list[str]:
    """Tokens by id, `first` before the others. Characters get a token even beyond `vocab_size`."""
    tokenizer = Tokenizer(WordPiece(unk_token=UNK))
    tokenizer.normalizer = BertNormalizer(lowercase=config.lower_case)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    trainer = WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=config.min_frequency,
        limit_alphabet=config.limit_alphabet,
        special_tokens=first,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)


def extend_vocabulary(base: Vocabulary, other: Vocabulary, max_new_tokens: int | None = None) -> Vocabulary:
    """The tokens of `base`, with their ids, and after them those of `other` that it does not have, in its order.

    A trained vocabulary has its frequent tokens first, so a limit keeps the most useful ones.

    Args:
      base: of a trained model.
      other: of a corpus; both WordPiece.
      max_new_tokens: at most so many of them; None: all.
    """
    known = set(base.tokens)
    new = [token for token in other.tokens if token not in known][:max_new_tokens]
    return Vocabulary((*base.tokens, *new), f"{base.source} with {len(new)} tokens of {other.source}")
