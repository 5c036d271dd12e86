"""The time split of a run: what is counted where."""

import time

import pytest
import tensorflow as tf
from small_runs import global_batches, make_trainer, stacked

from tf_bert.training.clock import InputWait, RunClock, time_all_reduce


def test_shares_add_up_and_pauses_are_no_training():
    clock = RunClock(last_step=100, first_step=10, first_tokens=500.0, all_reduce_seconds=0.01)
    with clock.paused("evaluation"):
        time.sleep(0.2)
    with clock.paused("checkpoint"):
        time.sleep(0.1)
    clock.waited(0.05)
    time.sleep(0.3)
    lap = clock.lap(20, 900.0)
    assert (lap.steps, lap.tokens) == (10, 400.0)
    assert sum(lap.shares.values()) == pytest.approx(1.0)
    whole = lap.seconds / (1.0 - lap.shares["evaluation"] - lap.shares["checkpoint"])
    # Sleeping takes at least as long as asked for.
    assert lap.seconds >= 0.3 and lap.shares["evaluation"] * whole >= 0.2 and lap.shares["checkpoint"] * whole >= 0.1
    assert lap.shares["input"] * whole == pytest.approx(0.05)
    assert lap.shares["all_reduce"] * whole == pytest.approx(10 * 0.01)
    assert clock.seconds_left() == pytest.approx(80 * lap.seconds / 10)


def test_a_lap_begins_where_the_last_one_ended():
    clock = RunClock(last_step=4, first_step=0, first_tokens=0.0, all_reduce_seconds=0.0)
    clock.waited(100.0)
    with clock.paused("checkpoint"):
        time.sleep(0.01)
    first = clock.lap(1, 10.0)
    assert first.shares["input"] == pytest.approx(1.0 - first.shares["checkpoint"])  # never more than there was
    second = clock.lap(3, 30.0)
    assert (second.steps, second.tokens) == (2, 20.0)
    assert second.shares == {"input": 0.0, "compute": 1.0, "all_reduce": 0.0, "evaluation": 0.0, "checkpoint": 0.0}


def test_an_all_reduce_alone_longer_than_the_steps_leaves_no_negative_share():
    clock = RunClock(last_step=1, first_step=0, first_tokens=0.0, all_reduce_seconds=1000.0)
    assert clock.lap(1, 1.0).shares["compute"] == 0.0


def test_waiting_for_a_slow_dataset_is_seen_and_computing_is_not():
    trainer = make_trainer()
    stacks = [stacked(batch, 2) for batch in global_batches(steps=8)]

    def slowly():
        for index, stack in enumerate(stacks):
            if index >= 4:
                time.sleep(0.5)
            yield stack

    signature = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in stacks[0].items()}
    dataset = tf.data.Dataset.from_generator(slowly, output_signature=signature)
    waits = []
    trainer.fit(dataset, steps_per_epoch=8, callbacks=[InputWait(waits.append)], verbose=0, shuffle=False)
    assert len(waits) == 7  # the first step builds the graph
    assert min(waits[3:]) >= 0.45  # tf.data may read one ahead; here nothing asked it to
    assert min(waits[:3]) < min(waits[3:])


def test_an_all_reduce_is_timed():
    trainer = make_trainer()
    calls = []

    def all_reduce(tensors):
        calls.append([tuple(tensor.shape) for tensor in tensors])
        with tf.control_dependencies([tf.py_function(lambda: time.sleep(0.05), [], [])]):
            return [tf.identity(tensor) for tensor in tensors]

    assert time_all_reduce(all_reduce, trainer.model.trainable_variables) >= 0.05
    assert calls == [[tuple(variable.shape) for variable in trainer.model.trainable_variables]]
