"""All of GLUE in one command: a real run that is killed and goes on, its table, its submission, its complaints."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import matplotlib.image
import pytest
from glue_files import file_of, write_glue
from tiny_model import write_tiny_model

from tf_bert import cli
from tf_bert.config import GlueConfig, load
from tf_bert.errors import InputError, UsageError
from tf_bert.finetuning.examples import read_examples
from tf_bert.finetuning.glue import glue, plan
from tf_bert.finetuning.glue_table import TaskResults, format_table, glue_score
from tf_bert.finetuning.model_directory import open_finetuned_model
from tf_bert.finetuning.run import Result
from tf_bert.finetuning.tasks import TASKS

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parent.parent.parent / "configs"
SETTINGS = {
    "tasks": ["MNLI", "AX", "RTE", "STS-B"],
    "seeds": "2",
    "max_seq_length": "32",
    "global_batch_size": "8",
    "learning_rate": "3e-3",
    "num_train_epochs": "2",
    "from_mnli": "true",
    "overrides.STS_B.learning_rate": "1e-3",
    "overrides.STS_B.seeds": "1",
}
SEEDS = {"MNLI": (12345, 12346), "STS-B": (12345,), "RTE": (12345, 12346)}


def stamps(directory):
    """Times of writing and of the last change of every file, by path."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mtime_ns, path.stat().st_ctime_ns)
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with `glue` and `model`."""
    directory = tmp_path_factory.mktemp("glue")
    write_glue(directory / "glue")
    write_tiny_model(directory / "model")
    return directory


@pytest.fixture(scope="module")
def interrupted(place):
    """The run's settings, and what its first process had finished when it was killed."""
    settings = SETTINGS | {"data": str(place / "glue"), "init": str(place / "model"), "model_dir": str(place / "runs")}
    words = [sys.executable, "-m", "tf_bert.cli", "glue"]
    for key, value in settings.items():
        words += [f"--{key}", *([value] if isinstance(value, str) else value)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    last = place / "runs" / "STS-B" / "seed-12345"  # the first after MNLI's
    while not (last / "checkpoints").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    printed = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, printed
    return settings, stamps(place / "runs" / "MNLI")


@pytest.fixture(scope="module")
def finished(place, interrupted):
    """What was told, the results, and the directory, after a second process has gone on."""
    told = []
    results = glue(load(GlueConfig, None, interrupted[0]), notify=told.append)
    return told, results, place / "runs"


def results_of(runs, task):
    return [json.loads((runs / task / f"seed-{seed}" / "result.json").read_text()) for seed in SEEDS[task]]


def test_finished_runs_stay_untouched_when_the_command_goes_on(place, interrupted, finished):
    before = interrupted[1]
    assert {f"seed-{seed}/result.json" for seed in SEEDS["MNLI"]} <= before.keys()
    assert any("checkpoints/step-" in path for path in before)
    assert {path: stamp for path, stamp in stamps(place / "runs" / "MNLI").items() if path in before} == before
    assert [line for line in finished[0] if line.endswith(f"see {place}/runs/MNLI/seed-12345")]
    assert "\nSTS-B, seed 12345" in finished[0] and "\nMNLI, seed 12345" not in finished[0]


def test_the_table_has_medians_and_range_of_the_runs(finished):
    told, results, runs = finished
    table = json.loads((runs / "glue.json").read_text())
    assert list(table["tasks"]) == ["STS-B", "MNLI", "RTE"] == [result.task.name for result in results]
    lines = [line.split() for line in told]
    for name, task in table["tasks"].items():
        found = results_of(runs, name)
        assert task["seeds"] == list(SEEDS[name])
        assert task["seconds"]["median"] == statistics.median(result["seconds"] for result in found)
        assert list(task["metrics"]) == list(found[0]["metrics"]) == [split.name for split in TASKS[name].dev_splits]
        for split, metrics in task["metrics"].items():
            assert tuple(metrics) == TASKS[name].metrics
            for metric, spread in metrics.items():
                values = [result["metrics"][split][metric] for result in found]
                expected = (statistics.median(values), min(values), max(values))
                assert (spread["median"], spread["lowest"], spread["highest"]) == expected
                assert spread["values"] == values
                numbers = [f"{value:.4f}" for value in expected]
                assert any(line[-len(numbers) :] == numbers or numbers == line[3:6] for line in lines), (metric, told)
    assert table["glue_score"] is None
    assert (
        "\nNo GLUE score: it is the mean over nine tasks, of which CoLA, SST-2, MRPC, QQP, QNLI, WNLI are not here."
        in told
    )


def test_markdown_and_picture_show_the_same(finished):
    table = json.loads((finished[2] / "glue.json").read_text())["tasks"]
    lines = (finished[2] / "glue.md").read_text().splitlines()
    assert lines[2] == "| task | file | metric | median | lowest | highest | seeds | time of a run |"
    assert lines[3] == "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |"
    spread = table["RTE"]["metrics"]["dev"]["accuracy"]
    numbers = " | ".join(f"{spread[key]:.4f}" for key in ("median", "lowest", "highest"))
    assert any(line.startswith(f"| RTE | dev | accuracy | {numbers} | 2 | ") for line in lines)
    assert sum(line.startswith("| ") for line in lines) == 2 + 6
    assert matplotlib.image.imread(finished[2] / "glue.png").shape[2] == 4


def test_the_submission_has_what_the_median_seeds_predict(place, finished):
    told, results, runs = finished
    with zipfile.ZipFile(runs / "submission.zip") as packed:
        assert packed.namelist() == ["STS-B.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "RTE.tsv", "AX.tsv"]
        content = {name: packed.read(name).decode().splitlines() for name in packed.namelist()}
    assert told[-1].startswith(f"{runs}/submission.zip: predictions for STS-B, MNLI-m, MNLI-mm, RTE, AX; the GLUE site")
    for result in results:
        name, metric = result.task.name, result.task.primary_metric
        split = result.task.dev_splits[0].name
        ascending = sorted(results_of(runs, name), key=lambda found: found["metrics"][split][metric])
        seed = ascending[(len(ascending) - 1) // 2]["seed"]
        assert result.median_result.seed == seed
        predictor = open_finetuned_model(runs / name / f"seed-{seed}")
        for task in (result.task, *([TASKS["AX"]] if name == "MNLI" else [])):
            for test in task.test_splits:
                examples = list(read_examples(task, place / "glue", test.name))
                lines = content[f"{test.submission}.tsv"]
                assert lines[0] == "index\tprediction" and len(lines) == 1 + len(examples)
                for line, example, answer in zip(lines[1:], examples, predictor.predict(examples), strict=True):
                    word = answer.get("label") or f"{min(max(answer['score'], 0.0), 5.0):.3f}"
                    assert line == f"{example.index}\t{word}"


def test_tasks_start_from_the_first_mnli_model_where_asked(place, finished):
    for name, seeds in SEEDS.items():
        source = place / "model" if name == "MNLI" else finished[2] / "MNLI" / "seed-12345" / "model"
        for seed in seeds:
            lineage = json.loads((finished[2] / name / f"seed-{seed}" / "model" / "lineage.json").read_text())
            assert lineage["init"]["source"] == str(source)


def test_overrides_are_for_their_task_alone(finished):
    rates = {name: {result["settings"]["learning_rate"] for result in results_of(finished[2], name)} for name in SEEDS}
    assert rates == {"MNLI": {3e-3}, "RTE": {3e-3}, "STS-B": {1e-3}}


def test_a_finished_command_does_nothing_again(interrupted, finished):
    runs = finished[2]
    before = stamps(runs)
    results = glue(load(GlueConfig, None, interrupted[0]), notify=lambda line: None)
    assert results == finished[1]
    rewritten = {path for path, stamp in stamps(runs).items() if before[path] != stamp}
    assert rewritten == {"glue.json", "glue.md", "glue.png", "submission.zip"}


def test_predictions_are_made_anew_for_another_file(interrupted, finished, place):
    path, predictions = place / "glue" / file_of("RTE", "test"), finished[2] / "submission" / "RTE.tsv"
    content, before = path.read_bytes(), predictions.read_bytes()
    config = load(GlueConfig, None, interrupted[0])
    for shown in (content.splitlines(keepends=True)[:3], [content]):
        path.write_bytes(b"".join(shown))
        told = []
        glue(config, notify=told.append)
        assert [line.partition(":")[0] for line in told if "predicting with" in line] == ["RTE"]
        lines = predictions.read_bytes().splitlines(keepends=True)
        assert lines == before.splitlines(keepends=True)[: len(b"".join(shown).splitlines())]


# --- the score -----------------------------------------------------------------------------------------------------


def of_values(task, **metrics):
    """One seed's results that are given as percent, the same for all files of the task but where a pair is given."""
    splits = [split.name for split in TASKS[task].dev_splits]
    values = {
        split: {name: (value[place] if isinstance(value, tuple) else value) / 100 for name, value in metrics.items()}
        for place, split in enumerate(splits)
    }
    return TaskResults(TASKS[task], (Result(1, 1.0, values),))


def test_the_score_is_that_of_the_glue_site():
    # BERT-large on https://gluebenchmark.com/leaderboard: 80.5. Metrics that the site does not have must not count.
    published = [
        of_values("CoLA", matthews=60.5, accuracy=1.0),
        of_values("SST-2", accuracy=94.9),
        of_values("MRPC", f1=89.3, accuracy=85.4),
        of_values("STS-B", pearson=87.6, spearman=86.5, mse=999.0),
        of_values("QQP", f1=72.1, accuracy=89.3),
        of_values("MNLI", accuracy=(86.7, 85.9)),
        of_values("QNLI", accuracy=92.7),
        of_values("RTE", accuracy=70.1),
        of_values("WNLI", accuracy=65.1),
    ]
    assert round(glue_score(published), 1) == 80.5
    assert format_table(published)[-1] == "\nGLUE score of the dev files, the mean of the nine tasks' medians: 80.5"
    assert glue_score(published[1:]) is None


def test_of_two_runs_in_the_middle_the_lower_one_predicts():
    results = tuple(Result(seed, 1.0, {"dev": {"accuracy": value}}) for seed, value in enumerate((0.9, 0.2, 0.6, 0.7)))
    assert TaskResults(TASKS["RTE"], results).median_result.seed == 2


# --- what is planned, and what is wrong ----------------------------------------------------------------------------


def planned(place, told=None, **changes):
    values = {"data": str(place / "glue"), "init": str(place / "model"), "model_dir": str(place / "none"), **changes}
    return plan(load(GlueConfig, None, values), (told if told is not None else []).append)


def test_all_is_every_task_that_is_there(place, tmp_path):
    told = []
    tasks = planned(place, told)
    assert [task.task.name for task in tasks] == [name for name in TASKS if name != "AX"] and told == []
    predicted = {split for task in tasks for _, split, _ in task.predicted}
    assert predicted == {"test", "test_matched", "test_mismatched"}
    shutil.copytree(place / "glue", tmp_path / "glue")
    shutil.rmtree(tmp_path / "glue" / "QQP")
    (tmp_path / "glue" / "MNLI" / "dev_mismatched.tsv").unlink()
    (tmp_path / "glue" / "RTE" / "test.tsv").unlink()
    tasks = planned(tmp_path, told)
    assert [task.task.name for task in tasks] == ["CoLA", "SST-2", "MRPC", "STS-B", "QNLI", "RTE", "WNLI"]
    assert told[0].startswith(
        f"QQP: is left out: {tmp_path}/glue: has no directory QQP, found 'CoLA', 'MNLI', 'MRPC', "
    )
    assert told[0].endswith("; `tf-bert fetch glue --tasks QQP` downloads it")
    assert told[1].startswith(
        f"MNLI: is left out: {tmp_path}/glue/MNLI: has no dev_mismatched.tsv, the dev_mismatched "
    )
    assert told[2] == "AX: is left out: it is predicted with the model of MNLI, which is not trained"
    assert told[3].startswith(f"RTE: is not predicted: {tmp_path}/glue/RTE: has no test.tsv, the test file of RTE; ")
    assert len(told) == 4


def test_the_recipe_says_what_the_paper_says(place):
    config = load(GlueConfig, str(CONFIGS / "glue.yaml"), {"data": str(place / "glue"), "init": str(place / "model")})
    tasks = {task.task.name: task.runs for task in plan(config, print)}
    assert {name: len(runs) for name, runs in tasks.items() if len(runs) != 3} == dict.fromkeys(
        ("CoLA", "MRPC", "STS-B", "RTE", "WNLI"), 5
    )
    for runs in tasks.values():
        assert {
            (run.max_seq_length, run.global_batch_size, run.learning_rate, run.num_train_epochs) for run in runs
        } == {(128, 32, 2e-5, 3.0)}
        assert {run.num_warmup_steps for run in runs} == {None} and len({run.model_dir for run in runs}) == len(runs)


def refusal(place, error=UsageError, **changes):
    with pytest.raises(error) as caught:
        planned(place, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_typos_are_one_line_with_the_right_word(place):
    assert refusal(place, tasks=["RTE", "MRCP"]) == "tasks: found 'MRCP'; did you mean 'MRPC'?"
    assert refusal(place, **{"overrides.RET.seeds": "5"}) == "overrides: found 'RET'; did you mean 'RTE'?"
    assert (
        refusal(place, **{"overrides.RTE.learning_rat": "5"})
        == "overrides.RTE: unknown key 'learning_rat'; did you mean 'learning_rate'?"
    )
    assert refusal(place, **{"overrides.RTE.task": "CoLA"}).startswith(
        "overrides.RTE: unknown key 'task'; expected one of max_seq_length, global_batch_size, "
    )
    assert refusal(place, **{"overrides.RTE.learning_rate": "fast"}).startswith(
        "overrides.RTE: learning_rate: found 'fast': Input should be a valid number"
    )


def test_what_cannot_be_done_is_one_line(place, tmp_path):
    assert refusal(place, tasks="AX") == (
        "tasks: AX is predicted with the model of MNLI, which is not among them; add it"
    )
    assert refusal(place, tasks="RTE", from_mnli="true") == (
        "from_mnli: found true without the task MNLI; add it, or set from_mnli to false"
    )
    assert refusal(place, InputError, data=str(tmp_path / "absent"), tasks="RTE") == (
        f"{tmp_path}/absent: has no directory RTE, found nothing; `tf-bert fetch glue --tasks RTE` downloads it"
    )
    assert refusal(place, InputError, data=str(tmp_path)) == (
        f"{tmp_path}: has the files of none of GLUE's tasks; `tf-bert fetch glue` downloads them"
    )


def test_a_bad_row_is_told_before_anything_is_trained(place, tmp_path):
    shutil.copytree(place / "glue", tmp_path / "glue")
    path = tmp_path / "glue" / file_of("WNLI", "test")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"7\tone text\n", *lines[4:]]))
    config = GlueConfig(
        tasks=("RTE", "WNLI"),
        data=str(tmp_path / "glue"),
        init=str(place / "model"),
        model_dir=str(tmp_path / "runs"),
    )
    with pytest.raises(InputError, match=r"WNLI/test\.tsv: line 4: found 2 field\(s\), expected 3 "):
        glue(config, notify=print)
    assert os.listdir(tmp_path) == ["glue"]


def test_the_command_ends_with_2_and_a_line(place, capsys):
    assert cli.main(["glue", "--tasks", "MRCP", "--data", str(place / "glue")]) == 2
    assert capsys.readouterr().err == "tf-bert glue: tasks: found 'MRCP'; did you mean 'MRPC'?\n"
    assert cli.main(["glue", "--task", "MRPC"]) == 2
    assert capsys.readouterr().err == "tf-bert glue: command line: unknown key 'task'; did you mean 'tasks'?\n"
