"""Encoder and pretraining heads against tf-models' with the same weights: forward and gradient, padded and packed."""

import dataclasses
import runpy
from pathlib import Path

import pytest
from odd_shapes import SHAPES, checkpoint, random_examples, random_model
from parity import GRADIENT_BOUND, OUTPUT_BOUND, OUTPUTS, compare

pytest.importorskip("official.nlp.modeling", reason="tf-models-official (extra `interop`) is not installed")

from model_garden import ModelGarden

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "write_parity.py"


def assert_equal(found):
    assert found.outputs.keys() == set(OUTPUTS)
    for name, difference in {**found.outputs, "packed rows": found.packed}.items():
        assert difference <= OUTPUT_BOUND, name
    assert found.gradients <= GRADIENT_BOUND


@pytest.mark.parametrize("name", SHAPES)
def test_equals_tf_models_on_random_weights(name):
    shape = SHAPES[name]
    model, examples = random_model(shape.config), random_examples(shape)
    assert {1, shape.length} <= {len(example.input_ids) for example in examples}
    assert_equal(compare(model, ModelGarden(model), examples, shape.length))


def test_equals_tf_models_on_a_real_checkpoint():
    model, examples, length = checkpoint()
    assert_equal(compare(model, ModelGarden(model), examples, length))


def test_tf_models_own_gelu_is_the_one_that_hugging_face_calls_gelu_new():
    shape = SHAPES["layer_norm_eps of 1e-5"]
    examples = random_examples(shape)
    found = {}
    for hidden_act in ("gelu", "gelu_new"):
        model = random_model(dataclasses.replace(shape.config, hidden_act=hidden_act))
        found[hidden_act] = compare(model, ModelGarden(model, own_activation=True), examples, shape.length)
    assert_equal(found["gelu_new"])
    assert found["gelu"].outputs["sequence_output"] > 10 * OUTPUT_BOUND


def test_the_recorded_numbers_are_of_these_shapes_and_within_the_bounds():
    script = runpy.run_path(str(SCRIPT))
    page = script["PATH"].read_text(encoding="utf-8")
    assert script["shapes_table"]() in page, f"run python scripts/{SCRIPT.name}"
    tables = [section.partition("\n## ")[0] for section in page.split(script["MEASURED_HEADER"])[1:]]
    assert len(tables) == 2
    for table in tables:
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line[:2] == "| "]
        assert [name for name, *_ in rows] == [*SHAPES, script["CHECKPOINT_NAME"]]
        for _, *outputs, gradients in rows:
            assert len(outputs) == len(OUTPUTS) + 1
            assert max(map(float, outputs)) <= OUTPUT_BOUND and float(gradients) <= GRADIENT_BOUND
