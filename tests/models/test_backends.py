"""The model under JAX: the same weights and batch give the same outputs, loss and gradients as under TensorFlow."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from batches import TINY, packed_batch
from parity import GRADIENT_BOUND, OUTPUT_BOUND

from tf_bert.models.pretraining import BertForPretraining

SCRIPT = Path(__file__).with_name("backend_numbers.py")


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax (extra `jax`) is not installed")
@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new"])
def test_numbers_are_the_same_under_jax_and_tensorflow(hidden_act, tmp_path):
    config = dataclasses.replace(TINY, hidden_act=hidden_act)
    rng = np.random.default_rng(0)
    weights = {
        f"weight {variable.path}": rng.normal(0.0, 0.2, variable.shape).astype("float32")
        for variable in BertForPretraining(config).trainable_variables
    }
    given = tmp_path / "given.npz"
    np.savez(given, **weights, **{f"batch {name}": value for name, value in packed_batch(rng, 4).items()})
    found = {}
    for backend in ("tensorflow", "jax"):
        output = tmp_path / f"{backend}.npz"
        words = [sys.executable, SCRIPT, json.dumps(dataclasses.asdict(config)), given, output]
        environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
        subprocess.run(words, check=True, env=environment)
        found[backend] = dict(np.load(output))

    ours, theirs = found["tensorflow"], found["jax"]
    assert ours.keys() == theirs.keys()
    gradients = [name for name in ours if name.startswith("gradient of ")]
    assert len(gradients) == len(weights) and all(np.abs(ours[name]).max() > 0.0 for name in gradients)
    for name in ours:
        np.testing.assert_allclose(
            theirs[name], ours[name], rtol=0.0, atol=GRADIENT_BOUND if name in gradients else OUTPUT_BOUND, err_msg=name
        )
