"""The local server: REST and gRPC in one process, started, watched and stopped."""

import asyncio
import contextlib
import dataclasses
import importlib
import ipaddress
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tf_bert.config import ServeConfig
from tf_bert.errors import InputError, UsageError
from tf_bert.serving.server.version_files import check_export

_LIBRARIES = ("fastapi", "uvicorn", "prometheus_client", "grpc", "tensorflow_serving")
_MAX_CONNECTIONS = 1000  # more get 503 at once
# Longer than clients keep theirs: one that is closed at the moment when a request comes fails that request.
_KEEP_ALIVE_SECONDS = 75


@dataclasses.dataclass(frozen=True)
class Ports:
    """Where a server listens."""

    rest: int
    grpc: int


def serve(config: ServeConfig) -> None:
    """Serves an export until SIGTERM or SIGINT, prints what happens; the work of `tf-bert serve`.

    Raises:
      UsageError: if a library is missing, or a setting is wrong.
      InputError: if there is nothing to serve, or a port is taken.
    """
    check_libraries()
    if not asyncio.run(_serve_until_signal(config)):
        # Threads that are still in TensorFlow would crash an orderly end of the interpreter.
        message = f"requests were left unanswered after stop_deadline_seconds {config.stop_deadline_seconds:g}"
        print(f"tf-bert serve: {message}", file=sys.stderr, flush=True)
        os._exit(1)


def check_libraries() -> None:
    """Raises `UsageError` where a library of the server is missing."""
    for name in _LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UsageError(f"{error}; install what the server needs with: pip install 'tf_bert[serving]'") from error


async def _serve_until_signal(config: ServeConfig) -> bool:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        for number in (signal.SIGTERM, signal.SIGINT):  # a second one ends the process at once
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)

    def tell(line: str) -> None:
        print(line, flush=True)

    def ready(ports: Ports) -> None:
        for line in greeting(config, ports):
            tell(line)

    return await run_server(config, stop, tell, ready)


async def run_server(
    config: ServeConfig, stop: asyncio.Event, tell: Callable[[str], None], ready: Callable[[Ports], None]
) -> bool:
    """Serves until `stop` is set; what has been asked by then is answered.

    Args:
      config: what and how.
      stop: set by the caller.
      tell: is given lines for people.
      ready: is called once requests are answered.

    Returns:
      Whether all requests were answered, in the time that the configuration gives them.

    Raises:
      UsageError, InputError: as `serve`.
    """
    limits = (config.max_batch_size, config.max_text_bytes)
    name = choose_name(config)
    with _bound(config, "rest_port") as rest_socket:
        with _bound(config, "grpc_port") as grpc_socket:
            grpc_port = grpc_socket.getsockname()[1]  # known to be free
        check_export(Path(config.export_dir))

        # TensorFlow comes with these: what is wrong with the settings is told before.
        from tf_bert.serving.server.batching import Batcher
        from tf_bert.serving.server.grpc_service import make_grpc_server
        from tf_bert.serving.server.metrics import Metrics
        from tf_bert.serving.server.models import Models
        from tf_bert.serving.server.predicting import Predictor
        from tf_bert.serving.server.rest import make_app
        from tf_bert.serving.server.signature import Limits

        models = Models(Path(config.export_dir), name, Limits(*limits))
        metrics = Metrics()
        with Batcher(
            config.max_batch_size,
            config.batch_timeout_micros,
            config.num_batch_threads,
            config.max_queued_examples,
            metrics.observe_batch,
        ) as batcher:
            metrics.watch(lambda: batcher.queued, lambda: models.number)
            predictor = Predictor(models, batcher, Limits(*limits), config.timeout_seconds)
            max_body_bytes = int(config.max_body_megabytes * 1e6)
            web = _make_web_server(make_app(predictor, metrics, max_body_bytes, stop.is_set), config)
            grpc_server = make_grpc_server(predictor, metrics, max_body_bytes)
            grpc_server.add_insecure_port(_address(config.host, grpc_port))
            tell(await asyncio.to_thread(models.load_first))
            await grpc_server.start()
            web_task = asyncio.create_task(web.serve(sockets=[rest_socket]))
            while not (web.started or web_task.done()):
                await asyncio.sleep(0.01)
            watcher = asyncio.create_task(_watch(models, config.poll_seconds, tell))
            ready(Ports(rest_socket.getsockname()[1], grpc_port))
            await stop.wait()
            tell("stopping: no new requests, and those that are here are answered")
            web.should_exit = True
            deadline = asyncio.get_running_loop().time() + config.stop_deadline_seconds
            await asyncio.gather(web_task, grpc_server.stop(config.stop_deadline_seconds))
            watcher.cancel()
            remaining = max(deadline - asyncio.get_running_loop().time(), 0.1)
            is_done = await asyncio.to_thread(batcher.close, remaining)
            models.close()
            return is_done


def _make_web_server(app: Any, config: ServeConfig) -> Any:
    import uvicorn

    class WebServer(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # signals are for this module

    return WebServer(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(config.stop_deadline_seconds)),
        )
    )


async def _watch(models: Any, seconds: float, tell: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        lines = models.refresh()
        try:
            while line := await asyncio.to_thread(next, lines, None):
                tell(line)
        except Exception:  # a bug of ours must not end the look-out
            logging.exception("looking for a new version failed")


def choose_name(config: ServeConfig) -> str:
    """The model's name; raises `UsageError` if the directory's cannot be one."""
    name = config.model_name or Path(config.export_dir).absolute().name
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise UsageError(f"the directory's name {name!r} cannot be a model's; give --model_name, e.g. my-model")
    return name


@contextlib.contextmanager
def _bound(config: ServeConfig, field: str) -> Iterator[socket.socket]:
    port = getattr(config, field)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f"--host: found {config.host!r}, expected an address of this machine ({error})") from None
    with socket.socket(family, kind, protocol) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(address)
        except OSError as error:
            raise InputError(
                f"{_address(config.host, port)}: {error.strerror}; choose another --{field} (0: a free one) or --host"
            ) from None
        yield bound


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def greeting(config: ServeConfig, ports: Ports) -> Iterator[str]:
    """Lines that tell what listens where, and what this server is not for."""
    rest = _address(config.host, ports.rest)
    yield f"http://{rest}/ is a page to try it; http://{rest}/v1/models/{choose_name(config)}:predict answers REST"
    yield f"{_address(config.host, ports.grpc)} answers gRPC"
    with contextlib.suppress(ValueError):  # a name and no number
        if not ipaddress.ip_address(config.host).is_loopback:
            yield f"whoever reaches {config.host} may ask: there is no password and no encryption"
    yield "This server is for trying out; production uses TensorFlow Serving (docs/serving.md). Ctrl-C stops it."
