"""Versions that come and go, starting and stopping: no request is lost."""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from local_servers import running, serving
from standin_exports import write_export
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from tf_bert.config import ServeConfig, load
from tf_bert.errors import InputError, UsageError
from tf_bert.serving.server.app import Ports, choose_name, greeting
from tf_bert.serving.server.models import WARMUP_FILE, Models, VersionStatus
from tf_bert.serving.server.refusal import Refusal
from tf_bert.serving.server.signature import Limits
from tf_bert.serving.server.version_files import GRAPH_FILE

pytestmark = pytest.mark.slow

LIMITS = Limits(16, 5000)
PREDICT = "/v1/models/standin:predict"
SECONDS = 60


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Versions 1 to 3, to be copied."""
    directory = tmp_path_factory.mktemp("exports") / "standin"
    for number in (1, 2, 3):
        write_export(directory, number, names=["wait"])
    return directory


@pytest.fixture
def publish(written, tmp_path):
    """Puts versions into a directory of the test's own, whole or not at all; returns the directory."""

    def put(*numbers):
        for number in numbers:
            shutil.copytree(written / str(number), tmp_path / "standin" / "copied")
            (tmp_path / "standin" / "copied").rename(tmp_path / "standin" / str(number))
        return tmp_path / "standin"

    return put


def open_models(export_dir):
    models = Models(export_dir, "standin", LIMITS)
    return models, models.load_first()


def version_of_answer(version):
    return version.signature("").run({"text": np.array([b"abc"], object)})["model_version"].tolist()


def wait_until(is_so):
    while not is_so():
        time.sleep(0.005)


# --- versions


def test_the_highest_number_is_served(publish):
    export_dir = publish(1, 2)
    (export_dir / "10").mkdir()  # not written yet
    (export_dir / "notes").mkdir()
    models, line = open_models(export_dir)
    assert line == "standin: version 2 is loaded" and list(models.refresh()) == []
    with models.use("standin") as version:
        assert version.number == models.number == 2 and version_of_answer(version) == [b"2"]
    with pytest.raises(Refusal, match="version of standin: found 1, expected 2"), models.use("standin", 1):
        pass
    with pytest.raises(Refusal, match="model: found 'other', expected standin"), models.use("other"):
        pass


def test_a_new_version_takes_over_and_a_removed_one_is_rolled_back(publish):
    export_dir = publish(1)
    models, _ = open_models(export_dir)
    publish(2)
    assert list(models.refresh()) == ["standin: version 2 is loaded", "standin: version 1 is unloaded"]
    assert models.statuses("standin") == {2: VersionStatus("AVAILABLE"), 1: VersionStatus("END")}
    assert models.statuses("standin", 1) == {1: VersionStatus("END")}
    shutil.rmtree(export_dir / "2")
    assert list(models.refresh()) == ["standin: version 1 is loaded", "standin: version 2 is unloaded"]
    shutil.rmtree(export_dir)
    assert list(models.refresh()) == [] and models.number == 1  # what is loaded stays
    with models.use("standin") as version:
        assert version_of_answer(version) == [b"1"]


def test_the_old_version_stays_for_its_last_request(publish):
    models, _ = open_models(publish(1))
    publish(2)
    lines = []
    with models.use("standin") as version:
        watcher = threading.Thread(target=lambda: lines.extend(models.refresh()))
        watcher.start()
        wait_until(lambda: models.statuses("standin")[1].state == "UNLOADING")
        assert models.number == 2 and watcher.is_alive()
        assert version_of_answer(version) == [b"1"]
    watcher.join()
    assert lines == ["standin: version 2 is loaded", "standin: version 1 is unloaded"]
    assert version.signatures == {}


def test_a_version_that_cannot_be_loaded_is_told_once_and_tried_again_when_it_has_changed(publish):
    export_dir = publish(1)
    models, _ = open_models(export_dir)
    publish(2)
    (export_dir / "2" / GRAPH_FILE).rename(export_dir / "graph")
    (export_dir / "2" / GRAPH_FILE).write_bytes(b"damaged")
    (line,) = models.refresh()
    assert line.startswith(f"{export_dir / '2'}: cannot be loaded: ") and line.endswith("; version 1 stays")
    assert models.statuses("standin")[2].state == "END" and "cannot be loaded" in models.statuses("standin")[2].error
    assert list(models.refresh()) == [] and models.number == 1
    (export_dir / "graph").rename(export_dir / "2" / GRAPH_FILE)
    assert list(models.refresh()) == ["standin: version 2 is loaded", "standin: version 1 is unloaded"]


def warm_up_with(directory: Path, *requests: predict_pb2.PredictRequest) -> None:
    path = directory / WARMUP_FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())


def request_of(signature, **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "standin", signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def test_warm_up_requests_are_answered_before_clients(publish, tmp_path):
    export_dir, gate = publish(1), tmp_path / "gate"
    models, _ = open_models(export_dir)
    publish(2)
    (export_dir / "2").rename(export_dir / "later")
    warm_up_with(export_dir / "later", request_of("", text=[b"abc"]), request_of("wait", text=[str(gate).encode()]))
    (export_dir / "later").rename(export_dir / "2")
    lines = models.refresh()
    first = []
    thread = threading.Thread(target=lambda: first.append(next(lines)))
    thread.start()
    wait_until(lambda: models.statuses("standin").get(2) == VersionStatus("LOADING"))
    assert models.number == 1
    gate.touch()
    thread.join()
    assert first == ["standin: version 2 is loaded"] and models.number == 2
    assert list(lines) == ["standin: version 1 is unloaded"]


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([request_of("", txt=[b"abc"])], "a warm-up request was not answered: inputs: unknown input 'txt'"),
        ([request_of("clasify", text=[b"abc"])], "a warm-up request was not answered: signature_name: found 'clasify'"),
        (None, "a warm-up request was not answered: corrupted record at 0"),
    ],
)
def test_a_warm_up_that_fails_is_a_version_that_cannot_be_loaded(publish, requests, message):
    export_dir = publish(1)
    warm_up_with(export_dir / "1", *(requests or ()))
    if requests is None:
        (export_dir / "1" / WARMUP_FILE).write_bytes(b"no records" * 9)
    with pytest.raises(InputError, match=message) as caught:
        open_models(export_dir)
    assert "\n" not in str(caught.value)


def test_there_must_be_a_version(tmp_path, publish):
    with pytest.raises(InputError, match=r"absent: found no version, expected directories such as .*/absent/1 with a"):
        open_models(tmp_path / "absent")
    tf.saved_model.save(tf.Module(), str(tmp_path / "bare" / "1"))
    with pytest.raises(InputError, match="has no signature; export it again with `tf-bert export`"):
        open_models(tmp_path / "bare")
    export_dir = publish(1)
    shutil.rmtree(export_dir / "1" / "variables")
    with pytest.raises(InputError, match=r"1: cannot be loaded: .*; export it again") as caught:
        open_models(export_dir)
    assert "\n" not in str(caught.value)


# --- a server in the middle of it


def ask_all_the_time(client, stop, seen):
    while not stop.is_set():
        answer = client.post(PREDICT, json={"instances": ["abc"]})
        seen.append((answer.status_code, answer.json()["predictions"][0]["model_version"]))


def test_no_request_is_dropped_when_a_version_comes(publish, tmp_path):
    export_dir, gate = publish(1), tmp_path / "gate"
    with serving(export_dir, "--poll_seconds", "0.05", "--num_batch_threads", "2") as server, server.client() as client:
        stop, seen, waited = threading.Event(), [[] for _ in range(4)], []
        threads = [threading.Thread(target=ask_all_the_time, args=(client, stop, some)) for some in seen]
        body = {"signature_name": "wait", "instances": [str(gate)]}
        threads.append(threading.Thread(target=lambda: waited.append(client.post(PREDICT, json=body))))
        for thread in threads:
            thread.start()
        wait_until(lambda: all(seen) and server.metric("tf_bert_batch_size_count", signature="wait"))
        publish(2)
        wait_until(lambda: all(some[-1] == (200, "2") for some in seen))
        with grpc.insecure_channel(server.grpc) as channel:
            message = get_model_status_pb2.GetModelStatusRequest()
            message.model_spec.name = "standin"
            call = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus
            states = {s.version: s.State.Name(s.state) for s in call(message, timeout=SECONDS).model_version_status}
            assert states == {1: "UNLOADING", 2: "AVAILABLE"}  # a request of version 1 is not answered yet
            gate.touch()
            threads[-1].join()
            assert waited[0].json() == {"predictions": [1]}
            wait_until(lambda: call(message, timeout=SECONDS).model_version_status[1].state == 50)  # END
        publish(3)
        wait_until(lambda: all(some[-1] == (200, "3") for some in seen))
        stop.set()
        for thread in threads:
            thread.join()
        for some in seen:
            assert {status for status, _ in some} == {200}
            versions = [version for _, version in some]
            assert versions == sorted(versions) and set(versions) == {"1", "2", "3"}
        assert client.get("/healthz").json()["version"] == "3"
    lines = "\n".join(server.lines)
    assert server.process.returncode == 0
    for number in (1, 2, 3):
        assert f"standin: version {number} is loaded" in lines
    assert "standin: version 1 is unloaded\nstandin: version 3 is loaded\nstandin: version 2 is unloaded" in lines


# --- stopping


def test_a_stop_finishes_what_is_there_and_takes_no_more(publish, tmp_path):
    gate = tmp_path / "gate"
    body = {"signature_name": "wait", "instances": [str(gate)]}
    with serving(publish(1)) as server, server.client() as client, grpc.insecure_channel(server.grpc) as channel:
        answers = []
        rest = threading.Thread(target=lambda: answers.append(client.post(PREDICT, json=body)))
        rest.start()
        wait_until(lambda: server.metric("tf_bert_batch_size_count", signature="wait") == 1)
        queued = threading.Thread(target=lambda: answers.append(client.post(PREDICT, json={"instances": ["abc"]})))
        queued.start()
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        call = stub.Predict.future(request_of("wait", text=[str(gate).encode()]), timeout=SECONDS)
        wait_until(lambda: server.metric("tf_bert_queued_examples") == 2)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "stopping: no new requests, and those that are here are answered" in server.lines)

        def is_refused():
            try:
                with server.client() as other:
                    return other.get("/healthz").status_code == 503
            except httpx.TransportError:
                return True

        wait_until(is_refused)
        with grpc.insecure_channel(server.grpc) as other, pytest.raises(grpc.RpcError) as caught:
            prediction_service_pb2_grpc.PredictionServiceStub(other).Predict(
                request_of("", text=[b"a"]), timeout=SECONDS
            )
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert server.process.poll() is None
        gate.touch()
        rest.join()
        queued.join()
        assert sorted(answer.status_code for answer in answers) == [200, 200]
        assert tf.make_ndarray(call.result().outputs["found"]).tolist() == [1]
        assert server.process.wait(SECONDS) == 0
    assert "Traceback" not in "\n".join(server.lines)


def test_a_stop_does_not_wait_for_ever(publish, tmp_path):
    body = {"signature_name": "wait", "instances": [str(tmp_path / "gate")]}
    with serving(publish(1), "--stop_deadline_seconds", "1") as server, server.client() as client:
        broken = []

        def ask():
            try:
                broken.append(client.post(PREDICT, json=body).status_code)
            except httpx.TransportError as error:
                broken.append(type(error))

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: server.metric("tf_bert_batch_size_count", signature="wait") == 1)
        server.process.send_signal(signal.SIGINT)  # Ctrl-C is the same
        assert server.process.wait(SECONDS) == 1
        thread.join()
    assert server.lines[-1] == "tf-bert serve: requests were left unanswered after stop_deadline_seconds 1"
    assert broken and broken[0] != 200


def test_a_second_signal_ends_at_once(publish, tmp_path):
    body = {"signature_name": "wait", "instances": [str(tmp_path / "gate")]}
    with serving(publish(1)) as server, server.client() as client:

        def ask():
            with contextlib.suppress(httpx.TransportError):
                client.post(PREDICT, json=body)

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: server.metric("tf_bert_batch_size_count", signature="wait") == 1)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: any(line.startswith("stopping:") for line in server.lines))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(SECONDS) == -signal.SIGTERM
        thread.join()


# --- starting


def serve(*words):
    command = [sys.executable, "-m", "tf_bert.cli", "serve", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)


def test_a_port_that_is_taken_is_one_line(publish):
    export_dir = publish(1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for field, other in (("rest_port", "grpc_port"), ("grpc_port", "rest_port")):
            done = serve(export_dir, f"--{field}", port, f"--{other}", 0)
            assert done.returncode == 1 and done.stderr == (
                f"tf-bert serve: 127.0.0.1:{port}: Address already in use; choose another --{field} (0: a free one) or "
                "--host\n"
            )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["absent"], 1, "absent: found no version, expected directories such as absent/1 with a saved_model.pb"),
        (["absent", "--host", "no such host"], 2, "--host: found 'no such host', expected an address of this machine"),
        (["absent", "more"], 2, "export_dir: found ['absent', 'more']"),
        (["absent", "--model_name", "a/b"], 2, "model_name: found 'a/b', expected letters, digits, _, . or -"),
        (
            ["absent", "--rest_port", "70000"],
            2,
            "rest_port: found '70000': Input should be less than or equal to 65535",
        ),
        (["absent", "--grpc_port", "8501"], 2, "rest_port and grpc_port are both 8501; choose two"),
        (["absent", "--max_queued_examples", "8"], 2, "max_queued_examples 8 is less than max_batch_size 64, so that"),
        ([], 2, "'export_dir' is required and missing: EXPORT_DIR, the first word"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(words, code, message):
    free = () if {"--rest_port", "--grpc_port"} & set(words) else ("--rest_port", 0, "--grpc_port", 0)
    done = serve(*words, *free)
    assert (done.returncode, done.stdout) == (code, "") and message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("library", ["fastapi", "uvicorn", "prometheus_client", "grpc", "tensorflow_serving"])
def test_a_missing_library_is_one_line_that_names_the_extra(library):
    script = f"import sys; sys.modules[{library!r}] = None; from tf_bert import cli; sys.exit(cli.main(['serve', 'x']))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert library in line and line.endswith("; install what the server needs with: pip install 'tf_bert[serving]'")


def test_the_model_is_called_like_its_directory(tmp_path):
    assert choose_name(ServeConfig(export_dir=f"{tmp_path}/my-model.2/")) == "my-model.2"
    assert choose_name(ServeConfig(export_dir="x y", model_name="other")) == "other"
    assert choose_name(load(ServeConfig, None, {"export_dir": "."})) == Path.cwd().name
    with pytest.raises(UsageError, match="the directory's name 'x y' cannot be a model's; give --model_name"):
        choose_name(ServeConfig(export_dir="x y"))


def test_it_listens_at_this_machine_alone_unless_told(publish):
    ports = Ports(8501, 8500)
    lines = list(greeting(ServeConfig(export_dir="sst2"), ports))
    assert (
        lines[0]
        == "http://127.0.0.1:8501/ is a page to try it; http://127.0.0.1:8501/v1/models/sst2:predict answers REST"
    )
    assert lines[1] == "127.0.0.1:8500 answers gRPC" and len(lines) == 3
    assert lines[2].startswith("This server is for trying out; production uses TensorFlow Serving")
    lines = list(greeting(ServeConfig(export_dir="sst2", host="::"), ports))
    assert lines[1:3] == [
        "[::]:8500 answers gRPC",
        "whoever reaches :: may ask: there is no password and no encryption",
    ]
    with running(publish(1)) as server:
        port = int(server.url.rpartition(":")[2])
        with server.client() as client:
            assert client.get("/healthz").status_code == 200
        with pytest.raises(ConnectionRefusedError):  # where 0.0.0.0 would answer
            socket.create_connection(("127.0.0.2", port), timeout=SECONDS)
        with socket.create_server(("0.0.0.0", 0)) as open_to_all:
            socket.create_connection(("127.0.0.2", open_to_all.getsockname()[1]), timeout=SECONDS).close()
