"""A run that diverges goes back to its last checkpoint, past the data in between, and tells of it."""

import json
import random
import statistics
import time

import pytest
from launchers import needs_horovod
from pretraining_runs import NO_DROPOUT, assert_same_run, configure, finish, kill, start, wait_for

from tf_bert.errors import InputError
from tf_bert.pretraining import pretrain
from tf_bert.pretraining_data.dataset import PretrainingRows
from tf_bert.pretraining_data.manifest import read_manifest
from tf_bert.run_log import read_metrics
from tf_bert.training.rollback import Rollbacks

# So near to the median that noise is a spike now and then.
FACTOR = 1.004
ROWS = 4  # of an update: the fewer, the more noise
SPIKY = {
    "training.num_train_steps": 60,
    "training.loss_spike_factor": FACTOR,
    "training.max_rollbacks": 50,
    "training.global_batch_size": ROWS,
    "training.microbatch_size": 2,
    "optimizer.learning_rate": "1e-3",
    "cadence.log_every": 1,
}


def entries(output_dir):
    path = output_dir / "rollbacks.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def spiky(data_dir, tmp_path_factory):
    """A run that went back a few times, and what it printed."""
    output_dir = tmp_path_factory.mktemp("spiky") / "run"
    return output_dir, finish(start(data_dir, output_dir, **SPIKY))


def test_it_goes_back_to_the_last_checkpoint_past_the_data_and_ends_well(spiky, data_dir):
    output_dir, printed = spiky
    told = entries(output_dir)
    assert 1 <= len(told) < 50
    losses = [entry["train/loss"] for entry in read_metrics(output_dir / "metrics.jsonl") if "train/loss" in entry]
    assert len(losses) == 60
    for step in range(20, 60):  # what stayed is a spike nowhere
        recent = sorted(losses[max(0, step - 100) : step])
        assert losses[step] <= FACTOR * statistics.median_high(recent) * (1 + 1e-6)
    rows = PretrainingRows(data_dir, read_manifest(data_dir).splits["train"], seed=12345, shuffle_shards=8)
    for number, entry in enumerate(told, 1):
        assert entry["to_step"] == (entry["step"] - 1) // 4 * 4
        assert f"step {entry['step']}: the loss " in printed and f"({number} of 50 times)" in printed
        assert f"{FACTOR:g} times the median of the last updates, " in entry["reason"]
        if number == 1:
            assert entry["skipped"] == entry["step"] - entry["to_step"]
            assert entry["rows"] == rows.names((entry["step"] - 1) * ROWS, ROWS)


@pytest.mark.slow
def test_killed_after_it_went_back_it_ends_bit_for_bit_the_same(spiky, data_dir, tmp_path):
    output_dir = tmp_path / "run"
    rng = random.Random(5)
    for count in (1, len(entries(spiky[0]))):
        process = start(data_dir, output_dir, **SPIKY)
        wait_for(lambda count=count: len(entries(output_dir)) >= count, process)
        time.sleep(rng.uniform(0.0, 3.0))
        kill(process)
    finish(start(data_dir, output_dir, **SPIKY))
    assert entries(output_dir) == entries(spiky[0])
    assert_same_run(output_dir, spiky[0])


@needs_horovod
@pytest.mark.slow
def test_two_ranks_go_back_together(data_dir, tmp_path):
    settings = SPIKY | NO_DROPOUT
    finish(start(data_dir, tmp_path / "one", **settings))
    finish(start(data_dir, tmp_path / "two", "local", **settings))
    one, two = entries(tmp_path / "one"), entries(tmp_path / "two")
    for entry in one + two:
        del entry["reason"]  # the loss in it is rounded
    assert one == two and one


def test_it_goes_back_so_often_and_tells_the_story(data_dir, tmp_path):
    changes = SPIKY | {"training.loss_spike_factor": 1.0001, "training.max_rollbacks": 2}
    with pytest.raises(InputError) as caught:
        pretrain(configure(data_dir, tmp_path / "run", **changes))
    first, second = entries(tmp_path / "run")
    message = str(caught.value)
    assert message.startswith("step ") and f"{first['reason']}; at step {second['step']} it went back to" in message
    assert "and it has gone back 2 times, training.max_rollbacks 2 (at step " in message
    assert message.endswith(
        f"see {tmp_path}/run/rollbacks.jsonl); lower optimizer.learning_rate, warm up longer or look at the data of "
        "these steps, then run again: it goes on from the last checkpoint"
    )


def test_updates_that_were_skipped_are_recorded_with_their_rows(data_dir, tmp_path):
    changes = {"optimizer.learning_rate": "1e30", "optimizer.num_warmup_steps": 0, "training.max_bad_steps": 3}
    with pytest.raises(InputError, match="not finite for 3 steps in a row, and there is no checkpoint to go back to"):
        pretrain(configure(data_dir, tmp_path / "run", **changes))
    lines = [json.loads(line) for line in (tmp_path / "run" / "skipped_steps.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    rows = PretrainingRows(data_dir, read_manifest(data_dir).splits["train"], seed=12345, shuffle_shards=8)
    for line in lines:
        assert line["rows"] == rows.names((line["step"] - 1) * 16, 16)


def test_with_none_allowed_it_ends_at_once(data_dir, tmp_path):
    changes = SPIKY | {"training.loss_spike_factor": 1.0001, "training.max_rollbacks": 0}
    with pytest.raises(InputError, match=r"and training.max_rollbacks 0 lets it not go back; lower optimizer"):
        pretrain(configure(data_dir, tmp_path / "run", **changes))
    assert entries(tmp_path / "run") == []


# --- the file ------------------------------------------------------------------------------------------------


def test_rows_that_were_left_out_before_stay_left_out(tmp_path):
    rollbacks = Rollbacks(tmp_path / "rollbacks.jsonl")
    rollbacks.add(10, 8, "a", {})  # data of steps 8 and 9
    assert rollbacks.skips() == [(8, 2)]
    rollbacks.add(9, 8, "b", {})  # step 8 again, now with the data of step 10
    assert rollbacks.skips() == [(8, 3)]
    rollbacks.add(14, 12, "c", {"train-0": [1]})
    assert rollbacks.skips() == [(8, 3), (12, 2)]
    rollbacks.add(15, 4, "d", {})  # two checkpoints were damaged
    assert rollbacks.skips() == [(4, 15 - 4 + 3 + 2)]
    assert Rollbacks(rollbacks.path).skips() == rollbacks.skips() and len(rollbacks) == 4


def test_a_damaged_file_is_told_by_line(tmp_path):
    path = tmp_path / "rollbacks.jsonl"
    Rollbacks(path).add(10, 8, "a", {})
    path.write_text(path.read_text() + '{"step": 3}\n')
    with pytest.raises(InputError, match=r"rollbacks.jsonl: line 2 is not one of a rollback \(Field required\)"):
        Rollbacks(path)
