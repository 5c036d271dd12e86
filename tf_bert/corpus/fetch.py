"""Wikipedia's dumps: found and downloaded from dumps.wikimedia.org or a mirror, resumably and checked.

A server keeps a directory for each wiki, in it one for each day, and in that `dumpstatus.json`: the jobs that make
up the dump of that day, their states, and their files with sizes and SHA-1. What the server says is not trusted:
names stay inside the output directory, addresses on the server, and lengths within what was announced.
"""

import difflib
import fcntl
import fnmatch
import hashlib
import http.client
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib import request
from urllib.error import HTTPError

from tf_bert import __version__
from tf_bert.config import FetchWikipediaConfig
from tf_bert.corpus.blocks import BLOCK_BYTES, OnBytes
from tf_bert.errors import InputError, UsageError
from tf_bert.files import PARTIAL_SUFFIX, fsync_directory, reporting_disk_errors

_MAX_PAGE_BYTES = 32 << 20  # a dumpstatus.json has a few hundred bytes a file, and a dump some thousand files
_MAX_WAIT_SECONDS, _MAX_ASKED_WAIT_SECONDS = 60.0, 300.0
_TEMPORARY = {408, 429, 500, 502, 503, 504}

Notify = Callable[[str], object]  # takes a line for the user
Progress = Callable[[int, str], AbstractContextManager[Any]]
"""Makes a progress bar of a total in bytes and a description, as `run_log.byte_progress` does."""


@dataclass(frozen=True)
class DumpFile:
    """One file of a dump: `size` in bytes, `sha1` hexadecimal."""

    name: str
    size: int
    sha1: str
    url: str


@dataclass(frozen=True)
class Dump:
    """The articles of one wiki (`enwiki`) on one day (YYYYMMDD), made by one job (`articlesdump`)."""

    wiki: str
    date: str
    job: str
    files: Sequence[DumpFile]

    def __str__(self) -> str:
        """A table of files and sizes."""
        total = sum(file.size for file in self.files) / 1e6
        lines = [f"{self.wiki} {self.date}, {self.job}: {len(self.files)} file(s), {total:,.1f} MB"]
        return "\n".join(lines + [f"{file.size / 1e6:>12,.1f} MB  {file.name}" for file in self.files])


def find_dump(config: FetchWikipediaConfig, notify: Notify) -> Dump:
    """Asks the server for the dump that `config` describes; `notify` is told of every request that is tried again.

    Raises:
      UsageError: if the server has no such language or date, or no file matches `config.files`.
      InputError: if the server cannot be reached, no dump is complete or what the server says is damaged or unsafe.
    """
    client = _Client(config, notify)
    wiki = config.language.replace("-", "_") + "wiki"
    dates = _list_dates(client, wiki, config)
    if config.date != "latest":
        if config.date not in dates:
            raise UsageError(f"date: {wiki} has no dump of {config.date}; known: {', '.join(dates)}, or latest")
        dates = [config.date]
    base_job = "articlesmultistreamdump" if config.multistream else "articlesdump"
    states = []
    for date in dates:
        url = f"{config.base_url}/{wiki}/{date}/dumpstatus.json"
        try:
            jobs = _read_jobs(client.get(url), url)
        except _NotFoundError:  # the dump has just begun, or is being removed
            jobs = {}
        # Only wikis whose dump comes in parts have the job that joins them.
        job = base_job + ("recombine" if config.single_file and base_job + "recombine" in jobs else "")
        state = jobs[job].get("status") if job in jobs else "missing"
        if state == "done":
            return Dump(wiki, date, job, _choose_files(jobs[job].get("files"), config, f"{url}: {job}"))
        states.append(f"{date} is {state!r}")
    found = f"{config.base_url}/{wiki}/: {base_job}: found {', '.join(states)}"
    raise InputError(f"{found}; expected one that is 'done': name another date or wait")


def download(dump: Dump, config: FetchWikipediaConfig, progress: Progress, notify: Notify) -> list[Path]:
    """Downloads what `config.output_dir` lacks of `dump`, one file at a time, and goes on where it was cut off.

    A file has its name only once its SHA-1 was seen to be right; until then `.partial` follows it. Returns the
    files in the order of `dump.files`.

    Raises:
      InputError: if the disk has no room or refuses to write, the server fails, or a file is not what was announced.
    """
    directory = Path(config.output_dir)
    with reporting_disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    missing = [file for file in dump.files if not _is_sound(directory / file.name, file, progress)]
    partials = (directory / (file.name + PARTIAL_SUFFIX) for file in missing)
    needed = sum(file.size for file in missing) - sum(path.stat().st_size for path in partials if path.is_file())
    if needed > (free := shutil.disk_usage(directory).free):
        found = f"{directory}: found {free / 1e6:,.1f} MB free, the download needs {needed / 1e6:,.1f} MB"
        raise InputError(f"{found}; free space, choose another output_dir or fewer files")
    client = _Client(config, notify)
    for file in missing:
        _download_file(client, file, directory / file.name, progress)
    return [directory / file.name for file in dump.files]


# --- what there is -----------------------------------------------------------------------------------------------


def _list_dates(client: "_Client", wiki: str, config: FetchWikipediaConfig) -> list[str]:
    """Days for which the server has a directory, the newest first."""
    url = f"{config.base_url}/{wiki}/"
    try:
        page = client.get(url)
    except _NotFoundError:
        found = f"language: found '{config.language}', but {url} does not exist"
        raise UsageError(f"{found}; {_suggest_language(client, config)}") from None
    dates = {found.decode() for found in re.findall(rb'href="(?:[^"]*/)?([0-9]{8})/?"', page)}
    if not dates:
        raise InputError(f"{url}: found no links to dumps, expected some like 20260101/; check base_url")
    return sorted(dates, reverse=True)


def _suggest_language(client: "_Client", config: FetchWikipediaConfig) -> str:
    try:
        page = client.get(f"{config.base_url}/backup-index-bydb.html")
    except InputError:  # not every mirror has this page, and it is there for the hint alone
        page = b""
    wikis = re.findall(rb'href="(?:[^"]*/)?([a-z_]+)wiki/[0-9]{8}/?"', page)
    known = sorted({wiki.decode().replace("_", "-") for wiki in wikis})
    # Who writes "english" is helped by its beginning, "en".
    near = difflib.get_close_matches(config.language, known, cutoff=0.5)
    near = near or [code for code in known if config.language.startswith(code)]
    names = " or ".join(f"'{name}'" for name in near)
    return f"did you mean {names}?" if near else "expected the code in a Wikipedia's address; check base_url too"


def _read_jobs(content: bytes, url: str) -> Mapping[str, Mapping[str, Any]]:
    try:
        status = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{url}: is not valid JSON ({error}); try again later, or name another date") from error
    jobs = status.get("jobs") if isinstance(status, dict) else None
    if not isinstance(jobs, dict) or not all(isinstance(job, dict) for job in jobs.values()):
        raise InputError(f"{url}: has no jobs, expected the state of a dump; name another date, or check base_url")
    return jobs


def _choose_files(entries: Any, config: FetchWikipediaConfig, where: str) -> list[DumpFile]:
    """The dump's own files among those of a job, which has indices of the bz2 streams too."""
    names = list(entries) if isinstance(entries, dict) else []
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", name):
            raise InputError(f"{where}: refused the file name {name!r}, expected one without a path; check base_url")
    # Part 10 comes after part 2.
    names.sort(key=lambda name: [int(piece) if piece.isdecimal() else piece for piece in re.split("([0-9]+)", name)])
    files = [_read_entry(name, entries[name], config, where) for name in names if re.search(r"\.xml.*\.bz2$", name)]
    if not files:
        raise InputError(f"{where}: is done but lists no .xml.bz2 file; name another date")
    if config.single_file and len(files) > 1:
        raise UsageError(f"single_file: {where} has {len(files)} parts and no single file; leave single_file out")
    chosen = [file for file in files if fnmatch.fnmatchcase(file.name, config.files)]
    if not chosen:
        raise UsageError(f"files: none of {len(files)} matches '{config.files}'; the first is {files[0].name}")
    return chosen


def _read_entry(name: str, entry: Any, config: FetchWikipediaConfig, where: str) -> DumpFile:
    size, sha1, url = (entry.get(key) if isinstance(entry, dict) else None for key in ("size", "sha1", "url"))
    if type(size) is not int or not 0 < size < 1 << 63:
        raise InputError(f"{where}: {name}: size is {size!r}, expected a number of bytes; name another date")
    if not isinstance(sha1, str) or not re.fullmatch("[0-9a-f]{40}", sha1):
        raise InputError(f"{where}: {name}: sha1 is {sha1!r}, expected 40 hexadecimal digits; name another date")
    if not isinstance(url, str) or not re.fullmatch("/(?!/)[!-~]+", url):
        raise InputError(f"{where}: {name}: refused the url {url!r}, expected a path on {config.base_url}")
    # The path is that of the original server; a mirror keeps it below a path of its own.
    return DumpFile(name, size, sha1, config.base_url + url)


# --- one file ----------------------------------------------------------------------------------------------------


def _is_sound(path: Path, file: DumpFile, progress: Progress) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with progress(file.size, f"checking {file.name}") as bar:
        return _sha1_of(path, bar.update).hexdigest() == file.sha1


def _sha1_of(path: Path, on_bytes: OnBytes) -> "hashlib._Hash":
    digest = hashlib.sha1(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            on_bytes(len(block))
    return digest


def _download_file(client: "_Client", file: DumpFile, path: Path, progress: Progress) -> None:
    with progress(file.size, file.name) as bar, closing(_Partial(path, bar)) as partial:
        resumed = partial.size > 0
        _receive(client, file, partial)
        if resumed and partial.digest.hexdigest() != file.sha1:
            client.notify(f"{path}: what was there of it is damaged; starting over")
            partial.clear()
            _receive(client, file, partial)
        if (found := partial.digest.hexdigest()) != file.sha1:
            partial.clear()
            raise InputError(f"{path}: its SHA-1 came as {found}, expected {file.sha1}; try later, or another base_url")
        partial.finish()


def _receive(client: "_Client", file: DumpFile, partial: "_Partial") -> None:
    """Appends to `partial` what it lacks of `file`, over as many connections as that takes."""

    def attempt() -> None:
        if partial.size == file.size:
            return
        with client.open(file.url, partial.size) as response:
            told = re.fullmatch("bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18})", response.headers.get("Content-Range", ""))
            start, total = (int(told[1]), int(told[2])) if told else (0, _content_length(response))
            if total not in (None, file.size):
                raise InputError(f"{file.url}: has {total:,} bytes, expected {file.size:,}; try another base_url")
            if start != partial.size:  # the server knows no ranges, or none that is meant
                partial.clear()
                if start != 0:
                    raise _TemporaryError("the server sent another part of the file than was asked for")
            for block in client.blocks(response, file.size - partial.size):
                partial.write(block)

    client.persist(file.url, attempt, lambda: partial.size)


class _Partial:
    """The beginning of a file and its SHA-1, on disk with every block; locked against a second process."""

    def __init__(self, path: Path, bar: Any) -> None:
        self._path, self._bar = path, bar
        self._partial = path.with_name(path.name + PARTIAL_SUFFIX)
        with reporting_disk_errors(self._partial):
            self._file = open(self._partial, "ab", buffering=0)  # noqa: SIM115 - close() does it
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise InputError(f"{self._partial}: is being downloaded by another process; wait for it") from error
        self.digest = _sha1_of(self._partial, bar.update)
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
        self.digest, self.size = hashlib.sha1(usedforsecurity=False), 0

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


class _NotFoundError(InputError):
    pass


class _Client:
    """Requests to one server, one after the other; through a proxy, if the environment names one."""

    def __init__(self, config: FetchWikipediaConfig, notify: Notify) -> None:
        self._config, self.notify = config, notify
        # Not build_opener: it would open files and FTP too, and follow redirections anywhere.
        self._opener = request.OpenerDirector()
        web = (request.ProxyHandler, request.HTTPHandler, request.HTTPSHandler)
        for handler in (*web, request.HTTPErrorProcessor, request.HTTPDefaultErrorHandler):
            self._opener.add_handler(handler())
        # https://foundation.wikimedia.org/wiki/Policy:Wikimedia_Foundation_User-Agent_Policy
        self._agent = f"tf-bert/{__version__} ({config.contact or 'no contact given'}) Python-urllib"

    def get(self, url: str) -> bytes:
        """A page; raises `InputError` if it is not to be had, `_NotFoundError` if there is none."""

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
        failures, best = 0, position()
        while True:
            try:
                return attempt()
            except _TemporaryError as error:
                failures, best = (1, position()) if position() > best else (failures + 1, best)
                if failures > self._config.retries:
                    advice = "check the network, base_url and, if you need one, https_proxy; the same command goes on"
                    raise InputError(f"{url}: {error.reason} (attempt {failures}); {advice}") from error
                wait = min(self._config.retry_wait_seconds * 2.0 ** (failures - 1), _MAX_WAIT_SECONDS)
                wait = max(wait, min(error.wait_seconds, _MAX_ASKED_WAIT_SECONDS))
                self.notify(f"{url}: {error.reason}; trying again in {wait:g} s ({failures} of {self._config.retries})")
                time.sleep(wait)

    def open(self, url: str, offset: int = 0) -> http.client.HTTPResponse:
        """A response from byte `offset` on, or from the beginning if the server cannot do that."""
        headers = {"User-Agent": self._agent} | ({"Range": f"bytes={offset}-"} if offset else {})
        try:
            return self._opener.open(request.Request(url, headers=headers), timeout=self._config.timeout_seconds)
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
            kind = _NotFoundError if error.code == HTTPStatus.NOT_FOUND else InputError
            raise kind(f"{url}: found {found}, expected the file; name another date, or check base_url") from error
        except (OSError, http.client.HTTPException) as error:
            raise _TemporaryError(f"cannot be reached: {_reason(error)}") from error

    def blocks(self, response: http.client.HTTPResponse, expected: int | None) -> Iterator[bytes]:
        """The first `expected` bytes of a response, or all of it, as they come in."""
        received = 0
        while expected is None or received < expected:
            try:
                # Not read: when the connection fails, it would lose what has come in for the block.
                block = response.read1(BLOCK_BYTES if expected is None else min(BLOCK_BYTES, expected - received))
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
