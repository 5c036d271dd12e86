"""In a job, rank 0's numbers reach MLflow or SDK v1's run, really sent; elsewhere nothing is sent or imported."""

import http.server
import json
import math
import subprocess
import sys
import threading
import time

import pytest
from launchers import environment

from tf_bert.azure.run_context import AzureTracker, in_azure_job
from tf_bert.run_log import Reporting, RunLog, read_metrics, reporting_to

# A run of three log steps, as its command line's composition would have it, in a process of its own.
RUN = """\
import sys
from pathlib import Path
from tf_bert.commands.training import _reporting
from tf_bert.run_log import RunLog
enabled = sys.argv[1] == "0"
with _reporting("run"):
    log = RunLog(Path("run"), enabled=enabled)
    log.tags({"data_manifest_sha256": "ab12"})
    for step in (10, 20, 30):
        log.scalars(step, "train", {"loss": 100.0 / step}, {})
    log.close()
print(sorted(name for name in ("mlflow", "azureml", "azureml.core", "azure") if name in sys.modules))
"""
EXPECTED = [(10, 10.0), (20, 5.0), (30, 100.0 / 30)]


@pytest.fixture(autouse=True)
def _no_azure(monkeypatch):
    for name in ("AZUREML_RUN_ID", "AZUREML_RUN_TOKEN", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture
def mlflow_run(tmp_path, monkeypatch):
    """A run in MLflow's files, which this process belongs to as a job does; returns what reads it back."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    address = (tmp_path / "mlflow").as_uri()
    client = mlflow.MlflowClient(address)
    run_id = client.create_run(client.create_experiment("experiment")).info.run_id
    for name, value in {"AZUREML_RUN_ID": run_id, "MLFLOW_TRACKING_URI": address, "MLFLOW_RUN_ID": run_id}.items():
        monkeypatch.setenv(name, value)

    class Recorded:
        @staticmethod
        def metric(name):
            return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]

        @staticmethod
        def metrics():
            return client.get_run(run_id).data.metrics

        @staticmethod
        def tags():
            return client.get_run(run_id).data.tags

    return Recorded


def run(tmp_path, rank=0, **variables):
    """Runs `RUN`; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(rank)],
        cwd=tmp_path,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def points(directory):
    """Step and value of train/loss in the TensorBoard files of a directory."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(directory)).Reload().Tensors("train/loss")
    return [(event.step, float(make_ndarray(event.tensor_proto))) for event in events]


# --- where numbers go ----------------------------------------------------------------------------------------------


def test_outside_of_azure_nothing_is_imported_or_written_elsewhere(tmp_path):
    assert not in_azure_job()
    assert run(tmp_path) == ["[]"]
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert len(read_metrics(tmp_path / "run/metrics.jsonl")) == 3


def test_a_job_of_sdk_v2_reports_to_mlflow_and_to_live_tensorboard(mlflow_run, tmp_path):
    (modules,) = run(tmp_path)
    assert "'mlflow'" in modules
    assert mlflow_run.metric("train/loss") == EXPECTED
    assert mlflow_run.tags()["data_manifest_sha256"] == "ab12"
    for directory in ("run/tensorboard", "logs/tensorboard"):
        assert points(tmp_path / directory) == [(step, pytest.approx(value)) for step, value in EXPECTED]


def test_other_ranks_of_a_job_report_nothing(mlflow_run, tmp_path):
    assert run(tmp_path, rank=1) == ["[]"]
    assert mlflow_run.metrics() == {}
    assert not (tmp_path / "logs").exists()


def test_runs_of_one_command_are_told_apart_by_their_directories(mlflow_run, tmp_path):
    told = []
    with reporting_to(Reporting(tmp_path / "sweep", AzureTracker(told.append), tmp_path / "logs")):
        for name, loss in (("run-001", 1.0), ("run-002/seed-1", 2.0)):
            log = RunLog(tmp_path / "sweep" / name)
            log.scalars(5, "train", {"loss": loss}, {})
            log.tags({"tag": name})
            log.close()
    assert mlflow_run.metrics() == {"run-001/train/loss": 1.0, "run-002/seed-1/train/loss": 2.0}
    assert mlflow_run.tags()["run-001/tag"] == "run-001"
    assert points(tmp_path / "logs/run-001") == [(5, 1.0)] and points(tmp_path / "logs/run-002/seed-1") == [(5, 2.0)]
    assert told == []


def test_what_is_not_finite_is_not_sent(mlflow_run):
    told = []
    tracker = AzureTracker(told.append)
    tracker.scalars(1, {"train/loss": 2.0, "train/gradient_norm": math.inf})
    tracker.scalars(2, {"train/loss": math.nan})
    tracker.flush()
    assert mlflow_run.metrics() == {"train/loss": 2.0} and told == []


def test_after_the_block_a_run_reports_to_its_directory_alone(tmp_path):
    with reporting_to(Reporting(tmp_path, None, tmp_path / "logs")):
        pass
    log = RunLog(tmp_path)
    log.scalars(5, "train", {"loss": 1.0}, {})
    log.close()
    assert not (tmp_path / "logs").exists()


# --- services ------------------------------------------------------------------------------------------------------


@pytest.fixture
def serve():
    """Starts a server on loopback; returns its address, and the requests (method, path, body) that it has got."""
    servers = []

    def start(answer):
        got = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def reply(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                got.append((self.command, self.path, json.loads(body) if body else None))
                status, content = answer(self.path, len(got))
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = reply

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", got

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_service_that_fails_is_told_once_and_later_numbers_are_tried(serve, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    address, got = serve(lambda path, count: (403 if count <= 2 else 200, {"message": "not now"}))
    monkeypatch.setenv("AZUREML_RUN_ID", "run_1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    told = []
    with reporting_to(Reporting(tmp_path, AzureTracker(told.append), tmp_path / "logs")):
        log = RunLog(tmp_path)
        for step in (10, 20, 30):
            log.scalars(step, "train", {"loss": float(step)}, {})
        log.close()
    (line,) = told
    assert line.startswith("metrics do not all reach Azure: ") and "not now" in line
    assert line.endswith("; the run goes on, and metrics.jsonl has them")
    sent = [(body["run_id"], body["metrics"][0]["step"], body["metrics"][0]["value"]) for _, _, body in got]
    assert sent == [("run_1", 10, 10.0), ("run_1", 20, 20.0), ("run_1", 30, 30.0)]
    assert [entry["step"] for entry in read_metrics(tmp_path / "metrics.jsonl")] == [10, 20, 30]


def test_a_service_that_is_not_there_ends_nothing(tmp_path):
    pytest.importorskip("mlflow")
    variables = {"AZUREML_RUN_ID": "run_1", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    line, modules = run(tmp_path, **variables, MLFLOW_HTTP_REQUEST_MAX_RETRIES="1")
    assert line.startswith(
        "metrics do not all reach Azure: API request to http://127.0.0.1:9/api/2.0/mlflow/runs/log-bat"
    )
    assert "'mlflow'" in modules
    assert len(read_metrics(tmp_path / "run/metrics.jsonl")) == 3


def test_a_job_without_a_way_to_report_says_what_is_missing(tmp_path):
    line, modules = run(tmp_path, AZUREML_RUN_ID="run_1")
    assert line == (
        "metrics do not all reach Azure: expected azureml-mlflow (SDK v2) or azureml-core (SDK v1) in the job's "
        "environment; add it to the image; the run goes on, and metrics.jsonl has them"
    )
    assert modules == "[]"


def test_a_job_of_sdk_v1_reports_to_its_run(serve, tmp_path):
    jwt = pytest.importorskip("jwt")
    pytest.importorskip("azureml.core")
    experiment_id = "00000000-0000-0000-0000-000000000001"
    tomorrow = int(time.time()) + 86_400
    services = ("api", "experimentation", "history", "hyperdrive", "modelmanagement", "studio", "pipelines")

    def answer(path, count):
        if path == "/discovery":
            return 200, dict.fromkeys(services, address)
        if path.endswith("/runs/run_1"):
            run = {"runId": "run_1", "rootRunId": "run_1", "runNumber": 1, "experimentId": experiment_id}
            return 200, {**run, "status": "Running", "tags": {}, "properties": {}}
        return 200, {}

    address, got = serve(answer)
    variables = {
        "HOME": str(tmp_path),  # where the SDK keeps what it has discovered
        "AZUREML_RUN_ID": "run_1",
        "AZUREML_RUN_TOKEN": jwt.encode({"exp": tomorrow}, "a key of a test, of 32 bytes or more", "HS256"),
        "AZUREML_RUN_TOKEN_EXPIRY": str(tomorrow),
        "AZUREML_ARM_SUBSCRIPTION": "subscription",
        "AZUREML_ARM_RESOURCEGROUP": "group",
        "AZUREML_ARM_WORKSPACE_NAME": "workspace",
        "AZUREML_ARM_PROJECT_NAME": "experiment",
        "AZUREML_EXPERIMENT_ID": experiment_id,
        "AZUREML_WORKSPACE_ID": "00000000-0000-0000-0000-000000000002",
        "AZUREML_SERVICE_ENDPOINT": address,
        "AZUREML_DISCOVERY_SERVICE_ENDPOINT": f"{address}/discovery",
    }
    printed = run(tmp_path, **variables)
    assert not [line for line in printed if line.startswith("metrics do not")]
    sent = [
        (name, value["step"], value["data"][name])
        for _, path, body in got
        if path.startswith("/metric/") and body
        for name, value in ((batch["name"], value) for batch in body["values"] for value in batch["value"])
    ]
    assert sorted(sent, key=lambda point: point[1]) == [("train/loss", step, value) for step, value in EXPECTED]
    tags = [body["tags"] for method, path, body in got if method == "PATCH" and path.endswith("/runs/run_1")]
    assert tags == [{"data_manifest_sha256": "ab12"}]
