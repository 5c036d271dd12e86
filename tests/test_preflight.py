"""`tf-bert pretrain --dry-run`: every number against one worked out by hand, every check by its line."""

import dataclasses
import re
import shutil

import pytest
import yaml
from pretraining_runs import command, configure

from tf_bert.cli import main
from tf_bert.config import to_dict
from tf_bert.models.flops import RowShape, training_flops
from tf_bert.preflight import Outlook, checkpoint_bytes, plan
from tf_bert.pretraining import pretrain
from tf_bert.pretraining_data.manifest import read_manifest
from tf_bert.training.devices import Device

A100 = Device("NVIDIA A100-SXM4-40GB", 312e12, "data sheet", 40 << 30)


def dry_run(capsys, data_dir, output_dir, *options, **changes):
    """The exit code, the lines printed, and those on standard error."""
    words = command(data_dir, output_dir, **changes)[4:]
    code = main(["pretrain", "--dry-run", *options, *words])
    printed = capsys.readouterr()
    return code, printed.out.splitlines(), printed.err.splitlines()


# --- the plan ----------------------------------------------------------------------------------------------------


def test_a_plan_by_hand(data_dir):
    """The first phase of NVIDIA's LAMB recipe, large, on 8 GPUs at their published 3,799 rows/s (A100, length 128)."""
    changes = {
        "model.hidden_size": 1024,
        "model.num_hidden_layers": 24,
        "model.num_attention_heads": 16,
        "model.intermediate_size": 4096,
        "model.vocab_size": 30522,
        "model.max_position_embeddings": 512,
        "data.max_predictions_per_seq": 20,
        "training.num_train_steps": 7506,
        "training.global_batch_size": 61_440,
        "training.microbatch_size": 60,
        "training.precision": "mixed_float16",
    }
    small = read_manifest(data_dir)
    train = dataclasses.replace(small.splits["train"], fill=0.5)
    manifest = dataclasses.replace(
        small, max_seq_length=128, max_examples_per_row=1, splits={**small.splits, "train": train}
    )
    rows = 7506 * 61_440
    outlook = Outlook(world_size=8, tokens_per_second=3799 * 128 * 0.5, price=2.0)
    lines = dict(plan(configure(data_dir, "absent", **changes), manifest, A100, outlook))
    assert lines["model"] == "336,226,108 parameters, mixed_float16"
    assert lines["steps"] == "7,506 of 61,440 rows of 128 tokens"
    assert lines["epochs"] == f"{rows / train.records:.2f} of {train.records:,} rows"
    assert lines["tokens"] == f"{rows * 64:.4g}, padding not counted (rows are 50.0% full)"
    assert lines["each rank"].startswith("7,680 rows a step, ")
    # Six operations per token and parameter make 119 EFLOP; attention and the head's share at 20 of 128 are 1 less.
    total, unit = re.match(r"([\d.]+) (\w+) in all", lines["operations"]).groups()
    assert unit == "EFLOP" and float(total) * 1e18 == pytest.approx(6 * 336e6 * 128 * rows, rel=0.15)
    seconds = rows / 3799
    assert lines["time"] == f"{seconds / 86_400:.3g} days (at the given 243,136 tokens/s)"
    hours = 8 * seconds / 3600
    assert lines["cost"] == f"{2 * hours:,.2f} for {hours:,.1f} device hours at 2"


def test_without_a_speed_the_peak_bounds_the_time(data_dir):
    config = configure(data_dir, "absent")
    lines = dict(plan(config, read_manifest(data_dir), A100, Outlook(world_size=2)))
    flops = 40 * 16 * training_flops(config.model, RowShape(32, 5, 8))
    assert lines["time"].startswith(f"{flops / (2 * 312e12) / 86_400:.3g} days (at least: at the peak of all devices; ")
    assert "cost" not in lines


def test_a_run_that_has_begun_tells_its_speed(data_dir, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 100, "train/tokens_per_second": 2000.0}\n{"step": 100}\n')
    manifest = read_manifest(data_dir)
    lines = dict(plan(configure(data_dir, tmp_path), manifest, A100, Outlook()))
    days = 40 * 16 * 32 * manifest.splits["train"].fill / 2000 / 86_400
    assert lines["time"] == f"{days:.3g} days (at 2,000 tokens/s, as {tmp_path}/metrics.jsonl says of step 100)"


def test_checkpoints_are_as_large_as_real_ones_and_the_directory_holds_what_was_said(data_dir, tmp_path, capsys):
    changes = {"training.num_train_steps": 6, "cadence.checkpoint_every": 2, "cadence.evaluate_every": 6}
    config = configure(data_dir, tmp_path / "run", **changes, **{"cadence.keep_checkpoints": 2})
    pretrain(config)
    sizes = [file.stat().st_size for file in (tmp_path / "run" / "checkpoints").glob("*/tensors.safetensors")]
    assert len(sizes) == 2
    # Besides the tensors there are their names and places, and a few counters.
    assert all(0 < size - checkpoint_bytes(config) < 20_000 for size in sizes)
    capsys.readouterr()
    code, printed, _ = dry_run(capsys, data_dir, tmp_path / "run", **changes, **{"cadence.keep_checkpoints": 2})
    assert code == 0
    assert f"ok      output: {tmp_path}/run holds this run, which goes on" in printed


def test_a_time_budget_bounds_the_plan(data_dir):
    manifest = read_manifest(data_dir)
    rows, tokens_per_row = 1000 * 16, 32 * manifest.splits["train"].fill
    changes = {"training.num_train_steps": 1000, "training.time_budget_hours": 2}
    # Ten hours for all of it.
    outlook = Outlook(tokens_per_second=rows * tokens_per_row / 36_000, price=3.0)
    lines = dict(plan(configure(data_dir, "absent", **changes), manifest, A100, outlook))
    assert lines["time"].startswith("0.0833 days (training.time_budget_hours, which end it after about 200 steps at")
    assert lines["cost"] == "6.00 for 2.0 device hours at 3"


def test_each_stage_has_a_plan_and_checks(data_dir, tmp_path, capsys):
    config = to_dict(configure(data_dir, tmp_path / "run"))
    config["stages"] = [{"name": "a"}, {"name": "b", "training": {"num_train_steps": 7, "microbatch_size": 16}}]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main(["pretrain", "--dry-run", "--config", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(("---", "steps"))] == [
        "--- stage a ---",
        "steps         40 of 16 rows of 32 tokens",
        "--- stage b ---",
        "steps         7 of 16 rows of 32 tokens",
    ]
    assert not (tmp_path / "run").exists()


# --- the checks --------------------------------------------------------------------------------------------------


def test_a_run_that_can_start(data_dir, tmp_path, capsys):
    code, printed, errors = dry_run(capsys, data_dir, tmp_path / "run", "--ranks", "2", "--price", "1.5")
    assert code == 0 and errors == []
    assert [line.split(":")[0] for line in printed if line.startswith("ok ")] == [
        f"ok      {name}"
        for name in ("vocabulary", "length", "masks", "batch", "data", "validation", "memory", "disk", "output")
    ]
    assert "ok      batch: 16 rows = 2 ranks x 1 microsteps x 8" in printed
    assert "ok      masks: room for 5 a row of 32 tokens" in printed
    shards = len(read_manifest(data_dir).splits["train"].shards)
    reads = next(line for line in printed if line.startswith("each rank"))
    assert "8 rows a step, " in reads and f"reads all {shards} shards in an epoch" in reads
    assert printed[-1] == "Nothing was started; the same command without --dry-run does."
    assert list(tmp_path.iterdir()) == []


FAILURES = [
    (
        {"model.vocab_size": 500},
        2,
        r"vocabulary: model.vocab_size 500 is smaller than the vocabulary of .*, 600 t",
    ),
    ({"model.max_position_embeddings": 16}, 2, r"length: the rows of .* hold max_seq_length 32 tokens, more than"),
    (
        {"data.max_predictions_per_seq": 3},
        2,
        r"masks: data.max_predictions_per_seq 3 is less than data.masked_lm_prob 0.15 of 32 tokens, 5: masks would be "
        r"left out; set it to 5 or more, or to 0",
    ),
    (
        {"data.max_predictions_per_seq": 40},
        2,
        r"masks: data.max_predictions_per_seq 40 is more than the 32 tokens of",
    ),
    (
        {"training.microbatch_size": 16},
        2,
        r"batch: training.global_batch_size 16 is not a multiple of training.microbatch_size 16 x 2 ranks = 32; the",
    ),
    (
        {"model.hidden_size": 16384, "model.num_hidden_layers": 96, "model.intermediate_size": 65536},
        1,
        r"memory: about [\d.]+ TB needed \(within a factor of 1.25\), .* has [\d.]+ GB; lower training.micro",
    ),
    (
        {"model.hidden_size": 65536, "model.num_hidden_layers": 96, "model.intermediate_size": 262144},
        1,
        r"disk: .*run: [\d.]+ TB needed for 4 checkpoints of [\d.]+ TB and the model directory, [\d.]+ [TGM]B free;",
    ),
]


@pytest.mark.parametrize(("changes", "exit_code", "line"), FAILURES, ids=[line.split(":")[0] for *_, line in FAILURES])
def test_a_failing_check_is_one_line(data_dir, tmp_path, capsys, changes, exit_code, line):
    code, printed, errors = dry_run(capsys, data_dir, tmp_path / "run", "--ranks", "2", **changes)
    failed = [text for text in printed if text.startswith("FAILED  ")]
    assert code == exit_code
    assert any(re.match(f"FAILED  {line}", text) for text in failed), printed
    count = f"{len(failed)} of 9 checks failed, see the lines above"
    assert errors[-1] == f"tf-bert pretrain: --dry-run: {count}"
    assert list(tmp_path.iterdir()) == []


def test_damaged_data_and_a_directory_with_something_else_are_two_lines(data_dir, tmp_path, capsys):
    broken = tmp_path / "data"
    shutil.copytree(data_dir, broken)
    shard = sorted(broken.glob("train-*"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    (broken / "notes.txt").write_text("precious")
    code, printed, _ = dry_run(capsys, broken, broken)
    failed = [line for line in printed if line.startswith("FAILED  ")]
    assert code == 1 and len(failed) == 2
    assert re.match(
        rf"FAILED  data: .*{shard.name}: found \d+ bytes, expected \d+ as in manifest.json; restore", failed[0]
    )
    assert re.match(r"FAILED  output: .*data: holds files but no run.json of a run, e.g. ", failed[1])


def test_data_that_is_not_there_is_the_usual_line(tmp_path, capsys):
    code, printed, errors = dry_run(capsys, tmp_path / "absent", tmp_path / "run")
    assert code == 1 and printed == []
    assert re.match(r"tf-bert pretrain: .*absent/manifest.json: not found, expected the manifest", errors[-1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dry-run", "--price", "cheap"], "--price: expected a price above 0, such as --price 2.5"),
        (["--dry-run", "--price", "0"], "--price: expected a price above 0, such as --price 2.5"),
        (
            ["--dry-run", "--tokens-per-second"],
            "--tokens-per-second: expected a speed above 0, such as --tokens-per-second 50000",
        ),
        (["--price", "3"], "--tokens-per-second and --price are about what a run would take; add --dry-run"),
    ],
)
def test_options_that_make_no_sense(words, message, capsys):
    assert main(["pretrain", *words]) == 2
    assert capsys.readouterr().err == f"tf-bert pretrain: {message}\n"
