"""Wikipedia dumps over HTTP, from a server on this machine that can misbehave in every way that servers do."""

import bz2
import contextlib
import hashlib
import itertools
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from web_server import WebServer, answer, drop_after, hang, no_progress

from tf_bert import cli, config
from tf_bert.commands.arguments import parse_overrides
from tf_bert.config import CorpusConfig, FetchWikipediaConfig
from tf_bert.corpus.fetch import download, find_dump
from tf_bert.corpus.reader import read_documents
from tf_bert.errors import InputError, UsageError

DATE = "20261020"
PREFIX = f"enwiki-{DATE}-pages-articles"
PARTS = [
    f"{PREFIX}-multistream1.xml-p1p2.bz2",
    f"{PREFIX}-multistream2.xml-p3p4.bz2",
    f"{PREFIX}-multistream10.xml-p5p6.bz2",
]
SINGLE = f"{PREFIX}-multistream.xml.bz2"


def article(number: int) -> str:
    words = random.Random(number)
    return " ".join(f"{words.getrandbits(64):x}" for _ in range(400)) + "."


def dump_of(numbers, streams: int = 2) -> bytes:
    """A dump of random words, which hardly compress: about 4 kB an article."""
    pages = "".join(
        f"<page><title>{n}</title><ns>0</ns><revision><text>{article(n)}</text></revision></page>" for n in numbers
    )
    xml = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">{pages}</mediawiki>'.encode()
    cut = len(xml) // streams
    return bz2.compress(xml[:cut]) + bz2.compress(xml[cut:])


class Server(WebServer):
    """dumps.wikimedia.org in small."""

    def __init__(self):
        super().__init__()
        files = {name: dump_of(range(2 * n, 2 * n + 2)) for n, name in enumerate(PARTS)}
        files[SINGLE] = dump_of(range(6))
        files |= {name.replace("-multistream", ""): content for name, content in files.items()}
        files[f"{PREFIX}-multistream-index1.txt-p1p2.bz2"] = bz2.compress(b"0:1:0\n")
        self.files = files
        names = sorted(files)
        multi = [name for name in names if "-multistream" in name and name != SINGLE]
        self.jobs = {
            "articlesmultistreamdump": self.job(multi),
            "articlesmultistreamdumprecombine": self.job([SINGLE]),
            "articlesdump": self.job([name.replace("-multistream", "") for name in PARTS]),
            "articlesdumprecombine": self.job([SINGLE.replace("-multistream", "")]),
            "metahistorybz2dump": {"status": "waiting", "updated": ""},
        }
        links = "".join(f'<a href="{date}/">{date}/</a>\n' for date in ("20261001", DATE, "20261101", "latest"))
        self.content = {f"/enwiki/{DATE}/{name}": content for name, content in files.items()}
        self.content["/enwiki/"] = f'<html><a href="../">../</a>\n{links}</html>'.encode()
        self.content["/backup-index-bydb.html"] = b"".join(
            b'<li><a href="%swiki/20261020">%swiki</a>: done</li>\n' % (code, code)
            for code in (b"de", b"en", b"simple", b"zh_yue", b"zh_min_nan")
        )
        running = {name: {"status": "in-progress", "files": {}} for name in self.jobs}
        self.publish(running, "20261101")
        self.publish(self.jobs)

    def job(self, names) -> dict:
        entries = {
            name: {
                "size": len(self.files[name]),
                "url": f"/enwiki/{DATE}/{name}",
                "md5": hashlib.md5(self.files[name]).hexdigest(),
                "sha1": hashlib.sha1(self.files[name]).hexdigest(),
            }
            for name in names
        }
        return {"status": "done", "updated": "2026-10-21 01:02:03", "files": entries}

    def publish(self, jobs, date: str = DATE) -> None:
        self.content[f"/enwiki/{date}/dumpstatus.json"] = json.dumps({"version": "0.8", "jobs": jobs}).encode()

    def publish_entry(self, **changes) -> None:
        """Changes what is said of the first part."""
        self.jobs["articlesmultistreamdump"]["files"][PARTS[0]] |= changes
        self.publish(self.jobs)

    def spoil(self, *faults) -> None:
        """Answers the next requests for the first part with `faults`."""
        self.faults[f"/enwiki/{DATE}/{PARTS[0]}"] = iter(faults)

    def asked(self, name: str = PARTS[0]) -> list[str | None]:
        """The ranges that were asked for of a file."""
        return self.ranges_asked("/" + name)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server().running() as started:
        yield started


@pytest.fixture
def fetch(server, tmp_path):
    """Finds and downloads; the notes go to `fetch.notes`."""

    def run(**settings):
        defaults = {"base_url": server.url, "output_dir": str(tmp_path / "out"), "retries": 2, "retry_wait_seconds": 0}
        asked = config.from_dict(FetchWikipediaConfig, defaults | {"timeout_seconds": 5} | settings, "test")
        dump = find_dump(asked, run.notes.append)
        return download(dump, asked, no_progress, run.notes.append)

    run.notes = []
    return run


def words(server, tmp_path, *more) -> list[str]:
    return ["fetch", "wikipedia", "--base_url", server.url, "--output_dir", str(tmp_path / "out"), *more]


def start_command(server, tmp_path, *more, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "tf_bert.cli", *words(server, tmp_path, *more)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def names_in(directory) -> list[str]:
    return sorted(os.listdir(directory))


# --- what is found ---------------------------------------------------------------------------------------------


def test_list_shows_the_newest_complete_dump_and_downloads_nothing(server, tmp_path, capsys):
    assert cli.main(words(server, tmp_path, "--language", "en", "--date", "latest", "--list")) == 0
    sizes = [len(server.files[name]) / 1e6 for name in PARTS]
    assert capsys.readouterr().out.splitlines() == [
        f"enwiki {DATE}, articlesmultistreamdump: 3 file(s), {sum(sizes):,.1f} MB",
        *(f"{size:>12,.1f} MB  {name}" for size, name in zip(sizes, PARTS, strict=True)),
    ]
    assert not (tmp_path / "out").exists()
    assert [path for path, _ in server.requests] == [
        "/enwiki/",
        "/enwiki/20261101/dumpstatus.json",
        f"/enwiki/{DATE}/dumpstatus.json",
    ]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, PARTS),
        ({"single_file": True}, [SINGLE]),
        ({"multistream": False}, [name.replace("-multistream", "") for name in PARTS]),
        ({"multistream": False, "single_file": True}, [SINGLE.replace("-multistream", "")]),
        ({"files": "*multistream1*.xml*", "date": DATE}, [PARTS[0], PARTS[2]]),
    ],
)
def test_the_files_asked_for_arrive_whole(server, fetch, settings, names):
    paths = fetch(**settings)
    assert [path.name for path in paths] == names and names_in(paths[0].parent) == sorted(names)
    assert [path.read_bytes() for path in paths] == [server.files[name] for name in names]
    numbers = range(6) if len(names) != 2 else [0, 1, 4, 5]
    documents = read_documents(CorpusConfig(input=[str(path) for path in paths], sentence_splitter="line"))
    assert sorted(document.text for document in documents) == sorted(map(article, numbers))
    assert server.most_busy == 1


def test_a_small_wiki_has_a_single_file_anyway(server, fetch):
    server.publish({"articlesmultistreamdump": server.job([SINGLE])})
    assert [path.name for path in fetch(single_file=True)] == [SINGLE]


def test_a_mirror_keeps_the_dumps_below_a_path_of_its_own(server, fetch):
    server.content = {"/mirror/dumps" + path: content for path, content in server.content.items()}
    assert [path.name for path in fetch(base_url=f"{server.url}/mirror/dumps/")] == PARTS


def test_dates_without_a_status_are_passed_over(server, fetch):
    del server.content["/enwiki/20261101/dumpstatus.json"]
    assert len(fetch()) == 3


def test_the_server_learns_who_asks(server, fetch):
    fetch(files="*1.xml*")
    fetch(files="*1.xml*", contact="https://example.org/us")
    assert server.agents == {
        "tf-bert/0.1.0 (no contact given) Python-urllib",
        "tf-bert/0.1.0 (https://example.org/us) Python-urllib",
    }


def test_a_real_dump_arrives_and_is_read(server, tmp_path, wikipedia_dump, capsys):
    name = f"{PREFIX}1.xml-p10p30302.bz2"
    server.files[name] = server.content[f"/enwiki/{DATE}/{name}"] = wikipedia_dump.read_bytes()
    server.publish({"articlesdump": server.job([name])})
    assert cli.main(words(server, tmp_path, "--multistream", "false")) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"{wikipedia_dump.stat().st_size / 1e6:>12,.1f} MB  {name}",
        f"{tmp_path / 'out'}: complete, every file's SHA-1 checked",
    ]
    assert sum(1 for _ in read_documents(CorpusConfig(input=str(tmp_path / "out")))) == 106


# --- what goes wrong on the way, and passes -----------------------------------------------------------------------


def test_a_connection_that_drops_is_taken_up_where_it_broke_off(server, fetch):
    server.spoil(drop_after(1000), drop_after(500), drop_after(700), drop_after(100), drop_after(10))
    (path,) = fetch(files=PARTS[0], retries=1)
    assert path.read_bytes() == server.files[PARTS[0]]
    assert server.asked() == [None, *(f"bytes={n}-" for n in (1000, 1500, 2200, 2300, 2310))]
    assert server.sent - len(server.files[PARTS[0]]) == sum(
        len(content) for path, content in server.content.items() if path in {p for p, _ in server.requests[:3]}
    )
    left = len(server.files[PARTS[0]]) - 1000
    assert fetch.notes[0].endswith(
        f"{PARTS[0]}: the connection ended {left:,} bytes early; trying again in 0 s (1 of 1)"
    )


def test_a_server_without_ranges_starts_over(server, fetch):
    server.ranges = False
    server.spoil(drop_after(1000))
    assert fetch(files=PARTS[0])[0].read_bytes() == server.files[PARTS[0]]
    assert server.asked() == [None, "bytes=1000-"]


def test_a_server_that_sends_another_range_is_asked_for_everything(server, fetch):
    def elsewhere(handler, body):
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 5-{len(body) - 1}/{len(body)}")
        handler.send_header("Content-Length", str(len(body) - 5))
        handler.end_headers()
        handler.wfile.write(body[5:])

    server.spoil(drop_after(1000), elsewhere)
    assert fetch(files=PARTS[0])[0].read_bytes() == server.files[PARTS[0]]
    assert server.asked() == [None, "bytes=1000-", None]


def test_a_server_that_refuses_the_range_is_asked_for_everything(server, fetch):
    server.spoil(drop_after(1000), answer(416))
    assert fetch(files=PARTS[0])[0].read_bytes() == server.files[PARTS[0]]
    assert server.asked() == [None, "bytes=1000-", None]


def test_an_overload_passes_and_the_pause_asked_for_is_kept(server, fetch):
    server.faults["/enwiki/"] = iter([answer(503, Retry_After="1")])
    server.spoil(answer(429), answer(502))
    started = time.monotonic()
    assert fetch(files=PARTS[0])[0].read_bytes() == server.files[PARTS[0]]
    assert time.monotonic() - started >= 1
    url = f"{server.url}/enwiki/{DATE}/{PARTS[0]}"
    assert fetch.notes == [
        f"{server.url}/enwiki/: HTTP 503 Service Unavailable; trying again in 1 s (1 of 2)",
        f"{url}: HTTP 429 Too Many Requests; trying again in 0 s (1 of 2)",
        f"{url}: HTTP 502 Bad Gateway; trying again in 0 s (2 of 2)",
    ]


def test_pauses_double(server, fetch):
    server.spoil(answer(500), answer(500), answer(500))
    fetch(files=PARTS[0], retries=3, retry_wait_seconds=0.01)
    assert [note.split("again in ")[1] for note in fetch.notes] == [
        "0.01 s (1 of 3)",
        "0.02 s (2 of 3)",
        "0.04 s (3 of 3)",
    ]


def test_a_silent_connection_is_given_up(server, fetch):
    server.hanging, server.released = threading.Event(), threading.Event()
    server.spoil(hang)
    assert fetch(files=PARTS[0], timeout_seconds=0.2)[0].read_bytes() == server.files[PARTS[0]]
    server.released.set()
    assert server.asked() == [None, "bytes=1000-"] and "the connection failed: timed out" in fetch.notes[0]


def test_a_killed_download_goes_on_and_a_finished_one_is_left_alone(server, fetch, tmp_path):
    server.hanging, server.released = threading.Event(), threading.Event()
    server.faults[f"/enwiki/{DATE}/{PARTS[1]}"] = iter([hang])
    process = start_command(server, tmp_path)
    partial = tmp_path / "out" / (PARTS[1] + ".partial")
    assert server.hanging.wait(20)
    while not partial.exists() or partial.stat().st_size < 1000:
        time.sleep(0.01)
    with pytest.raises(InputError, match=r"\.partial: is being downloaded by another process; wait for it"):
        fetch()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    server.released.set()
    assert names_in(tmp_path / "out") == sorted([PARTS[0], partial.name])
    assert [path.read_bytes() for path in fetch()] == [server.files[name] for name in PARTS]
    assert server.asked(PARTS[0]) == [None] and server.asked(PARTS[1]) == [None, "bytes=1000-"]
    before = len(server.requests)
    fetch()
    assert all(not path.endswith(".bz2") for path, _ in server.requests[before:])


def test_ctrl_c_is_one_line_and_leaves_no_file_with_its_final_name(server, tmp_path):
    server.hanging, server.released = threading.Event(), threading.Event()
    server.spoil(hang)
    process = start_command(server, tmp_path)
    assert server.hanging.wait(20)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate()
    server.released.set()
    assert process.returncode == 1 and complaint.count("\n") == 1
    assert complaint.startswith("tf-bert fetch wikipedia: interrupted; ")
    assert names_in(tmp_path / "out") in ([], [PARTS[0] + ".partial"])


@pytest.mark.parametrize("size", [1000, None, 99999], ids=["half", "whole", "too long"])
def test_a_damaged_beginning_is_noticed_and_thrown_away(server, fetch, tmp_path, size):
    (tmp_path / "out").mkdir()
    partial = tmp_path / "out" / (PARTS[0] + ".partial")
    partial.write_bytes(b"x" * (size or len(server.files[PARTS[0]])))
    assert fetch(files=PARTS[0])[0].read_bytes() == server.files[PARTS[0]]
    assert names_in(tmp_path / "out") == [PARTS[0]]


@pytest.mark.parametrize("content", [b"short", None], ids=["another length", "another byte"])
def test_a_damaged_file_is_downloaded_again(server, fetch, tmp_path, content):
    path = fetch(files=PARTS[0])[0]
    path.write_bytes(content or b"X" + path.read_bytes()[1:])
    fetch(files=PARTS[0])
    assert path.read_bytes() == server.files[PARTS[0]] and len(server.asked()) == 2


# --- what goes wrong and stays so -------------------------------------------------------------------------------


def endless(handler, body):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(2000):
            handler.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def other_bytes(handler, body):
    handler.serve(bytes(len(body)))


def announce(length):
    return lambda handler, body: handler.serve(body, announced=length)


def nonsense(handler, body):
    handler.wfile.write(b"nonsense\x1b[31m\r\n")


@pytest.mark.parametrize(
    ("fault", "message", "requests"),
    [
        (other_bytes, "its SHA-1 came as [0-9a-f]{40}, expected [0-9a-f]{40}; try later, or another base_url", 1),
        (endless, "its SHA-1 came as ", 1),
        (answer(404), "found HTTP 404 Not Found, expected the file; name another date, or check base_url", 1),
        (answer(403), "found HTTP 403 Forbidden, expected the file", 1),
        (answer(503), r"HTTP 503 Service Unavailable \(attempt 3\); check the network, base_url and", 3),
        (drop_after(0), r"the connection ended [0-9,]+ bytes early \(attempt 3\); check the network", 3),
        (announce(10**9), "has 1,000,000,000 bytes, expected [0-9,]+; try another base_url", 1),
        (announce(10), "has 10 bytes, expected [0-9,]+; try another base_url", 1),
        (answer(200, Content_Length="9" * 9999), "the connection ended [0-9,]+ bytes early", 3),
        (answer(302, Location="http://example.org/x"), "refused a redirection to 'http://example.org/x'; if it is", 1),
        (answer(302, Location="file:///etc/passwd"), "refused a redirection to 'file:///etc/passwd'", 1),
        (nonsense, r"cannot be reached: nonsense \[31m \(attempt 3\)", 3),
    ],
    ids=["bytes", "endless", "404", "403", "503", "drops", "long", "short", "overlong", "away", "file", "nonsense"],
)
def test_a_server_that_goes_on_misbehaving_is_one_line(server, fetch, tmp_path, fault, message, requests):
    server.spoil(*itertools.repeat(fault, 10))
    with pytest.raises(InputError, match=message) as caught:
        fetch(files=PARTS[0])
    assert PARTS[0] in str(caught.value) and str(caught.value).isprintable()
    assert len(server.asked()) == requests
    assert names_in(tmp_path / "out") == []


def test_a_server_that_always_drops_at_one_place_ends_the_command_and_keeps_the_beginning(server, fetch, tmp_path):
    server.ranges = False
    server.spoil(*itertools.repeat(drop_after(1000), 10))
    with pytest.raises(InputError, match=r"bytes early \(attempt 3\)"):
        fetch(files=PARTS[0])
    assert len(server.asked()) == 3
    assert (tmp_path / "out" / (PARTS[0] + ".partial")).read_bytes() == server.files[PARTS[0]][:1000]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"language": "english"}, r"language: found 'english', but .*/englishwiki/ does not exist; did you mean 'en'"),
        ({"language": "zh-min-nam"}, "did you mean 'zh-min-nan'"),
        ({"language": "qqq"}, "expected the code in a Wikipedia's address; check base_url too"),
        ({"date": "20200101"}, f"date: enwiki has no dump of 20200101; known: 20261101, {DATE}, 20261001, or latest"),
        ({"files": "*.7z"}, rf"files: none of 3 matches '\*\.7z'; the first is {PARTS[0]}"),
        ({"language": "../x"}, "language: found '../x', expected the code in a Wikipedia's address, such as en, de or"),
        ({"language": False}, 'language: YAML reads no as false; write "no", in quotes'),
        ({"date": "2026-10-20"}, "date: found '2026-10-20', expected latest or a day such as 20260101"),
        ({"base_url": "file:///tmp"}, "base_url: found 'file:///tmp', expected an address such as https://dumps"),
        ({"base_url": "http://a..b"}, "base_url: found 'http://a..b', expected an address"),
        ({"base_url": "http://a:99999"}, "base_url: Port out of range 0-65535"),
        ({"contact": "me\r\nHost: x"}, "contact: found 'me.*': String should match pattern"),
    ],
)  # fmt: skip
def test_wrong_settings_are_one_line(fetch, tmp_path, settings, message):
    with pytest.raises(UsageError, match=message) as caught:
        fetch(**settings)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_mirror_without_the_list_of_wikis_gives_no_hint(server, fetch):
    del server.content["/backup-index-bydb.html"]
    with pytest.raises(UsageError, match=r"language: found 'eng', .* expected the code in a Wikipedia's address"):
        fetch(language="eng")


def test_a_date_may_be_a_number_as_in_yaml(fetch):
    assert len(fetch(date=int(DATE))) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"version": "0.8", "jobs": {"art', r"dumpstatus.json: is not valid JSON \(Unterminated .*\); try again"),
        (b"[" * 100_000, r"dumpstatus.json: is not valid JSON \(maximum recursion"),
        (b"\xff\xfe\x00", "dumpstatus.json: is not valid JSON"),
        (b"[]", "dumpstatus.json: has no jobs, expected the state of a dump; name another date, or check base_url"),
        (b'{"jobs": {"articlesdump": 1}}', "dumpstatus.json: has no jobs"),
        (b'{"jobs": {}}', f"found {DATE} is 'missing'; expected one that is 'done': name another date or wait"),
        (b'{"jobs": {"articlesmultistreamdump": {"status": "done"}}}', "dump: is done but lists no .xml.bz2 file"),
        (bytes(33 << 20), "dumpstatus.json: has more than 33,554,432 bytes, expected a small page"),
    ],
    ids=["truncated", "deep", "binary", "list", "job", "missing", "no files", "huge"],
)  # fmt: skip
def test_a_damaged_status_is_one_line(server, fetch, content, message):
    server.content[f"/enwiki/{DATE}/dumpstatus.json"] = content
    with pytest.raises(InputError, match=message) as caught:
        fetch(date=DATE)
    assert "\n" not in str(caught.value)


def test_a_status_cut_off_by_the_network_is_asked_for_again(server, fetch):
    server.faults[f"/enwiki/{DATE}/dumpstatus.json"] = iter([drop_after(30)])
    assert len(fetch(date=DATE)) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "12"}, "size is '12', expected a number of bytes; name another date"),
        ({"size": -1}, "size is -1, expected a number of bytes"),
        ({"size": 10**400}, "size is 10+, expected a number of bytes"),
        ({"sha1": None}, "sha1 is None, expected 40 hexadecimal digits; name another date"),
        ({"url": "https://example.org/x"}, "refused the url 'https://example.org/x', expected a path on http://127.0.0.1"),
        ({"url": "//example.org/x"}, "refused the url '//example.org/x'"),
        ({"url": "file:///etc/passwd"}, "refused the url 'file:///etc/passwd'"),
        ({"url": "/a b\r\nX: y"}, r"refused the url '/a b\\r\\nX: y'"),
        ({"url": "http://[x"}, r"refused the url 'http://\[x'"),
    ],
)  # fmt: skip
def test_what_the_status_says_of_a_file_is_checked(server, fetch, tmp_path, changes, message):
    server.publish_entry(**changes)
    with pytest.raises(InputError, match=message) as caught:
        fetch(date=DATE)
    assert f"/enwiki/{DATE}/dumpstatus.json: articlesmultistreamdump: {PARTS[0]}: " in str(caught.value)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["../x.xml.bz2", "/x.xml.bz2", "a/b.xml.bz2", "..", ".x.xml.bz2", "a\\b.xml.bz2", "x\n.bz2", "x\0.bz2", ""]
)
def test_a_name_that_leaves_the_directory_is_refused(server, fetch, tmp_path, name):
    files = server.jobs["articlesmultistreamdump"]["files"]
    files[name] = files[PARTS[0]]
    server.publish(server.jobs)
    with pytest.raises(
        InputError, match=r"refused the file name .*, expected one without a path; check base_url"
    ) as caught:
        fetch()
    assert repr(name) in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_parts_without_a_joined_file_are_said(server, fetch):
    del server.jobs["articlesmultistreamdumprecombine"]
    server.publish(server.jobs)
    with pytest.raises(UsageError, match="has 3 parts and no single file; leave single_file out"):
        fetch(single_file=True)


def test_a_dump_that_is_not_done_is_said(server, fetch):
    with pytest.raises(
        InputError, match=r"enwiki/: articlesmultistreamdump: found 20261101 is 'in-progress'; expected"
    ):
        fetch(date="20261101")


def test_a_place_that_keeps_no_dumps_is_said(server, fetch):
    server.content["/enwiki/"] = b"<html>Welcome to the hotel's network</html>"
    with pytest.raises(
        InputError, match="/enwiki/: found no links to dumps, expected some like 20260101/; check base_url"
    ):
        fetch()


def test_a_disk_without_room_is_said_before_anything_is_downloaded(server, fetch, tmp_path):
    server.publish_entry(size=10**18)
    with pytest.raises(
        InputError, match=r"out: found [0-9,.]+ MB free, the download needs 1,000,000,000,000\.0 MB; free"
    ):
        fetch(date=DATE, files=PARTS[0])
    assert server.asked() == []


def test_a_disk_that_fills_is_one_line_and_the_download_goes_on_afterwards(server, fetch, tmp_path):
    # A limit on the size of files stands in for a full disk: the operating system refuses the write.
    process = start_command(
        server, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    )
    _, complaint = process.communicate()
    assert process.returncode == 1 and complaint.count("\n") == 1
    assert f"{PARTS[0]}: cannot be written: File too large; free space or choose another directory" in complaint
    assert [path.read_bytes() for path in fetch()] == [server.files[name] for name in PARTS]
    assert server.asked() == [None, "bytes=3000-"]


def test_a_file_in_the_directorys_place_is_said(fetch, tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(InputError, match="out: cannot be written: File exists; free space or choose another directory"):
        fetch()


def test_no_network_is_one_line(tmp_path):
    with socket.socket() as listener:  # a port at which nobody answers
        listener.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    command = ["fetch", "wikipedia", "--base_url", base_url, "--retries", "0"]
    done = subprocess.run([sys.executable, "-m", "tf_bert.cli", *command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        f"tf-bert fetch wikipedia: {base_url}/enwiki/: cannot be reached: Connection refused (attempt 1); check the "
        "network, base_url and, if you need one, https_proxy; the same command goes on\n"
    )
    assert names_in(tmp_path) == []


def test_a_host_that_does_not_exist_is_said(fetch):
    with pytest.raises(InputError, match=r"http://dumps\.invalid/enwiki/: cannot be reached: .+ \(attempt 1\)"):
        fetch(base_url="http://dumps.invalid", retries=0)


def test_help_documents_every_field(capsys):
    with pytest.raises(SystemExit):
        cli.main(["fetch", "wikipedia", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for field in config.describe_fields(FetchWikipediaConfig):
        assert f"--{field.key} ({field.default}) {' '.join(field.doc.split())}" in printed


def test_a_switch_may_stand_alone_or_with_a_value():
    assert parse_overrides(["--list", "--date", "latest"], {"list"}) == {"list": "true", "date": "latest"}
    assert parse_overrides(["--list", "false"], {"list"}) == {"list": "false"}
