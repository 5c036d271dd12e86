"""The ONNX model of token ids tells what TensorFlow tells, in onnxruntime."""

import sys

import numpy as np
import pytest
from served_models import CONFIG, VOCABULARY

from tf_bert.errors import UsageError
from tf_bert.models.directory import load_model
from tf_bert.serving.export import export
from tf_bert.serving.exported import load_export


def rows(batch, length, seed=0):
    generator = np.random.default_rng(seed)
    ids = generator.integers(5, len(VOCABULARY), (batch, length))
    segments = np.arange(length) >= generator.integers(1, length, (batch, 1))
    mask = np.arange(length) < generator.integers(2, length + 1, (batch, 1))
    values = {"input_ids": ids * mask, "segment_ids": segments & mask, "input_mask": mask}
    return {name: value.astype("int32") for name, value in values.items()}


@pytest.mark.parametrize("kind", ["single", "multilabel", "regression", "question or none", "entities", "encoder"])
def test_onnxruntime_tells_the_same(served, kind, tmp_path):
    pytest.importorskip("tf2onnx", reason="the extra `onnx` is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    version_dir = export(served.model(kind), tmp_path, onnx=True)
    session = onnxruntime.InferenceSession(str(version_dir / "model.onnx"), providers=["CPUExecutionProvider"])
    assert {value.name: (value.shape, value.type) for value in session.get_inputs()} == dict.fromkeys(
        ("input_ids", "segment_ids", "input_mask"), (["batch", "length"], "tensor(int32)")
    )
    exported = load_export(version_dir)
    for shape in ((1, 2), (1, 30), (7, 13)):
        expected = exported(rows(*shape), "tokens")
        names = [name for name, value in expected.items() if value.dtype != object]
        found = dict(zip(names, session.run(names, rows(*shape)), strict=True))
        for name in names:
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-4)
    assert names and len(session.get_outputs()) == len(names)


def test_a_masked_language_model_scores_every_token(served, tmp_path):
    pytest.importorskip("tf2onnx", reason="the extra `onnx` is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    version_dir = export(served.model("pretrained"), tmp_path, onnx=True)
    session = onnxruntime.InferenceSession(str(version_dir / "model.onnx"), providers=["CPUExecutionProvider"])
    inputs = rows(3, 9)
    (found,) = session.run(["logits"], inputs)
    positions = np.broadcast_to(np.arange(9, dtype="int32"), (3, 9))
    expected = load_model(served.model("pretrained"))({**inputs, "masked_lm_positions": positions})["masked_lm_logits"]
    assert found.shape == (3, 9, CONFIG.vocab_size)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_without_the_converter_the_extra_is_named(served, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(
        UsageError, match=r"--onnx: tf2onnx is not installed; install the extra: pip install tf_bert\[onnx\]"
    ):
        export(served.model("encoder"), tmp_path / "export", onnx=True)
    assert not (tmp_path / "export").exists()
