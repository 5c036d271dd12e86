"""The jobs in configs/azure: commands that the package has, in the sizes of AzureML-BERT's notebooks."""

import shlex

import golden_files
import pytest

from tf_bert import cli, config
from tf_bert.azure.job import AzureJob, fill_placeholders, placeholders_of, read_job
from tf_bert.azure.pipeline import read_pipeline
from tf_bert.azure.vm_sizes import gpus_of
from tf_bert.commands.arguments import parse_overrides

JOBS = sorted(path.stem for path in golden_files.CONFIGS.glob("*.yaml") if path.stem != "pipeline")
CLASSES = {
    "fetch wikipedia": config.FetchWikipediaConfig,
    "fetch glue": config.FetchGlueConfig,
    "prepare": config.PrepareConfig,
    "pretrain": config.PretrainConfig,
    "finetune": config.FinetuneConfig,
    "glue": config.GlueConfig,
}


def job(name: str) -> AzureJob:
    return read_job(golden_files.CONFIGS / f"{name}.yaml").job


def commands(name):
    """The configurations of a job's commands, as their own process would read them; None for commands without one."""
    found = job(name)
    values = dict.fromkeys(placeholders_of(found.command), "/absent/place")
    values["search_space.learning_rate"] = "3e-5"
    for text in fill_placeholders(found.command, values).split("&&"):
        program, *words = shlex.split(text)
        assert program == "tf-bert"
        command, arguments = cli._find_command(words)
        if command in CLASSES:
            overrides = parse_overrides(arguments)
            yield command, config.load(CLASSES[command], overrides.pop("config", None), overrides)
        else:
            yield command, arguments


@pytest.mark.parametrize("name", JOBS)
def test_every_command_is_one_that_the_package_has(name, monkeypatch, capsys):
    monkeypatch.chdir(golden_files.ROOT)  # `code` is what the command runs in
    for command, read in commands(name):
        if command in CLASSES:
            assert isinstance(read, CLASSES[command])
        else:  # stops at the first file that it looks for, with its arguments understood
            assert cli.main([command, *read]) == 1
            assert "/absent/place" in capsys.readouterr().err


@pytest.mark.parametrize("name", JOBS)
def test_every_file_says_how_to_send_it(name):
    text = (golden_files.CONFIGS / f"{name}.yaml").read_text()
    verb = "sweep" if job(name).sweep else "submit"
    assert text.startswith("# ") and f"tf-bert azure {verb} configs/azure/{name}.yaml" in text


@pytest.mark.parametrize(("size", "steps", "rate"), [("base", 125_000, 4e-4), ("large", 187_000, 2e-4)])
def test_pretraining_is_sixteen_nodes_of_four_gpus(size, steps, rate, monkeypatch):
    monkeypatch.chdir(golden_files.ROOT)
    found = job(f"pretrain-{size}")
    assert (found.nodes, found.processes_per_node, gpus_of(found.vm_size)) == (16, 4, 4)
    [(_, run)] = commands(f"pretrain-{size}")
    assert (run.training.num_train_steps, run.optimizer.learning_rate) == (steps, rate)
    assert (run.training.microbatch_size, config.accumulation_steps(run.training, world_size=64)) == (4, 16)
    # What a preemption costs at most, and what stays for good: a checkpoint of large is 4 GB.
    assert (run.cadence.checkpoint_every, run.cadence.keep_every) == (500, 25_000)
    assert "run-id" not in found.outputs["run"].path and "${{name}}" not in found.outputs["run"].path
    assert found.register.path == "model"


def test_mrpc_runs_on_one_gpu_with_the_settings_of_the_notebook():
    found = job("finetune-mrpc")
    assert (found.nodes, found.processes_per_node, gpus_of(found.vm_size)) == (1, 1, 1)
    [(_, run)] = commands("finetune-mrpc")
    assert (run.max_seq_length, run.global_batch_size, run.learning_rate, run.num_train_epochs) == (128, 32, 2e-5, 3)


def test_the_sweep_is_that_of_the_notebook():
    found = job("sweep-mrpc")
    sweep = found.sweep
    assert (sweep.max_total_trials, sweep.max_concurrent_trials, sweep.goal) == (8, 2, "maximize")
    assert (sweep.bandit.slack_factor, sweep.bandit.evaluation_interval, sweep.bandit.delay_evaluation) == (0.10, 1, 25)
    assert sweep.parameters["learning_rate"].log_uniform == (1e-5, 1e-4)
    [(_, run)] = commands("sweep-mrpc")
    # More reports of the metric in a run than the policy waits for; MRPC has 3,668 training examples.
    assert 3 * (3668 // run.global_batch_size) // run.evaluate_every > sweep.bandit.delay_evaluation
    assert sweep.metric == "dev/accuracy"  # MRPC's split and metric, as the run logs them


def test_rte_accumulates_two_microbatches_of_eight_on_four_gpus():
    found = job("glue")
    assert (found.nodes, found.processes_per_node, gpus_of(found.vm_size)) == (1, 4, 4)
    [(_, run)] = commands("glue")
    assert (run.tasks, run.max_seq_length, run.learning_rate, run.num_train_epochs) == (("RTE",), 128, 2e-5, 3)
    assert run.global_batch_size == 2 * 8 * 4 and run.microbatch_size == 8


def test_prepare_is_an_mpi_job_over_the_nodes():
    found = job("prepare")
    assert found.is_distributed and found.nodes == 4
    [(_, run)] = commands("prepare")
    assert (run.engine, run.max_seq_length) == ("mpi", 512)


def test_the_pipeline_hands_on_what_its_steps_write():
    file = read_pipeline(golden_files.CONFIGS / "pipeline.yaml")
    assert list(file.jobs) == ["fetch", "prepare", "pretrain", "glue"]
    for name, step in file.pipeline.steps.items():
        for given, source in step.inputs.items():
            earlier, _, output = source.partition(".")
            # A job on its own reads where the step before it writes.
            assert file.jobs[name].job.inputs[given].path == file.jobs[earlier].job.outputs[output].path
