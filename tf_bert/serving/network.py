"""A Keras model as functions over plain variables, which a SavedModel can hold."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_bert.models.model import BertModel
from tf_bert.serving.answers import Outputs
from tf_bert.serving.graph_inputs import Rows
from tf_bert.serving.quantization import make_weight

PRECISIONS = ("float32", "bfloat16", "int8")
"""bfloat16: weights and arithmetic; int8: weights in the file, arithmetic in float32."""


class Network(tf.Module):
    """A model's functions and weights. All rows are plain ones, see `BertEncoder.call`.

    Args:
      model: in the precision that is computed in.
      is_quantized: store matrices in int8.
      more_inputs: names of inputs of the model beside `Rows`: int32 [rows, ...].
    """

    def __init__(self, model: BertModel, is_quantized: bool, more_inputs: tuple[str, ...] = ()) -> None:
        super().__init__()
        variables = model.trainable_variables
        self.weights = [
            make_weight(np.asarray(variable), is_quantized, variable.path.endswith("_embedding"))
            for variable in variables
        ]
        signature = {name: tf.TensorSpec([None, None], tf.int32) for name in (*Rows._fields, *more_inputs)}

        # The Keras model is in closures alone: as an attribute it would be saved too, with variables of its own. And so
        # are these functions, which would be saved a second time.
        def function_of(layer: Callable[..., Any], names: tuple[str, ...]) -> tf.types.experimental.PolymorphicFunction:
            def run(inputs: Mapping[str, tf.Tensor]) -> Outputs:
                values = [(variable, weight.read()) for variable, weight in zip(variables, self.weights, strict=True)]
                with keras.StatelessScope(state_mapping=values):
                    outputs: Outputs = layer(inputs, training=False)
                return outputs

            return tf.function(run, input_signature=[{name: signature[name] for name in names}], autograph=False)

        functions = function_of(model, (*Rows._fields, *more_inputs)), function_of(model.encoder, Rows._fields)
        self._functions = lambda: functions

    def __call__(self, rows: Rows, **more: tf.Tensor) -> Outputs:
        """The model's outputs: logits, float32."""
        outputs: Outputs = self._functions()[0]({**rows._asdict(), **more})
        return outputs

    def encode(self, rows: Rows) -> Outputs:
        """The encoder's outputs."""
        outputs: Outputs = self._functions()[1](rows._asdict())
        return outputs
