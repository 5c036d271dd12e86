"""Texts to token ids with `[CLS]` and `[SEP]`, cut to a length as the original release cuts them."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_bert.finetuning.packing import Encoded
from tf_bert.tokenization.tokenizer import Tokenizer


def encode_texts(texts: Sequence[tuple[str, ...]], tokenizer: Tokenizer, max_seq_length: int) -> Encoded:
    """Encodes single texts or pairs.

    Args:
      texts: one or two strings an example, the same number in all.
      tokenizer: of the model.
      max_seq_length: tokens of an example, special tokens included; longer ones lose tokens from the end of the longer
        text, one by one (`_truncate_seq_pair` of google-research/bert `run_classifier.py`).
    """
    columns = [_tokenize(tokenizer, column) for column in zip(*texts, strict=True)]
    vocabulary = tokenizer.vocabulary
    kept = truncate([np.diff(splits) for _, splits in columns], max_seq_length - 1 - len(columns))
    pieces = []  # ids and lengths of what an example is made of, in its order
    count = len(texts)
    pieces.append((np.full(count, vocabulary.cls_id, np.int32), np.ones(count, np.int64)))
    for (values, splits), lengths in zip(columns, kept, strict=True):
        pieces.append((values[_ranges(splits[:-1], lengths)], lengths))
        pieces.append((np.full(count, vocabulary.sep_id, np.int32), np.ones(count, np.int64)))
    totals = np.sum([lengths for _, lengths in pieces], axis=0)
    offsets = np.concatenate([[0], np.cumsum(totals)])
    input_ids = np.empty(offsets[-1], np.int32)
    starts = offsets[:-1].copy()
    for values, lengths in pieces:
        input_ids[_ranges(starts, lengths)] = values
        starts += lengths
    return Encoded(input_ids, offsets, (kept[0] + 2).astype(np.int32))


def truncate(lengths: Sequence[np.ndarray], budget: int) -> list[np.ndarray]:
    """How many tokens of each text are kept, int64 [examples], so that those of an example are `budget` at most.

    Of a pair the longer text loses tokens first, and the second where both are equally long.
    """
    if len(lengths) == 1:
        return [np.minimum(lengths[0], budget)]
    first, second = lengths
    half = budget // 2
    kept_first = np.where(second <= half, np.minimum(first, budget - second), np.minimum(first, budget - half))
    kept_second = np.minimum(second, budget - kept_first)
    return [kept_first, kept_second]


def _tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    tokens = tokenizer.tokenize(tf.constant(texts, tf.string))
    return tokens.values.numpy(), tokens.row_splits.numpy()


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers starts[i], starts[i] + 1, ..., `lengths[i]` of them, for every i in turn."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)
