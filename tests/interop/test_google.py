"""google-research's TF1 checkpoints: names and layouts, what TF1 and tf-models make of them, what is left out."""

import dataclasses
import json
import re

import numpy as np
import pytest
import tensorflow as tf
from random_weights import KINDS, SMALL, assert_same, files_of, random_weights, save_in, values

from tf_bert.errors import InputError
from tf_bert.interop.google import read_google, write_google
from tf_bert.interop.names import expand
from tf_bert.interop.tf_checkpoint import find_prefix, open_checkpoint, write_checkpoint
from tf_bert.models.directory import read_directory, save_weights
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.models.tensors import PARTS, part_slots
from tf_bert.models.weights import assign_weights

# The variables of google-research/bert's modeling.py and run_pretraining.py, for SMALL: heads of 4, 3 labels.
_LAYER = {
    "attention/self/query/kernel": (12, 12),
    "attention/self/query/bias": (12,),
    "attention/self/key/kernel": (12, 12),
    "attention/self/key/bias": (12,),
    "attention/self/value/kernel": (12, 12),
    "attention/self/value/bias": (12,),
    "attention/output/dense/kernel": (12, 12),
    "attention/output/dense/bias": (12,),
    "attention/output/LayerNorm/gamma": (12,),
    "attention/output/LayerNorm/beta": (12,),
    "intermediate/dense/kernel": (12, 20),
    "intermediate/dense/bias": (20,),
    "output/dense/kernel": (20, 12),
    "output/dense/bias": (12,),
    "output/LayerNorm/gamma": (12,),
    "output/LayerNorm/beta": (12,),
}
_PRETRAINING = {
    "bert/embeddings/word_embeddings": (31, 12),
    "bert/embeddings/position_embeddings": (16, 12),
    "bert/embeddings/token_type_embeddings": (3, 12),
    "bert/embeddings/LayerNorm/gamma": (12,),
    "bert/embeddings/LayerNorm/beta": (12,),
    **{f"bert/encoder/layer_{i}/{name}": shape for i in range(2) for name, shape in _LAYER.items()},
    "bert/pooler/dense/kernel": (12, 12),
    "bert/pooler/dense/bias": (12,),
    "cls/predictions/transform/dense/kernel": (12, 12),
    "cls/predictions/transform/dense/bias": (12,),
    "cls/predictions/transform/LayerNorm/gamma": (12,),
    "cls/predictions/transform/LayerNorm/beta": (12,),
    "cls/predictions/output_bias": (31,),
    "cls/seq_relationship/output_weights": (2, 12),
    "cls/seq_relationship/output_bias": (2,),
}


def _write(weights, directory):
    directory.mkdir(exist_ok=True)
    write_google(weights, directory)
    return directory / "bert_model.ckpt"


def _read(prefix):
    return read_google(open_checkpoint(prefix))


def _reader(prefix):
    return tf.compat.v1.train.NewCheckpointReader(str(prefix))


def test_the_variables_are_those_of_google(tmp_path):
    weights = random_weights()
    prefix = _write(weights, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bert_config.json",
        "bert_model.ckpt.data-00000-of-00001",
        "bert_model.ckpt.index",
    ]
    reader = _reader(prefix)
    assert {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()} == _PRETRAINING
    ours = values(weights)
    layer, theirs = "bert.encoder.layer.1", "bert/encoder/layer_1"
    for name, expected in {
        "bert/embeddings/word_embeddings": ours["bert.embeddings.word_embeddings.weight"],
        f"{theirs}/attention/self/key/kernel": ours[f"{layer}.attention.self.key.weight"].T,
        f"{theirs}/output/dense/kernel": ours[f"{layer}.output.dense.weight"].T,
        f"{theirs}/output/LayerNorm/gamma": ours[f"{layer}.output.LayerNorm.weight"],
        "cls/seq_relationship/output_weights": ours["cls.seq_relationship.weight"],
        "cls/predictions/output_bias": ours["cls.predictions.bias"],
    }.items():
        np.testing.assert_array_equal(reader.get_tensor(name), expected, err_msg=name)


@pytest.mark.parametrize(
    ("kind", "prefix", "outputs"),
    [("BertForSequenceClassification", "", 3), ("BertForQuestionAnswering", "cls/squad/", 2)],
)
def test_output_layers_of_tasks_are_named_as_in_googles_scripts(tmp_path, kind, prefix, outputs):
    reader = _reader(_write(random_weights(kind), tmp_path))
    shapes = reader.get_variable_to_shape_map()
    assert shapes[f"{prefix}output_weights"] == [outputs, 12] and shapes[f"{prefix}output_bias"] == [outputs]


def test_the_config_has_googles_keys(tmp_path):
    _write(random_weights("BertForSequenceClassification"), tmp_path)
    settings = json.loads((tmp_path / "bert_config.json").read_text())
    original = {field.name for field in dataclasses.fields(SMALL)} - {"layer_norm_eps", "tie_word_embeddings"}
    assert settings.keys() == {
        *original, "approximate_gelu", "architectures", "id2label", "label2id", "pad_token_id"
    }  # fmt: skip
    assert settings["hidden_act"] == "gelu" and settings["approximate_gelu"] is True


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "relu"])
def test_the_activation_comes_back(tmp_path, act):
    weights = random_weights(config=dataclasses.replace(SMALL, hidden_act=act, layer_norm_eps=1e-7))
    assert _read(_write(weights, tmp_path)).config == weights.config


def test_googles_own_gelu_is_the_exact_one(tmp_path):
    prefix = _write(random_weights(), tmp_path)
    path = tmp_path / "bert_config.json"
    settings = json.loads(path.read_text())
    del settings["approximate_gelu"]  # as google's files have it
    path.write_text(json.dumps(settings))
    assert _read(prefix).config.hidden_act == "gelu"


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_is_bit_exact(tmp_path, kind):
    first = save_in(random_weights(kind), tmp_path / "first")
    back = _read(_write(read_directory(first), tmp_path / "google"))
    assert_same(back, random_weights(kind))
    assert back.left_out == {}
    assert files_of(save_in(back, tmp_path / "second")) == files_of(first)


def test_a_checkpoint_that_tf1_wrote_is_read_without_its_optimizer(tmp_path):
    weights = random_weights()
    ours = values(weights)
    write_google(weights, tmp_path)  # for bert_config.json
    others = {"global_step": np.int64(7), "loss_scale": np.float32(2), "bad_steps": np.int32(0), "eval/best": [1.0]}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for names in expand(2):
            if names.canonical in ours:
                value = names.google_layout.write(ours[names.canonical], 3)
                for slot in ("", "/adam_m", "/adam_v"):
                    tf.compat.v1.get_variable(names.google + slot, initializer=value)
        for name, value in others.items():
            tf.compat.v1.get_variable(name, initializer=value)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(tmp_path / "model.ckpt"), global_step=7)
    found = _read(tmp_path / "model.ckpt-7")
    assert_same(found, weights)
    assert found.left_out["bert/pooler/dense/kernel/adam_m"] == "it is the optimizer's"
    assert {name: found.left_out[name] for name in others} == {
        "global_step": "it is the optimizer's",
        "loss_scale": "it is the optimizer's",
        "bad_steps": "it is the optimizer's",
        "eval/best": "it is no part of a BERT",
    }
    assert len(found.left_out) == 2 * len(ours) + len(others)


def test_a_scope_before_all_names_is_passed_over(tmp_path):
    weights = random_weights()
    reader = _reader(_write(weights, tmp_path))
    renamed = [(f"module/{name}", reader.get_tensor(name)) for name in reader.get_variable_to_shape_map()]
    write_checkpoint(tmp_path / "model.ckpt-3", renamed)
    assert_same(_read(tmp_path / "model.ckpt-3"), weights)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floating_point_numbers_are_read(tmp_path, dtype):
    reader = _reader(_write(random_weights(), tmp_path))
    cast = {name: tf.cast(reader.get_tensor(name), dtype).numpy() for name in reader.get_variable_to_shape_map()}
    write_checkpoint(tmp_path / "bert_model.ckpt", cast.items())
    found = _read(tmp_path / "bert_model.ckpt")
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    assert found.tensors[name].dtype == dtype
    expected = cast["bert/encoder/layer_0/intermediate/dense/kernel"].T.astype("float32")
    np.testing.assert_array_equal(found.read(name), expected)


def test_tf_models_computes_the_same_from_what_is_written(tmp_path):
    converter = pytest.importorskip(
        "official.nlp.tools.tf2_bert_encoder_checkpoint_converter", reason="extra `interop` is not installed"
    )
    weights = random_weights()
    prefix = _write(weights, tmp_path)
    config = converter.configs.BertConfig.from_json_file(str(tmp_path / "bert_config.json"))
    converter.convert_checkpoint(config, str(tmp_path / "tf2" / "ckpt"), str(prefix), "model", "pretrainer")
    peer = converter._create_bert_pretrainer_model(config)
    status = tf.train.Checkpoint(model=peer, **peer.checkpoint_items).restore(str(tmp_path / "tf2" / "ckpt-1"))
    status.assert_existing_objects_matched()
    ids = np.random.default_rng(3).integers(5, 31, (3, 9)).astype("int32")
    mask = (np.arange(9) < np.array([[9], [5], [1]])).astype("int32")
    positions = np.array([[0, 3]] * 3, "int32")
    theirs = peer(
        {
            "input_word_ids": ids,
            "input_mask": mask,
            "input_type_ids": ids % 3,
            "masked_lm_positions": positions,
        }
    )
    model = BertForPretraining(weights.config)
    assign_weights(model, weights)
    ours = model({"input_ids": ids, "input_mask": mask, "segment_ids": ids % 3, "masked_lm_positions": positions})
    np.testing.assert_allclose(ours["masked_lm_logits"][:2], theirs["mlm_logits"][:2], rtol=0, atol=1e-5)
    encoded = model.encoder({"input_ids": ids, "input_mask": mask, "segment_ids": ids % 3})
    np.testing.assert_allclose(encoded["pooled_output"], theirs["pooled_output"], rtol=0, atol=1e-5)


def test_every_tensor_of_every_part_has_a_name():
    names = {row.canonical: row for row in expand(2)}
    assert names.keys() == {
        name for part in PARTS for slot in part_slots(part, SMALL, 3) for name in slot.names
    }  # fmt: skip
    assert len({row.google for row in names.values()}) == len(names)


def test_the_newest_checkpoint_of_a_directory_is_taken(tmp_path):
    assert find_prefix(tmp_path) is None
    for step in (3, 20):
        write_checkpoint(tmp_path / f"model.ckpt-{step}", [("x", np.float32(step))])
    with pytest.raises(InputError, match=r"holds the checkpoints model.ckpt-20, model.ckpt-3; name one of them, e.g. "):
        find_prefix(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt-20"\nall_model_ch...: "x"\n')
    assert find_prefix(tmp_path) == tmp_path / "model.ckpt-20"
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-21"')
    with pytest.raises(InputError, match="name one of them"):
        find_prefix(tmp_path)


def _refused(weights, directory, change=None, **settings):
    """Reads what was written after a change of its tensors or its settings."""
    prefix = _write(weights, directory)
    if change is not None:
        reader = _reader(prefix)
        tensors = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        change(tensors)
        write_checkpoint(prefix, tensors.items())
    path = directory / "bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    found = _read(prefix)
    save_weights(found, directory)


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (
            None,
            {"num_hidden_layers": 3},
            "bert_model.ckpt: holds 2 layers, expected 3 by num_hidden_layers of bert_config.json; the two belong",
        ),
        (None, {"hidden_act": "swish"}, "bert_config.json: hidden_act: found 'swish'"),
        (None, {"architectures": "BertModel"}, "bert_config.json: architectures is 'BertModel', expected names"),
        (None, {"vocab_size": 30}, r"word_embeddings: found shape \(31, 12\), expected \(30, 12\) by the config"),
        (
            lambda tensors: tensors.pop("bert/pooler/dense/bias"),
            {},
            "1 of 2 tensors of the pooler are missing, the first is bert.pooler.dense.bias",
        ),
        (
            lambda tensors: tensors.update({"bert/pooler/dense/kernel": np.zeros(144, "float32")}),
            {},
            r"bert/pooler/dense/kernel: found shape \(144,\), expected \[inputs, outputs\]; this is no tensor",
        ),
        (
            lambda tensors: tensors.update({"bert/pooler/dense/bias": np.zeros(12, "int32")}),
            {},
            "bert/pooler/dense/bias: holds int32, expected one of float32",
        ),
        (
            lambda tensors: tensors["bert/pooler/dense/bias"].fill(np.nan),
            {},
            "bert/pooler/dense/bias: holds numbers that are not finite",
        ),
        (
            lambda tensors: tensors.pop("bert/embeddings/word_embeddings"),
            {},
            "holds no tensor bert/embeddings/word_embeddings, only e.g. bert/embeddings/LayerNorm/beta, ",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, change, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        _refused(random_weights(), tmp_path, change, **settings)
    assert "\n" not in str(caught.value)


def test_labels_of_another_number_than_outputs_are_refused(tmp_path):
    names = {"id2label": {"0": "no", "1": "yes"}}
    with pytest.raises(InputError, match=r"id2label names 2 labels, but the classifier has outputs of shape \(3,\)"):
        _refused(random_weights("BertForSequenceClassification"), tmp_path, **names)


def test_a_missing_config_is_asked_for(tmp_path):
    prefix = _write(random_weights(), tmp_path)
    (tmp_path / "bert_config.json").unlink()
    message = f"{prefix}: has no bert_config.json beside it; copy the one of the checkpoint that training started from"
    with pytest.raises(InputError, match=re.escape(message)):
        _read(prefix)


def test_an_output_matrix_of_its_own_has_no_place_there(tmp_path):
    weights = random_weights(config=dataclasses.replace(SMALL, tie_word_embeddings=False))
    with pytest.raises(
        InputError, match=r"cls.predictions.decoder.weight is a matrix of its own; .* write the hf format"
    ):
        write_google(weights, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line(small_disk):
    directory = small_disk(4)
    with pytest.raises(InputError, match=r"bert_model.ckpt: cannot be written: .*; free space or choose another"):
        write_google(random_weights(), directory)
