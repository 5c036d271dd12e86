"""JSON of the REST protocol to arrays and back, as TensorFlow Serving's REST API describes it.

A request has either `instances`, a list with an entry for every example, or `inputs`, a tensor for every input. Where
there is one input or output its name can be left out. `{"b64": "..."}` stands for bytes.
"""

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from tf_bert.serving.server.refusal import Refusal, Status, invalid, shown
from tf_bert.serving.server.signature import Arrays, Limits, Signature

Place = Callable[[Sequence[int]], str]
"""What a message calls an entry, by its indices."""

_HIGHEST_RANK = 8
_BINARY = "_bytes"  # outputs with this ending are written in base64
_KEYS = ("instances", "inputs", "signature_name")


def read_request(body: bytes) -> dict[str, Any]:
    """The object of a request.

    Raises:
      Refusal: if it is not JSON (where NaN and Infinity are no numbers) or not such an object.
    """
    try:
        request = json.loads(body.decode(), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise invalid(f"the body is not UTF-8: byte {error.start}") from None
    except RecursionError:
        raise invalid("the body is not a request: its lists are too deep") from None
    except ValueError as error:
        raise invalid(f"the body is not valid JSON: {error}") from None
    if not isinstance(request, dict):
        raise invalid(f"the body is {_kind(request)}, expected an object with `instances` or `inputs`")
    for key in request:
        if key not in _KEYS:
            raise invalid(f"unknown key {shown(key)}, expected {', '.join(_KEYS)}")
    if ("instances" in request) == ("inputs" in request):
        raise invalid("expected either `instances` (a list of examples) or `inputs` (a tensor for every input)")
    if not isinstance(request.get("signature_name", ""), str):
        raise invalid(f"signature_name: found {_kind(request['signature_name'])}, expected a string")
    return request


def read_inputs(request: Mapping[str, Any], signature: Signature, limits: Limits) -> Arrays:
    """The arrays of a request that `read_request` has read.

    Raises:
      Refusal: if they are not what the signature takes.
    """
    if "instances" in request:
        columns = _columns(request["instances"], signature, limits)
        is_short = not _is_named(request["instances"][0])
        places = {name: _place("instances", "" if is_short else f".{name}") for name in columns}
    else:
        inputs = request["inputs"]
        is_short = not _is_named(inputs)
        if is_short and len(signature.inputs) > 1:
            raise invalid(f"inputs: found {_kind(inputs)}, expected an object with {', '.join(signature.inputs)}")
        columns = dict.fromkeys(signature.inputs, inputs) if is_short else inputs
        signature.check_names(columns, "inputs")
        places = {name: _place("inputs" if is_short else f"inputs.{name}") for name in columns}
    return {name: _to_array(columns[name], spec, places[name], limits) for name, spec in signature.inputs.items()}


def write_outputs(outputs: Arrays, by_row: bool, count: int) -> bytes:
    """The body of an answer: `predictions`, one for every example, or `outputs`.

    Args:
      outputs: by name.
      by_row: the request had `instances`.
      count: examples.

    Raises:
      Refusal: if JSON cannot say it.
    """
    if by_row:
        for name, array in outputs.items():
            if not array.ndim or array.shape[0] != count:
                raise invalid(
                    f"output {name} is of shape {list(array.shape)}, not one for each of {count} examples; ask with "
                    "`inputs` in the place of `instances`"
                )
    columns = {name: _to_plain(name, array) for name, array in outputs.items()}
    only = next(iter(columns.values())) if len(columns) == 1 else None
    value: Any
    if by_row:
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        value = {"predictions": list(rows) if only is None else only}
    else:
        value = {"outputs": columns if only is None else only}
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise Refusal(Status.FAILED, "an output holds a number that JSON cannot say (NaN or infinity)") from None


def _columns(rows: Any, signature: Signature, limits: Limits) -> dict[str, list[Any]]:
    if not isinstance(rows, list):
        raise invalid(f"instances: found {_kind(rows)}, expected a list with an entry for every example")
    if not rows:
        raise invalid("instances: found no examples, expected one or more")
    limits.check_shape("instances", [len(rows)], 1)
    if len(signature.inputs) == 1 and not _is_named(rows[0]):
        return dict.fromkeys(signature.inputs, rows)
    for index, row in enumerate(rows):
        if not _is_named(row):
            takes = ", ".join(signature.inputs)
            raise invalid(f"instances[{index}]: found {_kind(row)}, expected an object with {takes}")
        signature.check_names(row, f"instances[{index}]")
    return {name: [row[name] for row in rows] for name in signature.inputs}


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() != {"b64"}


def _place(before: str, after: str = "") -> Place:
    """Names entries such as `instances[2].text` or `inputs.text[2]`."""

    def place(indices: Sequence[int]) -> str:
        return f"{before}{''.join(f'[{i}]' for i in indices[:1])}{after}{''.join(f'[{i}]' for i in indices[1:])}"

    return place


def _to_array(value: Any, spec: tf.TensorSpec, place: Place, limits: Limits) -> np.ndarray:
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if not first or len(shape) > _HIGHEST_RANK:
            break
        first = first[0]
    if 0 in shape:
        raise invalid(f"{place([0] * (len(shape) - 1))}: found an empty list, expected values")
    if not spec.shape.is_compatible_with(shape):
        raise invalid(f"{place([])}: found shape {shape}, expected {spec.shape.as_list()}")
    dtype: Any = spec.dtype.as_numpy_dtype
    limits.check_shape(place([]), shape, 1 if spec.dtype == tf.string else np.dtype(dtype).itemsize)
    leaves: list[Any] = []
    read = _reader(spec.dtype)

    def walk(value: Any, indices: tuple[int, ...]) -> None:
        depth = len(indices)
        if depth == len(shape):
            try:
                leaves.append(read(value))
            except ValueError as error:
                raise invalid(f"{place(indices)}: found {_kind(value)}, expected {error}") from None
        elif not isinstance(value, list):
            raise invalid(f"{place(indices)}: found {_kind(value)}, expected a list of {shape[depth]}")
        elif len(value) != shape[depth]:
            raise invalid(f"{place(indices)}: found {len(value)} entries, others have {shape[depth]}")
        else:
            for index, entry in enumerate(value):
                walk(entry, (*indices, index))

    walk(value, ())
    if spec.dtype == tf.string:
        array = np.empty(len(leaves), object)
        array[:] = leaves
        return array.reshape(shape)
    with np.errstate(over="ignore"):
        array = np.array(leaves, dtype)
    if spec.dtype.is_floating and not np.isfinite(array).all():
        raise invalid(f"{place([])}: found a number that is too large for {spec.dtype.name}")
    return array.reshape(shape)


def _reader(dtype: tf.DType) -> Callable[[Any], Any]:
    """Turns a JSON value into one of a dtype; its ValueError says what was expected."""
    if dtype == tf.string:
        return _read_string
    if dtype == tf.bool:
        return _read_bool
    if dtype.is_floating:
        return _read_float
    if not dtype.is_integer:
        raise invalid(f"an input of dtype {dtype.name} cannot be written in JSON; use gRPC")
    low, high = dtype.min, dtype.max

    def read_integer(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"an integer from {low} to {high}")
        return value

    return read_integer


def _read_string(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise ValueError("one without half a surrogate pair (\\ud800 to \\udfff)") from None
    if not isinstance(value, dict) or value.keys() != {"b64"} or not isinstance(value["b64"], str):
        raise ValueError('a string, or {"b64": "..."}')
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("base64 in it") from None


def _read_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _read_float(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError("a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("one that fits") from None


def _to_plain(name: str, array: np.ndarray) -> Any:
    if array.dtype == object:
        convert = _write_base64 if name.endswith(_BINARY) else _write_text
        return np.array(np.frompyfunc(convert, 1, 1)(array), object).tolist()
    if array.dtype.kind not in "biuf":  # numpy's own floats but not bfloat16
        array = array.astype(np.float32)
    if array.dtype == np.float32:
        # As few digits as it takes to read the same float32 again: 0.9, not 0.8999999761581421.
        array = array.astype(str).astype(np.float64)
    return array.tolist()


def _write_base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _write_text(value: bytes) -> str:
    return value.decode(errors="replace")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else f"{shown(value)}"
