"""Metrics against their formulas in numpy, and where a definition leaves no value."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from tf_bert.errors import InputError
from tf_bert.finetuning.metrics import METRICS, as_array, compute_metrics
from tf_bert.finetuning.tasks import TASKS, custom_task


def task_of(labels, kind="classification"):
    return custom_task({"train": "x.tsv"}, ["text"], "label", kind, labels)


BINARY, THREE = task_of(["no", "yes"]), task_of(["a", "b", "c"])
NUMBERS, SEVERAL = task_of(None, "regression"), task_of(["a", "b", "c"], "multilabel")


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# --- the formulas ---------------------------------------------------------------------------------------------------


def f1(labels, predictions):
    """2 TP / (2 TP + FP + FN) of two arrays of bool."""
    both = np.sum(labels & predictions)
    return 2 * both / (np.sum(labels) + np.sum(predictions))


def matthews(labels, predictions, classes):
    """The correlation of the one-hot codes of labels and predictions, over rows and classes (Gorodkin 2004, R_K)."""
    x, y = np.eye(classes)[labels], np.eye(classes)[predictions]
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return np.sum(x * y) / np.sqrt(np.sum(x * x) * np.sum(y * y))


def pearson(x, y):
    x, y = x - np.mean(x), y - np.mean(y)
    return np.sum(x * y) / np.sqrt(np.sum(x * x) * np.sum(y * y))


def ranks(values):
    """Ranks from 1; the mean of their ranks for equal values."""
    return np.array([np.sum(values < value) + (np.sum(values == value) + 1) / 2 for value in values])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("task", [BINARY, TASKS["CoLA"], TASKS["MRPC"], THREE, TASKS["AX"]], ids=lambda task: task.name)
def test_classification_metrics_follow_their_formulas(task, seed):
    draw = np.random.default_rng(seed)
    classes = len(task.labels)
    labels = draw.integers(classes, size=60)
    predictions = np.where(draw.random(60) < 0.6, labels, draw.integers(classes, size=60))
    expected = {
        "accuracy": np.mean(labels == predictions),
        "f1": f1(labels == 1, predictions == 1),
        "macro_f1": np.mean([f1(labels == number, predictions == number) for number in range(classes)]),
        "matthews": matthews(labels, predictions, classes),
    }
    found = compute_metrics(task, predictions, labels)
    assert found.values == pytest.approx({name: expected[name] for name in task.metrics}, abs=1e-12)
    assert list(found.values) == list(task.metrics) and found.notes == ()


@pytest.mark.parametrize("seed", range(5))
def test_regression_metrics_follow_their_formulas(seed):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 6, size=50).astype(float)  # with equal ones
    predictions = labels + draw.normal(size=50)
    found = compute_metrics(TASKS["STS-B"], predictions, labels)
    assert found.values == pytest.approx(
        {
            "pearson": pearson(labels, predictions),
            "spearman": pearson(ranks(labels), ranks(predictions)),
            "mse": np.mean((labels - predictions) ** 2),
        },
        abs=1e-12,
    )
    assert found.notes == ()


@pytest.mark.parametrize("seed", range(5))
def test_multilabel_metrics_follow_their_formulas(seed):
    draw = np.random.default_rng(seed)
    labels = draw.random((40, 3)) < 0.4
    predictions = labels ^ (draw.random((40, 3)) < 0.2)
    found = compute_metrics(SEVERAL, predictions, labels)
    exact = np.mean([np.array_equal(a, b) for a, b in zip(labels, predictions, strict=True)])
    assert found.values == pytest.approx({"micro_f1": f1(labels, predictions), "exact_match": exact}, abs=1e-12)
    rows = [tuple(np.flatnonzero(row)) for row in labels]
    assert compute_metrics(SEVERAL, predictions, rows) == found
    reference = sklearn_metrics.f1_score(labels, predictions, average="micro")
    assert found.values["micro_f1"] == pytest.approx(reference, abs=1e-12)


def test_f1_is_that_of_the_label_with_id_1():
    # 1 right of 2 predicted and of 3 there: precision 1/2, recall 1/3
    found = compute_metrics(TASKS["QQP"], [1, 1, 0, 0, 0], [1, 0, 1, 1, 0])
    assert found.values == pytest.approx({"accuracy": 2 / 5, "f1": 0.4}, abs=1e-12)


def test_one_label_alone_may_be_multilabel():
    found = compute_metrics(task_of(["spam"], "multilabel"), [(0,), (), (0,)], [(0,), (0,), ()])
    assert found.values == pytest.approx({"micro_f1": 0.5, "exact_match": 1 / 3}, abs=1e-12)


def test_the_mean_squared_error_alone_is_better_when_lower():
    assert {name for name, metric in METRICS.items() if not metric.higher_is_better} == {"mse"}


# --- the edges ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predictions", "labels", "values", "notes"),
    [
        (
            [1, 1, 1, 1],
            [1, 0, 1, 0],
            {"accuracy": 0.5, "f1": 2 / 3, "matthews": 0.0},
            (
                "all 4 predictions are 'yes'",
                "matthews is undefined, as all predictions are the same, and reported as 0",
            ),
        ),
        (
            [1, 0, 1, 0],
            [0, 0, 0, 0],
            {"accuracy": 0.5, "f1": 0.0, "matthews": 0.0},
            ("all 4 labels are 'no'", "matthews is undefined, as all labels are the same, and reported as 0"),
        ),
        (
            [0, 0, 0],
            [0, 0, 0],
            {"accuracy": 1.0, "f1": 0.0, "matthews": 0.0},
            (
                "all 3 labels are 'no'",
                "all 3 predictions are 'no'",
                "f1 is undefined, as no label and no prediction is positive, and reported as 0",
                "matthews is undefined, as all labels are the same, and reported as 0",
            ),
        ),
        (
            [1],
            [1],
            {"accuracy": 1.0, "f1": 1.0, "matthews": 0.0},
            (
                "all 1 labels are 'yes'",
                "all 1 predictions are 'yes'",
                "matthews is undefined, as all labels are the same, and reported as 0",
            ),
        ),
    ],
)  # fmt: skip
def test_one_class_only_is_said(predictions, labels, values, notes):
    found = compute_metrics(BINARY, predictions, labels)
    assert found.values == pytest.approx(values, abs=1e-12)
    assert found.notes == notes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found.values["matthews"] == sklearn_metrics.matthews_corrcoef(labels, predictions)
        assert found.values["f1"] == sklearn_metrics.f1_score(labels, predictions, zero_division=0.0)


def test_a_class_that_is_nowhere_does_not_count_in_the_mean():
    labels, predictions = [0, 1, 1, 0], [0, 1, 0, 0]
    expected = (f1(np.array([1, 0, 0, 1]) > 0, np.array([1, 0, 1, 1]) > 0) + 2 / 3) / 2
    found = compute_metrics(THREE, predictions, labels)
    assert found.values["macro_f1"] == pytest.approx(expected, abs=1e-12)
    assert found.values["macro_f1"] == sklearn_metrics.f1_score(labels, predictions, average="macro")
    assert found.notes == ()


@pytest.mark.parametrize(
    ("predictions", "labels", "error", "notes"),
    [
        ([3.0, 3.0, 3.0], [1.0, 2.0, 3.0], 5 / 3, ("all 3 predictions are 3", "predictions")),
        ([1.0, 2.0, 3.0], [2.5, 2.5, 2.5], 2.75 / 3, ("all 3 labels are 2.5", "labels")),
        ([1.0], [2.0], 1.0, ("all 1 labels are 2", "all 1 predictions are 1", "labels")),
    ],
)
def test_a_correlation_with_something_constant_is_0_and_said(predictions, labels, error, notes):
    found = compute_metrics(TASKS["STS-B"], predictions, labels)
    assert found.values == pytest.approx({"pearson": 0.0, "spearman": 0.0, "mse": error}, abs=1e-12)
    *constant, what = notes
    undefined = f"is undefined, as all {what} are the same, and reported as 0"
    assert found.notes == (*constant, f"pearson {undefined}", f"spearman {undefined}")


def test_predictions_that_hardly_differ_leave_numbers():
    labels = np.array([1.0, 2.0, 4.0, 3.0])
    predictions = np.array([0.0, 5e-324, 1e-323, 5e-324])
    found = compute_metrics(NUMBERS, predictions, labels)
    assert all(np.isfinite(value) for value in found.values.values())
    assert found.values["spearman"] == pytest.approx(pearson(ranks(labels), ranks(predictions)), abs=1e-12)


@pytest.mark.parametrize("size", [2, 3, 10])
@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e150])
def test_no_value_is_ever_nan(size, scale):
    draw = np.random.default_rng(size)
    for labels in (np.zeros(size), draw.normal(size=size), np.arange(size, dtype=float)):
        for predictions in (np.ones(size), draw.normal(size=size) * scale, 1.0 + draw.normal(size=size) * 1e-16):
            found = compute_metrics(NUMBERS, predictions, labels)
            assert all(np.isfinite(value) for value in found.values.values()), (labels, predictions, found)
            assert -1 <= found.values["pearson"] <= 1 and -1 <= found.values["spearman"] <= 1


def test_correlations_are_scipys():
    draw = np.random.default_rng(3)
    labels, predictions = draw.normal(size=(2, 30))
    found = compute_metrics(NUMBERS, predictions, labels).values
    assert found["pearson"] == stats.pearsonr(labels, predictions).statistic
    assert found["spearman"] == stats.spearmanr(labels, predictions).statistic


def test_rows_without_labels_are_said():
    found = compute_metrics(SEVERAL, [(), ()], [(), ()])
    assert found.values == {"micro_f1": 0.0, "exact_match": 1.0}
    assert found.notes == (
        "all 2 labels are []",
        "all 2 predictions are []",
        "micro_f1 is undefined, as no row has a label and none is predicted, and reported as 0",
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_model_that_has_diverged_is_one_line(bad):
    with pytest.raises(InputError) as caught:
        compute_metrics(TASKS["STS-B"], [1.0, bad, 2.0], [1.0, 2.0, 3.0])
    assert str(caught.value) == (
        "STS-B: 1 of 3 predictions are not finite, expected numbers; the training has diverged: lower the learning rate"
    )


@pytest.mark.parametrize(("predictions", "labels"), [([0, 1], [0, 1, 1]), ([], [])])
def test_a_prediction_is_needed_for_every_row(predictions, labels):
    with pytest.raises(ValueError, match="expected one a row"):
        compute_metrics(BINARY, predictions, labels)


# --- labels ----------------------------------------------------------------------------------------------------------


def test_labels_become_arrays():
    assert as_array(SEVERAL, [(0, 2), ()]).tolist() == [[True, False, True], [False, False, False]]
    assert as_array(BINARY, [1, 0]).dtype == np.int64 and as_array(NUMBERS, [1, 2]).dtype == np.float64


def test_importing_the_module_imports_no_library_of_metrics():
    code = "import sys, tf_bert.finetuning.metrics; print({'sklearn', 'scipy', 'tensorflow'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
