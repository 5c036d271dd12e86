"""Random encoded examples for a tiny model, and the same as plain padded batches."""

import numpy as np
from batches import TINY

from tf_bert.finetuning.packing import Encoded

CONFIG = TINY


def random_encoded(lengths, seed=0, **targets) -> Encoded:
    """Examples of the given lengths, each cut into two segments at a random place."""
    rng = np.random.default_rng(seed)
    lengths = np.array(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(5, CONFIG.vocab_size, offsets[-1]).astype("int32")
    firsts = np.array([rng.integers(1, length + 1) for length in lengths], "int32")
    return Encoded(ids, offsets, firsts, targets)


def padded(encoded: Encoded, length: int) -> dict[str, np.ndarray]:
    """One example a row, as `BertEncoder.call` takes plain rows."""
    inputs = {name: np.zeros((len(encoded), length), "int32") for name in ("input_ids", "segment_ids", "input_mask")}
    for row, (start, stop) in enumerate(zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True)):
        inputs["input_ids"][row, : stop - start] = encoded.input_ids[start:stop]
        inputs["segment_ids"][row, encoded.first_lengths[row] : stop - start] = 1
        inputs["input_mask"][row, : stop - start] = 1
    return inputs
