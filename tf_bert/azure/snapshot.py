"""The files of a job's code that Azure would upload, and whether it would: few enough, small enough, without secrets.

As both SDKs do it, `.amlignore` in the folder says what stays behind, or else `.gitignore`; one of the two, and none
below. Lines are those of `.gitignore`, and the last one that matches a file counts.
"""

import collections
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tf_bert.azure.secret_scan import find_secret
from tf_bert.errors import InputError

MAX_BYTES = 300 * 2**20
MAX_FILES = 2000
IGNORE_FILES = (".amlignore", ".gitignore")
_SHOWN = 3  # of the largest


def list_snapshot(code_dir: Path) -> list[Path]:
    """What would be uploaded of a folder: paths relative to it, in the order of their names. Links are followed.

    Raises:
      InputError: if it is more than Azure takes, naming what is large.
    """
    files = sorted(_kept(code_dir))
    if not files:
        raise InputError(f"{code_dir}: has nothing to upload; look at {' and '.join(IGNORE_FILES)}")
    sizes = {file: (code_dir / file).stat().st_size for file in files}
    total = sum(sizes.values())
    if total > MAX_BYTES:
        largest = sorted(files, key=lambda file: -sizes[file])[:_SHOWN]
        named = ", ".join(f"{file} ({_megabytes(sizes[file])})" for file in largest)
        raise InputError(
            f"{code_dir}: has {_megabytes(total)} to upload, but Azure takes {_megabytes(MAX_BYTES)}; the largest: "
            f"{named}; list what the job does not need in .amlignore"
        )
    if len(files) > MAX_FILES:
        counts = collections.Counter(file.parts[0] if len(file.parts) > 1 else "." for file in files)
        named = ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(_SHOWN))
        raise InputError(
            f"{code_dir}: has {len(files):,} files to upload, but Azure takes {MAX_FILES:,}; most are in: {named}; "
            "list what the job does not need in .amlignore"
        )
    return files


def refuse_secrets(directory: Path, files: Sequence[Path]) -> None:
    """Raises `InputError` for the first of some files that has a secret in it; their paths are relative."""
    for file in files:
        path = directory / file
        if found := find_secret(path):
            raise InputError(
                f"{path}: line {found.line}: looks like {found.kind}, and would be uploaded; take it out (the "
                "workspace has a key vault for secrets), or list the file in .amlignore"
            )


def _kept(code_dir: Path) -> Iterator[Path]:
    import pathspec

    ignore = next((code_dir / name for name in IGNORE_FILES if (code_dir / name).is_file()), None)
    lines = ignore.read_text(encoding="utf-8").splitlines() if ignore else []
    spec = pathspec.PathSpec.from_lines("gitwildmatch", lines)
    # Unless a later line may let a file of it back in, a folder that is left out as a whole need not be looked at.
    can_skip = not any(line.startswith("!") for line in lines)
    seen = {os.path.realpath(code_dir)}
    for root, folders, names in os.walk(code_dir, followlinks=True):
        relative = Path(root).relative_to(code_dir)
        for folder in list(folders):
            real = os.path.realpath(os.path.join(root, folder))
            is_loop = os.path.islink(os.path.join(root, folder)) and real in seen
            if is_loop or (can_skip and spec.match_file(f"{(relative / folder).as_posix()}/")):
                folders.remove(folder)
            seen.add(real)
        yield from (relative / name for name in names if not spec.match_file((relative / name).as_posix()))


def _megabytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MB"
