"""Where the file of a split is, for tasks whose files have several usual names."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tf_bert.errors import InputError, UsageError
from tf_bert.finetuning.tables import quoted


def find_split_file(path: str | Path, split: str, names: Mapping[str, Sequence[str]], task: str) -> Path:
    """The file itself, or the first of its usual names in a directory.

    Args:
      path: a file, or a directory.
      split: train, dev or test.
      names: usual names by split.
      task: for messages.

    Raises:
      UsageError: if there is no such split.
      InputError: if there is no such file.
    """
    if split not in names:
        raise UsageError(f"split: {task} has no {split!r}; expected one of {', '.join(names)}")
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path}: no such file or directory; expected the {split} file of {task}")
    for name in names[split]:
        if (path / name).is_file():
            return path / name
    found = sorted(entry.name for entry in path.iterdir())
    raise InputError(
        f"{path}: has no {split} file of {task}; expected one of {quoted(names[split])}, found "
        f"{quoted(found) if found else 'nothing'}; name the file with {split}_file"
    )
