"""Model Garden's checkpoints: what tf-models restores of those that are written here, and the way there and back."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from garden_models import (
    assert_close,
    call,
    encoder_tensors,
    make_encoder,
    make_pretrainer,
    models,
    read,
    their_inputs,
    write,
)
from random_weights import KINDS, SMALL, assert_same, files_of, random_weights, save_in, values

from tf_bert.models.classification import BertForQuestionAnswering, BertForSequenceClassification
from tf_bert.models.directory import read_directory
from tf_bert.models.pretraining import BertForPretraining


@pytest.mark.parametrize("v2", [True, False], ids=["BertEncoderV2", "BertEncoder"])
def test_tf_models_restores_an_encoder_from_what_is_written(tmp_path, v2):
    weights = random_weights("BertModel")
    prefix = write(weights, tmp_path)
    encoder = make_encoder(v2)
    tf.train.Checkpoint(encoder=encoder).restore(prefix).assert_existing_objects_matched()
    expected = values(weights)
    for name, value in encoder_tensors(encoder).items():
        np.testing.assert_array_equal(value, expected.pop(name), err_msg=name)
    assert not expected


@pytest.mark.parametrize("whole", [True, False])
def test_tf_models_restores_a_pretrainer_from_what_is_written(tmp_path, whole):
    weights = random_weights()
    model = make_pretrainer()
    items = model.checkpoint_items | ({"model": model} if whole else {})
    tf.train.Checkpoint(**items).restore(write(weights, tmp_path)).assert_existing_objects_matched()
    theirs = model(their_inputs())
    ours = call(weights, BertForPretraining(weights.config))
    assert_close(ours["masked_lm_logits"], theirs["mlm_logits"])
    if whole:
        assert_close(ours["next_sentence_logits"], theirs["next_sentence"])
    np.testing.assert_array_equal(
        model.classification_heads[0].dense.kernel.numpy().T, weights.read("bert.pooler.dense.weight")
    )


def test_tf_models_restores_models_for_tasks_from_what_is_written(tmp_path):
    weights = random_weights("BertForSequenceClassification")
    model = models.BertClassifier(make_encoder(), num_classes=3)
    restored = tf.train.Checkpoint(model=model, **model.checkpoint_items).restore(write(weights, tmp_path / "labels"))
    restored.assert_existing_objects_matched()
    ours = call(weights, BertForSequenceClassification(weights.config, 3))
    assert_close(ours["logits"], model(their_inputs(positions=False)))

    parts = ("encoder", "pooler", "classifier")  # tf-models' encoders always have a pooler
    weights = random_weights("BertForTokenClassification", parts=parts)
    model = models.BertTokenClassifier(make_encoder(), num_classes=3)
    restored = tf.train.Checkpoint(model=model).restore(write(weights, tmp_path / "tokens"))
    restored.assert_existing_objects_matched()
    np.testing.assert_array_equal(model.classifier.kernel.numpy().T, weights.read("classifier.weight"))

    weights = random_weights("BertForQuestionAnswering", parts=("encoder", "pooler", "span"))
    model = models.BertSpanLabeler(make_encoder())
    restored = tf.train.Checkpoint(model=model).restore(write(weights, tmp_path / "span"))
    restored.assert_existing_objects_matched()
    ours = call(weights, BertForQuestionAnswering(weights.config))
    assert_close(ours["start_logits"][0], model(their_inputs(positions=False))[0][0])


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_is_bit_exact(tmp_path, kind, act):
    weights = random_weights(kind, dataclasses.replace(SMALL, hidden_act=act))
    first = save_in(weights, tmp_path / "first")
    back = read(write(read_directory(first), tmp_path / "garden"))
    assert_same(back, weights)
    assert files_of(save_in(back, tmp_path / "second")) == files_of(first)
