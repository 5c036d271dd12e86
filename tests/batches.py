"""Random batches in the packed format, for tests of models and of the train step."""

import itertools

import numpy as np

from tf_bert.config import BertConfig

TINY = BertConfig(
    vocab_size=97,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=32,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


def packed_batch(
    rng: np.random.Generator, rows: int, config: BertConfig = TINY, length: int = 24, predictions: int = 5
):
    """Rows of one to three examples, a few padding tokens, and a different number of masks in every row."""
    batch = {
        name: np.zeros((rows, length), "int32") for name in ("input_ids", "segment_ids", "position_ids", "example_ids")
    }
    batch |= {name: np.zeros((rows, predictions), "int32") for name in ("masked_lm_positions", "masked_lm_ids")}
    batch |= {name: np.zeros((rows, 3), "int32") for name in ("next_sentence_positions", "next_sentence_labels")}
    batch["masked_lm_weights"] = np.zeros((rows, predictions), "float32")
    batch["next_sentence_weights"] = np.zeros((rows, 3), "float32")
    for row in range(rows):
        end = length - int(rng.integers(0, 4))
        cuts = np.sort(rng.choice(np.arange(4, end - 4, 4), int(rng.integers(0, 3)), replace=False))
        bounds = [0, *cuts.tolist(), end]
        for example, (start, stop) in enumerate(itertools.pairwise(bounds)):
            batch["input_ids"][row, start:stop] = rng.integers(0, config.vocab_size, stop - start)
            batch["segment_ids"][row, start + (stop - start) // 2 : stop] = 1
            batch["position_ids"][row, start:stop] = np.arange(stop - start)
            batch["example_ids"][row, start:stop] = example + 1
            batch["next_sentence_positions"][row, example] = start
            batch["next_sentence_labels"][row, example] = rng.integers(0, 2)
            batch["next_sentence_weights"][row, example] = 1.0
        masks = int(rng.integers(1, predictions + 1))
        batch["masked_lm_positions"][row, :masks] = np.sort(rng.choice(end, masks, replace=False))
        batch["masked_lm_ids"][row, :masks] = rng.integers(0, config.vocab_size, masks)
        batch["masked_lm_weights"][row, :masks] = 1.0
    return batch
