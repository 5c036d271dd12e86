"""The REST protocol: what is answered, and the line that every mistake gets."""

import base64
import json
import socket
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from local_servers import running
from standin_exports import LETTERS, TOKEN_SCORES, TOKENS, write_export

from tf_bert.serving.server.signature import Signature

NAMES = ("pair", "multilabel", "embed", "fill_mask", "entities", "tokens", "examples", "wait", "not_finite", "whole")
PREDICT = "/v1/models/standin:predict"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    export_dir = write_export(tmp_path_factory.mktemp("exports") / "standin", 7, names=NAMES)
    with running(
        export_dir, max_text_bytes=5000, max_batch_size=16, max_queued_examples=16, timeout_seconds=10
    ) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with server.client() as client:
        yield client


def ask(client, status=200, **body):
    response = client.post(PREDICT, json=body)
    assert response.status_code == status, response.text
    return response.json()


def refused(client, status, content, path=PREDICT):
    """The line of a refusal."""
    response = client.post(path, content=content if isinstance(content, bytes | str) else json.dumps(content))
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json"), response.text
    assert list(response.json()) == ["error"]
    line = response.json()["error"]
    assert "\n" not in line and len(line) < 500
    return line


def rows_of(ids):
    """What the signature `tokens` takes."""
    return {"input_ids": ids, "segment_ids": ids, "input_mask": ids}


def scores(text):
    size = np.float32(len(text.encode()))
    return [1 - float(size / (size + 10)), float(size / (size + 10))]


# --- what is answered


@pytest.mark.parametrize("instances", [["abc", "ä" * 30], [{"text": "abc"}, {"text": "ä" * 30}]])
def test_a_row_for_every_instance(client, instances):
    predictions = ask(client, instances=instances)["predictions"]
    assert [row["label"] for row in predictions] == ["short", "long"]
    assert predictions[0]["scores"] == pytest.approx(scores("abc"), abs=1e-7)
    assert predictions[1]["scores"] == pytest.approx(scores("ä" * 30), abs=1e-7)
    assert [row["labels"] for row in predictions] == [["short", "long"]] * 2
    assert [row["model_version"] for row in predictions] == ["7", "7"]


@pytest.mark.parametrize("inputs", [["abc", "a" * 40], {"text": ["abc", "a" * 40]}])
def test_columns_for_inputs(client, inputs):
    outputs = ask(client, inputs=inputs, signature_name="serving_default")["outputs"]
    assert outputs["label"] == ["short", "long"]
    assert outputs["scores"][0] == pytest.approx(scores("abc"), abs=1e-7)


def test_numbers_are_those_of_the_graph(client, server):
    sent = ask(client, instances=["a text of some size"])["predictions"][0]["scores"]
    size = tf.constant(19.0)
    assert np.float32(sent[1]) == (size / (size + 10.0)).numpy()
    row = {"text": "a", "text_pair": "a"}
    response = client.post(PREDICT, json={"signature_name": "pair", "instances": [row]})
    assert '"scores": [0.9, 0.100000024]' in response.text  # without digits that a float32 has not


def test_two_inputs_and_base64(client):
    encoded = {"b64": base64.b64encode("über".encode()).decode()}
    rows = [{"text": "über", "text_pair": encoded}, {"text": "über", "text_pair": "unter"}]
    predictions = ask(client, signature_name="pair", instances=rows)["predictions"]
    assert [row["label"] for row in predictions] == ["same", "different"]
    columns = {"text": [encoded, "x"], "text_pair": ["über", "x"]}
    assert ask(client, signature_name="pair", inputs=columns)["outputs"]["label"] == ["same", "same"]


def test_one_output_has_no_name(client):
    assert ask(client, signature_name="embed", instances=["abcd"]) == {"predictions": [[4.0, 2.0, -4.0, 0.0]]}
    assert ask(client, signature_name="embed", inputs=["abcd"]) == {"outputs": [[4.0, 2.0, -4.0, 0.0]]}


def test_every_dtype(client):
    row = ask(client, signature_name="multilabel", instances=["apple"])["predictions"][0]
    assert row["labels"] == list(LETTERS) and row["predicted"] == [True, True, False]
    ids = {"input_ids": [[2, 3], [4, 0]], "segment_ids": [[0, 0], [0, 0]], "input_mask": [[1, 1], [1, 0]]}
    assert ask(client, signature_name="tokens", inputs=ids) == {"outputs": [5, 4]}
    rows = [{"input_ids": [2, 3], "segment_ids": [0, 1], "input_mask": [1, 1]}]
    assert ask(client, signature_name="tokens", instances=rows) == {"predictions": [6]}


def test_nested_and_padded_outputs(client):
    texts = ["a [MASK] b [MASK]", "none"]
    rows = ask(client, signature_name="fill_mask", instances=texts)["predictions"]
    assert [row["mask_count"] for row in rows] == [2, 0]
    assert rows[0]["tokens"] == [list(TOKENS)] * 2
    assert rows[0]["scores"][1] == pytest.approx(TOKEN_SCORES)
    rows = ask(client, signature_name="entities", instances=["Anna sah Ännchen in Oslo"])["predictions"]
    text = "Anna sah Ännchen in Oslo"
    assert [text[a:b] for a, b in zip(rows[0]["entity_starts"], rows[0]["entity_ends"], strict=True)] == [
        "Anna",
        "Ännchen",
        "Oslo",
    ]
    assert rows[0]["entity_types"] == ["PER", "LOC", "LOC"]


def test_serialised_examples(client):
    def example(**texts):
        features = {
            name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()])) for name, text in texts.items()
        }
        message = tf.train.Example(features=tf.train.Features(feature=features))
        return {"b64": base64.b64encode(message.SerializeToString()).decode()}

    rows = ask(client, signature_name="examples", instances=[example(text="abc"), example(text="x" * 300)])
    assert [row["label"] for row in rows["predictions"]] == ["short", "long"]
    line = refused(client, 400, {"signature_name": "examples", "instances": [example(other="abc")]})
    assert "signature examples refuses the input" in line and "text" in line


def test_outputs_of_the_whole_batch_and_bytes(client):
    body = {"signature_name": "whole", "inputs": ["ab", "c"]}
    assert ask(client, **body) == {"outputs": {"count": 2, "joined_bytes": {"b64": base64.b64encode(b"abc").decode()}}}
    line = refused(client, 400, {"signature_name": "whole", "instances": ["ab", "c"]})
    assert "is of shape [], not one for each of 2 examples; ask with `inputs`" in line


def test_special_strings_are_texts(client):
    texts = ["", "\x00", "[MASK] [SEP]", "\u202e\ufeff", "😀" * 9, "</script>", "a\nb"]
    rows = ask(client, instances=texts)["predictions"]
    for text, row in zip(texts, rows, strict=True):
        assert row["scores"] == pytest.approx(scores(text), abs=1e-6)


def test_versions_status_and_metadata(client):
    status = {"version": "7", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("/v1/models/standin", "/v1/models/standin/versions/7"):
        assert client.get(path).json() == {"model_version_status": [status]}
    response = client.post("/v1/models/standin/versions/7:predict", json={"instances": ["a"]})
    assert response.json()["predictions"][0]["label"] == "short"
    for path in ("/v1/models/standin/metadata", "/v1/models/standin/versions/7/metadata"):
        metadata = client.get(path).json()
        assert metadata["model_spec"] == {"name": "standin", "signature_name": "", "version": "7"}
        signatures = metadata["metadata"]["signature_def"]["signature_def"]
        assert set(signatures) >= {"serving_default", *NAMES}
        assert signatures["pair"]["inputs"]["text_pair"]["dtype"] == "DT_STRING"
        assert signatures["embed"]["outputs"]["embedding"]["tensor_shape"]["dim"][1] == {"size": "4", "name": ""}


def test_health_and_metrics(client, server):
    assert client.get("/healthz").json() == {"status": "ok", "model": "standin", "version": "7"}
    labels = {"protocol": "rest", "method": "predict"}
    before = {code: server.metric("tf_bert_requests_total", code=code, **labels) for code in ("200", "400", "404")}
    batches = server.metric("tf_bert_batch_size_sum", signature="pair")
    ask(client, signature_name="pair", inputs={"text": ["a", "b", "c"], "text_pair": ["a", "b", "c"]})
    refused(client, 400, {"instances": []})
    refused(client, 404, {"instances": ["a"]}, "/v1/models/other:predict")
    after = {code: server.metric("tf_bert_requests_total", code=code, **labels) for code in before}
    assert {code: after[code] - before[code] for code in before} == {"200": 1, "400": 1, "404": 1}
    assert server.metric("tf_bert_batch_size_sum", signature="pair") == batches + 3
    assert server.metric("tf_bert_request_seconds_count", **labels) == sum(
        server.metric("tf_bert_requests_total", code=code, **labels) for code in ("200", "400", "404", "413", "500")
    )
    assert server.metric("tf_bert_model_version") == 7 and server.metric("tf_bert_queued_examples") == 0
    assert server.metric("process_resident_memory_bytes") > 1e7


# --- what is refused

MISTAKES = {
    "not JSON": (b'{"instances": [', "the body is not valid JSON: Expecting value"),
    "nothing": (b"", "the body is not valid JSON: Expecting value"),
    "not UTF-8": (b'{"instances": ["\xff"]}', "the body is not UTF-8: byte 16"),
    "NaN": (b'{"instances": [NaN]}', "the body is not valid JSON: NaN is no number"),
    "Infinity": (b'{"instances": [-Infinity]}', "the body is not valid JSON: -Infinity is no number"),
    "very deep": (b'{"instances": ' + b"[" * 5000 + b"]" * 5000 + b"}", "its lists are too deep"),
    "very many digits": (b'{"instances": [' + b"9" * 5000 + b"]}", "the body is not valid JSON: Exceeds the limit"),
    "a list": ([1], "the body is a list, expected an object with `instances` or `inputs`"),
    "null": (None, "the body is null, expected an object"),
    "neither": ({"signature_name": "pair"}, "expected either `instances` (a list of examples) or `inputs`"),
    "both": ({"instances": ["a"], "inputs": ["a"]}, "expected either `instances`"),
    "an unknown key": ({"instance": ["a"]}, "unknown key 'instance', expected instances, inputs, signature_name"),
    "a number as signature": ({"instances": ["a"], "signature_name": 3}, "signature_name: found 3, expected a string"),
    "an unknown signature": (
        {"instances": ["a"], "signature_name": "clasify"},
        "signature_name: found 'clasify', expected one of embed, entities, examples, fill_mask, multilabel",
    ),
    "no list": ({"instances": "abc"}, "instances: found 'abc', expected a list with an entry for every example"),
    "no instances": ({"instances": []}, "instances: found no examples, expected one or more"),
    "no inputs": ({"inputs": []}, "inputs: found an empty list, expected values"),
    "an empty column": ({"inputs": {"text": []}}, "inputs.text: found an empty list, expected values"),
    "a scalar": ({"inputs": {"text": "abc"}}, "inputs.text: found shape [], expected [None]"),
    "lists in lists": ({"instances": [["a", "b"]]}, "instances: found shape [1, 2], expected [None]"),
    "an unknown input": (
        {"instances": [{"txt": "a"}]},
        "instances[0]: unknown input 'txt'; signature serving_default takes text",
    ),
    "a missing input": (
        {"signature_name": "pair", "instances": [{"text": "a", "text_pair": "b"}, {"text": "a"}]},
        "instances[1]: input 'text_pair' is missing; signature pair takes text, text_pair",
    ),
    "a missing column": ({"signature_name": "pair", "inputs": {"text": ["a"]}}, "inputs: input 'text_pair' is missing"),
    "the short form for two inputs": (
        {"signature_name": "pair", "instances": ["a"]},
        "instances[0]: found 'a', expected an object with text, text_pair",
    ),
    "one column for two inputs": (
        {"signature_name": "pair", "inputs": ["a"]},
        "inputs: found a list, expected an object with text, text_pair",
    ),
    "a number for a text": ({"instances": ["a", 3]}, "instances[1]: found 3, expected a string"),
    "null for a text": ({"instances": [{"text": None}]}, "instances[0].text: found null, expected a string"),
    "an object for a text": (
        {"instances": [{"text": {"b65": "x"}}]},
        'instances[0].text: found an object, expected a string, or {"b64"',
    ),
    "mixed forms": (
        {"instances": ["a", {"text": "b"}]},
        "instances[1]: found an object, expected a string",
    ),
    "bad base64": ({"instances": [{"b64": "%%"}]}, "instances[0]: found an object, expected base64 in it"),
    "base64 that is not UTF-8": ({"instances": [{"b64": "/w=="}]}, "input text: example 0: byte 0 is not UTF-8"),
    "half a surrogate pair": (b'{"instances": ["\\ud800"]}', "expected one without half a surrogate pair"),
    "unequal columns": (
        {"signature_name": "pair", "inputs": {"text": ["a"], "text_pair": ["a", "b"]}},
        "the inputs have different numbers of examples: text 1, text_pair 2",
    ),
    "unequal rows": (
        {
            "signature_name": "tokens",
            "inputs": rows_of([[1], [1, 2]]),
        },
        "inputs.input_ids[1]: found 2 entries, others have 1",
    ),
    "rows that are no lists": (
        {"signature_name": "tokens", "inputs": rows_of([[1], 2])},
        "inputs.input_ids[1]: found 2, expected a list of 1",
    ),
    "a fraction for an id": (
        {"signature_name": "tokens", "instances": [rows_of([1.5])]},
        "instances[0].input_ids[0]: found 1.5, expected an integer from -2147483648 to 2147483647",
    ),
    "true for an id": (
        {"signature_name": "tokens", "instances": [rows_of([True])]},
        "instances[0].input_ids[0]: found True, expected an integer",
    ),
    "too large an id": (
        {"signature_name": "tokens", "instances": [rows_of([2**31])]},
        "instances[0].input_ids[0]: found 2147483648, expected an integer",
    ),
    "an id that the model has not": (
        {"signature_name": "tokens", "instances": [rows_of([100])]},
        "signature tokens refuses the input: indices[0,0] = 100 is not in [0, 100)",
    ),
    "too many examples": ({"instances": ["a"] * 17}, "instances: found 17 examples, expected 16 at most"),
    "too many in a column": ({"inputs": ["a"] * 17}, "inputs: found 17 examples, expected 16 at most; ask in parts"),
    "too long a text": (
        {"instances": ["a", "ä" * 2501]},
        "input text: example 1: found 5,002 bytes, expected 5,000 at most; shorten the text",
    ),
    "too many ids": (
        {
            "signature_name": "tokens",
            "instances": [dict.fromkeys(("input_ids", "segment_ids", "input_mask"), [1] * 1251)],
        },
        "instances.input_ids: found 1,251 values an example, expected 5,000 bytes at most",
    ),
    "not an example": ({"signature_name": "examples", "instances": ["abc"]}, "Could not parse example input"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(client, mistake):
    content, expected = MISTAKES[mistake]
    assert expected in refused(client, 400, content)
    assert ask(client, instances=["abc"])["predictions"][0]["label"] == "short"


KEYS = st.sampled_from(("text", "x", "b64"))
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just({"b64": "YQ=="}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=8,
)
BODIES = st.one_of(
    ANYTHING,
    st.fixed_dictionaries(
        {},
        optional={
            "instances": ANYTHING,
            "inputs": ANYTHING,
            "signature_name": st.sampled_from(("", "pair", "tokens", "embed", "examples")) | ANYTHING,
        },
    ),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(BODIES)
def test_whatever_is_asked_is_answered_or_refused(client, body):
    response = client.post(PREDICT, content=json.dumps(body))  # which escapes what is no Unicode
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        assert list(response.json()) == ["error"] and "\n" not in response.json()["error"]


def test_bytes_that_are_no_http(client, server):
    generator = np.random.default_rng(0)
    beginning = b"POST /v1/models/standin:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9"
    for address in (server.url.removeprefix("http://"), server.grpc):
        host, port = address.split(":")
        for start in (b"", beginning, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                connection.sendall(start + generator.bytes(3000))
    assert ask(client, instances=["abc"])["predictions"][0]["label"] == "short"


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/v1/models/other:predict", 404, "model: found 'other', expected standin"),
        ("/v1/models/standin/versions/8:predict", 404, "version of standin: found 8, expected 7"),
        ("/v1/models/standin/versions/new:predict", 400, "version: found 'new', expected a number"),
        (
            "/v1/models/standin",
            400,
            "found POST '/v1/models/standin', expected /v1/models/NAME[/versions/N",
        ),
        ("/v1/models/standin:classify", 400, "found POST '/v1/models/standin:classify', expected"),
        ("/v2/models/standin", 404, "POST '/v2/models/standin': Not Found; expected /v1/models/NAME"),
        ("/healthz", 405, "Method Not Allowed"),
    ],
)
def test_a_wrong_address_is_one_line(client, path, status, expected):
    assert expected in refused(client, status, {"instances": ["abc"]}, path)


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/v1/models/other", 404, "model: found 'other', expected standin"),
        ("/v1/models/other/metadata", 404, "model: found 'other', expected standin"),
        ("/v1/models/standin/versions/8", 404, "version of standin: found 8, expected 7"),
        ("/v1/models/standin/versions/8/metadata", 404, "version of standin: found 8, expected 7"),
        ("/v1/models/standin/versions/x", 400, "version: found 'x', expected a number"),
        ("/docs", 404, "GET '/docs': Not Found"),
    ],
)
def test_asking_for_what_is_not_there(client, path, status, expected):
    response = client.get(path)
    assert response.status_code == status and expected in response.json()["error"]


def test_a_text_of_10_megabytes(client):
    line = refused(client, 413, {"instances": ["a" * 10_000_000]})
    assert line == "the body is longer than 4,000,000 bytes; ask in parts"
    blocks = (b"x" * 100_000 for _ in range(100))  # without a length said before
    response = client.post(PREDICT, content=blocks)
    assert response.status_code == 413 and response.json()["error"] == line
    assert ask(client, instances=["abc"])["predictions"][0]["label"] == "short"


def test_numbers_that_json_cannot_say(client):
    assert "NaN or infinity" in refused(client, 500, {"signature_name": "not_finite", "instances": ["abc"]})


def test_a_number_that_is_too_large_for_its_dtype(tmp_path):
    class Doubling(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def double(self, x):
            return {"doubled": 2 * x}

    module = Doubling()
    tf.saved_model.save(module, str(tmp_path / "doubling" / "1"), signatures=module.double)
    with running(tmp_path / "doubling") as server, server.client() as client:
        path = "/v1/models/doubling:predict"
        assert client.post(path, json={"instances": [1.5, 2]}).json() == {"predictions": [3.0, 4.0]}
        assert "is too large for float32" in refused(client, 400, b'{"instances": [1e300]}', path)
        assert "is too large for float32" in refused(client, 400, b'{"instances": [1e999]}', path)
        assert "found '1', expected a number" in refused(client, 400, {"instances": ["1"]}, path)


def test_an_answer_that_takes_too_long_and_clients_that_leave(tmp_path):
    export_dir = write_export(tmp_path / "standin", names=["wait"])
    gate = tmp_path / "gate"
    body = {"signature_name": "wait", "instances": [str(gate)]}
    with running(export_dir, timeout_seconds=0.3) as server, server.client() as client:
        assert refused(client, 504, body) == "no answer after 0.3 seconds; try again"
        # The batch still runs; what waits for it is taken out of the queue when its time is over.
        assert refused(client, 504, {"instances": ["abc"]}) == "no answer after 0.3 seconds; try again"
        assert server.metric("tf_bert_queued_examples") == 0
        assert refused(client, 504, body)
        gate.touch()
        while client.post(PREDICT, json={"instances": ["abc"]}).status_code != 200:
            pass
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{" % PREDICT.encode())
            assert b" 408 " in connection.recv(10_000)  # the rest never comes
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{" % PREDICT.encode())
        assert client.get("/healthz").status_code == 200


def test_a_full_queue_is_429(tmp_path):
    export_dir = write_export(tmp_path / "standin", names=["wait"])
    gate, answers = tmp_path / "gate", []
    with running(export_dir, max_batch_size=4, max_queued_examples=4) as server, server.client() as client:

        def wait():
            answers.append(client.post(PREDICT, json={"signature_name": "wait", "instances": [str(gate)] * 4}))

        threads = [threading.Thread(target=wait) for _ in range(2)]
        threads[0].start()
        while not server.metric("tf_bert_batch_size_count", signature="wait"):
            pass
        threads[1].start()
        while server.metric("tf_bert_queued_examples") < 4:
            pass
        line = refused(client, 429, {"instances": ["abc"]})
        assert line == "4 examples wait already, and 4 may; try again in a moment"
        gate.touch()
        for thread in threads:
            thread.join()
        assert [answer.json() for answer in answers] == [{"predictions": [1] * 4}] * 2
        assert ask(client, instances=["abc"])["predictions"][0]["label"] == "short"
        labels = {"protocol": "rest", "method": "predict", "code": "429"}
        assert server.metric("tf_bert_requests_total", **labels) == 1


def test_fewer_rows_than_a_signature_says(tmp_path):
    class Dropping(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def drop(self, text):
            return {"half": text[: tf.size(text) // 2]}

    module = Dropping()
    tf.saved_model.save(module, str(tmp_path / "dropping" / "1"), signatures=module.drop)
    with running(tmp_path / "dropping") as server, server.client() as client:
        path = "/v1/models/dropping:predict"
        assert client.post(path, json={"inputs": ["a", "b"]}).json() == {"outputs": ["a"]}
        assert "not one for each of 2 examples" in refused(client, 400, {"instances": ["a", "b"]}, path)


def test_a_bug_of_ours_is_500_without_its_inside(client, monkeypatch, caplog):
    def fail(*arguments):
        raise KeyError("an inner name")

    with monkeypatch.context() as patch:
        patch.setattr(Signature, "check", fail)
        line = refused(client, 500, {"instances": ["abc"]})
    assert line == "the server failed (KeyError); its log says more"
    while "an inner name" not in caplog.text:  # which comes after the answer
        time.sleep(0.01)
    assert ask(client, instances=["abc"])["predictions"][0]["label"] == "short"
