"""Model Garden's checkpoints: read from real ones that tf-models writes."""

import dataclasses
import json
import re

import numpy as np
import pytest
import tensorflow as tf
from garden_models import (
    assert_close,
    call,
    dense_tensors,
    encoder_tensors,
    layers,
    make_encoder,
    make_old_pretrainer,
    make_pretrainer,
    masked_lm_tensors,
    models,
    module,
    randomise,
    read,
    their_inputs,
    write,
)
from random_weights import SMALL, assert_same_tensors, random_weights

from tf_bert.errors import InputError
from tf_bert.interop.model_garden import write_model_garden
from tf_bert.interop.names import expand
from tf_bert.interop.tf_checkpoint import OBJECT_GRAPH, write_checkpoint
from tf_bert.models.classification import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from tf_bert.models.model import BertModel
from tf_bert.models.pretraining import BertForPretraining

tf_keras = pytest.importorskip("tf_keras")

POOLER = "the pooler of a head is in its place"


@pytest.mark.parametrize(
    ("v2", "roots"), [(True, ["encoder"]), (True, ["anything"]), (False, ["model"]), (False, ["model", "encoder"])]
)
def test_encoders_are_read_under_any_name(tmp_path, v2, roots):
    encoder = randomise(make_encoder(v2))
    path = tf.train.Checkpoint(**dict.fromkeys(roots, encoder)).save(str(tmp_path / "ckpt"))
    found = read(path)
    assert found.config == dataclasses.replace(SMALL, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    assert_same_tensors(found, encoder_tensors(encoder))
    assert found.left_out == {"save_counter/.ATTRIBUTES/VARIABLE_VALUE": "it counts steps"}
    outputs = encoder(their_inputs(positions=False))
    theirs = outputs if v2 else dict(zip(("sequence_output", "pooled_output"), outputs, strict=True))
    ours = call(found, BertModel(found.config))
    assert_close(ours["sequence_output"][0], theirs["sequence_output"][0])
    assert_close(ours["pooled_output"], theirs["pooled_output"])


@pytest.mark.parametrize("legacy", [True, False], ids=["slots", "variables"])
@pytest.mark.parametrize("v2", [True, False], ids=["BertEncoderV2", "BertEncoder"])
def test_a_pretrainer_is_read_without_its_optimizer(tmp_path, v2, legacy):
    model = randomise(make_pretrainer(v2))
    if legacy:
        optimizer = tf_keras.optimizers.legacy.Adam()
        optimizer._create_all_weights(model.trainable_variables)
    else:
        optimizer = tf_keras.optimizers.AdamW()
        optimizer.build(model.trainable_variables)
    step = tf.Variable(3, dtype="int64")
    items = {"model": model, "optimizer": optimizer, "global_step": step, **model.checkpoint_items}
    tf.train.Checkpoint(**items).write(str(tmp_path / "ckpt"))
    found = read(tmp_path / "ckpt")
    head = model.classification_heads[0]
    expected = encoder_tensors(model.encoder_network, head.dense) | masked_lm_tensors(model.masked_lm)
    assert_same_tensors(found, expected | dense_tensors("cls.seq_relationship", head.out_proj))
    assert found.kind == "BertForPreTraining"
    reasons = list(found.left_out.values())
    assert reasons.count(POOLER) == 2 and reasons.count("it counts steps") == 1
    assert reasons.count("it is the optimizer's") == len(reasons) - 3 >= 2 * len(model.trainable_variables)
    ours = call(found, BertForPretraining(found.config))
    theirs = model(their_inputs())
    assert_close(ours["masked_lm_logits"], theirs["mlm_logits"])
    assert_close(ours["next_sentence_logits"], theirs["next_sentence"])


def test_checkpoint_items_alone_hold_no_next_sentence_scores(tmp_path):
    model = randomise(make_pretrainer())
    tf.train.Checkpoint(**model.checkpoint_items).write(str(tmp_path / "ckpt"))
    found = read(tmp_path / "ckpt")
    assert found.kind == "BertForMaskedLM"
    head = model.classification_heads[0]
    assert_same_tensors(found, encoder_tensors(model.encoder_network, head.dense) | masked_lm_tensors(model.masked_lm))


def test_the_first_pretrainer_is_read(tmp_path):
    model = randomise(make_old_pretrainer())
    tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    found = read(tmp_path / "ckpt")
    head = model.classification.layers[-1]
    expected = (
        encoder_tensors(model.encoder)
        | masked_lm_tensors(model.masked_lm)
        | dense_tensors("cls.seq_relationship", head)
    )
    assert_same_tensors(found, expected)
    theirs = model(list(their_inputs().values()))
    ours = call(found, BertForPretraining(found.config))
    assert_close(ours["masked_lm_logits"], theirs["masked_lm"])
    assert_close(ours["next_sentence_logits"], theirs["classification"])


@pytest.mark.parametrize("own_pooler", [False, True])
def test_a_classifier_is_read(tmp_path, own_pooler):
    network = make_encoder()
    model = randomise(models.BertClassifier(network, num_classes=3, use_encoder_pooler=not own_pooler))
    tf.train.Checkpoint(model=model, **model.checkpoint_items).write(str(tmp_path / "ckpt"))
    found = read(tmp_path / "ckpt")
    pooler = model.classifier.dense if own_pooler else None
    assert_same_tensors(
        found, encoder_tensors(network, pooler) | dense_tensors("classifier", model.classifier.out_proj)
    )
    assert found.kind == "BertForSequenceClassification"
    assert list(found.left_out.values()) == [POOLER] * (2 * own_pooler)
    ours = call(found, BertForSequenceClassification(found.config, 3))
    assert_close(ours["logits"], model(their_inputs(positions=False)))


def test_a_token_classifier_is_read(tmp_path):
    model = randomise(models.BertTokenClassifier(make_encoder(v2=False), num_classes=3))
    tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    found = read(tmp_path / "ckpt")
    assert_same_tensors(found, encoder_tensors(model._network) | dense_tensors("classifier", model.classifier))
    assert found.kind == "BertForTokenClassification"
    ours = call(found, BertForTokenClassification(found.config, 3))
    assert_close(ours["logits"][0], model(their_inputs(positions=False))["logits"][0])


def test_a_span_labeler_is_read_at_the_root(tmp_path):
    model = randomise(models.BertSpanLabeler(make_encoder()))
    tf.train.Checkpoint(model).write(str(tmp_path / "ckpt"))
    found = read(tmp_path / "ckpt")
    dense = next(layer for layer in model.span_labeling.layers if hasattr(layer, "kernel"))
    assert_same_tensors(found, encoder_tensors(model._network) | dense_tensors("qa_outputs", dense))
    ours = call(found, BertForQuestionAnswering(found.config))
    start, end = model(their_inputs(positions=False))
    assert_close(ours["start_logits"][0], start[0])
    assert_close(ours["end_logits"][0], end[0])


def _config_file(directory, **changes):
    keys = [field.name for field in dataclasses.fields(SMALL)]
    settings = {key: getattr(SMALL, key) for key in keys} | {"hidden_act": "gelu"} | changes
    (directory / "bert_config.json").write_text(json.dumps(settings))


def test_the_config_beside_a_checkpoint_is_taken_and_its_gelu_is_model_gardens(tmp_path):
    tf.train.Checkpoint(encoder=make_encoder()).write(str(tmp_path / "ckpt"))
    _config_file(tmp_path, hidden_dropout_prob=0.25)
    assert read(tmp_path / "ckpt").config == dataclasses.replace(SMALL, hidden_dropout_prob=0.25)


def test_encoders_that_did_not_keep_their_layers_are_known_by_their_order(tmp_path):
    encoder = randomise(make_encoder(v2=False))
    numbered = [layer for layer in encoder.layers if layer.weights]
    # Nor did the attention hold its output layer in the first of them.
    attention = encoder._transformer_layers[1]._attention_layer
    names = ("_attention_layer_norm", "_intermediate_dense", "_output_dense", "_output_layer_norm")
    block = module(**{name: getattr(numbered[5], name) for name in names})
    parts = ("_query_dense", "_key_dense", "_value_dense")
    block._attention_layer = module(**{name: getattr(attention, name) for name in parts})
    block._attention_output_dense = attention._output_dense
    numbered[5] = block
    root = module(**{f"layer_with_weights-{i}": layer for i, layer in enumerate(numbered)})
    tf.train.Checkpoint(model=root).write(str(tmp_path / "ckpt"))
    assert_same_tensors(read(tmp_path / "ckpt"), encoder_tensors(encoder))


def test_an_output_matrix_of_its_own_is_read(tmp_path):
    table = tf.Variable(np.random.default_rng(2).normal(size=(31, 12)).astype("float32"))
    encoder = make_encoder()
    head = layers.MaskedLM(table, activation="relu")
    head(tf.zeros((1, 1, 12)), tf.zeros((1, 1), tf.int32))
    tf.train.Checkpoint(encoder=encoder, masked_lm=head).write(str(tmp_path / "ckpt"))
    found = read(tmp_path / "ckpt")
    assert found.config.tie_word_embeddings is False and found.left_out == {}
    np.testing.assert_array_equal(found.read("cls.predictions.decoder.weight"), table)
    with pytest.raises(InputError, match=r"decoder.weight is a matrix of its own; checkpoints of Model Garden have no"):
        write_model_garden(found, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 4}, "found 3 attention heads, expected 4 by num_attention_heads of bert_config.json"),
        ({"num_hidden_layers": 1}, "ckpt: holds 2 layers, expected 1 by num_hidden_layers of bert_config.json"),
        ({"vocab_size": 32}, r"embeddings/.ATTRIBUTES/VARIABLE_VALUE: found shape \(31, 12\), expected \(32, 12\)"),
        ({"id2label": {"1": "a"}}, "id2label is {'1': 'a'}, expected names by number"),
    ],
)
def test_a_config_of_another_model_is_refused(tmp_path, changes, message):
    prefix = write(random_weights("BertModel"), tmp_path)
    _config_file(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        _ = read(prefix).parts


def test_what_is_not_one_bert_is_refused_in_one_line(tmp_path):
    def message(**items):
        tf.train.Checkpoint(**items).write(str(tmp_path / "ckpt"))
        with pytest.raises(InputError) as caught:
            _ = read(tmp_path / "ckpt").parts
        return str(caught.value).removeprefix(f"{tmp_path}/")

    assert message(net=module(x=tf.Variable(1.0))) == (
        "ckpt: holds no BERT encoder, only net; expected a checkpoint of Model Garden's BertEncoder or BertEncoderV2, "
        "alone or inside of another model"
    )
    assert message(generator=make_encoder(), discriminator=make_encoder()) == (
        "ckpt: holds 2 encoders (discriminator, generator), expected one; save the one that is meant"
    )
    empty = module(_embedding_layer=tf.Module(), _transformer_layers=module(**{"0": tf.Module()}))
    assert message(encoder=empty) == (
        "ckpt: has no bert_config.json beside it, and no tensor that tells vocab_size; copy the file there"
    )
    factorized = make_encoder(embedding_width=5)
    assert re.search(r"query.*: found shape \(12, 12\), expected \(5, 5\)|not a multiple", message(encoder=factorized))


def test_a_tf1_checkpoint_is_not_taken_for_one_of_tf2(tmp_path):
    write_checkpoint(tmp_path / "ckpt", [("x", np.float32(1))])
    with pytest.raises(InputError, match=f"ckpt: has no {OBJECT_GRAPH}; expected a checkpoint or SavedModel of TF2"):
        read(tmp_path / "ckpt")


def test_names_of_model_garden_lead_to_one_tensor_each():
    paths = [path for row in expand(3) for path in row.garden]
    assert len(paths) == len(set(paths))
