"""Model directories: round trip, names, and damaged files."""

import json

import numpy as np
import pytest
from batches import TINY, packed_batch
from safetensors.numpy import load_file, save_file

from tf_bert.errors import InputError
from tf_bert.models.directory import load_model, save_model
from tf_bert.models.pretraining import BertForPretraining


@pytest.fixture
def saved(tmp_path):
    model = BertForPretraining(TINY)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    save_model(model, tmp_path, {"pad_token_id": 0})
    return model, tmp_path


def test_a_model_comes_back_bit_for_bit(saved):
    model, directory = saved
    opened = load_model(directory)
    assert opened.config == model.config
    for ours, theirs in zip(model.trainable_variables, opened.trainable_variables, strict=True):
        assert ours.path == theirs.path
        np.testing.assert_array_equal(ours, theirs)
    batch = packed_batch(np.random.default_rng(1), rows=2)
    np.testing.assert_array_equal(model(batch)["masked_lm_logits"], opened(batch)["masked_lm_logits"])


def test_tensors_have_the_names_and_the_layout_of_hugging_face(saved):
    model, directory = saved
    tensors = load_file(directory / "model.safetensors")
    hidden, block = TINY.hidden_size, model.encoder.blocks[1]
    fused = block.attention.query_key_value.kernel.numpy()
    prefix = "bert.encoder.layer.1.attention.self"
    np.testing.assert_array_equal(tensors[f"{prefix}.key.weight"], fused[:, hidden : 2 * hidden].T)
    np.testing.assert_array_equal(
        tensors[f"{prefix}.value.bias"], block.attention.query_key_value.bias.numpy()[2 * hidden :]
    )
    np.testing.assert_array_equal(
        tensors["bert.encoder.layer.1.output.dense.weight"], block.output_dense.kernel.numpy().T
    )
    np.testing.assert_array_equal(
        tensors["bert.embeddings.word_embeddings.weight"], model.encoder.embeddings.token_embedding
    )
    np.testing.assert_array_equal(tensors["cls.predictions.bias"], model.masked_lm.bias)
    # 5 in the embeddings, 16 a layer, pooler 2, masked-LM head 5, next-sentence head 2
    assert len(tensors) == 5 + 16 * TINY.num_hidden_layers + 2 + 5 + 2
    settings = json.loads((directory / "config.json").read_text())
    assert settings["model_type"] == "bert" and settings["architectures"] == ["BertForPreTraining"]
    assert settings["num_hidden_layers"] == TINY.num_hidden_layers


def _rewrite(directory, change):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_a_missing_directory_says_so(tmp_path):
    with pytest.raises(InputError, match=r"absent: no such directory; expected a model directory"):
        load_model(tmp_path / "absent")


def test_a_missing_tensor_is_named(saved):
    _rewrite(saved[1], lambda tensors: tensors.pop("bert.pooler.dense.bias"))
    with pytest.raises(
        InputError, match=r"1 of 2 tensors of the pooler are missing, the first is bert.pooler.dense.bias"
    ):
        load_model(saved[1])


def test_a_tensor_of_another_shape_is_named_with_both_shapes(saved):
    _rewrite(saved[1], lambda tensors: tensors.update({"cls.predictions.bias": np.zeros(98, "float32")}))
    with pytest.raises(InputError, match=r"cls.predictions.bias: found shape \(98,\), expected \(97,\) by the conf"):
        load_model(saved[1])


def test_a_truncated_weights_file_is_refused(saved):
    path = saved[1] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model.safetensors: is damaged"):
        load_model(saved[1])


def test_a_config_of_another_architecture_is_refused(saved):
    path = saved[1] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "roberta"}))
    with pytest.raises(InputError, match=r"config.json: model_type is 'roberta', expected 'bert'"):
        load_model(saved[1])


@pytest.mark.parametrize(("layers", "weights"), [(1, 2), (3, 2), (10**12, 2)])
def test_another_number_of_layers_is_told_at_once(saved, layers, weights):
    path = saved[1] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": layers}))
    with pytest.raises(InputError, match=f"num_hidden_layers is {layers:,}, but the weights have {weights} layers"):
        load_model(saved[1])
