"""Weights of an export: how they are stored, and what the graph computes with.

int8 is for the file alone: every matrix is kept with 8 bits a number and one scale for each of its outputs, or for
each row of an embedding, and becomes float32 again once, when a server loads the export. Requests cost what they cost
in float32. (The scheme: symmetric, per channel; Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.)
"""

import uuid

import numpy as np
import tensorflow as tf

SMALLEST_QUANTIZED = 4096
"""Numbers in a matrix; smaller ones, such as a classifier, take no room and stay as they are."""


def quantize(value: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Rounds a matrix to int8.

    Args:
      value: float32 [rows, columns].
      axis: the axis that has scales of its own: 0 for embeddings, 1 for kernels [inputs, outputs].

    Returns:
      int8 [rows, columns] and the scales, float32 [rows, 1] or [1, columns]: `int8 * scales` is near `value`.
    """
    scales = np.max(np.abs(value), axis=1 - axis, keepdims=True).astype(np.float32) / np.float32(127.0)
    scales[scales == 0.0] = 1.0
    return np.round(value / scales).astype(np.int8), scales


class PlainWeight(tf.Module):
    """A weight that is stored as it is used."""

    def __init__(self, value: np.ndarray) -> None:
        super().__init__()
        self._value = tf.Variable(value, trainable=False)

    def read(self) -> tf.Tensor:
        """The weight, in the dtype that it is computed with."""
        return self._value.read_value()


class QuantizedWeight(tf.Module):
    """A matrix that is stored in int8 and used in float32."""

    def __init__(self, value: np.ndarray, axis: int) -> None:
        super().__init__()
        quantized, scales = quantize(value, axis)
        self._quantized = tf.Variable(quantized, trainable=False)
        self._scales = tf.Variable(scales, trainable=False)
        self._matrix = _Dequantized(self._quantized, self._scales)

    def read(self) -> tf.Tensor:
        """The matrix, float32."""
        value = tf.raw_ops.ReadVariableOp(resource=self._matrix.resource_handle, dtype=tf.float32)
        return tf.ensure_shape(value, self._quantized.shape)


class _Dequantized(tf.saved_model.experimental.TrackableResource):
    """A variable that is not in the file: servers give it its value when they have loaded the others."""

    def __init__(self, quantized: tf.Variable, scales: tf.Variable) -> None:
        super().__init__()
        self._of = quantized, scales
        self._name = f"dequantized_{uuid.uuid4()}"  # its own in every export; loaders make it their own in every load
        self._initialize()

    def _create_resource(self) -> tf.Tensor:
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=self._of[0].shape, shared_name=self._name)

    def _destroy_resource(self) -> None:
        tf.raw_ops.DestroyResourceOp(resource=self.resource_handle)

    def _initialize(self) -> None:
        quantized, scales = self._of
        value = tf.cast(quantized, tf.float32) * scales
        tf.raw_ops.AssignVariableOp(resource=self.resource_handle, value=value)


Weight = PlainWeight | QuantizedWeight


def make_weight(value: np.ndarray, is_quantized: bool, is_embedding: bool) -> Weight:
    """One weight of an export.

    Args:
      value: float32 or bfloat16.
      is_quantized: store it in int8, if it is a matrix of some size.
      is_embedding: whether it is a table of rows, not [inputs, outputs].
    """
    if is_quantized and value.ndim == 2 and value.size >= SMALLEST_QUANTIZED:
        return QuantizedWeight(value, axis=0 if is_embedding else 1)
    return PlainWeight(value)
