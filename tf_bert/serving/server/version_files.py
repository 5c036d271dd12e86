"""Versions as they lie in the directory of an export; without TensorFlow, so that a mistake is told at once."""

import contextlib
import re
from pathlib import Path

from tf_bert.errors import InputError

GRAPH_FILE = "saved_model.pb"


def newest_version(export_dir: Path) -> Path | None:
    """The directory with the highest number that holds a graph, if there is one."""
    try:
        numbered = [path for path in export_dir.iterdir() if re.fullmatch(r"[0-9]{1,18}", path.name)]
        return max((path for path in numbered if (path / GRAPH_FILE).exists()), key=number_of, default=None)
    except OSError:  # a disk that is away for a moment
        return None


def number_of(directory: Path) -> int:
    """The version that a directory is named after."""
    return int(directory.name)


def check_export(export_dir: Path) -> None:
    """Raises `InputError` where there is no version."""
    if newest_version(export_dir) is None:
        raise InputError(
            f"{export_dir}: found no version, expected directories such as {export_dir / '1'} with a {GRAPH_FILE}, as "
            "`tf-bert export` writes them"
        )


def marks_of(directory: Path) -> tuple[object, ...]:
    """What changes when somebody writes files below a directory."""
    with contextlib.suppress(OSError):
        stats = {path: path.stat() for path in sorted(directory.rglob("*"))}
        return tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats.items())
    return (directory,)
