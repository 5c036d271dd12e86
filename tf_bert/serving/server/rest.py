"""TensorFlow Serving's REST protocol, the page to try it with, health and metrics."""

import asyncio
import importlib.resources
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from google.protobuf.json_format import MessageToDict
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse

from tf_bert.serving.server import metrics as metrics_page
from tf_bert.serving.server.json_tensors import read_inputs, read_request, write_outputs
from tf_bert.serving.server.metrics import Metrics
from tf_bert.serving.server.predicting import Predictor
from tf_bert.serving.server.refusal import Refusal, Status, invalid, shown

PAGE_FILE = "page.html"

# The page is whole: nothing is loaded from elsewhere, and nothing can be.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def make_app(predictor: Predictor, metrics: Metrics, max_body_bytes: int, is_stopping: Callable[[], bool]) -> FastAPI:
    """The application.

    Args:
      predictor: what answers.
      metrics: what is counted.
      max_body_bytes: longer requests are refused.
      is_stopping: whether new requests should go elsewhere.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    models = predictor.models

    async def counted(method: str, answer: Awaitable[Response]) -> Response:
        started, code = time.monotonic(), 500
        try:
            response = await answer
            code = response.status_code
        except Refusal as refusal:
            code = refusal.status.http
            raise
        finally:
            metrics.observe_request("rest", method, str(code), time.monotonic() - started)
        return response

    async def answer_predict(request: Request, name: str, number: int | None) -> Response:
        models.check_name(name)
        try:
            body = await asyncio.wait_for(_read_body(request, max_body_bytes), predictor.timeout_seconds)
        except asyncio.TimeoutError:
            raise Refusal(
                Status.SLOW_BODY, f"the request was not complete after {predictor.timeout_seconds:g} seconds"
            ) from None
        values = read_request(body)
        with models.use(name, number) as version:
            signature = version.signature(values.get("signature_name", ""))
            outputs, count = await predictor.run(version, signature, read_inputs(values, signature, predictor.limits))
        return Response(write_outputs(outputs, "instances" in values, count), media_type="application/json")

    async def answer_status(name: str, number: int | None) -> Response:
        told = [
            {
                "version": str(version),
                "state": status.state,
                "status": {"error_code": "UNKNOWN" if status.error else "OK", "error_message": status.error},
            }
            for version, status in models.statuses(name, number).items()
        ]
        return JSONResponse({"model_version_status": told})

    async def answer_metadata(name: str, number: int | None) -> Response:
        with models.use(name, number) as version:
            signatures = MessageToDict(
                version.metadata, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
            spec = {"name": name, "signature_name": "", "version": str(version.number)}
        return JSONResponse({"model_spec": spec, "metadata": {"signature_def": signatures}})

    @app.get("/v1/models/{name}/metadata")
    async def metadata(name: str) -> Response:
        return await counted("metadata", answer_metadata(name, None))

    @app.get("/v1/models/{name}/versions/{number}/metadata")
    async def version_metadata(name: str, number: str) -> Response:
        return await counted("metadata", answer_metadata(name, _read_number(number)))

    @app.get("/v1/models/{name}/versions/{number}")
    async def version_status(name: str, number: str) -> Response:
        return await counted("status", answer_status(name, _read_number(number)))

    @app.get("/v1/models/{name}")
    async def status(name: str) -> Response:
        return await counted("status", answer_status(name, None))

    @app.post("/v1/models/{name}/versions/{number}:predict")
    async def version_predict(request: Request, name: str, number: str) -> Response:
        return await counted("predict", answer_predict(request, name, _read_number(number)))

    @app.post("/v1/models/{name}:predict")
    async def predict(request: Request, name: str) -> Response:
        return await counted("predict", answer_predict(request, name, None))

    @app.post("/v1/models/{rest:path}")
    async def other(rest: str) -> Response:
        raise invalid(f"found POST {shown('/v1/models/' + rest)}, expected /v1/models/NAME[/versions/NUMBER]:predict")

    @app.get("/healthz")
    async def health() -> Response:
        if is_stopping():
            raise Refusal(Status.STOPPING, "the server is stopping")
        return JSONResponse({"status": "ok", "model": models.name, "version": str(models.number)})

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(metrics.render(), media_type=metrics_page.CONTENT_TYPE)

    page = (importlib.resources.files("tf_bert.serving.server") / PAGE_FILE).read_text(encoding="utf-8")
    page = page.replace("MODEL_NAME", models.name)  # letters, digits, _, . and -

    @app.get("/")
    async def show_page() -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": _PAGE_POLICY})

    _add_error_handlers(app)
    return app


def _add_error_handlers(app: FastAPI) -> None:
    async def refused(request: Request, error: Any) -> Response:
        return JSONResponse({"error": str(error)}, error.status.http)

    async def not_routed(request: Request, error: Any) -> Response:
        found = f"{request.method} {shown(request.url.path)}"
        return JSONResponse(
            {"error": f"{found}: {error.detail}; expected /v1/models/NAME, its :predict or its /metadata"},
            error.status_code,
            error.headers,
        )

    async def client_left(request: Request, error: Any) -> Response:
        return Response(status_code=400)  # nobody reads it

    async def failed(request: Request, error: Any) -> Response:
        # A bug of ours: its traceback goes to the server's log, not to clients.
        return JSONResponse({"error": f"the server failed ({type(error).__name__}); its log says more"}, 500)

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(HTTPException, not_routed)
    app.add_exception_handler(ClientDisconnect, client_left)
    app.add_exception_handler(Exception, failed)


async def _read_body(request: Request, max_bytes: int) -> bytes:
    too_large = Refusal(Status.TOO_LARGE, f"the body is longer than {max_bytes:,} bytes; ask in parts")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise too_large
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def _read_number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise invalid(f"version: found {shown(text)}, expected a number")
    return int(text)
