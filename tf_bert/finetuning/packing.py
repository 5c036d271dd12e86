"""Encoded examples, and batches of them without padding: several share a row, and attend only to themselves.

A finetuning set has short and long examples, and padding a batch to its longest, let alone to max_seq_length, is most
of the work (SST-2: 13 tokens on average). The encoder reads packed rows anyway (see `BertEncoder.call`), so a batch
here is as many rows as its tokens need. What an example gets out of it does not depend on who shares its row.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

ROW_MULTIPLE = 8
"""Rows are as long as a multiple of this, so that there are few different shapes."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Examples as token ids, `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, one after the other."""

    input_ids: np.ndarray
    """int32 [tokens] of all examples."""
    offsets: np.ndarray
    """int64 [examples + 1]: where each example begins in `input_ids`, and the end."""
    first_lengths: np.ndarray
    """int32 [examples]: tokens in segment A, `[CLS]` and `[SEP]` included."""
    targets: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """One value an example, [examples, ...]."""
    token_targets: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """One value a token, [tokens]."""

    @staticmethod
    def of(
        ids: Sequence[np.ndarray],
        first_lengths: np.ndarray,
        targets: Mapping[str, np.ndarray] | None = None,
        token_targets: Mapping[str, np.ndarray] | None = None,
    ) -> "Encoded":
        """Examples from the token ids of each, int32 [tokens]."""
        offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in ids], dtype=np.int64)])
        flat = np.concatenate([np.zeros(0, np.int32), *ids])
        return Encoded(flat, offsets, first_lengths, targets or {}, token_targets or {})

    def __len__(self) -> int:
        return len(self.first_lengths)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [examples]: tokens of each."""
        return np.diff(self.offsets)


@dataclasses.dataclass(frozen=True)
class Packed:
    """One batch of packed rows."""

    inputs: dict[str, np.ndarray]
    """What `BertEncoder.call` takes: integers [rows, length], and [rows, slots] for `next_sentence_positions`, here
    the place of every example's `[CLS]`; and the targets, [rows, slots, ...] of examples and [rows, length] of tokens,
    with float32 `example_weights` [rows, slots] and `token_weights` [rows, length], 0 where nothing is."""
    rows: np.ndarray
    """int64 [examples]: the row of each example, in the order that they were given."""
    slots: np.ndarray
    """int64 [examples]: the place among its row's examples."""
    starts: np.ndarray
    """int64 [examples]: the place of its first token in its row."""


def pack(
    encoded: Encoded,
    indices: Sequence[int] | np.ndarray,
    row_length: int,
    *,
    row_multiple: int = 1,
    slot_multiple: int = 1,
    shortens_rows: bool = True,
) -> Packed:
    """Packs some examples into one batch.

    Args:
      encoded: all examples.
      indices: which of them.
      row_length: tokens in a row at most; at least the longest example's.
      row_multiple: the batch has a multiple of this many rows.
      slot_multiple: and each row a place for a multiple of this many examples.
      shortens_rows: rows are as short as that many of them can be, a multiple of `ROW_MULTIPLE`; or else `row_length`
        always, so that there are few different shapes.
    """
    indices = np.asarray(indices, np.int64)
    lengths = encoded.lengths[indices]
    rows = _round_up(assign_rows(lengths, row_length).row_count, row_multiple)
    if shortens_rows:
        # What a filled-up batch would compute in vain is spread over its rows instead, and mostly goes away.
        shortest = max(int(lengths.max()), -(-int(lengths.sum()) // rows))
        candidates = range(_round_up(shortest, ROW_MULTIPLE), row_length, ROW_MULTIPLE)
        row_length = next(
            (length for length in candidates if assign_rows(lengths, length).row_count <= rows), row_length
        )
    row_of, slot_of, start_of, _ = assign_rows(lengths, row_length)
    slots = _round_up(int(slot_of.max()) + 1, slot_multiple)
    shape = (rows, row_length)

    # Where every token comes from, and where it goes.
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    source = np.repeat(encoded.offsets[indices], lengths) + within
    place = np.repeat(row_of * row_length + start_of, lengths) + within

    def spread(values: np.ndarray, dtype: type = np.int32) -> np.ndarray:
        spread_out: np.ndarray = np.zeros(shape, dtype)
        spread_out.reshape(-1)[place] = values
        return spread_out

    def by_slot(values: np.ndarray) -> np.ndarray:
        table = np.zeros((shape[0], slots, *values.shape[1:]), values.dtype)
        table[row_of, slot_of] = values
        return table

    inputs = {
        "input_ids": spread(encoded.input_ids[source]),
        "segment_ids": spread(within >= np.repeat(encoded.first_lengths[indices], lengths)),
        "position_ids": spread(within),
        "example_ids": spread(np.repeat(slot_of + 1, lengths)),
        "next_sentence_positions": by_slot(start_of.astype(np.int32)),
        "example_weights": by_slot(np.ones(len(indices), np.float32)),
        "token_weights": spread(np.ones(len(source)), np.float32),
    }
    inputs |= {name: by_slot(values[indices]) for name, values in encoded.targets.items()}
    inputs |= {name: spread(values[source], values.dtype.type) for name, values in encoded.token_targets.items()}
    return Packed(inputs, row_of, slot_of, start_of)


class Places(NamedTuple):
    """Where each of some examples goes, int64 [examples] each, and the number of rows."""

    rows: np.ndarray
    slots: np.ndarray
    starts: np.ndarray
    row_count: int


def assign_rows(lengths: np.ndarray, row_length: int) -> Places:
    """Puts examples into rows, the longest first, each where it leaves least room (best fit decreasing)."""
    row_of, slot_of, start_of = (np.zeros(len(lengths), np.int64) for _ in range(3))
    used: list[int] = []
    counts: list[int] = []
    for i in np.argsort(-lengths, kind="stable"):
        length = int(lengths[i])
        fitting = [row for row, tokens in enumerate(used) if tokens + length <= row_length]
        row = max(fitting, key=used.__getitem__) if fitting else len(used)
        if row == len(used):
            used.append(0)
            counts.append(0)
        row_of[i], slot_of[i], start_of[i] = row, counts[row], used[row]
        used[row] += length
        counts[row] += 1
    return Places(row_of, slot_of, start_of, len(used))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
