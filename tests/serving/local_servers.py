"""Local servers on free ports: in a thread of this process, or as a user starts one. Always stopped again."""

import asyncio
import contextlib
import dataclasses
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx

from tf_bert.config import ServeConfig
from tf_bert.serving.server.app import run_server


@dataclasses.dataclass
class Server:
    """A server that runs."""

    url: str
    grpc: str
    lines: list[str]
    """What it has printed."""
    process: subprocess.Popen | None = None

    def client(self, **options) -> httpx.Client:
        return httpx.Client(base_url=self.url, trust_env=False, timeout=60, **options)

    def metric(self, name: str, **labels: str) -> float:
        """A number of the page of metrics; 0 where it is not there."""
        told = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
        with self.client() as client:
            page = client.get("/metrics").text
        line = re.search(rf"^{re.escape(name + (f'{{{told}}}' if told else ''))} (\S+)$", page, re.MULTILINE)
        return float(line[1]) if line else 0.0


@contextlib.contextmanager
def running(export_dir: Path, **settings) -> Iterator[Server]:
    """Serves in a thread, with the settings of ServeConfig."""
    config = ServeConfig(export_dir=str(export_dir), **{"rest_port": 0, "grpc_port": 0, **settings})
    started, told, lines = threading.Event(), {}, []

    async def main():
        told["stop"], told["loop"] = asyncio.Event(), asyncio.get_running_loop()

        def ready(ports):
            told["ports"] = ports
            started.set()

        told["done"] = await run_server(config, told["stop"], lines.append, ready)

    def run():
        try:
            asyncio.run(main())
        finally:
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    try:
        yield Server(f"http://127.0.0.1:{told['ports'].rest}", f"127.0.0.1:{told['ports'].grpc}", lines)
    finally:
        with contextlib.suppress(RuntimeError):  # it may have ended by itself
            told["loop"].call_soon_threadsafe(told["stop"].set)
        thread.join()
    assert told["done"]


@contextlib.contextmanager
def serving(export_dir: Path, *options: str) -> Iterator[Server]:
    """`tf-bert serve` as a process of its own; it is stopped by SIGTERM if it still runs at the end."""
    command = [sys.executable, "-m", "tf_bert.cli", "serve", str(export_dir), "--rest_port", "0", "--grpc_port", "0"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: list[str] = []
    is_ready = threading.Event()

    def read():
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if "production uses TensorFlow Serving" in line:
                is_ready.set()
        is_ready.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        is_ready.wait()
        printed = "\n".join(lines)
        url, grpc = re.search(r"(http://127\.0\.0\.1:\d+)/", printed), re.search(r"(127\.0\.0\.1:\d+) answers", printed)
        assert url and grpc, printed
        yield Server(url[1], grpc[1], lines, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            reader.join()
            process.stdout.close()
