"""Answers from a model directory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_bert.errors import InputError, UsageError
from tf_bert.models.directory import load_model
from tf_bert.tokenization.tokenizer import load_tokenizer

MASK = "[MASK]"


def fill_mask(model_dir: str, text: str, top: int = 5) -> Iterator[str]:
    """The most probable tokens under every `[MASK]` of a text, as lines to print.

    Args:
      model_dir: a model directory.
      text: with at least one `[MASK]`. Other special-token strings in it are plain text.
      top: guesses per mask.

    Raises:
      UsageError: if the text has no `[MASK]` or `top` is not positive.
      InputError: if the model directory is damaged or the text is longer than the model reads.
    """
    if MASK not in text:
        raise UsageError(f"the text has no {MASK}; write it where a word is to be guessed, e.g. 'the {MASK} sat down.'")
    if top < 1:
        raise UsageError(f"--top: found {top}, expected 1 or more")
    model = load_model(Path(model_dir), optional=("pooler", "next_sentence"))
    tokenizer = load_tokenizer(Path(model_dir))
    vocabulary = tokenizer.vocabulary
    if len(vocabulary) > model.config.vocab_size:
        raise InputError(
            f"{vocabulary.source}: holds {len(vocabulary)} tokens, more than the model's vocab_size "
            f"{model.config.vocab_size}; the two belong to different models"
        )
    first, *others = tokenizer.tokenize(tf.constant(text.split(MASK))).to_list()
    ids = [vocabulary.cls_id, *first]
    for piece in others:
        ids += [vocabulary.mask_id, *piece]
    ids.append(vocabulary.sep_id)
    if len(ids) > model.config.max_position_embeddings:
        raise InputError(
            f"the text has {len(ids)} tokens, the model reads at most {model.config.max_position_embeddings}; "
            "shorten it"
        )
    input_ids = np.array([ids], "int32")
    masks = np.flatnonzero(input_ids[0] == vocabulary.mask_id)
    inputs = {
        "input_ids": input_ids,
        "input_mask": np.ones_like(input_ids),
        "masked_lm_positions": masks[None, :].astype("int32"),
    }
    logits = model(inputs)["masked_lm_logits"][0, :, : len(vocabulary)]
    probabilities, tokens = tf.math.top_k(tf.nn.softmax(logits), min(top, len(vocabulary)))
    for number, (row, ids_of_row) in enumerate(zip(probabilities.numpy(), tokens.numpy(), strict=True), start=1):
        if len(masks) > 1:
            yield f"{MASK} {number}"
        for probability, token in zip(row, ids_of_row, strict=True):
            yield f"  {probability:6.1%}  {vocabulary.tokens[token]}"
