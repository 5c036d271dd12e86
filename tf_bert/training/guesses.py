"""A few masked sentences with the model's guesses, to be read by people."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np


def guesses_table(
    model: keras.Model,
    batch: Mapping[str, Any],
    tokens: Sequence[str],
    to_text: Callable[[Sequence[int]], str],
    rows: int = 4,
    masks_per_row: int = 3,
    guesses: int = 3,
) -> str:
    """A Markdown table of the first masks of a batch's first rows.

    Args:
      model: gives `masked_lm_logits`.
      batch: one packed batch, see `BertEncoder.call`.
      tokens: the vocabulary, of at most as many tokens as the model has scores: only these are guessed.
      to_text: turns ids into text.
      rows, masks_per_row, guesses: how much to show.

    Returns:
      Columns: the words around the mask, the right token, the best guesses with their probabilities.
    """
    few = {name: np.asarray(value)[:rows] for name, value in batch.items()}
    logits = np.asarray(model(few, training=False)["masked_lm_logits"])[..., : len(tokens)]
    lines = ["| text | right | guesses |", "|---|---|---|"]
    for row in range(len(logits)):
        ids = few["input_ids"][row]
        for slot in range(min(masks_per_row, int(few["masked_lm_weights"][row].sum()))):
            position = few["masked_lm_positions"][row, slot]
            same_example = few["example_ids"][row] == few["example_ids"][row, position]
            around = np.flatnonzero(same_example & (np.abs(np.arange(len(ids)) - position) <= 12))
            before, after = ids[around[around < position]], ids[around[around > position]]
            scores = logits[row, slot] - logits[row, slot].max()
            probabilities = np.exp(scores) / np.exp(scores).sum()
            best = np.argsort(-probabilities)[:guesses]
            cells = (
                f"{to_text(before.tolist())} **[?]** {to_text(after.tolist())}",
                tokens[few["masked_lm_ids"][row, slot]],
                ", ".join(f"{tokens[token]} {probabilities[token]:.0%}" for token in best),
            )
            lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)
