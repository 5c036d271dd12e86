"""One update is one update, whatever the split into microsteps; and what a bad gradient does."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from launchers import LAUNCHERS, needs_horovod, run_ranks
from small_runs import OPTIMIZER, fit, global_batches, make_trainer, stacked

from tf_bert.training.losses import weighted_cross_entropy
from tf_bert.training.train_step import count_tokens


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-6), ("mixed_float16", 2e-3)], ids=["float32", "float16"]
)
@pytest.mark.parametrize("jit_compile", [False, True], ids=["plain", "xla"])
def test_4_microsteps_of_8_end_where_1_of_32_ends(precision, tolerance, jit_compile):
    batches = global_batches()
    masks = [stacked(batch, 4)["masked_lm_weights"].sum(axis=(1, 2)) for batch in batches]
    assert all(len(set(counts)) > 1 for counts in masks), "the microbatches must differ in their number of masks"
    trainers = [make_trainer(precision, jit_compile=jit_compile) for _ in range(2)]
    start = [np.array(v) for v in trainers[0].model.trainable_variables]
    logs = [fit(trainer, batches, steps) for trainer, steps in zip(trainers, (1, 4), strict=True)]
    one, four = ([np.array(v) for v in trainer.model.trainable_variables] for trainer in trainers)
    assert max(np.abs(a - b).max() for a, b in zip(start, one, strict=True)) > 1e-3, "nothing was trained"
    for ours, theirs in zip(one, four, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)
    for name in ("loss", "masked_lm_accuracy", "next_sentence_loss", "gradient_norm", "tokens_seen"):
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=1e-4 if precision == "float32" else 1e-2)


@pytest.fixture(scope="module")
def one_of_32():
    """A trainer that has seen every global batch in one microstep, and its last logs."""
    trainer = make_trainer()
    return trainer, fit(trainer, global_batches(), 1)


@needs_horovod
@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("microsteps", [1, 4])
def test_two_ranks_end_where_one_microstep_of_32_ends(launcher, microsteps, one_of_32, tmp_path):
    masks = [stacked(batch, 2 * microsteps)["masked_lm_weights"].sum(axis=(1, 2)) for batch in global_batches()]
    uneven = sum(len(set(counts)) > 1 for counts in masks)
    assert uneven >= 15, "ranks and microbatches must differ in their number of masks, nearly always"
    worker = Path(__file__).parent.parent / "small_runs.py"
    run_ranks(launcher, [sys.executable, str(worker), str(tmp_path / "weights.npz"), str(microsteps)])
    trainer, logs = one_of_32
    found = np.load(tmp_path / "weights.npz")
    for variable in trainer.model.trainable_variables:
        np.testing.assert_allclose(variable, found[variable.path], rtol=0, atol=1e-6)
    for name in ("loss", "masked_lm_accuracy", "gradient_norm", "tokens_seen"):
        np.testing.assert_allclose(logs[name], found[name], rtol=1e-4)


def test_the_gradient_is_that_of_the_global_sums():
    batch = global_batches(rows=12, steps=1)[0]
    trainer = make_trainer()
    weights = trainer.objective.weights(batch)
    found, _ = trainer._accumulate({k: tf.constant(v) for k, v in stacked(batch, 3).items()}, weights)
    with tf.GradientTape() as tape:
        logits = trainer.model(batch, training=False)
        loss = 0.0
        for term, labels, weight in (
            ("masked_lm", "masked_lm_ids", "masked_lm_weights"),
            ("next_sentence", "next_sentence_labels", "next_sentence_weights"),
        ):
            log_probabilities = tf.nn.log_softmax(logits[f"{term}_logits"])
            chosen = tf.gather(log_probabilities, batch[labels], batch_dims=2)
            loss -= tf.reduce_sum(chosen * batch[weight]) / batch[weight].sum()
    expected = tape.gradient(loss, [v.value for v in trainer.model.trainable_variables])
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, tf.convert_to_tensor(theirs), atol=1e-6)


def test_losses_and_accuracies_in_the_logs_are_global_averages():
    batch = global_batches(rows=8, steps=1)[0]
    trainer = make_trainer()
    logits = trainer.model(batch)["masked_lm_logits"].numpy()
    chosen = batch["masked_lm_weights"] > 0
    scores, ids = logits[chosen], batch["masked_lm_ids"][chosen]
    log_probabilities = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    expected = -log_probabilities[np.arange(len(ids)), ids].mean()
    accuracy = np.mean(scores.argmax(axis=-1) == ids)
    evaluated = trainer.evaluate_on([{k: tf.constant(v[i : i + 4]) for k, v in batch.items()} for i in (0, 4)])
    logs = fit(trainer, [batch], 4)
    for values in (evaluated, logs):
        np.testing.assert_allclose(values["masked_lm_loss"], expected, rtol=1e-5)
        np.testing.assert_allclose(values["masked_lm_accuracy"], accuracy, rtol=1e-6)
        np.testing.assert_allclose(values["loss"], values["masked_lm_loss"] + values["next_sentence_loss"], rtol=1e-6)
    assert logs["tokens_seen"] == (batch["example_ids"] > 0).sum()


def test_the_number_of_microsteps_may_differ_from_step_to_step():
    batches = global_batches(steps=6)
    trainers = [make_trainer() for _ in range(2)]
    fit(trainers[0], batches, 1)
    fit(trainers[1], batches, 4, 1, 2)
    one, mixed = ([np.array(v) for v in trainer.model.trainable_variables] for trainer in trainers)
    for ours, theirs in zip(one, mixed, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_tokens_are_those_that_are_no_padding():
    ids = np.ones((3, 5), "int32")
    mask = np.triu(ids)
    assert count_tokens({"input_ids": ids, "example_ids": 2 * mask, "input_mask": ids}) == mask.sum()
    assert count_tokens({"input_ids": ids, "input_mask": mask}) == mask.sum()
    assert count_tokens({"input_ids": ids}) == ids.size


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_the_norm_in_the_logs_is_that_before_clipping_and_the_update_is_clipped(precision):
    batch = global_batches(rows=8, steps=1)[0]
    settings = dataclasses.replace(OPTIMIZER, num_warmup_steps=0, weight_decay_rate=0.0)
    norms, moments = [], []
    for clip_norm in (1e6, 0.01):
        trainer = make_trainer(precision, dataclasses.replace(settings, clip_norm=clip_norm))
        norms.append(fit(trainer, [batch], 2)["gradient_norm"])
        # After one update the first moment is (1 - beta_1) times the clipped gradient.
        optimizer = getattr(trainer.optimizer, "inner_optimizer", trainer.optimizer)
        moments.append(float(tf.linalg.global_norm([m.value for m in optimizer._momentums])) / 0.1)
    assert norms[0] == norms[1] > 0.02
    np.testing.assert_allclose(moments, [norms[0], 0.01], rtol=1e-4)


def test_a_gradient_that_is_not_finite_changes_no_weight_and_is_counted():
    batches = global_batches(rows=8, steps=3)
    for bad in batches[:2]:
        bad["masked_lm_weights"][0, 0] = np.inf
    trainer = make_trainer()
    before = [np.array(v) for v in trainer.model.trainable_variables]
    logs = fit(trainer, batches[:2], 2)
    assert logs["bad_steps_in_row"] == 2 and trainer.step.numpy() == 2
    assert trainer.optimizer.iterations.numpy() == 0
    for earlier, variable in zip(before, trainer.model.trainable_variables, strict=True):
        np.testing.assert_array_equal(earlier, variable)
    assert fit(trainer, batches[2:], 2)["bad_steps_in_row"] == 0
    assert trainer.optimizer.iterations.numpy() == 1


def test_float16_halves_its_loss_scale_at_an_overflow_and_goes_on():
    batches = global_batches(rows=8, steps=3)
    batches[0]["masked_lm_weights"][0, 0] = np.inf
    trainer = make_trainer("mixed_float16")
    scale = float(trainer.optimizer.dynamic_scale)
    assert fit(trainer, batches[:1], 2)["bad_steps_in_row"] == 1
    assert float(trainer.optimizer.dynamic_scale) == scale / 2
    assert fit(trainer, batches[1:], 2)["bad_steps_in_row"] == 0
    assert trainer.optimizer.iterations.numpy() == 2


def test_cross_entropy_equals_its_definition():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 5, (3, 4, 7)).astype("float32")
    labels, weights = rng.integers(0, 7, (3, 4)), rng.uniform(0, 2, (3, 4)).astype("float32")
    term = weighted_cross_entropy(logits, labels, weights)
    expected = correct = 0.0
    for i in range(3):
        for j in range(4):
            row = logits[i, j].astype("float64")
            expected += weights[i, j] * (np.log(np.exp(row).sum()) - row[labels[i, j]])
            correct += weights[i, j] * (row.argmax() == labels[i, j])
    np.testing.assert_allclose(term.loss_sum, expected, rtol=1e-5)
    np.testing.assert_allclose(term.correct_sum, correct, rtol=1e-5)
