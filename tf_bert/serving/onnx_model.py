"""The scores of rows of token ids as an ONNX model, for runtimes other than TensorFlow's (extra `onnx`).

Token ids in, scores out: ONNX has no tokenizer of ours, so callers bring one (`vocab.txt` of the model directory).
"""

import contextlib
import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_bert.errors import UsageError
from tf_bert.serving.graph_inputs import Rows
from tf_bert.serving.signatures import ServedModel

ONNX_FILE = "model.onnx"
_OPSET = 18


def check_onnx(precision: str) -> None:
    """Raises `UsageError` if the converter is not installed, or cannot convert what is asked for."""
    if precision != "float32":
        raise UsageError(f"--onnx: is written in float32, found --precision {precision}; leave one of the two out")
    for module in ("tf2onnx", "onnx"):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"--onnx: {error.name} is not installed; install the extra: pip install tf_bert[onnx]"
            ) from None


def write_onnx(path: Path, served: ServedModel) -> None:
    """Writes `input_ids`, `segment_ids`, `input_mask`, int32 [batch, length], to the numbers that `tokens` tells."""
    convert: Any = importlib.import_module("tf2onnx.convert")
    checker: Any = importlib.import_module("onnx.checker")
    inputs = [tf.TensorSpec([None, None], tf.int32, name) for name in Rows._fields]
    function = tf.function(served.numbers_of_rows, autograph=False)
    with _quiet():
        model, _ = convert.from_function(
            function, input_signature=inputs, opset=_OPSET, custom_op_handlers={"Erfc": (_convert_erfc, [])}
        )
    for value in (*model.graph.input, *model.graph.output):
        axes = value.type.tensor_type.shape.dim
        axes[0].dim_param = "batch"
        if len(axes) > 1 and axes[1].dim_param:
            axes[1].dim_param = "length"
    checker.check_model(model, full_check=True)  # the converter only logs what it cannot convert
    path.write_bytes(model.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of the converter and of TensorFlow, which are about their own insides."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "tf2onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _convert_erfc(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """ONNX has no Erfc, of which Keras makes GELU: it is 1 - Erf."""
    node.type, node.domain = "Erf", ""
    one = graph.make_const(f"{name}_one", np.array(1.0, np.float32))
    graph.insert_new_node_on_output("Sub", node.output[0], f"{name}_difference", inputs=[one.output[0], node.output[0]])
