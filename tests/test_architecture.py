"""Who may import whom: every import statement of the package, also those inside functions, against the tables below."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "tf_bert"

LEAVES = {"download", "errors", "files", "pictures", "__init__"}  # any room may import these

# Room (a folder or a module of the package) -> the rooms that it may import, besides itself and the leaves.
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "download": set(),
    "errors": set(),
    "files": set(),
    "pictures": set(),
    "config": set(),
    "run_log": set(),
    "distributed": set(),
    "local_ranks": {"distributed", "training"},
    "corpus": {"config"},
    "tokenization": {"config"},
    "pretraining_data": {"config", "corpus", "tokenization"},
    "models": {"config"},
    "training": {"config", "distributed", "models", "run_log"},
    "interop": {"config", "models", "tokenization"},
    "serving": {"config", "models", "tokenization"},
    "finetuning": {
        "config",
        "distributed",
        "interop",
        "models",
        "run_log",
        "serving",
        "tokenization",
        "training",
    },
    "azure": {"config"},
    "report": {"config", "run_log"},
    "inspection": {"config", "models", "pretraining_data", "run_log", "tokenization", "training"},
    "pretraining": {
        "config",
        "distributed",
        "initial_weights",
        "models",
        "pretraining_data",
        "report",
        "run_directory",
        "run_log",
        "tokenization",
        "training",
    },
    "initial_weights": {"config", "interop", "models", "pretraining_data", "run_directory", "tokenization"},
    "run_directory": {"config", "models", "pretraining_data", "tokenization", "training"},
    "preflight": {
        "config",
        "initial_weights",
        "models",
        "pretraining",
        "pretraining_data",
        "run_directory",
        "run_log",
        "training",
    },
    "cli": {"commands"},
    "commands": {
        "azure",
        "config",
        "corpus",
        "finetuning",
        "initial_weights",
        "inspection",
        "interop",
        "local_ranks",
        "preflight",
        "pretraining",
        "pretraining_data",
        "report",
        "run_log",
        "serving",
        "tokenization",
    },
}

# Whole commands, and who may run them.
COMPOSITIONS: dict[str, set[str]] = {
    "cli": set(),
    "commands": {"cli"},
    "pretraining": {"commands", "preflight"},
    "preflight": {"commands"},
    "inspection": {"commands"},
    "finetuning": {"commands"},
}

# Libraries: which rooms stay free of TensorFlow, and which alone may import the libraries of ONLY_HERE.
TENSORFLOW = {"tensorflow", "tensorflow_text", "horovod", "tf_keras"}
NEVER_TENSORFLOW = {
    "download",
    "errors",
    "files",
    "pictures",
    "config",
    "corpus",
    "models",
    "azure",
    "cli",
    "commands",
    "report",
}
ONLY_HERE = {"horovod": {"distributed"}, "official": {"interop"}, "azureml": {"azure"}, "pickle": set(), "dill": set()}

MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(name: str) -> str:
    """`tf_bert.corpus.wikipedia` -> `corpus`; names that `tf_bert/__init__.py` defines belong to `__init__`."""
    room = [*name.split("."), "__init__"][1]
    return room if room in MAY_IMPORT.keys() | {room_of_path(module) for module in MODULES} else "__init__"


def imports_of(source: str, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that a module of `package` imports; `from a import b` gives `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            for alias in node.names:
                yield node.lineno, ".".join([*base, *([node.module] if node.module else []), alias.name])


def room_of_path(path: Path) -> str:
    """The room that a file of the package belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_keep_to_the_table(path: Path) -> None:
    room = room_of_path(path)
    assert room in MAY_IMPORT, f"{room} is a new room: say in MAY_IMPORT what it may import"
    allowed = MAY_IMPORT[room] | LEAVES | {room}
    where = path.relative_to(PACKAGE.parent)
    offences = []
    for line, name in imports_of(path.read_text(encoding="utf-8"), where.parent.parts):
        library = name.split(".")[0]
        if library == PACKAGE.name and room_of(name) not in allowed:
            offences.append(f"{where}:{line}: {room} must not import {room_of(name)}")
        if room in NEVER_TENSORFLOW and library in TENSORFLOW:
            offences.append(f"{where}:{line}: {room} must not import {library}")
        if room not in ONLY_HERE.get(library, {room}):
            offences.append(f"{where}:{line}: {room} must not import {library}")
    assert not offences, "\n".join(offences)


def test_compositions_are_at_the_top() -> None:
    importers = {top: {room for room, allowed in MAY_IMPORT.items() if top in allowed} for top in COMPOSITIONS}
    assert importers == COMPOSITIONS


def test_rooms_form_no_cycle() -> None:
    remaining = dict(MAY_IMPORT)
    while ready := [room for room, allowed in remaining.items() if not allowed & remaining.keys()]:
        for room in ready:
            del remaining[room]
    assert not remaining, f"these rooms may import each other in a circle: {sorted(remaining)}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import tf_bert.models.encoder as e", ["tf_bert.models.encoder"]),
        ("from tf_bert import config, models", ["tf_bert.config", "tf_bert.models"]),
        ("from . import wikitext", ["tf_bert.corpus.wikitext"]),
        ("from .. import cli", ["tf_bert.cli"]),
        ("from ..models.heads import x", ["tf_bert.models.heads.x"]),
        ("def f():\n    import horovod.tensorflow as hvd", ["horovod.tensorflow"]),
    ],
)
def test_every_form_of_import_is_seen(source: str, expected: list[str]) -> None:
    assert [name for _, name in imports_of(source, ("tf_bert", "corpus"))] == expected
