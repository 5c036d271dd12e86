"""transformers and sentence-transformers with PyTorch, in a process of their own: opt-in peers of the tests.

`PEERS_PYTHON` names a Python that has them; otherwise they are looked for in this one.
"""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity import Measured, Rows

from tf_bert.models.directory import save_model
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.models.tensors import part_slots

PYTHON = os.environ.get("PEERS_PYTHON", sys.executable)
WORKER = Path(__file__).with_name("transformers_worker.py")
_FIND = "import sys, importlib.util as i; sys.exit(not all(map(i.find_spec, sys.argv[1:])))"
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


class Worker:
    """The process. PyTorch and TensorFlow in one can crash each other."""

    def __init__(self) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors, "text": True}
        self.process = subprocess.Popen([PYTHON, str(WORKER)], env={**os.environ, **_OFFLINE}, **pipes)
        atexit.register(self.process.kill)

    def __call__(self, do: str, **arguments: Any) -> Any:
        """Runs one of the worker's jobs; paths may be `Path`s."""
        print(json.dumps({"do": do, **arguments}, default=str), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise RuntimeError(f"{PYTHON} {WORKER} has died: {self.errors.read()[-3000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]


@functools.cache
def worker() -> Worker:
    """The one process, once it is needed."""
    return Worker()


def has(*modules: str) -> bool:
    """Whether the peers' Python has the modules."""
    return subprocess.run([PYTHON, "-c", _FIND, *modules]).returncode == 0


def needs(*modules: str) -> pytest.MarkDecorator:
    """Skips tests where the peers' Python lacks one of the modules."""
    reason = f"opt-in peers: {PYTHON} lacks one of {', '.join(modules)}; PEERS_PYTHON names another Python"
    return pytest.mark.skipif(not has(*modules), reason=reason)


class Transformers:
    """transformers' `BertForPreTraining` with the weights of one of our models, which it reads from a directory.

    Args:
      model: ours.
      directory: where to write it.
    """

    def __init__(self, model: BertForPretraining, directory: Path) -> None:
        save_model(model, directory, {"pad_token_id": 0})
        self.directory = directory
        self.slots = [slot for part in model.parts for slot in part_slots(part, model.config)]

    def measure(self, rows: Rows, weights: Mapping[str, np.ndarray] | None) -> Measured:
        """See `Peer`."""
        paths = [self.directory / name for name in ("rows.npz", "weights.npz", "found.npz")]
        arrays = {f"inputs/{name}": value for name, value in rows.inputs.items()}
        np.savez(paths[0], **arrays, **{f"places/{name}": value for name, value in rows.places.items()})
        if weights is not None:
            np.savez(paths[1], **weights)
        worker()(
            "measure",
            directory=self.directory,
            rows=paths[0],
            weights=None if weights is None else paths[1],
            output=paths[2],
        )
        found = dict(np.load(paths[2]))
        outputs = {name.removeprefix("outputs/"): found[name] for name in found if name.startswith("outputs/")}
        gradients = {}
        for slot in self.slots if weights is not None else ():
            gradient = np.concatenate([found[f"gradients/{name}"] for name in slot.names])
            gradients[slot.variable] = gradient.T if slot.is_transposed else gradient
        return Measured(outputs, gradients)
