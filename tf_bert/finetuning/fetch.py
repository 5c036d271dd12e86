"""GLUE's public files, downloaded from where the benchmark keeps them or a mirror, checked and unpacked.

A task ends up in a directory of its own, with the files that `tasks.TASKS` names. `checksums.json` beside them records
what was unpacked: a file that still has its checksum is not fetched again, and one that arrives anew is held against
it. An archive is data that strangers may have made: members are looked up by name, and their sizes are bounded.
"""

import contextlib
import hashlib
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tf_bert.config import FetchGlueConfig
from tf_bert.download import Client, Notify, Progress, RemoteFile, download_file, is_sound
from tf_bert.errors import InputError
from tf_bert.files import atomic_writer, read_json, reporting_disk_errors, sha256_of, write_json
from tf_bert.finetuning.examples import read_examples
from tf_bert.finetuning.tables import quoted, read_rows
from tf_bert.finetuning.tasks import TASKS, Task, find_task

CHECKSUMS_FILE = "checksums.json"
MAX_MEMBER_BYTES = 2 << 30
MAX_RATIO = 200  # text shrinks to a quarter or a tenth
_RATIO_SLACK = 16 << 20
_BLOCK_BYTES = 1 << 20
_DOWNLOADS = "downloads"  # below the directory, as long as archives are not unpacked


@dataclass(frozen=True)
class Archive:
    """A published file: its path on the server, size in bytes and SHA-256, which two public loaders record alike.

    Those are tensorflow-datasets (url_checksums/glue.txt) and Hugging Face's datasets (glue/dataset_infos.json).
    """

    path: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Its name without the path."""
        return PurePosixPath(self.path).name


ARCHIVES: Mapping[str, tuple[Archive, ...]] = {
    "CoLA": (
        Archive("glue/data/CoLA.zip", 376971, "f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff"),
    ),
    "SST-2": (
        Archive("glue/data/SST-2.zip", 7439277, "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa"),
    ),
    "MRPC": (  # not one archive: the corpus as SentEval keeps it, and the pairs that GLUE took out of it as dev set
        Archive(
            "senteval/senteval_data/msr_paraphrase_train.txt",
            1047044,
            "60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89",
        ),
        Archive(
            "senteval/senteval_data/msr_paraphrase_test.txt",
            441275,
            "a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784",
        ),
        Archive("glue/data/mrpc_dev_ids.tsv", 6222, "971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7"),
    ),
    "QQP": (
        Archive(
            "glue/data/QQP-clean.zip", 41696084, "40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0"
        ),
    ),
    "STS-B": (
        Archive("glue/data/STS-B.zip", 802872, "e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85"),
    ),
    "MNLI": (
        Archive("glue/data/MNLI.zip", 312783507, "e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633"),
    ),
    "QNLI": (
        Archive("glue/data/QNLIv2.zip", 10627589, "e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5"),
    ),
    "RTE": (Archive("glue/data/RTE.zip", 697150, "6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee"),),
    "WNLI": (Archive("glue/data/WNLI.zip", 28999, "ae0e8e4d16f4d46d4a0a566ec7ecceccfd3fbfaa4a7a4b4e02848c0f2561ac46"),),
    "AX": (Archive("glue/data/AX.tsv", 222257, "0e13510b1bb14436ff7e2ee82338f0efb0133ecf2e73507a697dc210db3f05fd"),),
}


@dataclass(frozen=True)
class Fetched:
    """A task that lies in the directory, and how many rows its splits have."""

    task: str
    rows: Mapping[str, int]

    def __str__(self) -> str:
        """One line."""
        return f"{self.task}: " + ", ".join(f"{split} {count:,}" for split, count in self.rows.items()) + " rows"


def fetch_glue(
    config: FetchGlueConfig, progress: Progress, notify: Notify, archives: Mapping[str, tuple[Archive, ...]] = ARCHIVES
) -> Iterator[Fetched]:
    """Downloads and unpacks what `config.output_dir` lacks of the tasks; goes on where it was cut off.

    Args:
      config: the settings.
      progress: makes progress bars.
      notify: is told of requests that are tried again, of files that are replaced, and of files that cannot be read
        or have another number of rows than the published ones.
      archives: what is downloaded for each task.

    Yields:
      Each task, as soon as it is there.

    Raises:
      UsageError: if there is no task of a name.
      InputError: if the server fails, a file is not the published one or has changed since it was first downloaded,
        an archive is damaged or unsafe, or the disk refuses to write.
    """
    names = [name for name in config.tasks if name != "all"] if "all" not in config.tasks else list(TASKS)
    tasks = [find_task(name) for name in names]
    directory = Path(config.output_dir)
    with reporting_disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    client = Client(config, notify, "check base_url, or see whether the server has moved it")
    for task in tasks:
        recorded = _read_checksums(directory)
        if not all(_is_recorded(directory, name, recorded, notify) for name in _files(task)):
            paths = [_download(client, archive, directory, config, progress) for archive in archives[task.name]]
            for name, blocks in _contents(task, paths):
                recorded[name] = _write(directory, name, blocks, recorded.get(name))
            write_json(directory / CHECKSUMS_FILE, dict(sorted(recorded.items())))
            for path in paths:
                path.unlink()
            with contextlib.suppress(OSError):  # what was interrupted for another task stays
                (directory / _DOWNLOADS).rmdir()
        yield Fetched(task.name, _count_rows(task, directory, notify))


def _files(task: Task) -> list[str]:
    return [f"{task.folders[0]}/{split.file}" for split in task.splits]


def _read_checksums(directory: Path) -> dict[str, str]:
    """SHA-256 of every file that was unpacked into `directory`, by its path in there."""
    path = directory / CHECKSUMS_FILE
    if not path.exists():
        return {}
    recorded = read_json(path)
    if not isinstance(recorded, dict) or not all(isinstance(value, str) for value in recorded.values()):
        raise InputError(f"{path}: found something else than checksums by file name; remove it to fetch anew")
    return recorded


def _is_recorded(directory: Path, name: str, recorded: Mapping[str, str], notify: Notify) -> bool:
    path = directory / name
    if not path.is_file():
        return False
    if sha256_of(path) == recorded.get(name):
        return True
    notify(f"{path}: is not as it was downloaded; fetching it again")
    return False


def _download(client: Client, archive: Archive, directory: Path, config: FetchGlueConfig, progress: Progress) -> Path:
    path = directory / _DOWNLOADS / archive.name
    with reporting_disk_errors(path.parent):
        path.parent.mkdir(exist_ok=True)
    known = (archive.size, archive.sha256) if config.published_checksums else (None, None)
    file = RemoteFile(f"{config.base_url}/{archive.path}", *known)
    if not (config.published_checksums and is_sound(path, file, progress)):
        download_file(client, file, path, progress)
    return path


def _write(directory: Path, name: str, blocks: Iterable[bytes], recorded: str | None) -> str:
    """Writes one file; returns its SHA-256."""
    path, digest = directory / name, hashlib.sha256()
    with reporting_disk_errors(path.parent):
        path.parent.mkdir(exist_ok=True)
    with atomic_writer(path) as file:
        for block in blocks:
            digest.update(block)
            file.write(block)
        if recorded not in (None, digest.hexdigest()):
            record = directory / CHECKSUMS_FILE
            raise InputError(
                f"{path}: its SHA-256 came as {digest.hexdigest()}, but was {recorded} when it was first downloaded; "
                f"try another base_url, or if the change is meant, remove {record}"
            )
    return digest.hexdigest()


def _count_rows(task: Task, directory: Path, notify: Notify) -> dict[str, int]:
    """Reads every file of a task as training and prediction do; problems go to `notify`, as the files are not ours."""
    rows = {}
    for split in task.splits:
        path = directory / task.folders[0] / split.file
        try:
            rows[split.name] = sum(1 for _ in read_examples(task, path, split.name))
        except InputError as error:
            notify(str(error))
            continue
        if split.rows not in (None, rows[split.name]):
            notify(f"{path}: found {rows[split.name]:,} rows, expected {split.rows:,} as published; scores may differ")
    return rows


# --- what is in the archives ---------------------------------------------------------------------------------------


def _contents(task: Task, paths: Sequence[Path]) -> Iterator[tuple[str, Iterable[bytes]]]:
    """The files of a task, by their paths in the directory, out of what was downloaded for it."""
    contents: Iterator[Iterable[bytes]]
    if task.name == "MRPC":
        contents = _mrpc_contents(*paths)
    elif paths[0].suffix == ".zip":
        contents = (_zip_blocks(paths[0], name) for name in _files(task))
    else:
        contents = (_file_blocks(path) for path in paths)
    return zip(_files(task), contents, strict=True)


def _file_blocks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def _zip_blocks(path: Path, name: str) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(path) as packed, packed.open(_checked_member(packed, path, name)) as member:
            while block := member.read(_BLOCK_BYTES):
                yield block
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, struct.error) as error:
        raise InputError(f"{path}: {name}: is damaged ({error}); try again, or another base_url") from error


def _checked_member(packed: zipfile.ZipFile, path: Path, name: str) -> zipfile.ZipInfo:
    names = packed.namelist()
    for other in names:
        if PurePosixPath(other).is_absolute() or ".." in PurePosixPath(other).parts:
            raise InputError(f"{path}: refused the member {other!r}, expected names inside; check base_url")
    if name not in names:
        raise InputError(f"{path}: has no {name}, found {quoted(names)}; check base_url")
    member = packed.getinfo(name)
    if member.file_size > min(MAX_MEMBER_BYTES, MAX_RATIO * member.compress_size + _RATIO_SLACK):
        raise InputError(
            f"{path}: {name}: refused to unpack {member.compress_size:,} bytes to {member.file_size:,}, expected text, "
            f"which shrinks to a tenth; check base_url"
        )
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others are unpacked without bounds
        raise InputError(
            f"{path}: {name}: is compressed in way {member.compress_type}, expected deflate; check base_url"
        )
    return member


def _mrpc_contents(train: Path, test: Path, dev_ids: Path) -> Iterator[list[bytes]]:
    """MRPC's train, dev and test file in GLUE's form: pairs of `dev_ids` are the dev set, labels of the test go."""
    ids, texts = ("#1 ID", "#2 ID"), ("#1 String", "#2 String")
    with open(dev_ids, "rb") as stream:
        held_out = {tuple(pair) for _, pair in read_rows(stream, str(dev_ids), "tsv", ids, columns=ids)}
    with open(train, "rb") as stream:
        rows = [row for _, row in read_rows(stream, str(train), "tsv", ("Quality", *ids, *texts))]
    header = ("Quality", *ids, *texts)
    yield _tsv(header, (row for row in rows if tuple(row[1:3]) not in held_out))
    yield _tsv(header, (row for row in rows if tuple(row[1:3]) in held_out))
    with open(test, "rb") as stream:
        rows = [row for _, row in read_rows(stream, str(test), "tsv", (*ids, *texts))]
    yield _tsv(("index", *ids, *texts), ([str(number), *row] for number, row in enumerate(rows)))


def _tsv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[bytes]:
    return ["\t".join(row).encode() + b"\n" for row in (header, *rows)]
