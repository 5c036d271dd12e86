"""The table of tasks, and rows that users make for it."""

import pytest
from glue_files import COLUMNS, LABELS, file_of, splits_of

from tf_bert.errors import UsageError
from tf_bert.finetuning.metrics import METRICS
from tf_bert.finetuning.tasks import TASKS, custom_task, find_task


def test_the_table_has_the_ten_tasks_and_their_files():
    assert set(TASKS) == set(COLUMNS)
    for name, task in TASKS.items():
        assert [split.name for split in task.splits] == splits_of(name)
        assert [f"{task.folders[0]}/{split.file}" for split in task.splits] == [
            file_of(name, split) for split in splits_of(name)
        ]


def test_labels_are_in_the_order_of_the_tsv_world():
    for name, task in TASKS.items():
        assert task.labels == (() if name == "STS-B" else LABELS.get(name, ("0", "1")))
        assert task.kind == ("regression" if name == "STS-B" else "classification")


@pytest.mark.parametrize(
    ("name", "metrics", "primary"),
    [
        ("CoLA", {"matthews", "accuracy"}, "matthews"),
        ("SST-2", {"accuracy"}, "accuracy"),
        ("MRPC", {"accuracy", "f1"}, "f1"),
        ("QQP", {"accuracy", "f1"}, "f1"),
        ("STS-B", {"pearson", "spearman", "mse"}, "spearman"),
        ("MNLI", {"accuracy"}, "accuracy"),
        ("QNLI", {"accuracy"}, "accuracy"),
        ("RTE", {"accuracy"}, "accuracy"),
        ("WNLI", {"accuracy"}, "accuracy"),
        ("AX", {"matthews", "accuracy"}, "matthews"),
    ],
)
def test_every_task_has_the_metrics_of_glue(name, metrics, primary):
    task = TASKS[name]
    assert set(task.metrics) == metrics and task.primary_metric == primary
    assert metrics <= METRICS.keys()


def test_submissions_have_the_names_that_the_site_wants():
    names = [split.submission for task in TASKS.values() for split in task.splits if split.submission]
    wanted = ["CoLA", "SST-2", "MRPC", "STS-B", "MNLI-m", "MNLI-mm", "QNLI", "RTE", "QQP", "WNLI", "AX"]
    assert sorted(names) == sorted(wanted)
    assert all(split.submission for task in TASKS.values() for split in task.test_splits)
    assert TASKS["STS-B"].score_range == (0.0, 5.0)


def test_ax_is_predicted_with_the_model_of_mnli():
    assert TASKS["AX"].predicted_by == "MNLI" and TASKS["AX"].labels == TASKS["MNLI"].labels
    assert [split.name for split in TASKS["AX"].splits] == ["test"]
    assert [split.name for split in TASKS["MNLI"].dev_splits] == ["dev_matched", "dev_mismatched"]
    assert [split.name for split in TASKS["MNLI"].test_splits] == ["test_matched", "test_mismatched"]


def test_tasks_are_found_whatever_the_case():
    assert find_task("mrpc") is find_task("MRPC") is TASKS["MRPC"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("MRCP", "did you mean 'MRPC'?"),
        ("sst2", "did you mean 'SST-2'?"),
        ("STSB", "did you mean 'STS-B'?"),
        ("mnli-m", "did you mean 'MNLI'?"),
        ("xyzzy", "expected one of CoLA, SST-2, MRPC, QQP, STS-B, MNLI, QNLI, RTE, WNLI, AX"),
    ],
)
def test_a_typo_gets_the_nearest_name(name, advice):
    with pytest.raises(UsageError) as caught:
        find_task(name)
    assert str(caught.value) == f"task: found {name!r}; {advice}"


def test_an_unknown_split_is_one_line():
    with pytest.raises(UsageError) as caught:
        TASKS["MNLI"].split("dev")
    known = "train, dev_matched, dev_mismatched, test_matched, test_mismatched"
    assert str(caught.value) == f"split: MNLI has no 'dev'; expected one of {known}"


# --- any other files -----------------------------------------------------------------------------------------------

FILES = {"train": "train.csv", "dev": "dev.csv", "test": "test.csv"}


def make(**settings):
    defaults = {"files": FILES, "text_columns": ["text"], "label_column": "label"}
    return custom_task(**defaults | settings)


@pytest.mark.parametrize(
    ("settings", "metrics"),
    [
        ({"labels": ["no", "yes"]}, ("accuracy", "f1", "matthews")),
        ({"labels": ["a", "b", "c"]}, ("accuracy", "macro_f1", "matthews")),
        ({"kind": "regression"}, ("pearson", "spearman", "mse")),
        ({"kind": "multilabel", "labels": ["a"]}, ("micro_f1", "exact_match")),
        ({"labels": ["a", "b", "c"], "primary_metric": "macro_f1"}, ("accuracy", "macro_f1", "matthews")),
    ],
)
def test_metrics_follow_from_the_kind_and_the_number_of_labels(settings, metrics):
    task = make(**settings)
    assert task.metrics == metrics
    assert task.primary_metric == settings.get("primary_metric", metrics[0])
    assert not task.lacks_labels


def test_labels_that_are_not_named_are_to_be_found():
    task = make()
    assert task.lacks_labels and task.metrics == ()
    assert task.with_labels(["x", "y"]) == make(labels=["x", "y"])


def test_labels_of_test_files_are_not_read():
    assert [split.has_labels for split in make().splits] == [True, True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_columns": []}, r"text_columns: found \[\] beside the label column 'label'; expected one or two others"),
        ({"text_columns": ["a", "b", "c"]}, r"text_columns: found \['a', 'b', 'c'\] beside"),
        ({"text_columns": ["label"]}, r"text_columns: found \['label'\] beside the label column 'label'"),
        ({"text_columns": ["a", "a"]}, r"text_columns: found \['a', 'a'\] beside"),
        ({"columns": ["id", "text"]}, r"columns: found \['id', 'text'\], without 'label'; name all columns"),
        ({"labels": ["a"]}, r"labels: found 1, \['a'\], expected at least 2; name them all"),
        ({"labels": []}, r"labels: found 0, \[\], expected at least 2"),
        ({"labels": ["a", "b", "a"]}, "labels: 'a' comes twice; name each label once"),
        ({"labels": ["a", "b"], "kind": "regression"}, "labels: found .* with kind regression; leave them out, or"),
        ({"label_separator": ","}, "label_separator: found ',' with kind classification; expected a character"),
        ({"label_separator": "\t", "kind": "multilabel"}, r"label_separator: found '\\t' with kind multilabel"),
        ({"score_range": (0.0, 5.0)}, r"score_range: found \(0\.0, 5\.0\) with kind classification; expected low < hi"),
        ({"score_range": (5.0, 0.0), "kind": "regression"}, r"score_range: found \(5\.0, 0\.0\) with kind regression"),
        ({"primary_metric": "f1", "labels": ["a", "b", "c"]}, "'f1'; classification with 3 labels has accuracy, macro"),
        ({"primary_metric": "f1", "kind": "regression"}, "'f1'; regression has pearson, spearman, mse; choose one"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_one_line(settings, message):
    with pytest.raises(UsageError, match=message) as caught:
        make(**settings)
    assert "\n" not in str(caught.value)
