"""Wikipedia's dumps: found and downloaded from dumps.wikimedia.org or a mirror, resumably and checked.

A server keeps a directory for each wiki, in it one for each day, and in that `dumpstatus.json`: the jobs that make
up the dump of that day, their states, and their files with sizes and SHA-1. What the server says is not trusted:
names stay inside the output directory, addresses on the server, and lengths within what was announced.
"""

import difflib
import fnmatch
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_bert.config import FetchWikipediaConfig
from tf_bert.download import Client, NotFoundError, Notify, Progress, RemoteFile, download_file, is_sound
from tf_bert.errors import InputError, UsageError
from tf_bert.files import PARTIAL_SUFFIX, reporting_disk_errors

_ADVICE = "name another date, or check base_url"


@dataclass(frozen=True)
class DumpFile:
    """One file of a dump: `size` in bytes, `sha1` hexadecimal."""

    name: str
    size: int
    sha1: str
    url: str

    @property
    def remote(self) -> RemoteFile:
        """How it is downloaded."""
        return RemoteFile(self.url, self.size, self.sha1, "sha1")


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
    client = Client(config, notify, _ADVICE)
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
        except NotFoundError:  # the dump has just begun, or is being removed
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
    missing = [file for file in dump.files if not is_sound(directory / file.name, file.remote, progress)]
    partials = (directory / (file.name + PARTIAL_SUFFIX) for file in missing)
    needed = sum(file.size for file in missing) - sum(path.stat().st_size for path in partials if path.is_file())
    if needed > (free := shutil.disk_usage(directory).free):
        found = f"{directory}: found {free / 1e6:,.1f} MB free, the download needs {needed / 1e6:,.1f} MB"
        raise InputError(f"{found}; free space, choose another output_dir or fewer files")
    client = Client(config, notify, _ADVICE)
    for file in missing:
        download_file(client, file.remote, directory / file.name, progress)
    return [directory / file.name for file in dump.files]


# --- what there is -----------------------------------------------------------------------------------------------


def _list_dates(client: Client, wiki: str, config: FetchWikipediaConfig) -> list[str]:
    """Days for which the server has a directory, the newest first."""
    url = f"{config.base_url}/{wiki}/"
    try:
        page = client.get(url)
    except NotFoundError:
        found = f"language: found '{config.language}', but {url} does not exist"
        raise UsageError(f"{found}; {_suggest_language(client, config)}") from None
    dates = {found.decode() for found in re.findall(rb'href="(?:[^"]*/)?([0-9]{8})/?"', page)}
    if not dates:
        raise InputError(f"{url}: found no links to dumps, expected some like 20260101/; check base_url")
    return sorted(dates, reverse=True)


def _suggest_language(client: Client, config: FetchWikipediaConfig) -> str:
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
