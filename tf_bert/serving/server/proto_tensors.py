"""Tensors of the gRPC protocol to arrays and back."""

import math
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from tf_bert.serving.server.refusal import cause_of, invalid
from tf_bert.serving.server.signature import Arrays, Limits, Signature

# Where TensorFlow Serving puts values, for clients that read these fields themselves.
_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int32: "int_val",
    tf.int16: "int_val",
    tf.int8: "int_val",
    tf.uint8: "int_val",
    tf.int64: "int64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}


def read_inputs(request: Any, signature: Signature, limits: Limits) -> Arrays:
    """The arrays of a PredictRequest.

    Raises:
      Refusal: if a name is unknown or missing, or a tensor is damaged or too large.
    """
    signature.check_names(request.inputs, "inputs")
    return {
        name: _to_array(request.inputs[name], spec.dtype, f"input {name}", limits)
        for name, spec in signature.inputs.items()
    }


def write_tensor(array: np.ndarray) -> Any:
    """An array as TensorProto."""
    dtype = tf.dtypes.as_dtype(array.dtype)
    if dtype not in _FIELDS:
        return tf.make_tensor_proto(array)
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, _FIELDS[dtype]).extend(array.ravel().tolist())
    return proto


def _to_array(proto: Any, dtype: tf.DType, place: str, limits: Limits) -> np.ndarray:
    if proto.dtype != dtype.as_datatype_enum:
        raise invalid(f"{place}: found dtype {_name(proto.dtype)}, expected {dtype.name}")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise invalid(f"{place}: found a tensor without a shape, expected the size of every dimension")
    item_bytes = 1 if dtype == tf.string else np.dtype(dtype.as_numpy_dtype).itemsize
    # One value may stand for all of a shape, so the shape is looked at before anything is as large as that.
    limits.check_shape(place, shape, item_bytes)
    size = math.prod(shape)
    if len(proto.tensor_content) not in (0, size * item_bytes) or (dtype == tf.string and proto.tensor_content):
        raise invalid(f"{place}: found {len(proto.tensor_content):,} bytes of values, expected {size} values")
    if dtype in _FIELDS and not proto.tensor_content:
        found = len(getattr(proto, _FIELDS[dtype]))
        if found > size or (size and not found):
            raise invalid(f"{place}: found {found} values, expected {size}, as the shape {shape} says")
    try:
        array = tf.make_ndarray(proto)
    except (OverflowError, TypeError, ValueError) as error:
        raise invalid(f"{place}: is not a tensor: {cause_of(error)}") from None
    return array.astype(object) if dtype == tf.string else array


def _name(number: int) -> str:
    try:
        name: str = tf.dtypes.as_dtype(number).name
        return name
    except TypeError:
        return str(number)
