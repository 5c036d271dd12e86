"""Models of tf-models of the shape of `SMALL`, and their tensors in Hugging Face's layout. They run on tf-keras."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from random_weights import SMALL

from tf_bert.interop.model_garden import read_model_garden, write_model_garden
from tf_bert.interop.tf_checkpoint import open_checkpoint
from tf_bert.models.weights import assign_weights

modeling = pytest.importorskip("official.nlp.modeling", reason="tf-models-official (extra `interop`) is not installed")
layers, models, networks = modeling.layers, modeling.models, modeling.networks


def make_encoder(v2=True, **changes):
    shape = {
        "vocab_size": SMALL.vocab_size,
        "hidden_size": SMALL.hidden_size,
        "num_layers": SMALL.num_hidden_layers,
        "num_attention_heads": SMALL.num_attention_heads,
        "max_sequence_length": SMALL.max_position_embeddings,
        "type_vocab_size": SMALL.type_vocab_size,
        "inner_dim": SMALL.intermediate_size,
        "output_dropout": 0.0,
        "attention_dropout": 0.0,
    }
    encoder = (networks.BertEncoderV2 if v2 else networks.BertEncoder)(**(shape | changes))
    encoder(encoder.inputs)
    return encoder


def make_pretrainer(v2=True):
    head = layers.ClassificationHead(inner_dim=SMALL.hidden_size, num_classes=2, name="next_sentence")
    activation = modeling.models.bert_pretrainer.tf_utils.get_activation("gelu")
    encoder = make_encoder(v2) if v2 else make_encoder(v2, dict_outputs=True)
    model = models.BertPretrainerV2(encoder, mlm_activation=activation, classification_heads=[head])
    model(model.inputs)
    return model


def make_old_pretrainer():
    activation = modeling.models.bert_pretrainer.tf_utils.get_activation("gelu")
    return models.BertPretrainer(make_encoder(v2=False), num_classes=2, num_token_predictions=2, activation=activation)


def randomise(model):
    """Every variable of a model, biases too; returns it."""
    rng = np.random.default_rng(11)
    for variable in model.variables:
        variable.assign(rng.normal(0.1, 0.3, variable.shape))
    return model


def our_inputs():
    ids = np.random.default_rng(5).integers(0, SMALL.vocab_size, (3, 9)).astype("int32")
    mask = (np.arange(9) < np.array([[9], [5], [7]])).astype("int32")
    return {
        "input_ids": ids,
        "input_mask": mask,
        "segment_ids": ids % SMALL.type_vocab_size,
        "masked_lm_positions": np.array([[0, 3], [2, 1], [4, 4]], "int32"),
    }


def their_inputs(positions=True):
    ours = our_inputs()
    names = {"input_word_ids": "input_ids", "input_mask": "input_mask", "input_type_ids": "segment_ids"}
    theirs = {name: ours[mine] for name, mine in names.items()}
    return theirs | ({"masked_lm_positions": ours["masked_lm_positions"]} if positions else {})


def call(weights, model):
    """The outputs of one of our models with the weights."""
    assign_weights(model, weights)
    return model(our_inputs())


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=0, atol=1e-5)


def read(prefix):
    return read_model_garden(open_checkpoint(Path(prefix)))


def encoder_tensors(encoder, pooler=None):
    """The tensors of an encoder in Hugging Face's layout, laid out here by hand."""
    hidden = SMALL.hidden_size
    found = {
        "embeddings.word_embeddings.weight": encoder._embedding_layer.embeddings,
        "embeddings.position_embeddings.weight": encoder._position_embedding_layer._position_embeddings,
        "embeddings.token_type_embeddings.weight": encoder._type_embedding_layer.embeddings,
        "embeddings.LayerNorm.weight": encoder._embedding_norm_layer.gamma,
        "embeddings.LayerNorm.bias": encoder._embedding_norm_layer.beta,
    }
    for i, block in enumerate(encoder._transformer_layers):
        layer, attention = f"encoder.layer.{i}", block._attention_layer
        for part in ("query", "key", "value"):
            dense = getattr(attention, f"_{part}_dense")
            found[f"{layer}.attention.self.{part}.weight"] = dense.kernel.numpy().reshape(hidden, hidden).T
            found[f"{layer}.attention.self.{part}.bias"] = dense.bias.numpy().reshape(hidden)
        output = attention._output_dense
        found[f"{layer}.attention.output.dense.weight"] = output.kernel.numpy().reshape(hidden, hidden).T
        found[f"{layer}.attention.output.dense.bias"] = output.bias
        for name, dense in {"intermediate": block._intermediate_dense, "output": block._output_dense}.items():
            found |= dense_tensors(f"{layer}.{name}.dense", dense)
        for name, norm in {
            "attention.output": block._attention_layer_norm,
            "output": block._output_layer_norm,
        }.items():
            found[f"{layer}.{name}.LayerNorm.weight"] = norm.gamma
            found[f"{layer}.{name}.LayerNorm.bias"] = norm.beta
    found |= dense_tensors("pooler.dense", pooler or encoder._pooler_layer)
    return {f"bert.{name}": np.asarray(value) for name, value in found.items()}


def dense_tensors(name, layer):
    return {f"{name}.weight": layer.kernel.numpy().T, f"{name}.bias": layer.bias.numpy()}


def masked_lm_tensors(layer):
    norm = layer.layer_norm
    return {
        **dense_tensors("cls.predictions.transform.dense", layer.dense),
        "cls.predictions.transform.LayerNorm.weight": norm.gamma.numpy(),
        "cls.predictions.transform.LayerNorm.bias": norm.beta.numpy(),
        "cls.predictions.bias": layer.bias.numpy(),
    }


def write(weights, directory):
    directory.mkdir(exist_ok=True)
    write_model_garden(weights, directory)
    return str(directory / "bert_model.ckpt")


def module(**attributes):
    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    return module
