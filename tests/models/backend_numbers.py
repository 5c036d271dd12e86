"""Outputs, losses and gradients of a model under the backend that KERAS_BACKEND names; run as a script.

python backend_numbers.py JSON WEIGHTS OUTPUT   (fields of `BertConfig`; weights by path, and the batch, as .npz)
"""

import json
import sys
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_bert.config import BertConfig
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.training.losses import PretrainingObjective

Arrays = dict[str, Any]


def numbers(config: BertConfig, weights: Arrays, batch: Arrays) -> Arrays:
    """By name, as numpy arrays."""
    model = BertForPretraining(config)
    for variable in model.trainable_variables:
        variable.assign(weights[variable.path])
    objective = PretrainingObjective()
    batch = {name: ops.convert_to_tensor(value) for name, value in batch.items()}

    def loss() -> Any:
        terms = objective.terms(model, batch, training=True)
        return sum(term.loss_sum / weight for term, weight in zip(terms, objective.weights(batch), strict=True))

    variables = model.trainable_variables
    if keras.config.backend() == "jax":
        import jax

        def of_values(values: Any) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return loss()

        found, gradients = jax.jit(jax.value_and_grad(of_values))([variable.value for variable in variables])
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            found = loss()
        gradients = map(tf.convert_to_tensor, tape.gradient(found, [variable.value for variable in variables]))
    result = {**model(batch), "loss": found}
    result |= {
        f"gradient of {variable.path}": gradient for variable, gradient in zip(variables, gradients, strict=True)
    }
    return {name: ops.convert_to_numpy(value) for name, value in result.items()}


def main() -> None:
    """Reads, computes, writes."""
    given = np.load(sys.argv[2])
    weights = {name.removeprefix("weight "): given[name] for name in given.files if name.startswith("weight ")}
    batch = {name.removeprefix("batch "): given[name] for name in given.files if name.startswith("batch ")}
    np.savez(sys.argv[3], **numbers(BertConfig(**json.loads(sys.argv[1])), weights, batch))
    assert "tensorflow" not in sys.modules or keras.config.backend() == "tensorflow"


if __name__ == "__main__":
    main()
