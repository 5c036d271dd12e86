"""Another vocabulary for trained weights: tokens that both vocabularies have keep their rows, new ones get a mean.

A new token begins as the mean of the pieces that the old vocabulary cuts it into, which is what the model knew of its
text before (as e.g. Hewitt 2021 advises over random rows, "Initializing new word embeddings for pretrained language
models").
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from tf_bert.errors import UsageError
from tf_bert.models.tensors import DECODER, MASKED_LM_BIAS, WORD_EMBEDDINGS
from tf_bert.models.weights import StoredTensor, Weights
from tf_bert.tokenization.sentencepiece import SPACE, SentencePieceVocabulary
from tf_bert.tokenization.vocab import Vocabulary

_SHOWN = 5  # new tokens that a report names


@dataclasses.dataclass(frozen=True)
class VocabularyChange:
    """Where every row of the new vocabulary comes from."""

    old: Vocabulary
    new: Vocabulary
    pieces: tuple[tuple[int, ...], ...]
    """For every new token, the old tokens whose rows it is the mean of; empty: of all old tokens."""

    def lines(self) -> Iterator[str]:
        """For people to read."""
        counts = {
            "keep their rows": [i for i, ids in enumerate(self.pieces) if len(ids) == 1],
            "begin as the mean of their old pieces": [i for i, ids in enumerate(self.pieces) if len(ids) > 1],
            "have no old pieces and begin as the mean of all rows": [i for i, ids in enumerate(self.pieces) if not ids],
        }
        yield f"{self.new.source}: in the place of the {len(self.old):,} tokens of {self.old.source}"
        for what, tokens in counts.items():
            if tokens:
                examples = ", ".join(self.new.tokens[i] for i in tokens[:_SHOWN])
                yield f"  {len(tokens):,} tokens {what}, e.g. {examples}"
        if dropped := set(self.old.tokens) - set(self.new.tokens):
            yield f"  {len(dropped):,} old tokens are gone"


def change_vocabulary(old: Vocabulary, new: Vocabulary) -> VocabularyChange:
    """Finds the old pieces of every new token; special tokens stand for their like, whatever they are called."""
    special = {getattr(new, role): getattr(old, role) for role in ("pad_id", "unk_id", "cls_id", "sep_id", "mask_id")}
    ids = {_spelling(old, i): i for i in reversed(range(len(old)))}
    pieces: list[tuple[int, ...]] = []
    for i in range(len(new)):
        spelling = _spelling(new, i)
        if i in special:
            pieces.append((special[i],))
        elif spelling in ids:
            pieces.append((ids[spelling],))
        else:
            pieces.append(tuple(_cut(old, ids, *spelling)))
    return VocabularyChange(old, new, tuple(pieces))


def with_vocabulary(weights: Weights, change: VocabularyChange, vocab_size: int | None = None) -> Weights:
    """Weights whose rows are those of the new vocabulary.

    Args:
      weights: made for the old vocabulary.
      change: of the two.
      vocab_size: rows, if there are to be more than the new vocabulary has tokens.

    Raises:
      UsageError: if the new vocabulary has more tokens than that.
    """
    rows = len(change.new) if vocab_size is None else vocab_size
    if rows < len(change.new):
        raise UsageError(f"model.vocab_size {rows} is smaller than {change.new.source}, {len(change.new)} tokens")
    tensors = dict(weights.tensors)
    for name in (WORD_EMBEDDINGS, DECODER, MASKED_LM_BIAS):
        if name in tensors:
            stored = tensors[name]
            read = functools.partial(_read_changed, weights, name, change, rows)
            tensors[name] = StoredTensor(stored.place, (rows, *stored.shape[1:]), "float32", read)
    config = dataclasses.replace(weights.config, vocab_size=rows)
    return dataclasses.replace(weights, config=config, tensors=tensors)


def _read_changed(weights: Weights, name: str, change: VocabularyChange, rows: int) -> np.ndarray:
    old = weights.read(name)
    mean = old[: len(change.old)].mean(axis=0)
    new = np.empty((rows, *old.shape[1:]), np.float32)
    new[len(change.pieces) :] = mean
    for row, ids in enumerate(change.pieces):
        new[row] = old[ids[0]] if len(ids) == 1 else old[list(ids)].mean(axis=0) if ids else mean
    return new


def _spelling(vocabulary: Vocabulary, token: int) -> tuple[str, bool]:
    """A token's text without marks, and whether it continues a word."""
    text = vocabulary.tokens[token]
    if isinstance(vocabulary, SentencePieceVocabulary):
        return text.removeprefix(SPACE), not text.startswith(SPACE)
    return text.removeprefix("##"), text.startswith("##") and len(text) > 2


def _cut(old: Vocabulary, ids: dict[tuple[str, bool], int], text: str, continues: bool) -> Iterator[int]:
    """The longest old pieces from left to right, as WordPiece cuts a word; none if there is a gap."""
    found = []
    start = 0
    while start < len(text):
        candidates = ((end, ids.get((text[start:end], continues or start > 0))) for end in range(len(text), start, -1))
        end, piece = next(((end, piece) for end, piece in candidates if piece is not None), (start, None))
        if piece is None:
            return
        found.append(piece)
        start = end
    yield from found
