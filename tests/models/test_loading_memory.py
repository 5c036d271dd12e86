"""Weights on their way from files into a model: in pieces, in place, and without random numbers that nobody sees."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tf_bert.config import BertConfig
from tf_bert.errors import InputError
from tf_bert.models.directory import load_model, read_directory, save_model
from tf_bert.models.layer import taking_weights
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.models.tensors import WORD_EMBEDDINGS
from tf_bert.models.weights import assign_weights

BENCHMARK = Path(__file__).parent.parent.parent / "benchmarks" / "load.py"
# A token embedding of 7.8 MB, and an inner layer of 4.7 MB that is transposed: both are more than a piece.
WIDE = BertConfig(
    vocab_size=30_522, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=18_432
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wide")
    model = BertForPretraining(WIDE)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    save_model(model, directory, {})
    return model, directory


def test_a_model_of_one_and_a_half_hundred_megabytes_loads_within_half_of_its_weights_more(tmp_path):
    config = BertConfig(hidden_size=512, num_hidden_layers=8, num_attention_heads=8, intermediate_size=2048)
    save_model(BertForPretraining(config), tmp_path, {})
    command = [sys.executable, BENCHMARK, "--load", tmp_path]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert 160e6 < found["weights"] < found["growth"] < 1.5 * found["weights"]


def test_large_tensors_come_in_pieces_and_arrive_whole(wide):
    model, directory = wide
    pieces = dict(read_directory(directory).read_in_pieces(WORD_EMBEDDINGS))
    assert list(pieces) == [0, 16_384]
    np.testing.assert_array_equal(np.concatenate(list(pieces.values())), model.encoder.embeddings.token_embedding)
    opened = load_model(directory)
    for ours, theirs in zip(model.trainable_variables, opened.trainable_variables, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


def test_a_number_in_a_later_piece_that_is_not_finite_is_refused(wide, tmp_path):
    tensors = load_file(wide[1] / "model.safetensors")
    tensors[WORD_EMBEDDINGS][-1, -1] = np.nan
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((wide[1] / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"word_embeddings.weight: holds numbers that are not finite"):
        load_model(tmp_path)


def test_models_that_take_weights_draw_random_numbers_for_what_may_be_missing_alone():
    small = BertConfig(vocab_size=300, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96)
    with taking_weights():
        model = BertForPretraining(small)
    kernels = {v.path: np.asarray(v) for v in model.trainable_variables if v.name.endswith(("kernel", "embedding"))}
    for path, value in kernels.items():
        if path.startswith(("bert/encoder/embeddings", "bert/encoder/block")):
            assert not value.any(), path
        else:
            assert abs(value.std() - 0.0176) < 0.004, path  # of a normal with 0.02, cut at two deviations
    assert sorted(path for path, value in kernels.items() if value.any()) == [
        "bert/encoder/pooler/kernel",
        "bert/masked_lm/transform/kernel",
        "bert/next_sentence/classifier/kernel",
    ]
    assert all(np.asarray(v).any() for v in BertForPretraining(small).trainable_variables if v.path in kernels)


def test_a_source_without_encoder_cannot_leave_zeros(wide, tmp_path):
    tensors = load_file(wide[1] / "model.safetensors")
    heads = {name: value for name, value in tensors.items() if not name.startswith("bert.e")}
    save_file(heads, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((wide[1] / "config.json").read_bytes())
    with taking_weights():
        model = BertForPretraining(WIDE)
    with pytest.raises(InputError, match=r"holds no tensor of a BERT encoder"):
        assign_weights(model, read_directory(tmp_path), optional=model.parts)
