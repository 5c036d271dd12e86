"""Model directories go both ways between this project and transformers with PyTorch; opt-in, see `peers.py`."""

import dataclasses
import json

import numpy as np
import peers
import pretraining_runs
import pytest
from batches import TINY
from odd_shapes import CHECKPOINT, SHAPES, checkpoint, random_examples, random_model
from parity import GRADIENT_BOUND, OUTPUT_BOUND, compare

from tf_bert.models.classification import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from tf_bert.models.directory import load_model, read_directory, save_model
from tf_bert.models.model import BertModel
from tf_bert.models.weights import assign_weights
from tf_bert.serving.predict import fill_mask

pytestmark = peers.needs("torch", "transformers")

LABELS = ("contradiction", "entailment", "neutral")
LENGTHS = (11, 1, 4)


@pytest.fixture
def inputs(tmp_path):
    """Padded rows as transformers names them, and the file that holds them."""
    rng = np.random.default_rng(2)
    mask = (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]).astype("int64")
    arrays = {
        "input_ids": rng.integers(1, TINY.vocab_size, mask.shape) * mask,
        "token_type_ids": rng.integers(0, 2, mask.shape) * mask,
        "attention_mask": mask,
    }
    path = tmp_path / "inputs.npz"
    np.savez(path, **arrays)
    return path


def ours(model, path):
    """What our model gives for the rows of a file."""
    arrays = {name: value.astype("int32") for name, value in np.load(path).items()}
    everywhere = np.arange(arrays["input_ids"].shape[1], dtype="int32")
    return model(
        {
            "input_ids": arrays["input_ids"],
            "segment_ids": arrays["token_type_ids"],
            "input_mask": arrays["attention_mask"],
            "masked_lm_positions": np.tile(everywhere, (len(LENGTHS), 1)),
        }
    )


def assert_equal(found, path, names):
    """Holds our outputs against a file of transformers', at real tokens, to 1e-5 of the largest number."""
    theirs = np.load(path)
    real = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    for name, their_name in names.items():
        value, expected = np.asarray(found[name]), theirs[their_name]
        assert value.shape == expected.shape
        if value.shape[:2] == real.shape:
            value, expected = value[real], expected[real]
        assert np.abs(value - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max()), name


@pytest.mark.parametrize("name", [*SHAPES, "checkpoint"])
def test_pretraining_models_that_we_write_compute_the_same_there(name, tmp_path):
    if name == "checkpoint":
        model, examples, length = checkpoint()
    else:
        shape = SHAPES[name]
        model, examples, length = random_model(shape.config), random_examples(shape), shape.length
    found = compare(model, peers.Transformers(model, tmp_path), examples, length)
    assert max(*found.outputs.values(), found.packed) <= OUTPUT_BOUND
    assert found.gradients <= GRADIENT_BOUND


def randomised(model):
    rng = np.random.default_rng(4)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(1.0 if variable.name == "gamma" else 0.0, 0.2, variable.shape))
    return model


ENCODER = {"sequence_output": "last_hidden_state", "pooled_output": "pooler_output"}
SCORES = {"logits": "logits"}
SPANS = {"start_logits": "start_logits", "end_logits": "end_logits"}
KINDS = {
    "BertModel": (lambda config: BertModel(config), ENCODER),
    "BertForSequenceClassification": (lambda config: BertForSequenceClassification(config, len(LABELS)), SCORES),
    "BertForTokenClassification": (lambda config: BertForTokenClassification(config, len(LABELS)), SCORES),
    "BertForQuestionAnswering": (lambda config: BertForQuestionAnswering(config), SPANS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_other_kinds_that_we_write_open_there(kind, inputs, tmp_path):
    make, names = KINDS[kind]
    model = randomised(make(TINY))
    save_model(model, tmp_path, {"pad_token_id": 0}, LABELS if names is SCORES else None)
    output = tmp_path / "outputs.npz"
    labels = peers.worker()("forward", directory=tmp_path, kind=kind, inputs=inputs, output=output)
    assert_equal(ours(model, inputs), output, names)
    if names is SCORES:
        assert labels == {str(number): label for number, label in enumerate(LABELS)}


PRETRAINING = {"masked_lm_logits": "prediction_logits", "next_sentence_logits": "seq_relationship_logits"}
WRITTEN = {
    "one file": ("BertForPreTraining", PRETRAINING, {}),
    "sharded": ("BertForPreTraining", PRETRAINING, {"max_shard_size": "30KB"}),
    "float16": ("BertForPreTraining", PRETRAINING, {"dtype": "float16"}),
    "bfloat16": ("BertForPreTraining", PRETRAINING, {"dtype": "bfloat16"}),
    "untied": ("BertForPreTraining", PRETRAINING, {}),
    "masked LM alone": ("BertForMaskedLM", {"masked_lm_logits": "logits"}, {}),
    "without pooler": ("BertModel", {"sequence_output": "last_hidden_state"}, {"add_pooling_layer": False}),
    "with pooler": ("BertModel", ENCODER, {}),
    "labels": ("BertForSequenceClassification", SCORES, {}),
    "labels of tokens": ("BertForTokenClassification", SCORES, {}),
    "spans": ("BertForQuestionAnswering", SPANS, {}),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_directories_that_transformers_writes_open_here(case, inputs, tmp_path):
    kind, names, arguments = WRITTEN[case]
    directory, output = tmp_path / "model", tmp_path / "outputs.npz"
    config = dataclasses.asdict(TINY) | {"tie_word_embeddings": case != "untied"}
    if names is SCORES:
        config["id2label"] = dict(enumerate(LABELS))
    files = peers.worker()(
        "save", kind=kind, config=config, directory=directory, inputs=inputs, output=output, **arguments
    )
    shards = [name for name in files if name.endswith(".safetensors")]
    assert (len(shards) > 2) == ("model.safetensors.index.json" in files) == (case == "sharded")
    weights = read_directory(directory)
    assert weights.kind == kind
    if names is SCORES:
        assert weights.labels == LABELS
    if "masked_lm_logits" in names:
        model = load_model(directory, optional=("pooler", "next_sentence") if kind == "BertForMaskedLM" else ())
    else:
        model = KINDS[kind][0](TINY) if case != "without pooler" else BertModel(TINY, parts=("encoder",))
        assign_weights(model, weights)
    assert_equal(ours(model, inputs), output, names)


def test_a_published_checkpoint_computes_the_same_here_and_there(inputs, tmp_path):
    weights = read_directory(CHECKPOINT)
    model = BertModel(weights.config)
    report = assign_weights(model, weights)
    assert not report.newly_made and report.left_out == {"embeddings.position_ids": "it holds the numbers 0, 1, 2, ..."}
    output = tmp_path / "outputs.npz"
    peers.worker()("forward", directory=CHECKPOINT, kind="BertModel", inputs=inputs, output=output)
    assert_equal(ours(model, inputs), output, ENCODER)


@pytest.fixture(scope="module")
def pretrained(data_dir, tmp_path_factory):
    """A model directory that `tf-bert pretrain` wrote."""
    run = tmp_path_factory.mktemp("run")
    process = pretraining_runs.start(data_dir, run, **{"model.vocab_size": 600})
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return run / "model"


@pytest.mark.parametrize(
    "text", ["The [MASK] of the city was small.", "In [MASK] , it was the first [MASK] of Alabama; they are known as"]
)
def test_masks_are_filled_alike(pretrained, text):
    masks = peers.worker()("fill_mask", directory=pretrained, text=text, top=7)
    expected = [guess for mask in masks for guess in mask]
    guesses = [line.split() for line in fill_mask(str(pretrained), text, 7) if not line.startswith("[MASK]")]
    assert len(guesses) == 7 * text.count("[MASK]")
    assert [token for _, token in guesses] == [token for token, _ in expected]
    for (percent, _), (_, probability) in zip(guesses, expected, strict=True):
        assert abs(float(percent.rstrip("%")) - 100 * probability) <= 0.051  # printed with one digit
    assert json.loads((pretrained / "config.json").read_text())["vocab_size"] == 600
