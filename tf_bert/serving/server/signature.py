"""A signature of a SavedModel: what it takes, what a request must look like, and running it."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tf_bert.serving.server.refusal import Refusal, Status, cause_of, invalid

Arrays = Mapping[str, np.ndarray]
"""Tensors by name. Strings are object arrays of bytes."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request may ask for at most, see `ServeConfig`."""

    max_batch_size: int
    max_text_bytes: int

    def check_shape(self, place: str, shape: Sequence[int], item_bytes: int) -> None:
        """Refuses a tensor by its shape, before its values are looked at."""
        if not shape:
            return
        if shape[0] > self.max_batch_size:
            raise invalid(f"{place}: found {shape[0]:,} examples, expected {self.max_batch_size} at most; ask in parts")
        if math.prod(shape[1:]) * item_bytes > self.max_text_bytes:
            raise invalid(
                f"{place}: found {math.prod(shape[1:]):,} values an example, expected {self.max_text_bytes:,} bytes "
                "at most"
            )

    def check_texts(self, place: str, texts: Sequence[bytes], must_be_text: bool) -> None:
        """Refuses texts that are too long, or are to be UTF-8 and are not."""
        for index, text in enumerate(texts):
            if len(text) > self.max_text_bytes:
                raise invalid(
                    f"{place}: example {index}: found {len(text):,} bytes, expected {self.max_text_bytes:,} at most; "
                    "shorten the text"
                )
            if must_be_text:
                try:
                    text.decode()
                except UnicodeDecodeError as error:
                    raise invalid(f"{place}: example {index}: byte {error.start} is not UTF-8") from None


@dataclasses.dataclass(frozen=True, eq=False)
class Signature:
    """One of a model's functions.

    Args:
      name: e.g. serving_default.
      inputs: dtype and shape by name; -1 or None is a free dimension.
      outputs: the same.
      function: from tensors by name to tensors by name.
    """

    name: str
    inputs: Mapping[str, tf.TensorSpec]
    outputs: Mapping[str, tf.TensorSpec]
    function: Callable[..., Mapping[str, tf.Tensor]]

    @property
    def is_batchable(self) -> bool:
        """Requests of several clients can be run as one: a text an example in, something an example out."""
        texts_in = all(spec.dtype == tf.string and spec.shape.as_list() == [None] for spec in self.inputs.values())
        rows_out = all(spec.shape.rank and spec.shape[0] is None for spec in self.outputs.values())
        return texts_in and rows_out

    def check(self, inputs: Arrays, limits: Limits) -> int:
        """The number of examples in a request.

        Raises:
          Refusal: if the signature cannot be run on `inputs`, or they are more than is allowed.
        """
        self.check_names(inputs, "inputs")
        counts = {}
        for name, spec in self.inputs.items():
            array, place = inputs[name], f"input {name}"
            found = tf.dtypes.as_dtype(array.dtype)
            if found != spec.dtype:
                raise invalid(f"{place}: found dtype {found.name}, expected {spec.dtype.name}")
            if not spec.shape.is_compatible_with(array.shape):
                raise invalid(f"{place}: found shape {list(array.shape)}, expected {spec.shape.as_list()}")
            limits.check_shape(place, array.shape, _item_bytes(array))
            if array.dtype == object:
                # What a client may send as bytes is named so, as in TensorFlow Serving.
                limits.check_texts(place, array.ravel().tolist(), not re.search(r"^examples$|_bytes$", name))
            if array.ndim:
                counts[name] = array.shape[0]
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise invalid(f"the inputs have different numbers of examples: {told}")
        if 0 in counts.values():
            raise invalid("found no examples, expected one or more")
        return next(iter(counts.values()), 1)

    def check_names(self, names: Mapping[str, object], place: str) -> None:
        """Refuses what has not exactly the inputs' names."""
        takes = f"signature {self.name} takes {', '.join(self.inputs)}"
        for name in names:
            if name not in self.inputs:
                raise invalid(f"{place}: unknown input {name[:40]!r}; {takes}")
        for name in self.inputs:
            if name not in names:
                raise invalid(f"{place}: input {name!r} is missing; {takes}")

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The outputs.

        Raises:
          Refusal: if TensorFlow refuses the inputs.
        """
        try:
            outputs = self.function(**{name: tf.constant(array) for name, array in inputs.items()})
        except tf.errors.InvalidArgumentError as error:
            raise invalid(f"signature {self.name} refuses the input: {cause_of(error)}") from error
        except tf.errors.OpError as error:
            raise Refusal(Status.FAILED, f"signature {self.name} failed: {cause_of(error)}") from error
        return {name: _to_numpy(tensor) for name, tensor in outputs.items()}


def _to_numpy(tensor: tf.Tensor) -> np.ndarray:
    array = tensor.numpy()
    return array if isinstance(array, np.ndarray) else np.array(array, object if tensor.dtype == tf.string else None)


def _item_bytes(array: np.ndarray) -> int:
    return 1 if array.dtype == object else array.dtype.itemsize
