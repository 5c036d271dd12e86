"""Packed batches: every token once in its place, and scores, losses and gradients that know nothing of neighbours."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from examples_of_ids import CONFIG, padded, random_encoded

from tf_bert.finetuning.objectives import (
    ClassificationObjective,
    MultilabelObjective,
    RegressionObjective,
    SpanObjective,
    TokenObjective,
)
from tf_bert.finetuning.packing import Encoded, assign_rows, pack
from tf_bert.finetuning.scoring import Scorer
from tf_bert.models.classification import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

LENGTHS = [7, 24, 3, 12, 9, 1, 20, 5]
ROW = 24


def randomised(model):
    rng = np.random.default_rng(4)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(1.0 if variable.name == "gamma" else 0.0, 0.2, variable.shape))
    return model


def test_rows_are_filled_and_hold_every_example_once():
    rng = np.random.default_rng(1)
    for _ in range(50):
        lengths = rng.integers(1, 33, rng.integers(1, 60))
        rows, slots, starts, count = assign_rows(lengths, 32)
        taken = np.zeros((count, 32), int)
        for row, start, length in zip(rows, starts, lengths, strict=True):
            taken[row, start : start + length] += 1  # past the end it would be too short
        assert taken.max() == 1 and taken.sum() == lengths.sum()
        assert sorted(zip(rows, slots, strict=True)) == [(r, s) for r in range(count) for s in range((rows == r).sum())]
        # Best fit decreasing needs at most 11/9 of the least possible, and one more (Johnson 1973).
        assert count <= 11 / 9 * np.ceil(lengths.sum() / 32) + 5


def test_every_token_is_in_its_place():
    encoded = random_encoded(LENGTHS)
    indices = [6, 0, 2, 5]
    packed = pack(encoded, indices, ROW)
    for number, (example, row, slot, start) in enumerate(
        zip(indices, packed.rows, packed.slots, packed.starts, strict=True)
    ):
        ids = encoded.input_ids[encoded.offsets[example] : encoded.offsets[example + 1]]
        place = slice(start, start + len(ids))
        inputs = {name: value[row] for name, value in packed.inputs.items()}
        np.testing.assert_array_equal(inputs["input_ids"][place], ids)
        np.testing.assert_array_equal(inputs["position_ids"][place], np.arange(len(ids)))
        np.testing.assert_array_equal(
            inputs["segment_ids"][place], np.arange(len(ids)) >= encoded.first_lengths[example]
        )
        assert set(inputs["example_ids"][place]) == {slot + 1}
        assert inputs["next_sentence_positions"][slot] == start and inputs["example_weights"][slot] == 1
        assert number < len(indices)
    assert packed.inputs["example_weights"].sum() == len(indices)
    assert packed.inputs["token_weights"].sum() == (packed.inputs["example_ids"] > 0).sum() == 20 + 7 + 3 + 1


def test_one_row_is_no_longer_than_its_tokens_need():
    assert pack(random_encoded(LENGTHS), [2, 7], 512).inputs["input_ids"].shape == (1, 8)
    assert pack(random_encoded(LENGTHS), [0, 1, 2], 24).inputs["input_ids"].shape == (2, 24)
    rounded = pack(random_encoded(LENGTHS), [0, 1, 2], 24, row_multiple=4, slot_multiple=4).inputs
    assert rounded["input_ids"].shape == (4, 24) and rounded["example_weights"].tolist()[2:] == [[0] * 4] * 2


def test_rows_are_as_short_as_their_number_lets_them_be():
    encoded = random_encoded([12] * 10)
    # 120 tokens: three rows of 48 at least; four rows of which one has three examples, five of two each.
    assert pack(encoded, range(10), 48).inputs["input_ids"].shape == (3, 48)
    assert pack(encoded, range(10), 48, row_multiple=4).inputs["input_ids"].shape == (4, 40)
    assert pack(encoded, range(10), 48, row_multiple=5).inputs["input_ids"].shape == (5, 24)
    assert pack(encoded, range(10), 48, row_multiple=5, shortens_rows=False).inputs["input_ids"].shape == (5, 48)


def test_scores_of_packed_examples_are_those_of_padded_ones():
    encoded = random_encoded(LENGTHS)
    plain = padded(encoded, 28)
    model = randomised(BertForSequenceClassification(CONFIG, 3))
    expected = model(plain)["logits"]
    found = Scorer(model, of_tokens=False).outputs(encoded, ROW)
    np.testing.assert_allclose([output["logits"] for output in found], expected, atol=2e-5)

    spans = randomised(BertForQuestionAnswering(CONFIG))
    outputs = spans(plain)
    for row, (output, length) in enumerate(zip(Scorer(spans, True).outputs(encoded, ROW), LENGTHS, strict=True)):
        assert output["start_logits"].shape == (length,)
        np.testing.assert_allclose(output["start_logits"], outputs["start_logits"][row, :length], atol=2e-5)
        np.testing.assert_allclose(output["end_logits"], outputs["end_logits"][row, :length], atol=2e-5)


def with_targets(kind) -> Encoded:
    rng = np.random.default_rng(8)
    base = random_encoded(LENGTHS)
    count, tokens = len(LENGTHS), int(base.offsets[-1])
    targets = {
        "classification": {"labels": rng.integers(0, 3, count).astype("int32")},
        "multilabel": {"labels": rng.integers(0, 2, (count, 3)).astype("float32")},
        "regression": {"labels": rng.normal(size=count).astype("float32")},
        "spans": {
            "start_positions": np.array([rng.integers(0, n) for n in LENGTHS], "int32"),
            "end_positions": np.array([rng.integers(0, n) for n in LENGTHS], "int32"),
        },
        "tokens": {},
    }[kind]
    of_tokens = {}
    if kind == "tokens":
        of_tokens = {
            "token_labels": rng.integers(0, 3, tokens).astype("int32"),
            "label_weights": rng.integers(0, 2, tokens).astype("float32"),
        }
    return Encoded(base.input_ids, base.offsets, base.first_lengths, targets, of_tokens)


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def expected_losses(kind, encoded, outputs) -> list[float]:
    """The definition of each loss, example by example, in numpy."""
    rows = range(len(encoded))
    if kind == "classification":
        scores = log_softmax(outputs["logits"])
        return [-sum(scores[i, encoded.targets["labels"][i]] for i in rows)]
    if kind == "multilabel":
        labels, shares = encoded.targets["labels"], 1 / (1 + np.exp(-outputs["logits"]))
        return [-(labels * np.log(shares) + (1 - labels) * np.log(1 - shares)).mean(axis=-1).sum()]
    if kind == "regression":
        return [np.square(outputs["logits"][:, 0] - encoded.targets["labels"]).sum()]
    if kind == "tokens":
        total = 0.0
        for i in rows:
            first, last = encoded.offsets[i : i + 2]
            scores = log_softmax(outputs["logits"][i, : last - first])
            labels, weights = (encoded.token_targets[name][first:last] for name in ("token_labels", "label_weights"))
            total -= (scores[np.arange(last - first), labels] * weights).sum()
        return [total]
    losses = []
    for name in ("start", "end"):
        total = 0.0
        for i in rows:
            scores = log_softmax(outputs[f"{name}_logits"][i, : encoded.lengths[i]])
            total -= 0.5 * scores[encoded.targets[f"{name}_positions"][i]]
        losses.append(total)
    return losses


KINDS = {
    "classification": (ClassificationObjective, lambda: BertForSequenceClassification(CONFIG, 3)),
    "multilabel": (MultilabelObjective, lambda: BertForSequenceClassification(CONFIG, 3)),
    "regression": (RegressionObjective, lambda: BertForSequenceClassification(CONFIG, 1)),
    "tokens": (TokenObjective, lambda: BertForTokenClassification(CONFIG, 3)),
    "spans": (SpanObjective, lambda: BertForQuestionAnswering(CONFIG)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_what_their_definitions_give_and_packing_changes_no_gradient(kind):
    make_objective, make_model = KINDS[kind]
    objective, model, encoded = make_objective(), randomised(make_model()), with_targets(kind)
    outputs = {name: np.asarray(value) for name, value in model(padded(encoded, 28)).items()}
    results = []
    # The same examples in few full rows, in more rows because of their order, and in one row each.
    for portions in ([range(8)], [[1, 6], [0, 2, 3, 4, 5, 7]], [[i] for i in range(8)]):
        batches = [pack(encoded, list(portion), ROW).inputs for portion in portions]
        with tf.GradientTape() as tape:
            terms = [objective.terms(model, batch, training=False) for batch in batches]
            sums = [tf.add_n([term[n].loss_sum for term in terms]) for n in range(len(objective.names))]
            loss = tf.add_n(sums)
        weights = [sum(float(objective.weights(batch)[n]) for batch in batches) for n in range(len(objective.names))]
        gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        results.append((sums, weights, [np.asarray(tf.convert_to_tensor(g)) for g in gradients if g is not None]))
    expected_weight = encoded.token_targets["label_weights"].sum() if kind == "tokens" else len(encoded)
    for sums, weights, gradients in results:
        np.testing.assert_allclose(sums, expected_losses(kind, encoded, outputs), rtol=2e-5)
        assert weights == [expected_weight] * len(sums)
        for found, first in zip(gradients, results[0][2], strict=True):
            np.testing.assert_allclose(found, first, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(first).max()))
    keras.backend.clear_session()
