"""A web server on this machine that can misbehave in every way that servers do; what downloads are tested with."""

import contextlib
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers from `server.content`, unless `server.faults` has something else for the address."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        self.server.agents.add(self.headers["User-Agent"])
        body = self.server.content.get(self.path)
        fault = next(self.server.faults.get(self.path, iter(())), None)
        if body is None:
            self.send_error(404)
        elif fault:
            fault(self, body)
        else:
            self.serve(body)

    def serve(self, body: bytes, sent: int | None = None, announced: int | None = None) -> None:
        """The body or the range asked for; `sent` bytes of it, and a length that may be a lie."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        total = len(body) if announced is None else announced
        start = int(asked[1]) if asked and self.server.ranges else 0
        if start >= total:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        block = body[start:] if sent is None else body[start : start + sent]
        with self.server.counting():
            self.wfile.write(block[:-1])
            self.server.sent += len(block)
        # Whoever has the last byte may be back with the next request before this thread goes on.
        self.wfile.write(block[-1:])
        self.close_connection = True

    def log_message(self, *arguments):
        pass


class WebServer(ThreadingHTTPServer):
    """Serves `content`: address -> bytes.

    `ranges`: it knows them. `faults`: address -> ways to answer, one a request. What was asked for is in `requests`,
    and `sent` counts bytes.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.content, self.requests, self.agents, self.faults, self.ranges, self.sent = {}, [], set(), {}, True, 0
        self.busy, self.most_busy, self.lock = 0, 0, threading.Lock()

    def ranges_asked(self, ending: str) -> list[str | None]:
        """The ranges that were asked for of the addresses with an ending."""
        return [ranges for path, ranges in self.requests if path.endswith(ending)]

    @contextlib.contextmanager
    def counting(self):
        """Counts those that are answered at the same time."""
        with self.lock:
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
        time.sleep(0.005)
        try:
            yield
        finally:
            with self.lock:
                self.busy -= 1

    @contextlib.contextmanager
    def running(self):
        """Answers requests as long as the context is open."""
        with self:
            thread = threading.Thread(target=self.serve_forever, args=(0.01,))
            thread.start()
            yield self
            self.shutdown()
            thread.join()


# Ways to answer.


def drop_after(count: int):
    return lambda handler, body: handler.serve(body, sent=count)


def answer(code: int, **headers: str):
    def fault(handler, body):
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return fault


def hang(handler, body):
    handler.serve(body, sent=1000)
    handler.server.hanging.set()
    handler.server.released.wait(20)


def no_progress(total: int, description: str):
    """A progress bar that shows nothing."""
    return contextlib.nullcontext(_Bar())


class _Bar:
    def update(self, n):
        pass
