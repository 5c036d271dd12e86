"""The table of a model's guesses."""

import numpy as np
from batches import TINY, packed_batch

from tf_bert.models.pretraining import BertForPretraining
from tf_bert.training.guesses import guesses_table


def test_only_tokens_of_the_vocabulary_are_guessed():
    """A model may have more scores than the vocabulary has tokens, so that their number is a round one."""
    model = BertForPretraining(TINY)
    tokens = [f"token{i}" for i in range(TINY.vocab_size - 17)]
    bias = np.zeros(TINY.vocab_size, "float32")
    bias[-17:], bias[3] = 50.0, 40.0
    model.masked_lm.bias.assign(bias)
    batch = packed_batch(np.random.default_rng(0), 2)
    batch["masked_lm_ids"] %= len(tokens)
    masks = [min(3, int(weights.sum())) for weights in batch["masked_lm_weights"]]

    lines = guesses_table(model, batch, tokens, lambda ids: f"{len(ids)} tokens").splitlines()

    assert lines[:2] == ["| text | right | guesses |", "|---|---|---|"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [right for _, right, _ in rows] == [
        tokens[batch["masked_lm_ids"][row, slot]] for row, count in enumerate(masks) for slot in range(count)
    ]
    assert all(guesses.startswith("token3 100%, token") for *_, guesses in rows)
