"""Opens damaged copies of a model directory, in a process of its own, for a reader in C++ or Rust might end it.

Prints, for every file that is damaged, how many copies were read, how many refused, and by how many MB memory grew.
"""

import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
from random_weights import random_weights, values

from tf_bert.errors import InputError
from tf_bert.interop.source import open_source, write_weights
from tf_bert.models.directory import WEIGHTS_FILE

FILES = (
    ("google", "bert_model.ckpt.index"),
    ("google", "bert_model.ckpt.data-00000-of-00001"),
    ("model-garden", "bert_model.ckpt.index"),
    ("model-garden", "bert_model.ckpt.data-00000-of-00001"),
    ("hf", WEIGHTS_FILE),
)
_PIECES = 150  # places in a file where it is damaged


def _damaged(content: bytes, end: int) -> Iterator[bytes]:
    """Truncations, flipped bits, and numbers made small, large or longer, at places up to `end`."""
    places = sorted({int(place) for place in np.linspace(0, end - 1, _PIECES)})
    for number, place in enumerate(places):
        before, byte, after = content[:place], content[place], content[place + 1 :]
        yield before
        yield before + bytes([byte ^ 1 << number % 8]) + after
        if number % 4 == 0:
            yield from (before + bytes([other]) + after for other in {0, 0x7F, 0x80, 0xFF} - {byte})
            yield before + b"\xff" * 9 + b"\x01" + after


def _end(path: Path, content: bytes) -> int:
    """How far damage is seen: tensors in safetensors files have no checksum, so there only the header."""
    return 8 + int.from_bytes(content[:8], "little") if path.name == WEIGHTS_FILE else len(content)


def _is_read(directory: Path, expected: dict[str, np.ndarray]) -> bool:
    try:
        with open_source(str(directory)) as source:
            weights = source.weights
            found = {name: weights.read(name) for part in weights.parts for name in weights.names_of(part)}
    except InputError as error:
        assert "\n" not in str(error) and str(error).startswith(str(directory)), error
        return False
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    return True


def main() -> None:
    expected = values(random_weights())
    for to, file_name in FILES:
        with tempfile.TemporaryDirectory() as temporary:
            directory = Path(temporary)
            write_weights(random_weights(), directory, to)
            path = directory / file_name
            content = path.read_bytes()
            assert _is_read(directory, expected)
            counts = {True: 0, False: 0}
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for damaged in _damaged(content, _end(path, content)):
                path.write_bytes(damaged)
                counts[_is_read(directory, expected)] += 1
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
            print(to, file_name, counts[True], counts[False], grown, flush=True)


if __name__ == "__main__":
    main()
