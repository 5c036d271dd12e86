"""Optimizers and schedules, against numpy written from the papers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_bert.config import OptimizerConfig, TrainingConfig
from tf_bert.training.optimizer import build_optimizer, excluded_from_decay
from tf_bert.training.schedule import build_schedule

STEPS = 50
SETTINGS = {
    "learning_rate": 0.1,
    "num_warmup_steps": 5,
    "end_learning_rate": 0.01,
    "weight_decay_rate": 0.3,
    "beta_2": 0.95,
}
SHAPES = {"layer/kernel": (4, 6), "query_key_value/kernel": (4, 6), "layer/bias": (6,), "norm/gamma": (6,)}


def make_variables(rng):
    """Of a model's kinds, under the paths that layers give them."""
    variables = []
    for path, shape in SHAPES.items():
        scope, name = path.split("/")
        with keras.name_scope(scope):
            variables.append(keras.Variable(rng.normal(size=shape).astype("float32"), name=name))
    assert [variable.path for variable in variables] == list(SHAPES)
    return variables


def rate_at(step):
    """Linear warmup and linear decay."""
    return 0.1 * step / 5 if step < 5 else 0.01 + (0.1 - 0.01) * (STEPS - step) / (STEPS - 5)


def trust_ratio(weights, update):
    """You et al. 2020, algorithm 2, with phi the identity."""
    norms = np.linalg.norm(weights), np.linalg.norm(update)
    return norms[0] / norms[1] if min(norms) > 0 else 1.0


@pytest.mark.parametrize("bias_correction", [True, False])
@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_fifty_updates_equal_the_definition(name, bias_correction):
    """Algorithm 2 of Loshchilov and Hutter 2019, and of You et al. 2020; kernels alone decay."""
    rng = np.random.default_rng(2)
    variables = make_variables(rng)
    config = OptimizerConfig(name=name, bias_correction=bias_correction, **SETTINGS)
    optimizer = build_optimizer(config, TrainingConfig(num_train_steps=STEPS), variables)
    assert [variable.name for variable in excluded_from_decay(variables)] == ["bias", "gamma"]
    expected = [np.array(variable, "float64") for variable in variables]
    m, v = ([np.zeros(shape) for shape in SHAPES.values()] for _ in range(2))
    for step in range(STEPS):
        gradients = [rng.normal(size=shape) for shape in SHAPES.values()]
        optimizer.apply([tf.constant(gradient, "float32") for gradient in gradients], variables)
        for i, (path, gradient) in enumerate(zip(SHAPES, gradients, strict=True)):
            m[i] = 0.9 * m[i] + 0.1 * gradient
            v[i] = 0.95 * v[i] + 0.05 * gradient**2
            unbias = (1 - 0.9 ** (step + 1), 1 - 0.95 ** (step + 1)) if bias_correction else (1.0, 1.0)
            update = (m[i] / unbias[0]) / (np.sqrt(v[i] / unbias[1]) + 1e-6)
            if path.endswith("kernel"):
                update += 0.3 * expected[i]
            if name == "lamb" and path.endswith("kernel"):
                # Query, key and value of the paper are three layers.
                count = 3 if "query_key_value" in path else 1
                parts = zip(np.split(expected[i], count, axis=1), np.split(update, count, axis=1), strict=True)
                update = np.concatenate([trust_ratio(*part) * part[1] for part in parts], axis=1)
            expected[i] = expected[i] - rate_at(step) * update
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable, value, atol=5e-5, err_msg=variable.path)  # 50 roundings in float32


def test_lamb_leaves_a_layer_of_zeros_to_its_update():
    """Without weights there is no norm to hold the update against: the ratio is 1."""
    with keras.name_scope("layer"):
        kernel = keras.Variable(np.zeros((2, 2), "float32"), name="kernel")
    config = OptimizerConfig(name="lamb", learning_rate=0.5, num_warmup_steps=0)
    build_optimizer(config, TrainingConfig(num_train_steps=10), [kernel]).apply([tf.ones((2, 2))], [kernel])
    np.testing.assert_allclose(kernel, np.full((2, 2), -0.5), rtol=1e-5)


# --- schedules -----------------------------------------------------------------------------------------------


def rates(config, places, **settings):
    schedule = build_schedule(config, TrainingConfig(num_train_steps=STEPS), **settings)
    return [float(schedule(place)) for place in places]


@pytest.mark.parametrize(
    ("settings", "after_warmup"),
    [
        ({"schedule": "linear", "end_learning_rate": 0.02}, lambda t: 0.02 + (0.1 - 0.02) * (50 - t) / 40),
        ({"schedule": "polynomial", "decay_power": 0.5}, lambda t: 0.1 * np.sqrt((50 - t) / 40)),
        ({"schedule": "exponential", "decay_rate": 0.99, "decay_steps": 7}, lambda t: 0.1 * 0.99 ** ((t - 10) / 7)),
    ],
    ids=["linear", "polynomial", "exponential"],
)
def test_schedules_equal_their_formulas(settings, after_warmup):
    config = OptimizerConfig(learning_rate=0.1, initial_learning_rate=0.01, num_warmup_steps=10, **settings)
    expected = [0.01 + 0.09 * t / 10 if t < 10 else after_warmup(t) for t in range(STEPS)]
    np.testing.assert_allclose(rates(config, range(STEPS)), expected, rtol=1e-6)


def test_a_time_budget_is_a_triangle_over_the_hours():
    hours = keras.Variable(0.0, dtype="float64", trainable=False)
    config = OptimizerConfig(
        learning_rate=1e-3, num_warmup_steps=0, schedule="time_budget", warmup_hours=6.0, end_learning_rate=1e-4
    )
    schedule = build_schedule(config, TrainingConfig(num_train_steps=STEPS, time_budget_hours=24.0), hours=hours)
    found = []
    for hour in range(0, 28, 3):
        hours.assign(hour)
        found.append(float(schedule(1_000)))  # the number of updates does not matter
    falling = [1e-4 + 9e-4 * (24 - hour) / 18 for hour in range(6, 25, 3)]
    np.testing.assert_allclose(found, [0.0, 5e-4, *falling, 1e-4], rtol=1e-6)


def test_a_schedule_goes_on_where_an_earlier_run_left_it():
    whole = rates(OptimizerConfig(learning_rate=0.1, num_warmup_steps=10), range(STEPS))
    second = OptimizerConfig(learning_rate=0.1, num_warmup_steps=10, schedule_steps=STEPS, schedule_start=30)
    assert rates(second, range(20)) == whole[30:]  # the optimizer's updates start at 0 again
    assert rates(second, range(30, STEPS), earlier_updates=30) == whole[30:]  # or are carried on
    fresh = OptimizerConfig(learning_rate=0.1, num_warmup_steps=10)
    assert rates(fresh, range(30, 80), earlier_updates=30) == whole
    assert rates(fresh, [28], earlier_updates=30) == [0.0]  # two updates of the earlier run were skipped


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "polynomial"}, "schedule polynomial needs decay_power; set it, e.g. to 0.5"),
        (
            {"schedule": "exponential", "decay_rate": 0.9},
            "schedule exponential needs decay_steps; set it, e.g. to 1000",
        ),
        (
            {"decay_rate": 0.9},
            "decay_rate 0.9 belongs to schedule exponential, found schedule linear; set the one or leave out the other",
        ),
        (
            {"schedule": "exponential", "decay_rate": 0.9, "decay_steps": 5, "end_learning_rate": 1e-6},
            "end_learning_rate 1e-06 has no meaning for schedule exponential",
        ),
        (
            {"schedule": "time_budget", "warmup_hours": 1, "num_warmup_steps": 3},
            "schedule time_budget warms up for warmup_hours 1, not for num_warmup_steps 3; set the latter to 0",
        ),
        ({"end_learning_rate": 1.0}, "end_learning_rate 1 is above the peak, learning_rate 0.0001; lower it, or raise"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        OptimizerConfig(**settings)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_a_graph_that_has_updated_variables_can_be_freed(precision):
    import gc
    import weakref

    def graph_of_an_update():
        variable = keras.Variable(np.ones((3, 2)), name="kernel")
        optimizer = build_optimizer(
            OptimizerConfig(num_warmup_steps=0), TrainingConfig(num_train_steps=5, precision=precision), [variable]
        )
        update = tf.function(lambda: optimizer.apply([tf.ones((3, 2))], [variable]))
        update()
        return weakref.ref(update.get_concrete_function().graph)

    graph = graph_of_an_update()
    gc.collect()
    assert graph() is None
