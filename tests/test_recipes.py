"""The recipes in configs/ say what their sources say."""

import re
from pathlib import Path

import pytest

from tf_bert.config import PretrainConfig, accumulation_steps, load, stage_runs
from tf_bert.models.flops import count_parameters

CONFIGS = Path(__file__).parent.parent / "configs"
FINETUNING = {CONFIGS / "glue.yaml"}  # its test is in tests/finetuning/test_glue.py


def stages(name):
    return [run.config for run in stage_runs(load(PretrainConfig, str(CONFIGS / f"{name}.yaml")))]


@pytest.fixture(scope="module")
def recipes(shared_dir):
    """Rows of the table of recipes: peak rate, warmup, schedule, global batch, steps, length by name."""
    lines = (shared_dir.parent / "recipes.md").read_text(encoding="utf-8").splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("| recipe | peak rate"))
    rows = {}
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        rows[name] = dict(zip(("rate", "warmup", "schedule", "batch", "steps", "length"), cells, strict=True))
    return rows


def numbers(text):
    """All numbers of a cell; "900k" is 900,000."""
    found = re.findall(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?k?", text)
    return [float(n.rstrip("k").replace(",", "")) * (1000 if n.endswith("k") else 1) for n in found]


@pytest.mark.parametrize("path", sorted({*CONFIGS.glob("*.yaml")} - FINETUNING), ids=lambda path: path.stem)
def test_every_recipe_loads_and_names_its_source(path):
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert stages(path.stem)


@pytest.mark.parametrize("size", ["base", "large"])
def test_the_paper(recipes, size):
    row = recipes["bert-base (paper)"]
    short, long = stages(f"bert-{size}")
    total, *of_stages = numbers(row["steps"])[0], numbers(row["steps"])[1], numbers(row["steps"])[3]
    assert [short.training.num_train_steps, long.training.num_train_steps] == of_stages and sum(of_stages) == total
    for stage in (short, long):
        assert stage.optimizer.learning_rate == float(row["rate"])
        assert [stage.optimizer.num_warmup_steps] == numbers(row["warmup"])
        assert (stage.optimizer.schedule, stage.optimizer.schedule_steps) == (row["schedule"], total)
        assert [stage.training.global_batch_size] == numbers(row["batch"])
        assert not stage.optimizer.bias_correction and stage.optimizer.weight_decay_rate == 0.01
    assert (short.optimizer.schedule_start, long.optimizer.schedule_start) == (0, of_stages[0])
    assert [int(stage.data.data_dir.rpartition("-")[2]) for stage in (short, long)] == numbers(row["length"])
    # P of `create_pretraining_data.py` at these lengths.
    assert (short.data.max_predictions_per_seq, long.data.max_predictions_per_seq) == (20, 80)


@pytest.mark.parametrize("size", ["base", "large"])
def test_azureml_bert(recipes, size):
    row = recipes[f"AzureML-BERT {size}"]
    (run,) = stages(f"azureml-bert-{size}")
    optimizer, training = run.optimizer, run.training
    assert optimizer.learning_rate == float(row["rate"])
    share, steps = numbers(row["warmup"])
    assert [training.num_train_steps] == numbers(row["steps"]) == [steps]
    assert optimizer.num_warmup_steps == share * steps
    factor, decay_steps = 0.99, numbers(row["schedule"])[-1]
    assert size == "large" or numbers(row["schedule"])[0] == factor  # the other row says "same"
    assert (optimizer.schedule, optimizer.decay_rate, optimizer.decay_steps) == ("exponential", factor, decay_steps)
    gpus, micro, accumulation = numbers(recipes["AzureML-BERT base"]["batch"])[1:]
    assert training.global_batch_size == numbers(row["batch"])[0] and training.microbatch_size == micro
    assert accumulation_steps(training, int(gpus)) == accumulation
    assert accumulation_steps(training, 4) == gpus * accumulation / 4  # a single node
    assert [int(run.data.data_dir.rpartition("-")[2])] == numbers(row["length"])


def test_nvidia_lamb(recipes):
    phases = stages("nvidia-lamb-large")
    for phase, name in zip(phases, ("NVIDIA LAMB phase 1 (8 GPUs)", "NVIDIA LAMB phase 2"), strict=True):
        row = recipes[name]
        assert phase.optimizer.name == "lamb" and phase.optimizer.learning_rate == float(row["rate"])
        assert [phase.optimizer.num_warmup_steps] == numbers(row["warmup"])
        assert [phase.optimizer.schedule, phase.optimizer.decay_power] == ["polynomial", *numbers(row["schedule"])]
        batch, micro, accumulation, gpus = numbers(row["batch"])
        assert (phase.training.global_batch_size, phase.training.microbatch_size) == (batch, micro)
        assert accumulation_steps(phase.training, int(gpus)) == accumulation
        assert [phase.training.num_train_steps] == numbers(row["steps"])
        assert [int(phase.data.data_dir.rpartition("-")[2])] == numbers(row["length"])
        assert (phase.optimizer.beta_1, phase.optimizer.beta_2, phase.optimizer.epsilon) == (0.9, 0.999, 1e-6)
        assert phase.optimizer.clip_norm == 1.0


def test_mosaic_bert(recipes):
    row = recipes["MosaicBERT"]
    (run,) = stages("mosaic-bert-schedule")
    (steps,) = numbers(row["steps"])
    assert run.optimizer.learning_rate == float(row["rate"]) and run.training.num_train_steps == steps
    assert run.optimizer.num_warmup_steps == numbers(row["warmup"])[0] / 100 * steps
    end = numbers(row["schedule"])[0] / 100 * float(row["rate"])
    assert (run.optimizer.schedule, run.optimizer.end_learning_rate) == ("linear", pytest.approx(end))
    assert [run.training.global_batch_size] == numbers(row["batch"])
    assert [int(run.data.data_dir.rpartition("-")[2])] == numbers(row["length"])


def test_cramming(recipes):
    row = recipes["cramming (24 h, one GPU)"]
    (run,) = stages("cramming-24h")
    length, masked_percent = numbers(row["length"])
    assert run.optimizer.learning_rate == float(row["rate"]) and run.optimizer.schedule == "time_budget"
    assert (run.training.time_budget_hours, run.optimizer.warmup_hours) == (24, 12)
    assert [run.training.global_batch_size] == numbers(row["batch"])
    assert int(run.data.data_dir.rpartition("-")[2]) == length and run.data.masked_lm_prob == masked_percent / 100
    assert "no dropout" in row["length"]
    assert run.model.hidden_dropout_prob == run.model.attention_probs_dropout_prob == 0.0


# Parameters without heads, in millions, as https://github.com/google-research/bert lists them for these sizes.
PUBLISHED = {"tiny": 4.4, "mini": 11.3, "small": 29.1, "medium": 41.7, "base": 110.1, "large": 340}


@pytest.mark.parametrize("size", PUBLISHED)
def test_sizes_have_as_many_parameters_as_published(size):
    config = load(PretrainConfig, None, {"model_size": size})
    assert count_parameters(config.model) / 1e6 == pytest.approx(PUBLISHED[size], rel=0.02)


def test_a_size_gives_way_to_what_model_says():
    config = load(
        PretrainConfig, None, {"model_size": "tiny", "model.num_hidden_layers": "3", "model.vocab_size": "99"}
    )
    assert (config.model.num_hidden_layers, config.model.hidden_size, config.model.vocab_size) == (3, 128, 99)
    assert PretrainConfig(model_size="mini").model.intermediate_size == 1024
