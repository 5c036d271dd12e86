"""metrics.jsonl and TensorBoard hold what was logged, once, also after a run was killed and resumed."""

import functools
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from tf_bert.run_log import RunLog, format_seconds, read_metrics


@pytest.fixture
def tensorboard_scalars(tmp_path):
    """What the real TensorBoard server shows for a tag of the run in `tmp_path`: pairs of step and value.

    The server starts at the first question, so that it reads files that are complete.
    """
    servers = []

    def start():
        arguments = ["--logdir", str(tmp_path), "--host", "127.0.0.1", "--port", "0"]
        server = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", *arguments], stderr=subprocess.PIPE, text=True
        )
        servers.append(server)
        return next(match[1] for line in server.stderr if (match := re.search(r"at (http://\S+/)", line)))

    address = functools.cache(start)

    def ask(tag):
        query = urllib.parse.urlencode({"run": "tensorboard", "tag": tag})
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"{address()}data/plugin/scalars/scalars?{query}") as answer:
                    return [(step, value) for _, step, value in json.load(answer)]
            except urllib.error.HTTPError:  # not loaded yet
                time.sleep(0.2)
        raise AssertionError(f"TensorBoard shows no {tag}")

    yield ask
    for server in servers:
        server.terminate()
        server.communicate()


def test_scalars_are_in_both_files_with_group_and_name(tmp_path, tensorboard_scalars):
    log = RunLog(tmp_path)
    log.scalars(10, "train", {"loss": 2.5}, {"loss": "nats"})
    log.scalars(10, "validation", {"loss": 3.0}, {})
    log.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 10, "train/loss": 2.5},
        {"step": 10, "validation/loss": 3.0},
    ]
    assert tensorboard_scalars("train/loss") == [(10, 2.5)]
    assert tensorboard_scalars("validation/loss") == [(10, 3.0)]


def test_a_resumed_run_replaces_the_points_that_the_killed_one_left(tmp_path, tensorboard_scalars):
    log = RunLog(tmp_path)
    for step in (10, 20, 30):
        log.scalars(step, "train", {"loss": float(step)}, {})
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 35, "train/lo')  # killed while writing
    resumed = RunLog(tmp_path, first_step=20)
    resumed.scalars(30, "train", {"loss": -1.0}, {})
    resumed.close()
    expected = [(10, 10.0), (20, 20.0), (30, -1.0)]
    found = read_metrics(tmp_path / "metrics.jsonl")
    assert [(entry["step"], entry["train/loss"]) for entry in found] == expected
    assert tensorboard_scalars("train/loss") == expected


def test_a_run_that_begins_again_has_its_first_evaluation_once(tmp_path):
    for loss in (7.0, 8.0):
        log = RunLog(tmp_path, first_step=0)
        log.scalars(0, "validation", {"loss": loss}, {})
        log.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "validation/loss": 8.0}]


def test_a_text_is_readable_in_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path)
    log.text(3, "config", "```yaml\nseed: 1\n```")
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.SummaryMetadata("config").plugin_data.plugin_name == "text"
    assert events.Tensors("config")[0].tensor_proto.string_val == [b"```yaml\nseed: 1\n```"]


def test_other_ranks_write_nothing(tmp_path, capsys):
    log = RunLog(tmp_path / "run", enabled=False)
    log.line("a line")
    log.scalars(1, "train", {"loss": 1.0}, {})
    log.text(1, "config", "text")
    log.close()
    assert not (tmp_path / "run").exists() and capsys.readouterr().out == ""


def test_metrics_are_plain_json_lines(tmp_path):
    log = RunLog(tmp_path)
    log.scalars(1, "train", {"a": 0.1, "b": 2.0}, {})
    log.close()
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 1, "train/a": 0.1, "train/b": 2.0}
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00"), (61.4, "01:01"), (3599.6, "1:00:00"), (90061, "25:01:01")])
def test_times_are_hours_minutes_seconds(seconds, text):
    assert format_seconds(seconds) == text
