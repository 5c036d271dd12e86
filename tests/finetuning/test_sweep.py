"""Sweeps: what is drawn, when a run is given up, a real one that is killed and goes on, what TensorBoard reads."""

import json
import math
import signal
import subprocess
import sys
import time

import pytest
from glue_files import write_glue
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context
from tiny_model import write_tiny_model

from tf_bert import cli
from tf_bert.config import BanditConfig, SweepConfig, load
from tf_bert.errors import InputError, UsageError
from tf_bert.finetuning.bandit import falls_behind
from tf_bert.finetuning.model_directory import open_finetuned_model
from tf_bert.finetuning.sweep import sweep
from tf_bert.finetuning.sweep_space import draw
from tf_bert.finetuning.sweep_table import SweepTable, Trial

pytestmark = pytest.mark.slow

# --- the bandit ----------------------------------------------------------------------------------------------------


def decisions(curve, others, higher_is_better=True, **policy):
    """After which evaluations of `curve`, counted from 1, it would be given up."""
    config = BanditConfig(**policy)
    return [
        number for number in range(1, len(curve) + 1) if falls_behind(config, higher_is_better, curve[:number], others)
    ]


def test_the_example_of_azures_documentation():
    # "the best performing job at interval 10 reported a primary metric of 0.8 with a goal to maximize [...] with a
    # slack_factor of 0.2, jobs whose best metric at interval 10 is less than 0.66 (0.8/(1+slack_factor)) terminate"
    best = [0.1] * 9 + [0.8]
    assert decisions([0.0] * 9 + [0.66], [best], slack_factor=0.2, evaluation_interval=10) == [10]
    assert decisions([0.0] * 9 + [0.67], [best], slack_factor=0.2, evaluation_interval=10) == []


def test_a_run_is_held_against_the_best_at_the_same_evaluation():
    slow, late = [0.2, 0.4, 0.6, 0.8], [0.1, 0.1, 0.9]
    assert decisions([0.3, 0.3, 0.3, 0.3], [slow], slack_factor=0.1) == [2, 3, 4] == [2, 3, 4]
    assert decisions([0.3, 0.3, 0.3, 0.3], [slow, late], slack_factor=1.0) == [3, 4]  # 0.9 / 2, then 0.8 / 2
    assert decisions([0.5, 0.5], [[0.6]], slack_factor=0.1) == [1]  # 0.6 / 1.1 is more; then it is alone
    assert decisions([0.5], [], slack_factor=0.1) == [] == decisions([0.5], [[]], slack_factor=0.1)


def test_the_best_value_so_far_counts_of_both():
    assert decisions([0.9, 0.1, 0.1], [[0.5, 0.8, 0.7]], slack_factor=0.1) == []
    assert decisions([0.6, 0.6, 0.6], [[0.9, 0.1, 0.1]], slack_factor=0.2) == [1, 2, 3]


def test_interval_and_delay():
    best, curve = [1.0] * 7, [0.1] * 7
    assert decisions(curve, [best], slack_factor=0.1, evaluation_interval=2) == [2, 4, 6]
    assert decisions(curve, [best], slack_factor=0.1, evaluation_interval=2, delay_evaluation=5) == [6]
    assert decisions(curve, [best], slack_factor=0.1, delay_evaluation=5) == [5, 6, 7]
    assert decisions(curve, [best]) == []


def test_lower_may_be_better_and_values_may_be_negative():
    assert decisions([1.09, 1.11], [[1.0, 1.0]], higher_is_better=False, slack_factor=0.1) == []  # its best is 1.09
    assert decisions([1.11, 1.2], [[1.0, 1.0]], higher_is_better=False, slack_factor=0.1) == [1, 2]
    # Matthews: 0.1 / 1.1 of the size is allowed below; equals are never behind.
    assert decisions([-0.2, -0.2], [[-0.2, -0.2]], slack_factor=0.1) == []
    assert decisions([-0.21], [[-0.2]], slack_factor=0.1) == [] and decisions([-0.23], [[-0.2]], slack_factor=0.1) == [
        1
    ]
    assert decisions([0.0], [[0.0]], slack_factor=0.1) == [] and decisions([-0.01], [[0.0]], slack_factor=0.1) == [1]


# --- what is drawn -------------------------------------------------------------------------------------------------


def config_of(**values):
    return load(SweepConfig, None, values)


def test_a_grid_is_every_combination():
    config = config_of(**{"space.learning_rate": ["2e-5", "3e-5"], "space.global_batch_size": ["16", "32", "16"]})
    assert [tuple(values.values()) for values in draw(config)] == [
        ("2e-5", "16"), ("2e-5", "32"), ("3e-5", "16"), ("3e-5", "32"),
    ]  # fmt: skip


RANDOM = {
    "search": "random",
    "space.learning_rate.log_uniform": ["1e-5", "1e-3"],
    "space.weight_decay_rate.uniform": ["0", "0.1"],
    "space.num_train_epochs": ["2", "3", "4"],
}


def test_draws_depend_on_seed_and_number_alone():
    few, many = (draw(config_of(**RANDOM, num_runs=count)) for count in ("5", "400"))
    assert many[:5] == few and draw(config_of(**RANDOM, num_runs="5", seed="7")) != few
    rates, decays = ([values[name] for values in many] for name in ("learning_rate", "weight_decay_rate"))
    assert all(1e-5 <= rate <= 1e-3 for rate in rates) and all(0.0 <= decay <= 0.1 for decay in decays)
    # Half of all rates are below the geometric middle, half of all decays below the arithmetic one: 400 draws, 4 sigma.
    assert abs(sum(math.log10(rate) < -4 for rate in rates) - 200) < 40
    assert abs(sum(decay < 0.05 for decay in decays) - 200) < 40
    assert {values["num_train_epochs"] for values in many} == {"2", "3", "4"}
    assert all(float(f"{rate:.4g}") == rate for rate in rates)


def test_settings_do_not_come_twice():
    config = config_of(**{"search": "random", "num_runs": "50", "space.global_batch_size": ["8", "16", "32"]})
    assert sorted(values["global_batch_size"] for values in draw(config)) == ["16", "32", "8"]


# --- the table -----------------------------------------------------------------------------------------------------


def test_the_best_run_is_the_one_with_the_best_evaluation():
    trials = [
        Trial(
            1, {"learning_rate": 2e-5, "num_warmup_steps": None}, "a", "finished", 61.0, [0.7, 0.9, 0.8], [10, 20, 30]
        ),
        Trial(2, {"learning_rate": 0.25, "num_warmup_steps": 7}, "b", "diverged", 5.0),
        Trial(3, {"learning_rate": 3e-5, "num_warmup_steps": 1}, "c|d", "given up", 5.0, [0.85], [1000]),
    ]
    table = SweepTable(trials, "f1", True)
    assert [trial.number for trial in table.in_order()] == [1, 3, 2]
    assert table.text() == [
        "run  learning_rate  num_warmup_steps      f1  at step  evaluations   time",
        "1            2e-05              null  0.9000       20            3  01:01  finished",
        "3            3e-05                 1  0.8500    1,000            1  00:05  given up",
        "2             0.25                 7                             0  00:05  diverged",
        "",
        "Best: run 1 (learning_rate 2e-05, num_warmup_steps null), f1 0.9000, model in a/best",
    ]
    assert table.markdown()[:5] == [
        "# Sweep",
        "",
        "| run | learning_rate | num_warmup_steps | f1 | at step | evaluations | time |  |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| 1 | 2e-05 | null | 0.9000 | 20 | 3 | 01:01 | finished |",
    ]
    assert [trial.number for trial in SweepTable(trials, "mse", False).in_order()] == [1, 3, 2]
    assert SweepTable(trials, "mse", False).best()["step"] == 10
    assert SweepTable(trials[1:2], "f1", True).text()[-1] == "No run has been evaluated."


# --- a real sweep --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sweep")
    write_glue(directory / "glue")
    write_tiny_model(directory / "model")
    return directory


def settings(place, model_dir="runs", **changes):
    return {
        "task": "RTE",
        "data": str(place / "glue"),
        "init": str(place / "model"),
        "model_dir": str(place / model_dir),
        "max_seq_length": "32",
        "global_batch_size": "8",
        "num_train_epochs": "12",
        **changes,
    }


REAL = {
    "space.learning_rate": ["3e-3", "1e-7", "2e-3"],
    "bandit.slack_factor": "0.2",
    "bandit.evaluation_interval": "2",
    "bandit.delay_evaluation": "3",
}


def stamps(directory):
    return {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def swept(place):
    """A sweep that is killed in its second run and goes on: directory, what was told, and what was done before."""
    words = [sys.executable, "-m", "tf_bert.cli", "sweep"]
    for key, value in settings(place, **REAL).items():
        words += [f"--{key}", *([value] if isinstance(value, str) else value)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (place / "runs" / "run-002" / "run.json").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    printed = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, printed
    before = stamps(place / "runs" / "run-001")
    told = []
    trials = sweep(load(SweepConfig, None, settings(place, **REAL)), notify=told.append)
    return place / "runs", told, trials, before


def test_a_finished_run_stays_untouched_when_the_sweep_goes_on(swept):
    directory, told, trials, before = swept
    assert any("checkpoints/step-" in str(path) for path in before)
    assert stamps(directory / "run-001") == before
    assert [line for line in told if line.startswith("\nrun ")] == [
        "\nrun 2 of 3: learning_rate 1e-07", "\nrun 3 of 3: learning_rate 0.002",
    ]  # fmt: skip
    assert [trial.parameters for trial in trials] == [{"learning_rate": rate} for rate in (3e-3, 1e-7, 2e-3)]


def test_a_run_that_is_far_behind_is_given_up(swept):
    directory, told, trials, _ = swept
    first, second, third = trials
    assert first.state == "finished" and first.steps == [3 * epoch for epoch in range(1, 13)]
    # 1e-7 learns nothing. Evaluation 2 is before the delay, so 4 is the first that may decide.
    ends = next(number for number in (4, 6, 8, 10) if max(first.values[:number]) / 1.2 > 0.5)
    assert second.state == "given up" and second.values == [0.5] * ends and second.steps == first.steps[:ends]
    assert f"run 2 is given up after evaluation {ends}: it is far behind the best" in told
    lineage = json.loads((directory / "run-002" / "model" / "lineage.json").read_text())["finetuning"]
    assert (lineage["step"], lineage["num_train_steps"], lineage["learning_rate"]) == (3 * ends, 36, 1e-7)
    behind = [n for n in (4, 6, 8, 10) if max(third.values[:n]) < max(first.values[:n]) / 1.2]
    assert len(third.values) == (behind or [12])[0] and third.state == ("given up" if behind else "finished")


def test_the_state_has_what_the_runs_wrote(swept):
    directory, told, trials, _ = swept
    state = json.loads((directory / "sweep.json").read_text())
    for run, trial in zip(state["runs"], trials, strict=True):
        lines = (directory / f"run-{run['number']:03d}" / "evaluations.jsonl").read_text().splitlines()
        evaluations = [json.loads(line) for line in lines]
        assert run["values"] == [evaluation["metrics"]["dev"]["accuracy"] for evaluation in evaluations] == trial.values
        assert run["steps"] == [evaluation["step"] for evaluation in evaluations]
        result = json.loads((directory / f"run-{run['number']:03d}" / "result.json").read_text())
        assert (run["metrics"], run["seconds"]) == (result["metrics"], result["seconds"])
    value = max(value for trial in trials for value in trial.values)
    best = next(trial for trial in trials if value in trial.values)
    step = best.steps[best.values.index(value)]
    path = f"{directory}/run-{best.number:03d}/best"
    assert state["best"] == {
        "number": best.number, "parameters": best.parameters, "accuracy": value, "step": step, "model": path,
    }  # fmt: skip
    predictor = open_finetuned_model(directory / f"run-{best.number:03d}" / "best")
    examples = predictor.family.read(str(directory.parent / "glue"), "dev")
    assert predictor.evaluate(examples).values == {"accuracy": value}
    rate = f"learning_rate {best.parameters['learning_rate']:g}"
    verdict = f"Best: run {best.number} ({rate}), accuracy {value:.4f}, model in {path}"
    assert verdict in told and (directory / "sweep.md").read_text().endswith(f"\n{verdict}\n")


def sessions(directory):
    """Session groups as TensorBoard's hparams plugin has them, by name."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(directory))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(directory))
    backend, context = Context(TBContext(data_provider=provider)), RequestContext()
    metadata = backend.hparams_metadata(context, "")
    experiment = backend.experiment_from_metadata(context, "", True, metadata, [])
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=100,
        aggregation_type=api_pb2.AGGREGATION_AVG,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING],
    )
    found = list_session_groups.Handler(context, backend, "", request).run()
    return experiment, {group.name: group for group in found.session_groups}


def test_tensorboards_plugin_reads_settings_and_metrics(swept):
    directory, _, trials, _ = swept
    experiment, groups = sessions(directory)
    (info,) = experiment.hparam_infos
    assert info.name == "learning_rate" and [value.number_value for value in info.domain_discrete.values] == [
        1e-7,
        2e-3,
        3e-3,
    ]
    assert [metric.name.tag for metric in experiment.metric_infos] == ["dev/accuracy"]
    assert groups.keys() == {"run-001", "run-002", "run-003"}
    for trial in trials:
        group = groups[f"run-{trial.number:03d}"]
        assert group.hparams["learning_rate"].number_value == trial.parameters["learning_rate"]
        (session,) = group.sessions
        assert session.status == api_pb2.STATUS_SUCCESS
        assert session.end_time_secs - session.start_time_secs == pytest.approx(trial.seconds)
        (metric,) = session.metric_values
        assert metric.name.tag == "dev/accuracy" and metric.value == pytest.approx(trial.values[-1])
        assert metric.training_step == trial.steps[-1]


def test_a_finished_sweep_runs_nothing_again(place, swept):
    before = stamps(swept[0])
    told = []
    assert sweep(load(SweepConfig, None, settings(place, **REAL)), notify=told.append) == swept[2]
    assert not [line for line in told if line.startswith("\nrun ")]
    assert {path: stamp for path, stamp in stamps(swept[0]).items() if path in before} == before


def test_another_sweep_does_not_go_on_in_the_same_directory(place, swept):
    with pytest.raises(UsageError) as caught:
        sweep(load(SweepConfig, None, settings(place, **REAL, weight_decay_rate="0.1")), notify=print)
    assert str(caught.value) == (
        f"{swept[0]}/sweep.json: holds a sweep with weight_decay_rate 0.01, found 0.1; choose another model_dir, or "
        "remove this one to start over"
    )
    path = swept[0] / "sweep.json"
    content = path.read_text()
    path.write_text('{"settings": {}, "runs": [{"number": 1}]}')
    with pytest.raises(
        InputError, match=r"sweep\.json: is not the state of a sweep \(.*; restore the file or remove it$"
    ):
        sweep(load(SweepConfig, None, settings(place, **REAL)), notify=print)
    path.write_text(content)


def test_a_run_that_diverges_does_not_end_the_sweep(place):
    space = {"space.learning_rate": ["1e30", "1e-3"], "num_train_epochs": "45", "evaluate_every": "1000"}
    told = []
    diverged, whole = sweep(load(SweepConfig, None, settings(place, "diverging", **space)), notify=told.append)
    assert (diverged.state, diverged.values, whole.state, len(whole.values)) == ("diverged", [], "finished", 1)
    assert [line for line in told if "the gradient was not finite for 100 steps in a row; lower learning_rate" in line]
    _, groups = sessions(place / "diverging")
    assert [session.status for session in groups["run-001"].sessions] == [api_pb2.STATUS_FAILURE]


# --- what is wrong -------------------------------------------------------------------------------------------------


def refusal(place, **changes):
    with pytest.raises(UsageError) as caught:
        sweep(load(SweepConfig, None, settings(place, "none", **changes)), notify=print)
    assert "\n" not in str(caught.value) and not (place / "none").exists()
    return str(caught.value).removeprefix("command line: ")


def test_what_is_wrong_is_one_line(place):
    assert refusal(place) == "space is empty; name settings and values, such as --space.learning_rate 2e-5 5e-5"
    typo = refusal(place, **{"space.learning_rat": "1"})
    assert typo == "space: unknown key 'learning_rat'; did you mean 'learning_rate'?"
    assert refusal(place, **{"space.task": "RTE"}).startswith(
        "space: unknown key 'task'; expected one of max_seq_length, "
    )
    assert refusal(place, **{"space.learning_rate": ["1e-5", "fast"]}).startswith(
        "space: learning_rate: found 'fast': Input should be a valid number"
    )
    assert refusal(place, **{"search": "random", "space.global_batch_size.uniform": ["8", "32"]}).startswith(
        "space: global_batch_size: found "
    )
    assert refusal(place, **{"space.learning_rate.uniform": ["1e-5", "1e-4"]}) == (
        "space.learning_rate is a range, but a grid needs lists; write a list, or search: random"
    )
    assert refusal(place, **{"space.learning_rate.log_unifrom": ["1e-5", "1e-4"]}) == (
        "space.learning_rate: found 'log_unifrom', expected one of choice, uniform, log_uniform"
    )
    assert refusal(place, **{"space.learning_rate.log_uniform": ["0", "1e-4"], "search": "random"}) == (
        "space.learning_rate: found log_uniform 0 to 0.0001, expected lowest < highest, above 0"
    )
    assert refusal(place, **{"space.learning_rate": []}) == "space.learning_rate: found an empty list, expected values"
    both = {"space.learning_rate.choice": ["1"], "space.learning_rate.uniform": ["1", "2"]}
    assert refusal(place, **both) == (
        "space.learning_rate: found choice and uniform, expected one of choice, uniform, log_uniform"
    )
    assert refusal(place, **{"space.learning_rate": "1e-5", "seeds": "3"}) == (
        "seeds is 3, but a run of a sweep has one seed; set it to 1"
    )
    assert refusal(place, **{"space.learning_rate": "1e-5", "test_file": "x.tsv"}) == (
        "test_file is set, but a sweep predicts nothing; leave it out and use `tf-bert predict`"
    )
    assert refusal(place, **{"space.learning_rate": "1e-5", "bandit.slack_factr": "1"}) == (
        "unknown key 'bandit.slack_factr'; did you mean 'bandit.slack_factor'?"
    )


def test_the_command_ends_with_2_and_a_line(place, capsys):
    words = [word for key, value in settings(place, "none").items() for word in (f"--{key}", value)]
    assert cli.main(["sweep", *words, "--space.learning_rat", "1e-5", "2e-5"]) == 2
    assert (
        capsys.readouterr().err == "tf-bert sweep: space: unknown key 'learning_rat'; did you mean 'learning_rate'?\n"
    )
