"""Files over HTTP: resumed where they broke off, checked, and under their name only once they are whole.

A leaf that every room may import. What a server says is not trusted: redirections are refused, and no more is read
than was announced.
"""

import fcntl
import hashlib
import http.client
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib import request
from urllib.error import HTTPError

from tf_bert import __version__
from tf_bert.errors import InputError
from tf_bert.files import PARTIAL_SUFFIX, fsync_directory, reporting_disk_errors

_BLOCK_BYTES = 256 << 10
_MAX_PAGE_BYTES = 32 << 20  # pages are read into memory
_MAX_FILE_BYTES = 4 << 30  # where nobody has said how long a file is
_MAX_WAIT_SECONDS, _MAX_ASKED_WAIT_SECONDS = 60.0, 300.0
_TEMPORARY = {408, 429, 500, 502, 503, 504}
_DIGEST_NAMES = {"sha1": "SHA-1", "sha256": "SHA-256"}

Notify = Callable[[str], object]  # takes a line for the user
Progress = Callable[[int, str], AbstractContextManager[Any]]
"""Makes a progress bar of a total in bytes and a description, as `run_log.byte_progress` does; 0: not known."""


class Connection(Protocol):
    """The settings of a `Client`: fields of the same names and meanings in the configuration of every download."""

    @property
    def contact(self) -> str:
        """Mail or web address that the server's operators may write to; empty: none."""

    @property
    def timeout_seconds(self) -> float:
        """A connection that is silent for this long is given up."""

    @property
    def retries(self) -> int:
        """A request is tried again this often in a row without getting further."""

    @property
    def retry_wait_seconds(self) -> float:
        """Pause before trying again; doubled every time."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server, and what is known of it: `size` in bytes, `digest` hexadecimal; None: not known."""

    url: str
    size: int | None
    digest: str | None
    algorithm: Literal["sha1", "sha256"] = "sha256"


def is_sound(path: Path, file: RemoteFile, progress: Progress) -> bool:
    """Whether `path` is there and has the size and the digest of `file`, as far as these are known."""
    if not path.is_file() or file.size not in (None, path.stat().st_size):
        return False
    if file.digest is None:
        return True
    with progress(path.stat().st_size, f"checking {path.name}") as bar:
        return _digest_of(path, file.algorithm, bar.update).hexdigest() == file.digest


def download_file(client: "Client", file: RemoteFile, path: Path, progress: Progress) -> None:
    """Downloads `file` to `path`, going on where an earlier attempt was cut off.

    It has its name only once its digest was seen to be right, or where that is not known, once all of it is there;
    until then `.partial` follows it.

    Raises:
      InputError: if the disk refuses to write, the server fails, or the file is not what was announced.
    """
    with progress(file.size or 0, path.name) as bar, closing(_Partial(path, file.algorithm, bar)) as partial:
        resumed = partial.size > 0
        _receive(client, file, partial)
        if resumed and file.digest not in (None, partial.digest.hexdigest()):
            client.notify(f"{path}: what was there of it is damaged; starting over")
            partial.clear()
            _receive(client, file, partial)
        if file.digest not in (None, found := partial.digest.hexdigest()):
            partial.clear()
            told = f"its {_DIGEST_NAMES[file.algorithm]} came as {found}, expected {file.digest}"
            raise InputError(f"{path}: {told}; try later, or another base_url")
        partial.finish()


def _digest_of(path: Path, algorithm: str, on_bytes: Callable[[int], object]) -> "hashlib._Hash":
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            on_bytes(len(block))
    return digest


def _receive(client: "Client", file: RemoteFile, partial: "_Partial") -> None:
    """Appends to `partial` what it lacks of `file`, over as many connections as that takes."""

    def attempt() -> None:
        if partial.size == file.size:
            return
        with client.open(file.url, partial.size) as response:
            told = re.fullmatch("bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18})", response.headers.get("Content-Range", ""))
            start, total = (int(told[1]), int(told[2])) if told else (0, _content_length(response))
            if None not in (total, file.size) and total != file.size:
                raise InputError(f"{file.url}: has {total:,} bytes, expected {file.size:,}; try another base_url")
            if start != partial.size:  # the server knows no ranges, or none that is meant
                partial.clear()
                if start != 0:
                    raise _TemporaryError("the server sent another part of the file than was asked for")
            size = file.size if total is None else total
            for block in client.blocks(response, None if size is None else size - partial.size):
                partial.write(block)
                if file.size is None and partial.size > _MAX_FILE_BYTES:
                    partial.clear()
                    limit = f"{_MAX_FILE_BYTES >> 30} GiB"
                    raise InputError(f"{file.url}: has more than {limit}, expected less; try another base_url")

    client.persist(file.url, attempt, lambda: partial.size)


class _Partial:
    """The beginning of a file and its digest, on disk with every block; locked against a second process."""

    def __init__(self, path: Path, algorithm: str, bar: Any) -> None:
        self._path, self._algorithm, self._bar = path, algorithm, bar
        self._partial = path.with_name(path.name + PARTIAL_SUFFIX)
        with reporting_disk_errors(self._partial):
            self._file = open(self._partial, "ab", buffering=0)  # noqa: SIM115 - close() does it
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise InputError(f"{self._partial}: is being downloaded by another process; wait for it") from error
        self.digest = _digest_of(self._partial, algorithm, bar.update)
        self.size = self._file.tell()

    def close(self) -> None:
        if self.size == 0:
            self._partial.unlink(missing_ok=True)
        self._file.close()

    def write(self, block: bytes) -> None:
        rest = memoryview(block)
        with reporting_disk_errors(self._path):
            while rest:  # a disk that fills takes a part
                written = self._file.write(rest)
                self.digest.update(rest[:written])
                self.size += written
                rest = rest[written:]
        self._bar.update(len(block))

    def clear(self) -> None:
        self._bar.update(-self.size)
        self._file.truncate(0)
        self.digest, self.size = hashlib.new(self._algorithm, usedforsecurity=False), 0

    def finish(self) -> None:
        with reporting_disk_errors(self._path):
            os.fsync(self._file.fileno())
            os.replace(self._partial, self._path)
            fsync_directory(self._path.parent)


# --- requests ----------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _TemporaryError(Exception):
    """A request failed in a way that may pass; the server may have asked for a pause."""

    reason: str
    wait_seconds: float = 0.0


class NotFoundError(InputError):
    """The server has no such file."""


class Client:
    """Requests to one server, one after the other; through a proxy, if the environment names one.

    Args:
      connection: the settings.
      notify: is told of every request that is tried again.
      advice: what to do where the server refuses a file, for messages.
    """

    def __init__(self, connection: Connection, notify: Notify, advice: str) -> None:
        self._connection, self.notify, self._advice = connection, notify, advice
        # Not build_opener: it would open files and FTP too, and follow redirections anywhere.
        self._opener = request.OpenerDirector()
        web = (request.ProxyHandler, request.HTTPHandler, request.HTTPSHandler)
        for handler in (*web, request.HTTPErrorProcessor, request.HTTPDefaultErrorHandler):
            self._opener.add_handler(handler())
        # https://foundation.wikimedia.org/wiki/Policy:Wikimedia_Foundation_User-Agent_Policy
        self._agent = f"tf-bert/{__version__} ({connection.contact or 'no contact given'}) Python-urllib"

    def get(self, url: str) -> bytes:
        """A page; raises `InputError` if it is not to be had, `NotFoundError` if there is none."""

        def attempt() -> bytes:
            content = bytearray()
            with self.open(url) as response:
                for block in self.blocks(response, _content_length(response)):
                    content += block
                    if len(content) > _MAX_PAGE_BYTES:
                        raise InputError(f"{url}: has more than {_MAX_PAGE_BYTES:,} bytes, expected a small page")
            return bytes(content)

        return self.persist(url, attempt)

    def persist(self, url: str, attempt: Callable[[], Any], position: Callable[[], int] = lambda: 0) -> Any:
        """Repeats `attempt` while it fails temporarily, `retries` times in a row without a better `position`."""
        settings = self._connection
        failures, best = 0, position()
        while True:
            try:
                return attempt()
            except _TemporaryError as error:
                failures, best = (1, position()) if position() > best else (failures + 1, best)
                if failures > settings.retries:
                    advice = "check the network, base_url and, if you need one, https_proxy; the same command goes on"
                    raise InputError(f"{url}: {error.reason} (attempt {failures}); {advice}") from error
                wait = min(settings.retry_wait_seconds * 2.0 ** (failures - 1), _MAX_WAIT_SECONDS)
                wait = max(wait, min(error.wait_seconds, _MAX_ASKED_WAIT_SECONDS))
                self.notify(f"{url}: {error.reason}; trying again in {wait:g} s ({failures} of {settings.retries})")
                time.sleep(wait)

    def open(self, url: str, offset: int = 0) -> http.client.HTTPResponse:
        """A response from byte `offset` on, or from the beginning if the server cannot do that."""
        headers = {"User-Agent": self._agent} | ({"Range": f"bytes={offset}-"} if offset else {})
        try:
            return self._opener.open(request.Request(url, headers=headers), timeout=self._connection.timeout_seconds)
        except HTTPError as error:
            error.close()
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
                return self.open(url)
            if place := error.headers.get("Location"):
                raise InputError(
                    f"{url}: refused a redirection to {place!r}; if it is right, change base_url"
                ) from error
            # Not the server's own words: they could hold anything.
            found = f"HTTP {error.code} {http.client.responses.get(error.code, '')}".rstrip()
            if error.code in _TEMPORARY:
                asked = error.headers.get("Retry-After", "")
                raise _TemporaryError(found, float(asked) if asked.isdecimal() else 0.0) from error
            kind = NotFoundError if error.code == HTTPStatus.NOT_FOUND else InputError
            raise kind(f"{url}: found {found}, expected the file; {self._advice}") from error
        except (OSError, http.client.HTTPException) as error:
            raise _TemporaryError(f"cannot be reached: {_reason(error)}") from error

    def blocks(self, response: http.client.HTTPResponse, expected: int | None) -> Iterator[bytes]:
        """The first `expected` bytes of a response, or all of it, as they come in."""
        received = 0
        while expected is None or received < expected:
            try:
                # Not read: when the connection fails, it would lose what has come in for the block.
                block = response.read1(_BLOCK_BYTES if expected is None else min(_BLOCK_BYTES, expected - received))
            except (OSError, http.client.HTTPException) as error:
                raise _TemporaryError(f"the connection failed: {_reason(error)}") from error
            if not block:
                break
            received += len(block)
            yield block
        if expected is not None and received < expected:
            raise _TemporaryError(f"the connection ended {expected - received:,} bytes early")


def _content_length(response: http.client.HTTPResponse) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch("[0-9]{1,18}", length) and "Transfer-Encoding" not in response.headers else None


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)  # urllib wraps what happened
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return "".join(character if character.isprintable() else " " for character in text).strip()
