"""Counts of parameters and operations against the built model, its graph, and published formulas and numbers."""

import math

import numpy as np
import pytest
import tensorflow as tf
from batches import TINY, packed_batch

from tf_bert.config import BertConfig
from tf_bert.models.flops import RowShape, count_parameters, forward_flops, training_flops
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.training.losses import PretrainingObjective

BASE = BertConfig()
LARGE = BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
ROW = RowShape(length=24, predictions=5, examples=3)


def matrix_product_flops(graph) -> int:
    """2 x m x n x k over the matrix products of a traced graph, from the shapes of their operands."""
    total = 0
    for operation in graph.get_operations():
        if operation.type in ("MatMul", "BatchMatMulV2"):
            transposed = operation.get_attr("transpose_a" if operation.type == "MatMul" else "adj_x")
            inner = operation.inputs[0].shape[-2 if transposed else -1]
            total += 2 * inner * math.prod(operation.outputs[0].shape)
        assert operation.type not in ("Einsum", "XlaDotV2", "Conv2D"), "a product of another kind is not counted"
    return total


@pytest.fixture(scope="module")
def traced():
    """Graphs of the forward pass alone and with its gradients, on 4 rows."""
    model = BertForPretraining(TINY)
    batch = {name: tf.constant(value) for name, value in packed_batch(np.random.default_rng(1), 4).items()}
    objective = PretrainingObjective()

    def forward():
        return tf.add_n([term.loss_sum for term in objective.terms(model, batch, training=True)])

    def backward():
        variables = [variable.value for variable in model.trainable_variables]
        with tf.GradientTape() as tape:
            loss = forward()
        return tape.gradient(loss, variables)

    return [tf.function(f).get_concrete_function().graph for f in (forward, backward)]


def test_the_forward_pass_has_the_products_of_the_formula(traced):
    assert matrix_product_flops(traced[0]) == 4 * forward_flops(TINY, ROW)


def test_the_backward_pass_has_two_products_for_each_but_the_gradient_of_segment_ids(traced):
    segment_embedding = 2 * TINY.type_vocab_size * ROW.length * TINY.hidden_size  # its one-hot input is no variable
    assert matrix_product_flops(traced[1]) == 4 * (training_flops(TINY, ROW) - segment_embedding)


@pytest.mark.parametrize("config", [TINY, BertConfig(vocab_size=50, hidden_size=8, num_attention_heads=2)])
def test_parameters_are_those_of_the_built_model(config):
    assert count_parameters(config) == BertForPretraining(config).count_params()


def test_published_sizes():
    # bert-base-uncased and bert-large-uncased with both pretraining heads, as Hugging Face's checkpoints count them.
    assert count_parameters(BASE) == 110_106_428
    assert count_parameters(LARGE) == 336_226_108


@pytest.mark.parametrize(("config", "length", "predictions"), [(BASE, 128, 20), (BASE, 512, 77), (LARGE, 512, 77)])
def test_six_operations_per_token_and_parameter_is_near(config, length, predictions):
    """The rule of thumb of Kaplan et al. 2020 takes embeddings for products, and leaves attention out."""
    per_token = training_flops(config, RowShape(length, predictions, 1)) / length
    assert 0.8 < per_token / (6 * count_parameters(config)) < 1.0


def test_all_positions_predicted_it_is_the_formula_of_megatron():
    """Narayanan et al. 2021, section 5.1: 96 B s l h^2 (1 + s / 6h + V / 16 l h) with one recomputation; 3/4 without.

    The head's own h x h transform, the segment embedding and the pooler, a hundredth in all, are not in it.
    """
    s, h, layers, vocabulary = 512, LARGE.hidden_size, LARGE.num_hidden_layers, LARGE.vocab_size
    published = 72 * s * layers * h**2 * (1 + s / (6 * h) + vocabulary / (12 * layers * h))
    assert training_flops(LARGE, RowShape(s, s, 1)) == pytest.approx(published, rel=0.01)
