"""TensorFlow Serving's gRPC protocol: PredictionService.Predict and GetModelMetadata, ModelService.GetModelStatus."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from tf_bert.serving.server.metrics import Metrics
from tf_bert.serving.server.predicting import Predictor
from tf_bert.serving.server.proto_tensors import read_inputs, write_tensor
from tf_bert.serving.server.refusal import Refusal, Status, invalid, shown

MAX_CALLS = 1000
"""Calls at a time; more get RESOURCE_EXHAUSTED."""

_METADATA = "signature_def"
_UNKNOWN = 2  # google.rpc.Code of a version that was not loaded


def make_grpc_server(predictor: Predictor, metrics: Metrics, max_body_bytes: int) -> Any:
    """A `grpc.aio.Server` without a port; to be called where an event loop runs."""
    calls = _Calls(predictor)
    methods: dict[str, dict[str, tuple[Any, Callable[[Any], Awaitable[Any]]]]] = {
        "PredictionService": {
            "Predict": (predict_pb2.PredictRequest, calls.predict),
            "GetModelMetadata": (get_model_metadata_pb2.GetModelMetadataRequest, calls.metadata),
        },
        "ModelService": {"GetModelStatus": (get_model_status_pb2.GetModelStatusRequest, calls.status)},
    }
    options = [
        ("grpc.max_receive_message_length", max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # or a second server would share the port
    ]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=MAX_CALLS)
    for service, table in methods.items():
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(_handler(name, request, answer, metrics))
            for name, (request, answer) in table.items()
        }
        name = f"tensorflow.serving.{service}"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    return server


class _Calls:
    def __init__(self, predictor: Predictor) -> None:
        self._predictor, self._models = predictor, predictor.models

    async def predict(self, request: Any) -> Any:
        with self._models.use(*_read_spec(request.model_spec)) as version:
            signature = version.signature(request.model_spec.signature_name)
            for name in request.output_filter:
                if name not in signature.outputs:
                    has = ", ".join(signature.outputs)
                    raise invalid(f"output_filter: unknown output {shown(name)}; signature {signature.name} has {has}")
            inputs = read_inputs(request, signature, self._predictor.limits)
            outputs, _ = await self._predictor.run(version, signature, inputs)
            response = predict_pb2.PredictResponse()
            _write_spec(response.model_spec, request.model_spec.name, version.number, signature.name)
        for name in request.output_filter or outputs:
            response.outputs[name].CopyFrom(write_tensor(outputs[name]))
        return response

    async def metadata(self, request: Any) -> Any:
        for field in request.metadata_field:
            if field != _METADATA:
                raise invalid(f"metadata_field: found {shown(field)}, expected {_METADATA}")
        if not request.metadata_field:
            raise invalid(f"metadata_field: found none, expected {_METADATA}")
        with self._models.use(*_read_spec(request.model_spec)) as version:
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            _write_spec(response.model_spec, request.model_spec.name, version.number, "")
            response.metadata[_METADATA].Pack(version.metadata)
        return response

    async def status(self, request: Any) -> Any:
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, status in self._models.statuses(*_read_spec(request.model_spec)).items():
            told = response.model_version_status.add(version=number, state=status.state)
            if status.error:
                told.status.error_code = _UNKNOWN
                told.status.error_message = status.error
        return response


def _handler(
    method: str, request_type: Any, answer: Callable[[Any], Awaitable[Any]], metrics: Metrics
) -> Callable[[bytes, Any], Awaitable[bytes]]:
    """Bytes to bytes, so that a damaged message is refused like any other mistake."""

    async def call(message: bytes) -> bytes:
        try:
            request = request_type.FromString(message)
        except DecodeError:
            raise invalid(f"the message is not a {request_type.DESCRIPTOR.name}") from None
        response: bytes = (await answer(request)).SerializeToString()
        return response

    async def handle(message: bytes, context: Any) -> bytes:
        started, code = time.monotonic(), "CANCELLED"  # which it stays if the client leaves
        try:
            response = await call(message)
            code = "OK"
            return response
        except Refusal as refusal:
            code, line = refusal.status.grpc, str(refusal)
        except Exception as error:
            logging.exception("%s failed", method)
            code, line = Status.FAILED.grpc, f"the server failed ({type(error).__name__}); its log says more"
        finally:
            metrics.observe_request("grpc", method, code, time.monotonic() - started)
        return await context.abort(grpc.StatusCode[code], line)  # which raises

    return handle


def _read_spec(spec: Any) -> tuple[str, int | None]:
    if spec.version_label:
        raise invalid(f"version_label: found {shown(spec.version_label)}; give a version, or none for the newest")
    return spec.name, spec.version.value if spec.HasField("version") else None


def _write_spec(spec: Any, name: str, number: int, signature: str) -> None:
    spec.name, spec.signature_name = name, signature
    spec.version.value = number
