"""Examples -> rows of `max_seq_length` tokens, so that little compute goes to padding.

Best fit, longest first: an example goes to the fullest row that still has room for it. Rows are kept by the room that
is left in them, and the set of rooms is the bits of one integer, so an example is placed in constant time.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Rows:
    """Which examples share a row."""

    examples: np.ndarray
    """int64 [examples]: example indices, row after row."""
    offsets: np.ndarray
    """int64 [rows + 1]: row i holds examples[offsets[i]:offsets[i + 1]]."""

    def __len__(self) -> int:
        return len(self.offsets) - 1


def pack(lengths: np.ndarray, max_seq_length: int, max_examples_per_row: int) -> Rows:
    """Packs examples of `lengths` [examples] tokens, each at most `max_seq_length`, into rows."""
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(max_seq_length + 1)]
    rooms = 0  # bit r is set where with_room[r] holds a row
    ordered = np.argsort(-lengths, kind="stable")
    for example, length in zip(ordered.tolist(), lengths[ordered].tolist(), strict=True):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
            rows[row].append(example)
        else:
            room, row = max_seq_length, len(rows)
            rows.append([example])
        room -= length
        if room and len(rows[row]) < max_examples_per_row:
            with_room[room].append(row)
            rooms |= 1 << room
    counts = np.array([len(row) for row in rows], np.int64)
    examples = np.array([example for row in rows for example in row], np.int64)
    return Rows(examples, np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]))
