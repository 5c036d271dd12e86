"""Weights of random numbers for every kind of model, and how to compare what came out of a file with them."""

import functools
from pathlib import Path

import numpy as np

from tf_bert.config import BertConfig
from tf_bert.models.directory import CONFIG_FILE, WEIGHTS_FILE, save_weights
from tf_bert.models.tensors import part_slots
from tf_bert.models.weights import StoredTensor, Weights

SMALL = BertConfig(
    vocab_size=31,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=16,
    type_vocab_size=3,
    hidden_act="gelu_new",
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
"""Odd enough that no two dimensions can be taken for each other."""
LABELS = ("contradiction", "entailment", "neutral")
KINDS = {
    "BertModel": ("encoder", "pooler"),
    "BertForPreTraining": ("encoder", "pooler", "masked_lm", "next_sentence"),
    "BertForMaskedLM": ("encoder", "masked_lm"),
    "BertForSequenceClassification": ("encoder", "pooler", "classifier"),
    "BertForTokenClassification": ("encoder", "classifier"),
    "BertForQuestionAnswering": ("encoder", "span"),
}


def random_weights(
    kind: str = "BertForPreTraining", config: BertConfig = SMALL, parts: tuple[str, ...] | None = None
) -> Weights:
    """Weights of a kind of model."""
    rng = np.random.default_rng(sum(kind.encode()))
    parts = parts or KINDS[kind]
    labels = LABELS if "classifier" in parts else None
    slots = [slot for part in parts for slot in part_slots(part, config, len(labels or ()))]
    tensors = {
        name: StoredTensor(name, slot.shape, "float32", functools.partial(np.copy, _numbers(rng, slot.shape)))
        for slot in slots
        for name in slot.names
    }
    settings = {"pad_token_id": 0}
    return Weights("random", config, tensors, architecture=kind, labels=labels, settings=settings)


def _numbers(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(0.1, 0.3, shape).astype("float32")


def values(weights: Weights) -> dict[str, np.ndarray]:
    """Every tensor that weights hold, as it is read."""
    return {name: weights.read(name) for name in weights.tensors}


def assert_same(found: Weights, expected: Weights) -> None:
    """The same model, bit for bit."""
    assert found.config == expected.config
    assert (found.kind, found.labels, found.settings) == (expected.kind, expected.labels, expected.settings)
    assert_same_tensors(found, values(expected))


def assert_same_tensors(found: Weights, expected: dict[str, np.ndarray]) -> None:
    """The same tensors, bit for bit."""
    tensors = values(found)
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        assert tensors[name].dtype == np.float32
        assert found.tensors[name].shape == value.shape
        np.testing.assert_array_equal(tensors[name], value, err_msg=name)


def save_in(weights: Weights, directory: Path) -> Path:
    """Writes a Hugging Face directory and returns it."""
    directory.mkdir()
    save_weights(weights, directory)
    return directory


def files_of(directory: Path) -> tuple[bytes, bytes]:
    """The content of a Hugging Face directory."""
    return (directory / CONFIG_FILE).read_bytes(), (directory / WEIGHTS_FILE).read_bytes()
