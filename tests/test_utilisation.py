"""What a run tells of its speed: operations per second, the split of its time, the profile."""

import pytest
from pretraining_runs import configure

from tf_bert.config import PretrainConfig, load
from tf_bert.errors import UsageError
from tf_bert.models.flops import RowShape, training_flops
from tf_bert.pretraining import pretrain
from tf_bert.run_log import read_metrics


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    """The configuration of a short run with a profile, its directory and what it printed."""
    import contextlib
    import io

    output_dir = tmp_path_factory.mktemp("runs") / "profiled"
    changes = {"training.num_train_steps": 8, "cadence.evaluate_every": 4, "profile_steps": "5:6"}
    config = configure(data_dir, output_dir, **changes, **{"cadence.log_every": 2})
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        pretrain(config)
    return config, output_dir, printed.getvalue()


def test_operations_per_second_follow_from_the_time_of_a_step(run):
    config, output_dir, printed = run
    entries = read_metrics(output_dir / "metrics.jsonl")
    train = [entry for entry in entries if "train/utilisation" in entry]
    times = [entry for entry in entries if "time/step_seconds" in entry]
    assert [entry["step"] for entry in train] == [entry["step"] for entry in times] == [2, 4, 6, 8]
    # Rows of 32 tokens with room for 15% of masks, rounded up, and for 8 examples; 16 rows a step.
    step_flops = 16 * training_flops(config.model, RowShape(32, 5, 8))
    for entry, split in zip(train, times, strict=True):
        assert entry["train/model_flops_per_second"] * split["time/step_seconds"] == pytest.approx(step_flops)
        assert 0.0 < entry["train/utilisation"] < 1.0
        shares = [value for name, value in split.items() if name.endswith("_share")]
        assert len(shares) == 5 and min(shares) >= 0.0 and sum(shares) == pytest.approx(1.0)
        assert split["time/all_reduce_share"] == 0.0  # there is one rank
    # Checkpoints and evaluations come after their step's log line, so those of step 4 belong to the next lap.
    assert [split["time/checkpoint_share"] > 0.0 for split in times] == [False, False, True, False]
    assert [split["time/evaluation_share"] > 0.0 for split in times] == [True, False, True, False]
    assert "on 1 x " in printed and " of peak | rate " in printed


def test_tensorboard_explains_every_number_with_its_unit(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run[1] / "tensorboard")).Reload()
    for tag in ("train/model_flops_per_second", "train/utilisation", "time/step_seconds", "time/input_share"):
        assert len(events.SummaryMetadata(tag).summary_description) > 20, tag


def test_the_profile_holds_the_operations_of_the_model(run):
    (profile,) = (run[1] / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb")
    content = profile.read_bytes()
    for name in (b"query_key_value", b"intermediate", b"masked_lm", b"MatMul"):
        assert name in content


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("20:10", "profile_steps: found '20:10', whose first step comes after its last; write 10:20"),
        ("0:3", "profile_steps: found '0:3', expected the first and the last step in quotes, such as '10:20'"),
        ("10", "profile_steps: found '10', expected the first and the last step"),
        (620, "profile_steps: found 620, expected the first and the last step in quotes, such as '10:20'"),
    ],
)
def test_steps_to_profile_that_make_no_sense(value, message):
    with pytest.raises(UsageError, match=message):
        load(PretrainConfig, None, {"profile_steps": value})


def test_steps_to_profile_are_read():
    assert load(PretrainConfig, None, {"profile_steps": "10:20"}).profile_steps == "10:20"
