"""Rows that are full, of random tokens."""

import numpy as np

from tf_bert.config import BertConfig

MASKED = 0.15


def random_batch(config: BertConfig, rows: int, length: int) -> dict[str, np.ndarray]:
    """Full rows of random tokens, two segments each."""
    rng = np.random.default_rng(0)
    predictions = int(MASKED * length)
    places = np.stack([np.sort(rng.permutation(np.arange(1, length))[:predictions]) for _ in range(rows)])
    return {
        "input_ids": rng.integers(0, config.vocab_size, (rows, length)).astype("int32"),
        "input_mask": np.ones((rows, length), "int32"),
        "segment_ids": np.tile((np.arange(length) >= length // 2).astype("int32"), (rows, 1)),
        "masked_lm_positions": places.astype("int32"),
        "masked_lm_ids": rng.integers(0, config.vocab_size, (rows, predictions)).astype("int32"),
        "masked_lm_weights": np.ones((rows, predictions), "float32"),
        "next_sentence_labels": rng.integers(0, 2, rows).astype("int32"),
        "next_sentence_weights": np.ones(rows, "float32"),
    }
