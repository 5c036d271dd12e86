"""Zip and tar archives: what is unpacked, and what is refused."""

import gzip
import io
import re
import stat
import tarfile
import zipfile

import pytest

from tf_bert.errors import InputError
from tf_bert.interop import archives
from tf_bert.interop.archives import archive_name, is_archive, unpack

FILES = {"bert/bert_config.json": b"{}", "bert/bert_model.ckpt.index": bytes(range(256)) * 40, "bert/empty": b""}


def _zip(path, files=FILES, **options):
    with zipfile.ZipFile(path, "w", **({"compression": zipfile.ZIP_DEFLATED} | options)) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def _tar(path, files=FILES, members=()):
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in members:
            archive.addfile(member)
    return path


def _unpacked(path, directory):
    directory.mkdir()
    unpack(path, directory)
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tgz", "a.tar", "a"])
def test_files_come_out_as_they_went_in(tmp_path, name):
    path = (_zip if name in ("a.zip", "a") else _tar)(tmp_path / name)
    assert is_archive(path) and archive_name(path) == "a"
    assert _unpacked(path, tmp_path / "out") == FILES


def test_folders_and_a_dot_before_names_are_taken(tmp_path):
    folder = tarfile.TarInfo("./bert")
    folder.type = tarfile.DIRTYPE
    path = _tar(tmp_path / "a.tar.gz", {f"./{name}": content for name, content in FILES.items()}, [folder])
    assert _unpacked(path, tmp_path / "out") == FILES
    assert _unpacked(_zip(tmp_path / "b.zip", {"x/": b"", "x/y": b"1"}), tmp_path / "out2") == {"x/y": b"1"}


def test_other_files_are_no_archives(tmp_path):
    (tmp_path / "text").write_text("PKZIP is a program")
    assert not is_archive(tmp_path / "text") and not is_archive(tmp_path) and not is_archive(tmp_path / "absent")


def _refusal(path, directory):
    directory.mkdir()
    with pytest.raises(InputError) as caught:
        unpack(path, directory)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"{path}: ")
    assert sorted(directory.parent.iterdir()) == sorted([path, directory])
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "a/..", "..\\evil"])
@pytest.mark.parametrize("make", [_zip, _tar])
def test_paths_that_lead_out_are_refused(tmp_path, make, name):
    path = make(tmp_path / "a.gz", {name: b"1"})
    message = f"holds {name!r}, a path that may lead out of it; such archives are not unpacked"
    assert _refusal(path, tmp_path / "out") == message


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    member = tarfile.TarInfo("a/link")
    member.type, member.linkname = kind, "/etc/passwd"
    path = _tar(tmp_path / "a.tar.gz", {}, [member])
    assert _refusal(path, tmp_path / "out") == "'a/link' is no plain file; such archives are not unpacked"


def test_links_in_zip_archives_are_refused(tmp_path):
    member = zipfile.ZipInfo("link")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = _zip(tmp_path / "a.zip", {member: b"/etc/passwd"})
    assert _refusal(path, tmp_path / "out") == "'link' is no plain file; such archives are not unpacked"


@pytest.mark.parametrize("make", [_zip, _tar])
def test_what_unpacks_to_too_much_is_refused(tmp_path, monkeypatch, make):
    path = make(tmp_path / "a.gz", {"zeros": bytes(3 << 20)})
    monkeypatch.setattr(archives, "_SMALL", 1 << 20)
    message = _refusal(path, tmp_path / "out")
    assert re.fullmatch(
        r"has \d+ bytes and unpacks to more than 1048576, which can be an attack; expected the files of one model: "
        "unpack it yourself if you trust it",
        message,
    )


def test_what_is_larger_than_any_model_is_refused(tmp_path, monkeypatch):
    path = _zip(tmp_path / "a.zip")
    monkeypatch.setattr(archives, "MOST_BYTES", 10_000)
    assert "unpacks to more than 10000, which can be an attack" in _refusal(path, tmp_path / "out")


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    path = _tar(tmp_path / "a.tar.gz")
    monkeypatch.setattr(archives, "MOST_MEMBERS", 2)
    assert _refusal(path, tmp_path / "out") == "holds more than 2 files, expected those of one model"


def test_a_header_of_great_length_is_not_read(tmp_path):
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.XHDTYPE, 60 << 20
    with gzip.open(tmp_path / "a.gz", "wb") as file:
        file.write(header.tobuf() + bytes(1 << 20))
    assert "is damaged (a header has 62914560 bytes)" in _refusal(tmp_path / "a.gz", tmp_path / "out")


@pytest.mark.parametrize("make", [_zip, _tar])
@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("a/b", "a")])
def test_files_in_the_place_of_others_are_refused(tmp_path, make, names):
    path = tmp_path / "a.gz"
    if make is _tar:
        _tar(path, {names[0]: b"1"}, [tarfile.TarInfo(names[1])])
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), b"1")
    assert "holds two files of the name" in _refusal(path, tmp_path / "out")


def test_encrypted_and_oddly_packed_archives_are_refused(tmp_path):
    path = _zip(tmp_path / "a.zip", compression=zipfile.ZIP_LZMA)
    assert "is compressed by method 14); unpack it yourself and give the directory" in _refusal(path, tmp_path / "out")
    path.unlink()
    content = bytearray(_zip(tmp_path / "b.zip", {"a": b"1"}).read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    (tmp_path / "out").rmdir()
    (tmp_path / "b.zip").write_bytes(content)
    assert "is encrypted" in _refusal(tmp_path / "b.zip", tmp_path / "out")


def _damage(content):
    """Every eighth truncation and flipped byte of a file."""
    for end in range(4, len(content), 8):
        yield content[:end]
        yield content[:end] + bytes([content[end] ^ 0x55]) + content[end + 1 :]


@pytest.mark.parametrize("make", [_zip, _tar])
def test_damaged_archives_are_one_line_or_whole(tmp_path, make):
    """A flipped byte may be one that says nothing, e.g. of a time. Lost and changed content is seen."""
    content = make(tmp_path / "a.gz").read_bytes()
    path = tmp_path / "a.gz"
    outcomes = {True: 0, False: 0}
    for number, damaged in enumerate(_damage(content)):
        path.write_bytes(damaged)
        try:
            found = _unpacked(path, tmp_path / str(number))
        except InputError as error:
            assert "\n" not in str(error)
            outcomes[False] += 1
        else:
            assert sorted(found.values()) == sorted(FILES.values())
            outcomes[True] += 1
    assert outcomes[False] > len(content) / 8
