"""GLUE's files over HTTP, from a server on this machine, and archives that strangers have made."""

import hashlib
import importlib.util
import io
import json
import random
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from glue_files import COLUMNS, ROWS, content_of, file_of, splits_of
from web_server import WebServer, answer, drop_after, hang, no_progress

from tf_bert import config, download
from tf_bert.config import FetchGlueConfig
from tf_bert.errors import InputError, UsageError
from tf_bert.finetuning.fetch import ARCHIVES, Archive, fetch_glue
from tf_bert.finetuning.tasks import TASKS

MARK = b"\xef\xbb\xbf"
ZIPS = {"QQP": "QQP-clean", "QNLI": "QNLIv2"} | {n: n for n in ("CoLA", "SST-2", "STS-B", "MNLI", "RTE", "WNLI")}


def zip_of(members: dict[str, bytes], compression=zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return packed.getvalue()


def paraphrase_sources() -> tuple[bytes, bytes, bytes]:
    """The corpus as SentEval keeps it: dev rows among the train rows, labels in the test file, Windows line ends."""
    train, dev, test = (content_of("MRPC", split).removeprefix(MARK).splitlines() for split in ("train", "dev", "test"))
    rows = train[:1]
    for number, row in enumerate(train[1:]):
        rows.append(row)
        rows += dev[1 + number : 2 + number]
    ids = [b"\t".join(row.split(b"\t")[1:3]) for row in dev[1:]]
    labelled = [train[0], *(b"1\t" + row.partition(b"\t")[2] for row in test[1:])]
    return MARK + b"\r\n".join(rows) + b"\r\n", MARK + b"\r\n".join(labelled) + b"\r\n", b"\n".join(ids) + b"\n"


class Server(WebServer):
    """dl.fbaipublicfiles.com in small."""

    def __init__(self):
        super().__init__()
        for task, name in ZIPS.items():
            members = {f"{task}/{split}.tsv": content_of(task, split) for split in splits_of(task)}
            self.publish(name, members | {f"{task}/": b"", f"__MACOSX/{task}/._train.tsv": b"x", f"{task}/Icon\r": b""})
        train, test, ids = paraphrase_sources()
        self.content["/senteval/senteval_data/msr_paraphrase_train.txt"] = train
        self.content["/senteval/senteval_data/msr_paraphrase_test.txt"] = test
        self.content["/glue/data/mrpc_dev_ids.tsv"] = ids
        self.content["/glue/data/AX.tsv"] = content_of("AX", "test")

    def publish(self, name: str, members: dict[str, bytes], **options) -> None:
        self.content[f"/glue/data/{name}.zip"] = zip_of(members, **options)

    def archives(self) -> dict[str, tuple[Archive, ...]]:
        """What stands in the place of the published checksums: those of this server's files."""
        return {task: tuple(self.described(archive.path) for archive in ARCHIVES[task]) for task in ARCHIVES}

    def described(self, path: str) -> Archive:
        content = self.content["/" + path]
        return Archive(path, len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server().running() as started:
        yield started


@pytest.fixture
def fetch(server, tmp_path):
    """Fetches from a mirror that packs files in its own way; the notes go to `fetch.notes`."""

    def run(*tasks, archives=ARCHIVES, **settings):
        defaults = {"base_url": server.url, "output_dir": str(tmp_path / "out"), "retries": 2, "retry_wait_seconds": 0}
        defaults |= {"tasks": tasks or ("all",), "published_checksums": False, "timeout_seconds": 5}
        asked = config.from_dict(FetchGlueConfig, defaults | settings, "test")
        run.notes.clear()
        return list(fetch_glue(asked, no_progress, run.notes.append, archives))

    run.notes = []
    return run


def files_in(directory) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def expected_content(task, split) -> bytes:
    return content_of(task, split).removeprefix(MARK)


# --- what arrives ----------------------------------------------------------------------------------------------------


def test_all_tasks_arrive_and_are_read(server, fetch, tmp_path):
    fetched = fetch()
    assert [entry.task for entry in fetched] == list(TASKS)
    for entry in fetched:
        assert entry.rows == {split: ROWS[split.partition("_")[0]] for split in splits_of(entry.task)}
    assert str(fetched[0]) == "CoLA: train 24, dev 12, test 8 rows"
    files = {file_of(task, split): (task, split) for task in COLUMNS for split in splits_of(task)}
    assert files_in(tmp_path / "out") == sorted([*files, "checksums.json"])
    assert {file: (tmp_path / "out" / file).read_bytes() for file in files} == {
        file: expected_content(*what) for file, what in files.items()
    }
    recorded = json.loads((tmp_path / "out" / "checksums.json").read_text())
    assert recorded == {file: hashlib.sha256(expected_content(*what)).hexdigest() for file, what in files.items()}
    assert sorted(path for path, _ in server.requests) == sorted(
        "/" + archive.path for archives in ARCHIVES.values() for archive in archives
    )


def test_another_number_of_rows_than_published_is_told(fetch, tmp_path):
    fetch("AX", "CoLA")
    place = tmp_path / "out"
    assert fetch.notes == [
        f"{place / file}: found {found} rows, expected {published} as published; scores may differ"
        for file, found, published in [
            ("diagnostic/diagnostic.tsv", 8, "1,104"),
            ("CoLA/train.tsv", 24, "8,551"),
            ("CoLA/dev.tsv", 12, "1,043"),
            ("CoLA/test.tsv", 8, "1,063"),
        ]
    ]


def test_files_with_the_published_rows_are_no_cause_for_notes(server, fetch, shared_dir):
    for task in ("CoLA", "SST-2"):
        members = {f"{task}/{s}.tsv": (shared_dir / "glue" / task / f"{s}.tsv").read_bytes() for s in splits_of(task)}
        server.publish(task, members)
    assert fetch("CoLA", "SST-2")[1].rows == {"train": 67349, "dev": 872, "test": 1821}
    assert fetch.notes == []


def test_a_file_that_cannot_be_read_is_told(server, fetch, tmp_path):
    members = {f"RTE/{split}.tsv": content_of("RTE", split) for split in splits_of("RTE")}
    server.publish("RTE", members | {"RTE/dev.tsv": b"index\tsentence1\tsentence2\tlabel\n0\ta\tb\n"})
    (fetched,) = fetch("RTE")
    assert fetched.rows == {"train": 24, "test": 8}
    assert f"{tmp_path / 'out'}/RTE/dev.tsv: line 2: found 3 field(s), expected 4 (index, sen" in fetch.notes[1]


def test_what_is_there_is_not_fetched_again(server, fetch):
    fetch("CoLA", "MRPC")
    before = len(server.requests)
    assert [entry.rows["train"] for entry in fetch("CoLA", "MRPC")] == [24, 24]
    assert len(server.requests) == before == 4


def test_a_file_that_has_changed_or_is_missing_is_fetched_again(server, fetch, tmp_path):
    fetch("CoLA", "RTE")
    path = tmp_path / "out" / "CoLA" / "dev.tsv"
    path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / "out" / "RTE" / "test.tsv").unlink()
    fetch("CoLA", "RTE")
    assert fetch.notes[0] == f"{path}: is not as it was downloaded; fetching it again"
    assert path.read_bytes() == content_of("CoLA", "dev")
    assert (tmp_path / "out" / "RTE" / "test.tsv").read_bytes() == content_of("RTE", "test")
    assert len(server.requests) == 4


# --- checksums -------------------------------------------------------------------------------------------------------


def test_the_published_archives_are_checked(server, fetch, tmp_path):
    archives = server.archives()
    assert len(fetch(published_checksums=True, archives=archives)) == 10
    path = "glue/data/RTE.zip"
    wrong = Archive(path, archives["RTE"][0].size, "0" * 64)
    (tmp_path / "out" / "RTE" / "dev.tsv").unlink()
    with pytest.raises(InputError, match=r"RTE\.zip: its SHA-256 came as [0-9a-f]{64}, expected 0{64}; try later, or"):
        fetch("RTE", published_checksums=True, archives=archives | {"RTE": (wrong,)})
    with pytest.raises(InputError, match=r"RTE\.zip: has [0-9,]+ bytes, expected 697,150; try another base_url"):
        fetch("RTE", published_checksums=True)
    assert not (tmp_path / "out" / "RTE" / "dev.tsv").exists()


def test_the_published_checksums_are_those_of_a_public_loader():
    found = importlib.util.find_spec("tensorflow_datasets")
    if found is None:
        pytest.skip("tensorflow-datasets comes with the extra interop")
    lines = (Path(found.origin).parent / "url_checksums" / "glue.txt").read_text().splitlines()
    known = {tuple(line.split("\t")[1:3]) for line in lines}
    archives = [archive for several in ARCHIVES.values() for archive in several]
    assert len(archives) == 12 and {(str(archive.size), archive.sha256) for archive in archives} == known


def test_a_mirror_whose_files_have_changed_since_is_refused(server, fetch, tmp_path):
    fetch("WNLI")
    path = tmp_path / "out" / "WNLI" / "dev.tsv"
    path.write_bytes(b"damaged")
    members = {f"WNLI/{split}.tsv": content_of("WNLI", split) for split in splits_of("WNLI")}
    server.publish("WNLI", members | {"WNLI/dev.tsv": content_of("WNLI", "train")})
    with pytest.raises(InputError) as caught:
        fetch("WNLI")
    new, old = (hashlib.sha256(content_of("WNLI", split)).hexdigest() for split in ("train", "dev"))
    assert str(caught.value) == (
        f"{path}: its SHA-256 came as {new}, but was {old} when it was first downloaded; try another base_url, or if "
        f"the change is meant, remove {tmp_path / 'out' / 'checksums.json'}"
    )
    assert path.read_bytes() == b"damaged"
    (tmp_path / "out" / "checksums.json").unlink()
    fetch("WNLI")
    assert path.read_bytes() == content_of("WNLI", "train")


@pytest.mark.parametrize("content", ["[]", '{"a": 1}', '{"a": '])
def test_a_damaged_record_is_one_line(fetch, tmp_path, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checksums.json").write_text(content)
    with pytest.raises(InputError, match=r"checksums\.json: (found something else than|is not valid JSON)") as caught:
        fetch("WNLI")
    assert "\n" not in str(caught.value)


# --- what breaks off -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("published", [True, False])
def test_a_connection_that_drops_is_taken_up_where_it_broke_off(server, fetch, tmp_path, published):
    server.faults["/glue/data/RTE.zip"] = iter([drop_after(100), drop_after(50)])
    with pytest.raises(InputError, match=r"RTE\.zip: the connection ended [0-9,]+ bytes early \(attempt 1\)"):
        fetch("RTE", retries=0, published_checksums=published, archives=server.archives())
    assert files_in(tmp_path / "out") == ["downloads/RTE.zip.partial"]
    fetch("RTE", published_checksums=published, archives=server.archives())
    # An attempt that gets further is no failure, so `retries=0` fails at the first one that does not.
    assert server.ranges_asked("RTE.zip")[:2] == [None, "bytes=100-"]
    assert (tmp_path / "out" / "RTE" / "train.tsv").read_bytes() == content_of("RTE", "train")


def test_a_killed_fetch_goes_on(server, fetch, tmp_path):
    server.hanging, server.released = threading.Event(), threading.Event()
    server.faults["/glue/data/MNLI.zip"] = iter([hang])
    code = (
        "import sys, contextlib\n"
        "from tf_bert.config import FetchGlueConfig\n"
        "from tf_bert.finetuning.fetch import fetch_glue\n"
        "class Bar:\n"
        "    def update(self, n): pass\n"
        "config = FetchGlueConfig(('CoLA', 'MNLI'), sys.argv[1], False, sys.argv[2])\n"
        "list(fetch_glue(config, lambda total, name: contextlib.nullcontext(Bar()), print))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out"), server.url], stdout=subprocess.PIPE)
    assert server.hanging.wait(60)
    partial = tmp_path / "out" / "downloads" / "MNLI.zip.partial"
    while not partial.exists() or partial.stat().st_size < 1000:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    server.released.set()
    fetch("RTE")  # does not touch what another task has begun
    assert partial.exists()
    fetch("CoLA", "MNLI")
    assert server.ranges_asked("CoLA.zip") == [None] and server.ranges_asked("MNLI.zip") == [None, "bytes=1000-"]
    for split in splits_of("MNLI"):
        assert (tmp_path / "out" / file_of("MNLI", split)).read_bytes() == content_of("MNLI", split)
    assert not (tmp_path / "out" / "downloads").exists()


def test_a_disk_that_is_full_is_one_line(server, fetch, small_disk, tmp_path):
    members = {f"RTE/{split}.tsv": content_of("RTE", split) for split in splits_of("RTE")}
    server.publish("RTE", members | {"RTE/dev.tsv": b"index\tsentence1\n" * 10_000})
    small_disk(64)
    with pytest.raises(
        InputError, match=r"RTE/dev\.tsv: cannot be written: No space left on device; free space or cho"
    ):
        fetch("RTE", output_dir=str(small_disk.path))
    assert files_in(small_disk.path) == ["RTE/train.tsv", "downloads/RTE.zip"]


# --- wrong settings and servers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": "CoLa2"}, "task: found 'CoLa2'; did you mean 'CoLA'?"),
        ({"tasks": ["CoLA", "xyzzy"]}, "task: found 'xyzzy'; expected one of CoLA, SST-2"),
        ({"base_url": "file:///etc"}, "base_url: found 'file:///etc', expected an address such as https://dumps.wi"),
        ({"base_url": "http://a..b"}, "base_url: found 'http://a..b', expected an address"),
        ({"contact": "me\r\nHost: x"}, "contact: found 'me"),
        ({"retries": -1}, "retries: found -1"),
    ],
)
def test_wrong_settings_are_one_line(server, fetch, tmp_path, settings, message):
    with pytest.raises(UsageError) as caught:
        fetch(**settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert server.requests == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (answer(404), "found HTTP 404 Not Found, expected the file; check base_url, or see whether"),
        (answer(302, Location="file:///etc/passwd"), "refused a redirection to 'file:///etc/passwd'"),
        (answer(503), r"HTTP 503 Service Unavailable \(attempt 3\); check the network, base_url and"),
    ],
)  # fmt: skip
def test_a_server_that_misbehaves_is_one_line(server, fetch, tmp_path, fault, message):
    server.faults["/glue/data/mrpc_dev_ids.tsv"] = iter([fault] * 3)
    with pytest.raises(InputError, match=message) as caught:
        fetch("MRPC")
    assert f"{server.url}/glue/data/mrpc_dev_ids.tsv" in str(caught.value) and "\n" not in str(caught.value)
    assert files_in(tmp_path / "out") == ["downloads/msr_paraphrase_test.txt", "downloads/msr_paraphrase_train.txt"]


@pytest.mark.parametrize("chunked", [True, False])
def test_a_file_of_no_known_size_has_a_limit(server, fetch, tmp_path, monkeypatch, chunked):
    def endless(handler, body):
        handler.send_response(200)
        if chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        else:
            handler.send_header("Content-Length", str(1 << 40))
        handler.end_headers()
        block = bytes(0x10000)
        try:
            while True:
                handler.wfile.write(b"10000\r\n" + block + b"\r\n" if chunked else block)
        except OSError:
            handler.close_connection = True

    monkeypatch.setattr(download, "_MAX_FILE_BYTES", 1 << 20)
    server.faults["/glue/data/AX.tsv"] = iter([endless])
    with pytest.raises(InputError, match=r"AX\.tsv: has more than 0 GiB, expected less; try another base_url"):
        fetch("AX")
    assert files_in(tmp_path / "out") == []


def test_a_paraphrase_corpus_that_is_none_is_one_line(server, fetch):
    server.content["/senteval/senteval_data/msr_paraphrase_train.txt"] = b"<html>hello</html>\n"
    with pytest.raises(InputError, match=r"msr_paraphrase_train\.txt: line 1: has no column 'Quality', found '<html>h"):
        fetch("MRPC")


# --- archives ------------------------------------------------------------------------------------------------------


def encrypted(archive: bytes) -> bytes:
    """Sets the flag of encryption in all headers."""
    changed = bytearray(archive)
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := archive.find(signature, place + 1)) >= 0:
            changed[place + at] |= 1
    return bytes(changed)


def rows(**changed) -> dict[str, bytes]:
    members = {f"RTE/{split}.tsv": content_of("RTE", split) for split in splits_of("RTE")}
    return members | changed


WHOLE = zip_of(rows())


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (zip_of(rows() | {"../evil.tsv": b"x"}), r"refused the member '\.\./evil\.tsv', expected names inside"),
        (zip_of(rows() | {"/etc/evil": b"x"}), "refused the member '/etc/evil', expected names inside"),
        (zip_of(rows() | {"RTE/../../evil": b"x"}), r"refused the member 'RTE/\.\./\.\./evil'"),
        (zip_of({"RTE/train.tsv": b"x"}), r"has no RTE/dev\.tsv, found 'RTE/train\.tsv'; check base_url"),
        (zip_of({"data/RTE/train.tsv": b"x"}), r"has no RTE/train\.tsv, found 'data/RTE/train\.tsv'"),
        (zip_of({}), r"has no RTE/train\.tsv, found nothing; check base_url"),
        (
            zip_of(rows() | {"RTE/train.tsv": bytes(64 << 20)}),
            r"RTE/train\.tsv: refused to unpack 6[0-9],[0-9]{3} bytes to 67,108,864, expected text, which",
        ),
        (zip_of(rows(), zipfile.ZIP_BZIP2), r"RTE/train\.tsv: is compressed in way 12, expected deflate; check"),
        (encrypted(WHOLE), r"RTE/train\.tsv: is damaged \(.*encrypted.*\); try again, or another base_url"),
        (WHOLE[:-30], r"RTE/train\.tsv: is damaged \(File is not a zip file\); try again"),
        (WHOLE[:200] + b"xx" + WHOLE[202:], r"RTE/train\.tsv: is damaged \(.*\); try again, or another base_url"),
        (b"<html>Welcome to the hotel's network</html>", r"RTE/train\.tsv: is damaged \(File is not a zip file\)"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)  # fmt: skip
def test_an_archive_that_is_unsafe_or_damaged_is_one_line(server, fetch, tmp_path, archive, message):
    server.content["/glue/data/RTE.zip"] = archive
    with pytest.raises(InputError, match=message) as caught:
        fetch("RTE")
    assert "RTE.zip: " in str(caught.value) and "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}
    assert not (tmp_path / "out" / "checksums.json").exists()
    server.content["/glue/data/RTE.zip"] = WHOLE
    fetch("RTE")  # the bad archive is not used again
    assert (tmp_path / "out" / "RTE" / "dev.tsv").read_bytes() == content_of("RTE", "dev")


def test_a_member_is_no_longer_than_it_says(server, fetch, tmp_path):
    content = content_of("RTE", "train")
    size = len(content).to_bytes(4, "little")
    archive = WHOLE.replace(size, (10).to_bytes(4, "little"))
    assert archive != WHOLE
    server.content["/glue/data/RTE.zip"] = archive
    with pytest.raises(InputError, match=r"RTE/train\.tsv: is damaged \(Bad CRC-32 for file"):
        fetch("RTE")


def test_no_change_of_an_archive_makes_a_traceback_or_another_file(server, fetch, tmp_path):
    draw = random.Random(5)
    outcomes = set()
    for number in range(150):
        archive = bytearray(WHOLE)
        for _ in range(draw.choice((1, 1, 3, 20))):
            # Mostly in the directory at the end, which says where and how large everything is.
            start = draw.choice((0, len(archive) - 400))
            archive[draw.randrange(start, len(archive))] = draw.randrange(256)
        server.content["/glue/data/RTE.zip"] = bytes(archive)
        out = tmp_path / str(number)
        try:
            fetch("RTE", output_dir=str(out))
            outcomes.add("read")
            for split in splits_of("RTE"):
                assert (out / "RTE" / f"{split}.tsv").read_bytes() == content_of("RTE", split)
        except InputError as error:
            outcomes.add("refused")
            assert "\n" not in str(error)
        known = {f"RTE/{split}.tsv" for split in splits_of("RTE")} | {"checksums.json", "downloads/RTE.zip"}
        assert set(files_in(out)) <= known
    assert outcomes == {"read", "refused"}


def test_every_setting_is_documented():
    assert all(field.doc for field in config.describe_fields(FetchGlueConfig))
