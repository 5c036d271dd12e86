"""The estimator: what it learns, what its directory means, and the models that it starts from and leaves."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import glue_files
import numpy as np
import pytest
from glue_files import rows_of, write_glue
from safetensors.numpy import load_file, save_file
from scipy import stats
from sklearn.metrics import f1_score
from tiny_model import VOCABULARY, write_tiny_model

from tf_bert.config import LearningConfig, RunConfig
from tf_bert.errors import InputError, UsageError
from tf_bert.finetuning.estimator import BertEstimator, EvalSpec, TrainSpec, train_and_evaluate
from tf_bert.finetuning.evaluations import Evaluations
from tf_bert.finetuning.examples import Example
from tf_bert.finetuning.model_directory import open_finetuned_model
from tf_bert.finetuning.predictor import READ_AT_ONCE
from tf_bert.finetuning.starting import fit_labels
from tf_bert.finetuning.tasks import custom_task, find_task
from tf_bert.finetuning.text import TextFamily
from tf_bert.models.directory import read_directory
from tf_bert.run_log import read_metrics
from tf_bert.serving.exported import Exported

RUN = RunConfig(log_every=1, checkpoint_every=15, seed=1)
LEARNING = LearningConfig(max_seq_length=48, global_batch_size=8, learning_rate=3e-3)
MRPC = TextFamily(find_task("MRPC"))
ROWS_OF_THREE = LearningConfig(max_seq_length=48, global_batch_size=32)  # three batches are four epochs of 24 rows


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with GLUE's files in `glue`, and weights to start from in `init`: one layer, no dropout."""
    directory = tmp_path_factory.mktemp("estimator")
    write_glue(directory / "glue")
    write_tiny_model(directory / "init", num_hidden_layers=1)
    return directory


def at(directory, **changes) -> RunConfig:
    return dataclasses.replace(RUN, model_dir=str(directory), **changes)


def learning(**changes) -> LearningConfig:
    return dataclasses.replace(LEARNING, **changes)


def read(place, family, *splits):
    return {split: family.read(str(place / "glue"), split) for split in splits}


def make(place, family, name, settings=LEARNING, **changes):
    """A new estimator in `place / name` that starts from `init`."""
    return BertEstimator(family, at(place / name, **changes), settings, str(place / "init"))


def weights(directory) -> dict[str, np.ndarray]:
    return load_file(directory / "model.safetensors")


def assert_same_weights(found, expected, tolerance=0.0):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)


def token_ids(text) -> list[int]:
    """Words of the vocabulary and single punctuation marks, as ids."""
    return [VOCABULARY.tokens.index(word) for word in re.findall(r"[a-z]+|[^a-z\s]", text.lower())]


def total_tokens(rows) -> int:
    return sum(1 + sum(len(token_ids(text)) + 1 for text in row.texts) for row in rows)


# --- runs that several tests look at -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mrpc(place):
    """A run on MRPC that has learned it: its estimator and the metrics that it ended with."""
    sets = read(place, MRPC, "train", "dev")
    estimator = make(place, MRPC, "mrpc", learning(num_train_epochs=15))
    return estimator, train_and_evaluate(estimator, TrainSpec(sets["train"]), EvalSpec(sets["dev"]))


@pytest.fixture(scope="module")
def mnli(place):
    """A run on MNLI, with both its dev sets."""
    family = TextFamily(find_task("MNLI"))
    sets = read(place, family, "train", "dev_matched", "dev_mismatched")
    estimator = make(place, family, "mnli", learning(num_train_epochs=15))
    return estimator, train_and_evaluate(estimator, TrainSpec(sets.pop("train")), EvalSpec(sets)), sets


@pytest.fixture(scope="module")
def twice(place):
    """A run that was trained for three updates, and by another object for three more; `after_3` keeps what was then."""
    train = MRPC.read(str(place / "glue"), "train")
    first = make(place, MRPC, "twice", ROWS_OF_THREE).train(train, max_steps=3)
    shutil.copytree(place / "twice", place / "after_3")
    first.train(train, max_steps=3)
    assert_same_weights(weights(place / "twice" / "model"), weights(place / "after_3" / "model"))
    second = BertEstimator(MRPC, at(place / "twice"), ROWS_OF_THREE)
    return first, second.train(train, max_steps=6), place / "twice", place / "after_3"


# --- learning ------------------------------------------------------------------------------------------------------


def test_a_tiny_model_learns_a_task(mrpc):
    assert mrpc[1]["dev"]["accuracy"] > 0.9 and mrpc[1]["dev"]["f1"] > 0.9


def test_metrics_are_those_of_the_predictions(mnli, mrpc, place):
    estimator, told, sets = mnli
    assert list(told) == ["dev_matched", "dev_mismatched"]
    right = {}
    for split, examples in sets.items():
        labels = [row.label for row in rows_of("MNLI", split)]
        predicted = [prediction["label"] for prediction in estimator.predict(examples)]
        right[split] = np.mean([found == label for found, label in zip(predicted, labels, strict=True)])
        assert estimator.evaluate(examples).values == {"accuracy": right[split]} == told[split]
    assert right["dev_matched"] > 0.8 and right["dev_matched"] != right["dev_mismatched"]

    # Train and dev rows with the wrong labels make an F1 that is neither 0 nor 1.
    examples = read(place, MRPC, "train", "dev")
    shifted = [dataclasses.replace(e, label=int(n % 3 > 0)) for n, e in enumerate(examples["train"] + examples["dev"])]
    predicted = [prediction["label"] == "1" for prediction in mrpc[0].predict(shifted)]
    labels = [example.label for example in shifted]
    assert 0.3 < mrpc[0].evaluate(shifted).values["f1"] < 0.9
    assert mrpc[0].evaluate(shifted).values["f1"] == pytest.approx(f1_score(labels, predicted))


def test_scores_are_those_of_the_model_on_a_padded_batch(mrpc):
    estimator, _ = mrpc
    rows = rows_of("MRPC", "dev")
    ids = [
        [[VOCABULARY.cls_id, *token_ids(a), VOCABULARY.sep_id], [*token_ids(b), VOCABULARY.sep_id]]
        for a, b in (r.texts for r in rows)
    ]
    longest = max(len(first) + len(second) for first, second in ids)
    inputs = {name: np.zeros((len(ids), longest), "int32") for name in ("input_ids", "segment_ids", "input_mask")}
    for number, (first, second) in enumerate(ids):
        inputs["input_ids"][number, : len(first) + len(second)] = first + second
        inputs["segment_ids"][number, len(first) : len(first) + len(second)] = 1
        inputs["input_mask"][number, : len(first) + len(second)] = 1
    logits = estimator.model(inputs)["logits"].numpy().astype("float64")
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    examples = [Example("test", row.texts, None, str(7 * n)) for n, row in enumerate(rows)]
    told = list(estimator.predict(examples))
    assert [prediction["index"] for prediction in told] == [str(7 * n) for n in range(len(rows))]
    found = [[prediction["scores"][label] for label in "01"] for prediction in told]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [prediction["label"] for prediction in told] == [str(number) for number in expected.argmax(-1)]


def test_predictions_come_before_the_input_ends_and_in_its_order(mrpc, place):
    examples = MRPC.read(str(place / "glue"), "test")
    expected = {prediction["index"]: prediction for prediction in mrpc[0].predict(examples)}
    given = []

    def source():
        for number in range(3 * READ_AT_ONCE):
            given.append(examples[number * number % len(examples)])
            yield given[-1]

    predictions = mrpc[0].predict(source())
    assert given == []
    first = next(predictions)
    assert len(given) == READ_AT_ONCE
    told = [first, *predictions]
    assert len(told) == len(given) == 3 * READ_AT_ONCE
    for example, prediction in zip(given, told, strict=True):
        assert prediction["label"] == expected[example.index]["label"]
        assert prediction["scores"]["1"] == pytest.approx(expected[example.index]["scores"]["1"], abs=1e-6)


def test_a_regression_learns_numbers_and_is_scored_by_correlation(place):
    family = TextFamily(find_task("STS-B"))
    train = read(place, family, "train")["train"]
    estimator = make(place, family, "stsb", learning(num_train_epochs=30)).train(train)
    values = estimator.evaluate(train).values
    scores = [prediction["score"] for prediction in estimator.predict(train)]
    labels = [float(row.label) for row in rows_of("STS-B", "train")]
    assert values["pearson"] == pytest.approx(stats.pearsonr(labels, scores).statistic) and values["pearson"] > 0.7
    assert values["spearman"] == pytest.approx(stats.spearmanr(labels, scores).statistic)
    assert values["mse"] == pytest.approx(np.mean(np.square(np.subtract(labels, scores))))
    config = json.loads((place / "stsb" / "model" / "config.json").read_text())
    assert config["problem_type"] == "regression" and "id2label" not in config
    opened = open_finetuned_model(place / "stsb")
    assert list(opened.predict(train)) == list(estimator.predict(train))


def test_several_labels_are_learned_early_stopping_ends_it_and_the_best_model_stays(place):
    rng = np.random.default_rng(5)
    for split, count in (("train", 64), ("dev", 40)):
        lines = []
        for _ in range(count):
            chosen = [word for word in ("bad", "good", "odd") if rng.random() < 0.5]
            words = [*chosen, *rng.choice(["river", "city", "cat", "judge"], 3).tolist()]
            lines.append(json.dumps({"words": " ".join(rng.permutation(words).tolist()), "signs": chosen}))
        (place / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    files = {split: f"{split}.jsonl" for split in ("train", "dev")}
    task = custom_task(files, ["words"], "signs", "multilabel", ["good", "odd", "bad"], name="signs")
    family = TextFamily(task)
    train, dev = (family.read(str(place), split) for split in files)
    patient = EvalSpec(dev, early_stopping=2)
    estimator = make(place, family, "signs", learning(learning_rate=1e-2), evaluate_every=16)
    last = train_and_evaluate(estimator, TrainSpec(train, max_steps=400), patient)

    entries = read_metrics(place / "signs" / "evaluations.jsonl")
    values = [entry["metrics"]["dev"]["micro_f1"] for entry in entries]
    best = int(np.argmax(values))
    assert len(entries) == best + 3 < 400 / 16 and entries[-1]["metrics"] == last
    assert values[best] > 0.95
    chosen = [prediction["labels"] for prediction in estimator.predict(dev)]
    labels = [[task.labels[number] for number in example.label] for example in dev]
    exact = [sorted(a) == sorted(b) for a, b in zip(chosen, labels, strict=True)]
    assert last["dev"]["exact_match"] == np.mean(exact)

    # The run ended where it was evaluated last, with a checkpoint; called again it knows that it is over.
    (checkpoint,) = (place / "signs" / "checkpoints").glob(f"step-{16 * len(entries):08d}")
    before = checkpoint.stat().st_mtime_ns
    assert train_and_evaluate(estimator, TrainSpec(train, max_steps=400), patient) == last
    assert checkpoint.stat().st_mtime_ns == before
    kept = open_finetuned_model(place / "signs" / "best")
    assert kept.evaluate(dev).values == entries[best]["metrics"]["dev"]
    assert open_finetuned_model(place / "signs").evaluate(dev).values == last["dev"]
    lineage = json.loads((place / "signs" / "best" / "lineage.json").read_text())
    assert lineage["metrics"] == entries[best]["metrics"] and lineage["finetuning"]["step"] == 16 * (best + 1)


# --- the directory -------------------------------------------------------------------------------------------------


def test_training_goes_on_from_the_step_that_it_had(twice):
    _, _, directory, after_3 = twice
    assert [path.name for path in sorted((directory / "checkpoints").iterdir())] == ["step-00000003", "step-00000006"]
    log = [entry for entry in read_metrics(directory / "metrics.jsonl") if "train/loss" in entry]
    assert [entry["step"] for entry in log] == [1, 2, 3, 4, 5, 6]
    # Four epochs, then four more: every row eight times, none twice in an epoch.
    epoch = total_tokens(rows_of("MRPC", "train"))
    assert [log[2]["train/tokens_seen"], log[5]["train/tokens_seen"]] == [4 * epoch, 8 * epoch]
    assert json.loads((directory / "model" / "lineage.json").read_text())["finetuning"]["step"] == 6
    assert any((weights(directory / "model")[n] != v).any() for n, v in weights(after_3 / "model").items())


def test_evaluate_and_predict_read_the_newest_checkpoint(twice, place):
    first, second, directory, after_3 = twice
    dev = MRPC.read(str(place / "glue"), "dev")
    expected = list(open_finetuned_model(directory).predict(dev))
    assert expected != list(open_finetuned_model(after_3).predict(dev))
    # The object that trained the first three updates has the weights of the other one's by now.
    for estimator in (first, second, BertEstimator(MRPC, at(directory), ROWS_OF_THREE)):
        assert list(estimator.predict(dev)) == expected
    code = (
        "import json, sys\n"
        "from tf_bert.config import LearningConfig, RunConfig\n"
        "from tf_bert.finetuning.estimator import BertEstimator\n"
        "from tf_bert.finetuning.tasks import find_task\n"
        "from tf_bert.finetuning.text import TextFamily\n"
        "family = TextFamily(find_task('MRPC'))\n"
        "run, learning = RunConfig(model_dir=sys.argv[1], seed=1), LearningConfig(max_seq_length=48)\n"
        "estimator = BertEstimator(family, run, learning)\n"
        "dev = family.read(sys.argv[2], 'dev')\n"
        "print(json.dumps([list(estimator.predict(dev)), dict(estimator.evaluate(dev).values)]))\n"
        "assert not {'transformers', 'torch'} & sys.modules.keys()\n"
    )
    words = [sys.executable, "-c", code, str(directory), str(place / "glue")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [expected, second.evaluate(dev).values]


def test_a_damaged_newest_checkpoint_is_passed_over(twice, place):
    directory = place / "damaged"
    shutil.copytree(twice[2], directory)
    (directory / "checkpoints" / "step-00000006" / "tensors.safetensors").write_bytes(b"cut short")
    dev = MRPC.read(str(place / "glue"), "dev")
    estimator = BertEstimator(MRPC, at(directory), ROWS_OF_THREE)
    assert list(estimator.predict(dev)) == list(open_finetuned_model(twice[3]).predict(dev))


def test_killed_before_its_first_checkpoint_a_run_starts_from_init_again(twice, place):
    directory = place / "killed"
    shutil.copytree(twice[3], directory, ignore=shutil.ignore_patterns("checkpoints", "model"))
    with pytest.raises(
        InputError, match=r"killed: holds no finetuning run with a checkpoint; train one first, or name"
    ):
        BertEstimator(MRPC, at(directory), ROWS_OF_THREE)
    calls = []

    def input_fn():
        calls.append(1)
        yield from MRPC.read(str(place / "glue"), "train")

    make(place, MRPC, "killed", ROWS_OF_THREE).train(input_fn, max_steps=3)
    assert calls == [1]
    assert_same_weights(weights(directory / "model"), weights(twice[3] / "model"))


@pytest.mark.parametrize(
    ("task", "run", "settings", "message"),
    [
        ("QQP", {}, {}, r"twice: holds a run with task MRPC, found QQP; choose another model_dir, or remove this one"),
        ("MRPC", {"seed": 2}, {}, r"twice: holds a run with seed 1, found 2"),
        ("MRPC", {"precision": "mixed_bfloat16"}, {}, r"holds a run with precision float32, found mixed_bfloat16"),
        ("MRPC", {}, {"learning_rate": 1e-3}, r"holds a run with learning_rate 2e-05, found 0.001"),
        ("MRPC", {}, {"global_batch_size": 16}, r"holds a run with global_batch_size 32, found 16"),
        ("MRPC", {}, {"max_seq_length": 32}, r"holds a run with max_seq_length 48, found 32"),
    ],
)
def test_another_run_in_the_same_directory_is_refused_by_name(twice, task, run, settings, message):
    changed = dataclasses.replace(ROWS_OF_THREE, **settings)
    with pytest.raises(UsageError, match=message):
        BertEstimator(TextFamily(find_task(task)), at(twice[2], **run), changed)


def test_other_weights_to_start_from_are_refused_in_the_same_directory(twice, place):
    with pytest.raises(UsageError, match=rf"holds a run with init {place}/init, found {place}/other; choose"):
        BertEstimator(MRPC, at(twice[2]), ROWS_OF_THREE, str(place / "other"))


def test_weights_that_an_attempt_of_an_azure_job_sees_elsewhere_are_the_same(place, tmp_path):
    mounts = [tmp_path / attempt / "cap/data-capability/wd/INPUT_model" for attempt in ("first", "second")]
    for mount in mounts:
        mount.parent.mkdir(parents=True)
        mount.symlink_to(place / "init")
    train = MRPC.read(str(place / "glue"), "train")
    first, second = (BertEstimator(MRPC, at(tmp_path / "run"), ROWS_OF_THREE, str(mount)).train(train, max_steps=steps)
                     for mount, steps in zip(mounts, (1, 2), strict=True))  # fmt: skip
    assert (first.step, second.step) == (1, 2)
    other = mounts[1].with_name("INPUT_other")
    other.symlink_to(place / "init")
    with pytest.raises(UsageError, match=rf"holds a run with init {mounts[0]}, found {other}; choose"):
        BertEstimator(MRPC, at(tmp_path / "run"), ROWS_OF_THREE, str(other))


def test_other_labels_in_the_same_directory_are_refused_and_another_microbatch_is_not(twice):
    task = dataclasses.replace(MRPC.task, labels=("1", "0"))
    with pytest.raises(UsageError, match=r"holds a run with labels \['0', '1'\], found \['1', '0'\]"):
        BertEstimator(TextFamily(task), at(twice[2]), ROWS_OF_THREE)
    changed = dataclasses.replace(ROWS_OF_THREE, microbatch_size=4, num_train_epochs=1.0)
    assert BertEstimator(MRPC, at(twice[2]), changed).config.num_hidden_layers == 1


def test_what_cannot_be_done_is_refused_in_one_line(twice, place):
    train = MRPC.read(str(place / "glue"), "train")
    fresh = make(place, MRPC, "nothing", ROWS_OF_THREE)
    with pytest.raises(InputError, match=r"nothing: classifier.weight has never been trained; train the model first"):
        fresh.evaluate(train)
    with pytest.raises(InputError, match=r"nothing: classifier.weight has never been trained"):
        next(fresh.predict(train))
    with pytest.raises(InputError, match=r"MRPC: there are no examples; check the data"):
        fresh.train([])
    with pytest.raises(InputError, match=r"MRPC: there are no examples; check the data"):
        train_and_evaluate(fresh, TrainSpec(train), EvalSpec({"dev": lambda: iter(())}))
    with pytest.raises(InputError, match=r"MRPC: there are no examples; check the data"):
        twice[1].evaluate([])
    assert list(twice[1].predict([])) == []
    with pytest.raises(UsageError, match=r"max_steps: found 0, expected 1 or more"):
        fresh.train(train, max_steps=0)
    with pytest.raises(UsageError, match=r"num_warmup_steps 50 exceeds the 3 steps of the run; shorten it or train"):
        make(place, MRPC, "nothing", dataclasses.replace(ROWS_OF_THREE, num_warmup_steps=50)).train(train)
    uneven = dataclasses.replace(ROWS_OF_THREE, microbatch_size=5)
    with pytest.raises(UsageError, match=r"^global_batch_size 32 is not a multiple of microbatch_size 5 x 1 ranks = 5"):
        make(place, MRPC, "nothing", uneven).train(train)
    with pytest.raises(UsageError, match=r"max_seq_length 65 is more than the model reads, 64 tokens; lower it"):
        make(place, MRPC, "nothing", learning(max_seq_length=65))
    assert not (place / "nothing").exists()


def test_evaluations_know_the_best_and_when_it_is_over(tmp_path):
    errors = Evaluations(tmp_path, ("mse", False), 0)
    for step, value in ((10, 2.0), (20, 1.0), (30, 1.0), (40, 3.0)):
        assert errors.add(step, {"dev": {"mse": value}, "other": {"mse": -value}}) == (step in (10, 20))
    assert errors.best == {"step": 20, "metrics": {"dev": {"mse": 1.0}, "other": {"mse": -1.0}}}
    assert errors.has_stalled(2) and not errors.has_stalled(3) and not errors.has_stalled(None)
    # A process that goes on from step 25 has not seen what came after.
    again = Evaluations(tmp_path, ("mse", False), 25)
    assert again.has(20) and not again.has(30) and again.last == {"dev": {"mse": 1.0}, "other": {"mse": -1.0}}
    assert again.add(30, {"dev": {"mse": 0.5}, "other": {"mse": 9.0}})
    assert [entry["step"] for entry in read_metrics(tmp_path / "evaluations.jsonl")] == [10, 20, 30]
    higher = Evaluations(tmp_path, ("mse", True), 30)
    assert higher.best["step"] == 10
    assert Evaluations(tmp_path, ("mse", True), 0).best is None


# --- one update is one update --------------------------------------------------------------------------------------


def test_four_microbatches_train_the_same_model_as_one_batch(twice, place):
    settings = dataclasses.replace(ROWS_OF_THREE, microbatch_size=8)
    make(place, MRPC, "microbatches", settings).train(MRPC.read(str(place / "glue"), "train"), max_steps=3)
    found, expected = weights(place / "microbatches" / "model"), weights(twice[3] / "model")
    assert_same_weights(found, expected, 1e-6)
    start = weights(place / "init")
    assert max(np.abs(expected[name] - start[name]).max() for name in start if name in expected) > 1e-5


def test_bfloat16_trains_about_the_same_model(twice, place):
    train = MRPC.read(str(place / "glue"), "train")
    estimator = make(place, MRPC, "bfloat16", ROWS_OF_THREE, precision="mixed_bfloat16").train(train, max_steps=3)
    assert estimator.model.encoder.blocks[0].compute_dtype == "bfloat16"
    found, expected = weights(place / "bfloat16" / "model"), weights(twice[3] / "model")
    assert all(value.dtype == np.float32 for value in found.values())
    # Three updates of at most 2e-5 each.
    assert_same_weights(found, expected, 1.3e-4)
    losses = [
        [entry["train/loss"] for entry in read_metrics(directory / "metrics.jsonl") if "train/loss" in entry]
        for directory in (place / "bfloat16", twice[3])
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0] != losses[1]


# --- what it starts from, and what it leaves -----------------------------------------------------------------------


def relabelled(directory, target, labels, order):
    """A copy of a finetuned model whose classifier has its outputs in another order, under other names."""
    shutil.copytree(directory, target)
    tensors = load_file(target / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][order]
    save_file(tensors, target / "model.safetensors")
    config = json.loads((target / "config.json").read_text())
    config["id2label"] = {str(number): label for number, label in enumerate(labels)}
    config["label2id"] = {label: number for number, label in enumerate(labels)}
    (target / "config.json").write_text(json.dumps(config))
    return str(target)


def test_labels_in_another_order_are_mapped_by_name(mnli, tmp_path):
    estimator, told, sets = mnli
    model = Path(estimator.run.model_dir) / "model"
    theirs = relabelled(model, tmp_path / "theirs", ["ENTAILMENT", "NEUTRAL", "CONTRADICTION"], [1, 2, 0])
    opened = BertEstimator(estimator.family, at(tmp_path / "run"), estimator.learning, theirs)
    assert list(opened.predict(sets["dev_matched"])) == list(estimator.predict(sets["dev_matched"]))
    assert opened.evaluate(sets["dev_mismatched"]).values == told["dev_mismatched"]
    # The directory as it stands, too.
    served = open_finetuned_model(Path(theirs))
    assert list(served.predict(sets["dev_matched"])) == list(estimator.predict(sets["dev_matched"]))


def test_labels_without_names_are_taken_in_their_order(mnli, tmp_path):
    estimator, _, sets = mnli
    model = Path(estimator.run.model_dir) / "model"
    unnamed = relabelled(model, tmp_path / "unnamed", ["LABEL_0", "LABEL_1", "LABEL_2"], [0, 1, 2])
    opened = BertEstimator(estimator.family, at(tmp_path / "run"), estimator.learning, unnamed)
    assert list(opened.predict(sets["dev_matched"])) == list(estimator.predict(sets["dev_matched"]))


@pytest.mark.parametrize("task", ["RTE", "STS-B", "MRPC"])
def test_a_classifier_of_other_labels_is_made_anew_and_told(mnli, tmp_path, task):
    told = []
    model = Path(mnli[0].run.model_dir) / "model"
    opened = BertEstimator(TextFamily(find_task(task)), at(tmp_path), LEARNING, str(model), notify=told.append)
    encoder = len(weights(model)) - 2
    assert told == [
        f"{model}: {encoder} tensors loaded",
        "  newly made: classifier.weight, classifier.bias",
        "  left out (its labels are not the task's): classifier.weight, classifier.bias",
    ]
    with pytest.raises(InputError, match=r"classifier.weight has never been trained"):
        opened.evaluate([Example("test", ("a", "b"), 0, "0")])
    pooler = opened.model.encoder.pooler.kernel.numpy().T
    np.testing.assert_array_equal(pooler, weights(model)["bert.pooler.dense.weight"])


def test_labels_that_only_their_case_tells_apart_keep_their_places(mnli):
    found = dataclasses.replace(read_directory(Path(mnli[0].run.model_dir) / "model"), labels=("us", "US", "them"))
    weight = found.read("classifier.weight")
    same = fit_labels(found, ("US", "us", "them"), 3, required=True)
    np.testing.assert_array_equal(same.read("classifier.weight"), weight[[1, 0, 2]])
    with pytest.raises(
        InputError, match=r"its classifier has the labels us, US, them, but the task has Us, us, them; ch"
    ):
        fit_labels(found, ("Us", "us", "them"), 3, required=True)


def test_a_model_directory_says_its_task_and_predicts_the_same_bit_for_bit(mrpc, place):
    estimator, told = mrpc
    directory = place / "mrpc" / "model"
    assert sorted(path.name for path in directory.iterdir()) == [
        "config.json",
        "lineage.json",
        "model.safetensors",
        "task.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    config = json.loads((directory / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"] and config["finetuning_task"] == "MRPC"
    assert config["id2label"] == {"0": "0", "1": "1"} and config["label2id"] == {"0": 0, "1": 1}
    assert config["problem_type"] == "single_label_classification"
    task = json.loads((directory / "task.json").read_text())
    assert task["max_seq_length"] == 48 and task["task"]["family"] == "text"
    lineage = json.loads((directory / "lineage.json").read_text())
    assert lineage["metrics"] == told and lineage["init"]["source"] == str(place / "init")
    assert {key: lineage["finetuning"][key] for key in ("task", "step", "learning_rate", "seed")} == {
        "task": "MRPC",
        "step": 45,
        "learning_rate": 3e-3,
        "seed": 1,
    }
    dev = MRPC.read(str(place / "glue"), "dev")
    for path in (directory, place / "mrpc"):
        opened = open_finetuned_model(path)
        assert opened.family == MRPC and opened.max_seq_length == 48
        assert list(opened.predict(dev)) == list(estimator.predict(dev))
    assert opened.evaluate(dev).values == told["dev"]


def test_an_exported_saved_model_gives_the_scores_of_predict(mrpc, place, tmp_path):
    estimator, _ = mrpc
    examples = MRPC.read(str(place / "glue"), "dev")
    exported = Exported(estimator.export_saved_model(tmp_path / "mrpc"))
    assert exported.version == 1
    told = list(estimator.predict(examples))
    first, second = zip(*(example.texts for example in examples), strict=True)
    answers = exported({"text": first, "text_pair": second})
    assert answers["label"].tolist() == [answer["label"].encode() for answer in told]
    scores = [list(answer["scores"].values()) for answer in told]
    np.testing.assert_allclose(answers["scores"], scores, atol=1e-5)


def test_the_labels_of_a_model_directory_are_the_words_of_its_task(mnli):
    config = json.loads((Path(mnli[0].run.model_dir) / "model" / "config.json").read_text())
    assert config["id2label"] == {str(number): label for number, label in enumerate(glue_files.LABELS["MNLI"])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda task: task.pop("max_seq_length"), r"task.json: is not a task that .* has written \('max_seq_length'\)"),
        (lambda task: task.update(max_seq_length=65), r"has written \(max_seq_length 65 of 64 positions\); restore it"),
        (lambda task: task["task"].update(family="image"), r"has written \('image'\); restore it"),
        (lambda task: task["task"].update(kind="ranking"), r"has written \(kind: Input should be 'classification', "),
        (lambda task: task["task"].update(labels=["0", "1", "2"]), r"its classifier has the labels 0, 1, but the task"),
    ],
)
def test_a_model_directory_whose_task_is_damaged_is_refused(mrpc, place, tmp_path, change, message):
    shutil.copytree(place / "mrpc" / "model", tmp_path / "model")
    task = json.loads((tmp_path / "model" / "task.json").read_text())
    change(task)
    (tmp_path / "model" / "task.json").write_text(json.dumps(task))
    with pytest.raises(InputError, match=message) as caught:
        open_finetuned_model(tmp_path / "model")
    assert "\n" not in str(caught.value)
