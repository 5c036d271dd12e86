"""The memory estimate against the measured peak of real updates, and against what weights are made of."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tf_bert.config import BertConfig, TrainingConfig
from tf_bert.models.flops import RowShape
from tf_bert.training.memory import TOLERANCE, estimate_memory

SMALL = {
    "vocab_size": 4000,
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 768,
}
ROW = RowShape(length=256, predictions=39, examples=3)


@pytest.mark.parametrize(
    ("training", "accumulation_steps"),
    [
        pytest.param({"microbatch_size": 20}, 1, id="float32", marks=pytest.mark.slow),
        pytest.param({"microbatch_size": 20, "precision": "mixed_bfloat16"}, 1, id="bfloat16", marks=pytest.mark.slow),
        pytest.param({"microbatch_size": 20, "activation_checkpointing": True}, 1, id="activation checkpointing"),
        pytest.param({"microbatch_size": 10}, 3, id="accumulation"),
    ],
)
def test_the_measured_peak_is_near_the_estimate(training, accumulation_steps):
    settings = {"config": SMALL, "training": training, "row": dataclasses.asdict(ROW)}
    script = Path(__file__).parent.parent / "peak_memory.py"
    done = subprocess.run(
        [sys.executable, str(script), json.dumps({**settings, "accumulation_steps": accumulation_steps})],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    estimate = estimate_memory(BertConfig(**SMALL), TrainingConfig(**training), ROW, accumulation_steps).total
    assert estimate / TOLERANCE < int(done.stdout) < estimate * TOLERANCE


def test_bert_large_by_hand():
    """16 bytes a parameter for weight, gradient and two moments in float32; 2 more in mixed precision."""
    large = BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
    row = RowShape(length=128, predictions=20, examples=1)
    plain = estimate_memory(large, TrainingConfig(microbatch_size=8), row, 1)
    mixed = estimate_memory(large, TrainingConfig(microbatch_size=8, precision="mixed_float16"), row, 1)
    parameters = 336_226_108
    assert plain.total - plain.activations == 16 * parameters
    assert mixed.total - mixed.activations == 18 * parameters
    # Of the same microbatch, mixed precision leaves more than half as much: LayerNorm and softmax stay in float32.
    assert plain.activations / 2 < mixed.activations < plain.activations


def test_activation_checkpointing_leaves_the_inputs_of_blocks_alone():
    row = RowShape(length=512, predictions=77, examples=1)

    def activations(layers):
        training = TrainingConfig(microbatch_size=4, activation_checkpointing=True)
        return estimate_memory(BertConfig(num_hidden_layers=layers), training, row, 1).activations

    assert activations(13) - activations(12) == 4 * 512 * 768 * 4
