"""A model directory with a tiny random encoder, whose vocabulary has the words of `glue_files`."""

import dataclasses
import re
import string
from pathlib import Path

import keras
from glue_files import COLUMNS, rows_of, splits_of

from tf_bert.config import BertConfig
from tf_bert.models.directory import save_model
from tf_bert.models.model import BertModel
from tf_bert.tokenization.tokenizer import save_tokenizer
from tf_bert.tokenization.vocab import SPECIAL_TOKENS, Vocabulary

WORDS = sorted(
    {
        word
        for task in COLUMNS
        for split in splits_of(task)
        for row in rows_of(task, split)
        for text in row.texts
        for word in re.findall(r"[a-z]{2,}", text.lower())
    }
)
_CHARACTERS = string.ascii_lowercase + string.digits
VOCABULARY = Vocabulary(
    (*SPECIAL_TOKENS, *string.punctuation, *_CHARACTERS, *(f"##{character}" for character in _CHARACTERS), *WORDS)
)
"""Words of `glue_files` are tokens; others are spelt, character by character."""
CONFIG = BertConfig(
    vocab_size=len(VOCABULARY),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=64,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    initializer_range=0.1,  # wide, so that it learns in a few dozen updates
)


def write_tiny_model(directory: Path, seed: int = 3, **shape: float) -> Path:
    """Writes an encoder with a pooler, lower-casing, into `directory`, which is made; returns it.

    `shape` are fields of the configuration that differ from `CONFIG`.
    """
    keras.utils.set_random_seed(seed)
    directory.mkdir(parents=True, exist_ok=True)
    save_model(BertModel(dataclasses.replace(CONFIG, **shape)), directory, {"pad_token_id": VOCABULARY.pad_id})
    save_tokenizer(directory, VOCABULARY, lower_case=True)
    return directory
