"""The objects of a TF2 checkpoint: which attribute of which object leads to which tensor.

The names of the tensors alone do not tell: each is named after one of the paths to it, so that the token embedding of
one and the same model may be `encoder/_embedding_layer/embeddings`, `masked_lm/embedding_table` or `variables/0`.
"""

import dataclasses
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import trackable_object_graph_pb2

from tf_bert.errors import InputError

ROOT = 0
_VALUE = "VARIABLE_VALUE"


@dataclasses.dataclass(frozen=True)
class ObjectGraph:
    """Objects, numbered from the root on."""

    children: tuple[Mapping[str, int], ...]
    """Of every object, its attributes that are objects."""
    tensors: tuple[str | None, ...]
    """Of every object that is a variable, the name of its tensor in the checkpoint."""

    def walk(self, start: int, path: str) -> int | None:
        """The object at the end of a path of attributes, separated by slashes."""
        found: int | None = start
        for name in path.split("/"):
            if found is None:
                return None
            found = self.children[found].get(name)
        return found

    def tensor(self, start: int, path: str) -> str | None:
        """The tensor at the end of a path of attributes."""
        found = self.walk(start, path)
        return None if found is None else self.tensors[found]

    def nearest_first(self) -> dict[int, tuple[int, str]]:
        """Every object that the root leads to, the nearest first: its parent, and its name there."""
        found = {ROOT: (ROOT, "")}
        waiting = deque([ROOT])
        while waiting:
            number = waiting.popleft()
            for name, child in self.children[number].items():
                if child not in found:
                    found[child] = number, name
                    waiting.append(child)
        return found


def parse_graph(content: bytes, prefix: Path) -> ObjectGraph:
    """Reads a serialised `TrackableObjectGraph`.

    Raises:
      InputError: if it is none, or an object has a child that there is not, or one without a proper name.
    """
    try:
        proto = trackable_object_graph_pb2.TrackableObjectGraph.FromString(content)
    except DecodeError as error:
        raise InputError(f"{prefix}: its description of objects is damaged; download the checkpoint again") from error
    children = tuple({child.local_name: child.node_id for child in node.children} for node in proto.nodes)
    numbers = range(len(children))
    pairs = (pair for node in children for pair in node.items())
    if not children or not all(name.isprintable() and child in numbers for name, child in pairs):
        raise InputError(f"{prefix}: its description of objects is damaged; download the checkpoint again")
    tensors = tuple(
        next((attribute.checkpoint_key for attribute in node.attributes if attribute.name == _VALUE), None)
        for node in proto.nodes
    )
    return ObjectGraph(children, tensors)
