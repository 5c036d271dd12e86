"""The gRPC protocol, asked with the stubs of tensorflow-serving-api."""

import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from local_servers import running
from standin_exports import TOKENS, write_export
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tf_bert.serving.server.signature import Signature

NAMES = ("pair", "embed", "multilabel", "fill_mask", "tokens", "examples", "wait", "not_finite", "whole")
SECONDS = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    export_dir = write_export(tmp_path_factory.mktemp("exports") / "standin", 7, names=NAMES)
    limits = {"max_text_bytes": 5000, "max_batch_size": 16, "max_queued_examples": 16, "max_body_megabytes": 0.5}
    with running(export_dir, **limits) as server:
        yield server


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def request(signature="", name="standin", version=None, outputs=(), **inputs):
    message = predict_pb2.PredictRequest()
    message.model_spec.name, message.model_spec.signature_name = name, signature
    if version is not None:
        message.model_spec.version.value = version
    for key, value in inputs.items():
        is_proto = isinstance(value, tensor_pb2.TensorProto)
        message.inputs[key].CopyFrom(value if is_proto else tf.make_tensor_proto(value))
    message.output_filter.extend(outputs)
    return message


def predict(stub, *arguments, **inputs):
    response = stub.Predict(request(*arguments, **inputs), timeout=SECONDS)
    return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}


def refused(call, code, *arguments, **options):
    """The line of a refusal."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **{"timeout": SECONDS, **options})
    assert caught.value.code() == code, caught.value.details()
    assert "\n" not in caught.value.details()
    return caught.value.details()


INVALID = grpc.StatusCode.INVALID_ARGUMENT


def test_texts_to_labels(stub):
    response = stub.Predict(request(text=[b"abc", b"a" * 30]), timeout=SECONDS)
    assert response.model_spec.name == "standin" and response.model_spec.version.value == 7
    assert response.model_spec.signature_name == "serving_default"
    outputs = {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}
    assert outputs["label"].tolist() == [b"short", b"long"]
    assert outputs["labels"].tolist() == [[b"short", b"long"]] * 2
    np.testing.assert_allclose(outputs["scores"], [[10 / 13, 3 / 13], [0.25, 0.75]], rtol=1e-6)
    assert outputs["model_version"].tolist() == [b"7", b"7"]
    # Clients without TensorFlow read these fields.
    assert list(response.outputs["label"].string_val) == [b"short", b"long"]
    assert list(response.outputs["scores"].float_val) == outputs["scores"].ravel().tolist()
    assert [dim.size for dim in response.outputs["scores"].tensor_shape.dim] == [2, 2]


def test_every_dtype_and_way_to_write_a_tensor(stub):
    outputs = predict(stub, "multilabel", text=[b"apple"])
    assert outputs["predicted"].dtype == np.bool_ and outputs["predicted"].tolist() == [[True, True, False]]
    ids = np.array([[2, 3], [4, 0]], np.int32)
    ones = np.ones_like(ids)
    assert predict(stub, "tokens", input_ids=ids, segment_ids=ids * 0, input_mask=ones)["sum"].tolist() == [5, 4]
    listed = tf.make_tensor_proto(ids)  # values in a field of their own, and one that stands for all
    listed.ClearField("tensor_content")
    listed.int_val.extend([2, 3, 4, 0])
    repeated = tensor_pb2.TensorProto(dtype=tf.int32.as_datatype_enum, int_val=[1], tensor_shape=listed.tensor_shape)
    assert predict(stub, "tokens", input_ids=listed, segment_ids=ids * 0, input_mask=repeated)["sum"].tolist() == [5, 4]
    outputs = predict(stub, "fill_mask", text=[b"a [MASK] b [MASK]", b"none"])
    assert outputs["mask_count"].tolist() == [2, 0]
    assert outputs["tokens"].shape == (2, 2, 5) and outputs["tokens"][0, 1].tolist() == [t.encode() for t in TOKENS]
    whole = predict(stub, "whole", text=[b"ab", b"c"])
    assert whole["count"] == 2 and whole["joined_bytes"] == b"abc"
    assert np.isinf(predict(stub, "not_finite", text=[b"ab"])["score"]).all()  # which protocol buffers can say


def test_an_output_filter_and_a_version(stub):
    assert list(predict(stub, "pair", "standin", 7, ["label"], text=[b"a"], text_pair=[b"a"])) == ["label"]
    line = refused(stub.Predict, INVALID, request("pair", outputs=["lable"], text=[b"a"], text_pair=[b"a"]))
    assert line == "output_filter: unknown output 'lable'; signature pair has label, labels, model_version, scores"


def test_serialised_examples(stub):
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x" * 200]))
    example = tf.train.Example(features=tf.train.Features(feature={"text": feature})).SerializeToString()
    with pytest.raises(UnicodeDecodeError):
        example.decode()
    assert predict(stub, "examples", examples=[example])["label"].tolist() == [b"long"]


def test_metadata(stub):
    message = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    message.model_spec.name = "standin"
    response = stub.GetModelMetadata(message, timeout=SECONDS)
    assert response.model_spec.version.value == 7
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    inputs = signatures.signature_def["pair"].inputs
    assert {name: tensor.dtype for name, tensor in inputs.items()} == dict.fromkeys(("text", "text_pair"), tf.string)
    message.metadata_field[:] = ["weights"]
    assert refused(stub.GetModelMetadata, INVALID, message) == "metadata_field: found 'weights', expected signature_def"
    message.metadata_field[:] = []
    assert refused(stub.GetModelMetadata, INVALID, message) == "metadata_field: found none, expected signature_def"


def test_status(channel):
    models = model_service_pb2_grpc.ModelServiceStub(channel)
    message = get_model_status_pb2.GetModelStatusRequest()
    message.model_spec.name = "standin"
    (status,) = models.GetModelStatus(message, timeout=SECONDS).model_version_status
    assert (status.version, status.state, status.status.error_code) == (7, status.AVAILABLE, 0)
    message.model_spec.version.value = 9
    line = refused(models.GetModelStatus, grpc.StatusCode.NOT_FOUND, message)
    assert line == "version of standin: found 9, expected 7"


def test_what_is_not_done_here(stub):
    refused(stub.Classify, grpc.StatusCode.UNIMPLEMENTED, classification_pb2.ClassificationRequest())


def broadcast(size, dtype=tf.string, **values):
    shape = tf.TensorShape([size]).as_proto()
    return tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum, tensor_shape=shape, **values)


def shaped(shape):
    return tensor_pb2.TensorProto(dtype=tf.string.as_datatype_enum, string_val=[b"a"], tensor_shape=shape.as_proto())


ONES = np.ones([1, 2], np.int32)
MISTAKES = {
    "no input": (request(), "inputs: input 'text' is missing; signature serving_default takes text"),
    "an unknown input": (request(txt=[b"a"]), "inputs: unknown input 'txt'; signature serving_default takes text"),
    "an unknown signature": (request("clasify", text=[b"a"]), "signature_name: found 'clasify', expected one of embed"),
    "no examples": (request(text=np.zeros([0], object)), "found no examples, expected one or more"),
    "too many examples": (request(text=[b"a"] * 17), "input text: found 17 examples, expected 16 at most"),
    "a scalar": (request(text=b"a"), "input text: found shape [], expected [None]"),
    "a table": (request(text=[[b"a"]]), "input text: found shape [1, 1], expected [None]"),
    "numbers": (request(text=[1.0]), "input text: found dtype float32, expected string"),
    "long integers": (
        request("tokens", input_ids=ONES.astype(np.int64), segment_ids=ONES, input_mask=ONES),
        "input input_ids: found dtype int64, expected int32",
    ),
    "not UTF-8": (request(text=[b"fine", b"not \xff"]), "input text: example 1: byte 4 is not UTF-8"),
    "too long a text": (
        request(text=[b"a" * 5001]),
        "input text: example 0: found 5,001 bytes, expected 5,000 at most",
    ),
    "different numbers": (
        request("pair", text=[b"a"], text_pair=[b"a", b"b"]),
        "the inputs have different numbers of examples: text 1, text_pair 2",
    ),
    "one value for very many": (
        request(text=broadcast(2**40, string_val=[b"a"])),
        "input text: found 1,099,511,627,776 examples, expected 16 at most",
    ),
    "too many ids": (
        request("tokens", input_ids=np.ones([1, 1251], np.int32), segment_ids=ONES, input_mask=ONES),
        "input input_ids: found 1,251 values an example, expected 5,000 bytes at most",
    ),
    "more values than the shape": (
        request(text=broadcast(1, string_val=[b"a", b"b"])),
        "input text: found 2 values, expected 1, as the shape [1] says",
    ),
    "no values": (request(text=broadcast(1)), "input text: found 0 values, expected 1, as the shape [1] says"),
    "a part of the bytes": (
        request("tokens", input_ids=broadcast(2, tf.int32, tensor_content=b"abc"), segment_ids=ONES, input_mask=ONES),
        "input input_ids: found 3 bytes of values, expected 2 values",
    ),
    "strings as bytes": (request(text=broadcast(1, tensor_content=b"a")), "input text: found 1 bytes of values"),
    "no dtype": (request(text=tensor_pb2.TensorProto()), "input text: found dtype 0, expected string"),
    "a resource": (
        request(text=broadcast(1, tf.resource)),
        "input text: found dtype resource, expected string",
    ),
    "an unknown size": (request(text=shaped(tf.TensorShape([None]))), "input text: found a tensor without a shape"),
    "an unknown rank": (request(text=shaped(tf.TensorShape(None))), "input text: found a tensor without a shape"),
    "an id that the model has not": (
        request("tokens", input_ids=ONES * 100, segment_ids=ONES, input_mask=ONES),
        "signature tokens refuses the input: indices[0,0] = 100 is not in [0, 100)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(stub, mistake):
    message, expected = MISTAKES[mistake]
    assert expected in refused(stub.Predict, INVALID, message)
    assert predict(stub, text=[b"abc"])["label"].tolist() == [b"short"]


def test_other_models_and_versions(stub):
    missing = grpc.StatusCode.NOT_FOUND
    assert (
        refused(stub.Predict, missing, request(name="other", text=[b"a"])) == "model: found 'other', expected standin"
    )
    assert refused(stub.Predict, missing, request(version=8, text=[b"a"])) == "version of standin: found 8, expected 7"
    message = request(text=[b"a"])
    message.model_spec.version_label = "stable"
    assert "version_label: found 'stable'; give a version" in refused(stub.Predict, INVALID, message)


def test_bytes_that_are_no_message(channel):
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    assert refused(call, INVALID, b"\xff\xff\xff") == "the message is not a PredictRequest"


def test_a_text_of_10_megabytes(stub):
    refused(stub.Predict, grpc.StatusCode.RESOURCE_EXHAUSTED, request(text=[b"a" * 10_000_000]))
    assert predict(stub, text=[b"abc"])["label"].tolist() == [b"short"]


def test_metrics(stub, server):
    labels = {"protocol": "grpc", "method": "Predict"}
    before = [server.metric("tf_bert_requests_total", code=code, **labels) for code in ("OK", "NOT_FOUND")]
    predict(stub, text=[b"abc"])
    refused(stub.Predict, grpc.StatusCode.NOT_FOUND, request(name="other", text=[b"a"]))
    after = [server.metric("tf_bert_requests_total", code=code, **labels) for code in ("OK", "NOT_FOUND")]
    assert after == [count + 1 for count in before]


def test_a_bug_of_ours_is_internal_without_its_inside(stub, monkeypatch):
    def fail(*arguments):
        raise KeyError("an inner name")

    with monkeypatch.context() as patch:
        patch.setattr(Signature, "check", fail)
        line = refused(stub.Predict, grpc.StatusCode.INTERNAL, request(text=[b"abc"]))
    assert line == "the server failed (KeyError); its log says more"


def test_deadlines_of_server_and_client_and_a_full_queue(tmp_path):
    export_dir = write_export(tmp_path / "standin", names=["wait"])
    gate = tmp_path / "gate"
    late = grpc.StatusCode.DEADLINE_EXCEEDED
    waiting = request("wait", text=[str(gate).encode()])
    settings = {"timeout_seconds": 5, "max_batch_size": 2, "max_queued_examples": 2}
    with running(export_dir, **settings) as server, grpc.insecure_channel(server.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        refused(stub.Predict, late, waiting, timeout=0.2)  # whose batch goes on
        refused(stub.Predict, late, request(text=[b"abc"]), timeout=0.2)
        while server.metric("tf_bert_queued_examples"):
            pass
        calls = [stub.Predict.future(request(text=[b"a", b"b"]), timeout=SECONDS)]
        while server.metric("tf_bert_queued_examples") < 2:
            pass
        line = refused(stub.Predict, grpc.StatusCode.RESOURCE_EXHAUSTED, request(text=[b"abc"]))
        assert line == "2 examples wait already, and 2 may; try again in a moment"
        assert calls[0].exception().code() == late
        assert calls[0].exception().details() == "no answer after 5 seconds; try again"
        gate.touch()
        done = threading.Event()
        calls[0].add_done_callback(lambda _: done.set())
        assert done.wait(SECONDS)
        assert predict(stub, text=[b"abc"])["label"].tolist() == [b"short"]
        assert server.metric("tf_bert_requests_total", protocol="grpc", method="Predict", code="CANCELLED") == 2
