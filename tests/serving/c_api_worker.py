"""A SavedModel loaded and asked through TensorFlow's C API, as a server in another language does it.

Standard library alone. Reads JSON on standard input: `tensorflow` and `tensorflow_text` (directories of the two
packages), `export`, `inputs` (strings by name of their tensor) and `outputs` (names of tensors); writes the outputs by
name: lists of numbers or of strings.
"""

import ctypes
import glob
import json
import sys
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p

FLOAT, STRING = 1, 7
TSTRING_BYTES = 24


class Port(ctypes.Structure):
    """TF_Output."""

    _fields_ = [("operation", c_void_p), ("index", c_int)]


class Library:
    """The functions that are used, with their types."""

    def __init__(self, directory: str) -> None:
        self.framework = ctypes.CDLL(f"{directory}/libtensorflow_framework.so.2", ctypes.RTLD_GLOBAL)
        self.core = ctypes.CDLL(f"{directory}/libtensorflow_cc.so.2", ctypes.RTLD_GLOBAL)

    def __call__(self, name: str, result, *arguments):
        library = self.core if hasattr(self.core, name) else self.framework
        function = getattr(library, name)
        function.restype = result
        function.argtypes = [kind for kind, _ in arguments]
        return function(*(value for _, value in arguments))


class Session:
    """A SavedModel with the tag `serve`."""

    def __init__(self, library: Library, text_directory: str, export: str) -> None:
        self.library = library
        self.status = library("TF_NewStatus", c_void_p)
        for path in sorted(glob.glob(f"{text_directory}/python/ops/*.so")):
            library("TF_LoadLibrary", c_void_p, (c_char_p, path.encode()), (c_void_p, self.status))
            self.check(path)
        self.graph = library("TF_NewGraph", c_void_p)
        options = library("TF_NewSessionOptions", c_void_p)
        tags = (c_char_p * 1)(b"serve")
        self.session = library(
            "TF_LoadSessionFromSavedModel",
            c_void_p,
            (c_void_p, options),
            (c_void_p, None),
            (c_char_p, export.encode()),
            (POINTER(c_char_p), tags),
            (c_int, 1),
            (c_void_p, self.graph),
            (c_void_p, None),
            (c_void_p, self.status),
        )
        self.check(export)

    def check(self, what: str) -> None:
        if self.library("TF_GetCode", c_int, (c_void_p, self.status)):
            sys.exit(f"{what}: {self.library('TF_Message', c_char_p, (c_void_p, self.status)).decode()}")

    def port(self, name: str) -> Port:
        operation, _, index = name.partition(":")
        found = self.library(
            "TF_GraphOperationByName", c_void_p, (c_void_p, self.graph), (c_char_p, operation.encode())
        )
        if not found:
            sys.exit(f"the graph has no {operation}")
        return Port(found, int(index))

    def strings(self, values: list[str]) -> int:
        shape = (c_int64 * 1)(len(values))
        tensor = self.library(
            "TF_AllocateTensor",
            c_void_p,
            (c_int, STRING),
            (POINTER(c_int64), shape),
            (c_int, 1),
            (c_size_t, TSTRING_BYTES * len(values)),
        )
        data = self.library("TF_TensorData", c_void_p, (c_void_p, tensor))
        for i, value in enumerate(values):
            text, place = value.encode(), data + TSTRING_BYTES * i
            self.library("TF_StringInit", None, (c_void_p, place))
            self.library("TF_StringCopy", None, (c_void_p, place), (c_char_p, text), (c_size_t, len(text)))
        return tensor

    def values(self, tensor: int) -> list:
        count = self.library("TF_TensorElementCount", c_int64, (c_void_p, tensor))
        data = self.library("TF_TensorData", c_void_p, (c_void_p, tensor))
        kind = self.library("TF_TensorType", c_int, (c_void_p, tensor))
        if kind == FLOAT:
            return list((ctypes.c_float * count).from_address(data))
        assert kind == STRING, kind
        found = []
        for i in range(count):
            place = data + TSTRING_BYTES * i
            size = self.library("TF_StringGetSize", c_size_t, (c_void_p, place))
            pointer = self.library("TF_StringGetDataPointer", c_void_p, (c_void_p, place))
            found.append(ctypes.string_at(pointer, size).decode())
        return found

    def run(self, inputs: dict[str, list[str]], outputs: list[str]) -> dict[str, list]:
        in_ports = (Port * len(inputs))(*map(self.port, inputs))
        in_values = (c_void_p * len(inputs))(*map(self.strings, inputs.values()))
        out_ports = (Port * len(outputs))(*map(self.port, outputs))
        out_values = (c_void_p * len(outputs))()
        self.library(
            "TF_SessionRun",
            None,
            (c_void_p, self.session),
            (c_void_p, None),
            (POINTER(Port), in_ports),
            (POINTER(c_void_p), in_values),
            (c_int, len(inputs)),
            (POINTER(Port), out_ports),
            (POINTER(c_void_p), out_values),
            (c_int, len(outputs)),
            (c_void_p, None),
            (c_int, 0),
            (c_void_p, None),
            (c_void_p, self.status),
        )
        self.check("TF_SessionRun")
        return {name: self.values(tensor) for name, tensor in zip(outputs, out_values, strict=True)}


def main() -> None:
    asked = json.load(sys.stdin)
    session = Session(Library(asked["tensorflow"]), asked["tensorflow_text"], asked["export"])
    json.dump(session.run(asked["inputs"], asked["outputs"]), sys.stdout)


if __name__ == "__main__":
    main()
