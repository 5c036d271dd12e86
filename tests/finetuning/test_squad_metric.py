"""SQuAD's metrics equal those of the official scripts, as tf-models keeps them, and values worked out by hand."""

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_bert.errors import InputError
from tf_bert.finetuning.squad_metric import (
    evaluate_v1,
    evaluate_v2,
    exact_match,
    f1_score,
    normalize_answer,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Quick, brown\tfox!", "quick brown fox"),
        ("a an the THE", ""),
        ("another theme (an) a-b", "another theme ab"),
        ("U.S.A. $5.00", "usa 500"),
        ("“quoted” – x", "“quoted” – x"),
        ("L'été à Paris", "lété à paris"),
    ],
)
def test_what_is_compared(text, expected):
    assert normalize_answer(text) == expected


@pytest.mark.parametrize(
    ("prediction", "gold", "exact", "f1"),
    [
        ("the old river", "Old River.", 1.0, 1.0),
        ("old river bank", "old river", 0.0, 2 * (2 / 3) * 1 / (2 / 3 + 1)),
        ("new new york", "new york york", 0.0, 2 / 3),
        ("river", "castle", 0.0, 0.0),
        ("", "castle", 0.0, 0.0),
        ("", "", 1.0, 1.0),
        ("the", "", 1.0, 1.0),
    ],
)
def test_one_answer_by_hand(prediction, gold, exact, f1):
    assert exact_match(prediction, gold) == exact
    assert f1_score(prediction, gold) == pytest.approx(f1, abs=1e-15)


def test_a_file_of_version_1_by_hand():
    gold = {"a": ["river"], "b": ["old castle", "the castle"], "c": ["engine"], "d": ["a"]}
    predictions = {"a": "River!", "b": "new castle", "d": ""}
    # b: F1 with `old castle` 1/2, with `castle` 2/3. c is not predicted. d: nothing is left of the gold answer.
    assert evaluate_v1(gold, predictions) == pytest.approx({"exact_match": 50.0, "f1": 100 * (1 + 2 / 3) / 4})


def test_a_file_of_version_2_by_hand():
    gold = {"a": ["river"], "b": ["old castle"], "none": [], "nothing": []}
    predictions = {"a": "river", "b": "castle", "none": "winter", "nothing": "garden"}
    null_scores = {"a": -3.0, "b": 1.0, "none": 2.5, "nothing": -1.0}
    found = evaluate_v2(gold, predictions, null_scores, null_threshold=2.0)
    assert found == pytest.approx(
        {
            **{"exact": 50.0, "f1": 100 * (1 + 2 / 3 + 1) / 4, "total": 4},  # a and none
            **{"HasAns_exact": 50.0, "HasAns_f1": 100 * (1 + 2 / 3) / 2, "HasAns_total": 2},
            **{"NoAns_exact": 50.0, "NoAns_f1": 50.0, "NoAns_total": 2},
            # Above -3 nothing is answered: a, none and nothing are right. For F1 b is not worth it: 2/3 less 1.
            **{"best_exact": 75.0, "best_exact_thresh": -3.0, "best_f1": 75.0, "best_f1_thresh": -3.0},
        }
    )


def test_gold_answers_are_needed_for_version_1_and_predictions_for_version_2():
    with pytest.raises(InputError, match="question 'b' has no answer to compare with, expected one or more; such ques"):
        evaluate_v1({"a": ["x"], "b": []}, {"a": "x"})
    with pytest.raises(InputError, match="none of the 2 questions has a prediction, expected one for each"):
        evaluate_v2({"a": ["x"], "b": []}, {"c": "x"})


# --- against the official scripts ------------------------------------------------------------------------------------

WORDS = ("a", "the", "an", "A.", "old", "Old,", "river", "castle", "'", "-", "new", "élan", "Σ", "\u00a0", "\n")
TEXTS = st.one_of(st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join), st.text(max_size=8))
ROWS = st.tuples(st.lists(TEXTS, max_size=3), TEXTS, st.sampled_from([-2.0, -0.5, 0.0, 1.5]))
FILES = st.lists(ROWS, min_size=1, max_size=12)
RANDOM = settings(max_examples=400, deadline=None, derandomize=True, database=None)


def as_dataset(gold):
    qas = [{"id": number, "answers": [{"text": text} for text in texts]} for number, texts in gold.items()]
    return [{"paragraphs": [{"qas": qas}]}]


def tables(rows):
    """Gold answers, predictions and null scores by question."""
    return tuple({f"q{i}": row[part] for i, row in enumerate(rows)} for part in range(3))


def official(name):
    module = pytest.importorskip(
        f"official.nlp.tools.{name}", reason="tf-models-official (extra `interop`) is not installed"
    )
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # it tells of every missing prediction
    return module


def test_random_files_equal_the_official_script_of_version_1():
    script = official("squad_evaluate_v1_1")

    @RANDOM
    @given(FILES, st.integers(0, 2))
    def check(rows, missing):
        gold, predictions, _ = tables([(texts or ["x"], *others) for texts, *others in rows])
        for number in list(predictions)[:missing]:
            del predictions[number]
        theirs = script.evaluate(as_dataset(gold), predictions)  # as shares of 1
        expected = {"exact_match": 100.0 * theirs["exact_match"], "f1": 100.0 * theirs["final_f1"]}
        assert evaluate_v1(gold, predictions) == pytest.approx(expected, rel=1e-12)

    check()


def test_random_files_equal_the_official_script_of_version_2():
    script = official("squad_evaluate_v2_0")
    names = {f"best_{metric}{end}": f"final_{metric}{end}" for metric in ("exact", "f1") for end in ("", "_thresh")}

    @RANDOM
    @given(FILES, st.integers(0, 2))
    def check(rows, missing):
        gold, predictions, null_scores = tables(rows)
        for number in list(predictions)[: min(missing, len(rows) - 1)]:
            del predictions[number], null_scores[number]
        theirs = script.evaluate(as_dataset(gold), predictions, null_scores)
        ours = {names.get(key, key): value for key, value in evaluate_v2(gold, predictions, null_scores).items()}
        assert ours.keys() == {key for key in theirs if not key.startswith("pr_")}
        assert ours == pytest.approx({key: theirs[key] for key in ours}, rel=1e-12)

    check()


def test_other_thresholds_equal_the_official_script_of_version_2():
    script = official("squad_evaluate_v2_0")

    @RANDOM
    @given(FILES, st.sampled_from([-1.0, -0.5, 0.0, 2.0]))
    def check(rows, threshold):
        gold, predictions, null_scores = tables(rows)
        has_answer = {number: bool(texts) for number, texts in gold.items()}
        ours = evaluate_v2(gold, predictions, null_scores, threshold)
        for scores, name in zip(script._get_raw_scores(as_dataset(gold), predictions), ("exact", "f1"), strict=True):
            kept = script._apply_no_ans_threshold(scores, null_scores, has_answer, threshold)
            assert ours[name] == pytest.approx(100.0 * sum(kept.values()) / len(kept), rel=1e-12)

    check()
