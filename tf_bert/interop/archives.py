"""Zip and tar archives of models, unpacked member by member.

What an archive says of itself is not believed: bytes are counted while they are written, and names are those of plain
files below the directory that is unpacked into.
"""

import gzip
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from tf_bert.errors import InputError
from tf_bert.files import reporting_disk_errors

MOST_BYTES = 16 << 30
"""Of an unpacked archive; BERT-large with its optimizer takes 4 GB."""
MOST_RATIO = 100
"""Unpacked to packed; weights shrink by a tenth, but an optimizer's slots may be all zeros."""
MOST_MEMBERS = 10_000

_SMALL = 64 << 20  # bytes that may be unpacked at any ratio
_PIECE = 1 << 20
_LONGEST_READ = 8 << 20  # bytes that a header may take
_ZIP, _GZIP = b"PK\x03\x04", b"\x1f\x8b"
_TAR = (257, b"ustar")  # where a tar file says that it is one


def is_archive(path: Path) -> bool:
    """Whether a file is an archive, by its content.

    Raises:
      InputError: if it cannot be read.
    """
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(_TAR[0] + len(_TAR[1]))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return head.startswith((_ZIP, _GZIP)) or head[_TAR[0] :] == _TAR[1]


def archive_name(path: Path) -> str:
    """The name of an archive without its endings."""
    name = path.name
    for ending in (".zip", ".gz", ".tgz", ".tar"):
        name = name.removesuffix(ending)
    return name


def unpack(path: Path, directory: Path) -> None:
    """Unpacks a zip or tar archive (gzipped or not) into an empty directory.

    Raises:
      InputError: if it is damaged, too large, or holds what is not a plain file below the directory.
    """
    budget = _Budget(path)
    try:
        with open(path, "rb") as file:
            head = file.read(4)
            file.seek(0)
            if head == _ZIP:
                with zipfile.ZipFile(file) as archive:
                    _unpack_zip(archive, directory, budget)
            elif head.startswith(_GZIP):
                with gzip.GzipFile(fileobj=file) as unzipped:
                    _unpack_tar(unzipped, directory, budget)  # type: ignore[arg-type]
            else:
                _unpack_tar(file, directory, budget)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError, ValueError) as error:
        raise InputError(f"{path}: is damaged ({error}); download the archive again") from error
    except (NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be unpacked ({error}); unpack it yourself and give the directory") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


class _Budget:
    """How much may still be unpacked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.most = self.left = min(MOST_BYTES, max(_SMALL, MOST_RATIO * self.size))
        self.members = 0

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise InputError(
                f"{self.path}: has {self.size} bytes and unpacks to more than {self.most}, which can be an attack; "
                "expected the files of one model: unpack it yourself if you trust it"
            )

    def take_member(self) -> None:
        self.members += 1
        if self.members > MOST_MEMBERS:
            raise InputError(f"{self.path}: holds more than {MOST_MEMBERS} files, expected those of one model")


def _unpack_zip(archive: zipfile.ZipFile, directory: Path, budget: _Budget) -> None:
    for member in archive.infolist():
        budget.take_member()
        kind = member.external_attr >> 16 & 0o170000
        if kind not in (0, 0o100000, 0o040000):
            raise InputError(f"{budget.path}: {member.filename!r} is no plain file; such archives are not unpacked")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise NotImplementedError(f"{member.filename!r} is compressed by method {member.compress_type}")
        target = _target(member.filename, directory, budget.path)
        if not member.is_dir():
            with archive.open(member) as source:
                _write(source, target, budget)


def _unpack_tar(file: IO[bytes], directory: Path, budget: _Budget) -> None:
    forward = _Forward(file, budget)
    with tarfile.open(fileobj=forward, mode="r:") as archive:  # type: ignore[call-overload]
        for member in archive:
            budget.take_member()
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise InputError(f"{budget.path}: {member.name!r} is no plain file; such archives are not unpacked")
            target = _target(member.name, directory, budget.path)
            if member.isreg():
                source = archive.extractfile(member)
                assert source is not None
                _write(source, target, budget, is_counted=True)
    while forward.read(_PIECE):  # to the end, where the checksum is
        pass


class _Forward:
    """What tarfile needs of a file, counted: it goes forward only, and headers are of bounded length."""

    def __init__(self, file: IO[bytes], budget: _Budget) -> None:
        self._file = file
        self._budget = budget
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise ValueError("its members overlap")
        while self._position < position and self.read(min(position - self._position, _PIECE)):
            pass

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_READ:
            raise ValueError(f"a header has {size} bytes")
        content = self._file.read(size)
        self._position += len(content)
        self._budget.take(len(content))
        return content


def _target(name: str, directory: Path, archive: Path) -> Path:
    """Where a member goes, below the directory."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise InputError(f"{archive}: holds {name!r}, a path that may lead out of it; such archives are not unpacked")
    return directory / path


def _write(source: IO[bytes], target: Path, budget: _Budget, is_counted: bool = False) -> None:
    """Writes a new file; `is_counted`: what is read from the source was taken from the budget already."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file = open(target, "xb")  # noqa: SIM115 (closed below)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{budget.path}: holds two files of the name {target.name!r}; download it again") from error
    with file:
        while piece := source.read(_PIECE):
            if not is_counted:
                budget.take(len(piece))
            with reporting_disk_errors(target):
                file.write(piece)
        with reporting_disk_errors(target):
            file.flush()
