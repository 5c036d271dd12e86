"""The ONNX model of token ids tells what TensorFlow tells, in onnxruntime."""

import sys

import numpy as np
import pytest
from served_models import CONFIG, VOCABULARY

from tf_bert import cli
from tf_bert.errors import UsageError
from tf_bert.models.directory import load_model
from tf_bert.serving.export import export
from tf_bert.serving.exported import load_export
from tf_bert.serving.onnx_model import write_onnx
from tf_bert.serving.opened_model import open_model
from tf_bert.serving.signatures import ServedModel


def rows(batch, length, seed=0):
    generator = np.random.default_rng(seed)
    ids = generator.integers(5, len(VOCABULARY), (batch, length))
    segments = np.arange(length) >= generator.integers(1, length, (batch, 1))
    mask = np.arange(length) < generator.integers(2, length + 1, (batch, 1))
    values = {"input_ids": ids * mask, "segment_ids": segments & mask, "input_mask": mask}
    return {name: value.astype("int32") for name, value in values.items()}


def session_of(path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def write_session(model_dir, path):
    """The model as TensorFlow runs it, and as onnxruntime does."""
    pytest.importorskip("tf2onnx", reason="the extra `onnx` is not installed")
    model = ServedModel(open_model(model_dir, "float32"), is_quantized=False, version="1")
    write_onnx(path, model)
    return model, session_of(path)


@pytest.mark.parametrize("kind", ["multilabel", "regression", "question or none", "entities", "encoder"])
def test_onnxruntime_tells_the_same(served, kind, tmp_path):
    model, session = write_session(served.model(kind), tmp_path / "model.onnx")
    for shape in ((1, 2), (1, 30), (7, 13)):
        expected = model.numbers_of_rows(**rows(*shape))
        assert {value.name for value in session.get_outputs()} == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(session.run([name], rows(*shape))[0], value, rtol=0, atol=1e-4)


def test_a_masked_language_model_scores_every_token(served, tmp_path):
    _, session = write_session(served.model("pretrained"), tmp_path / "model.onnx")
    inputs = rows(3, 9)
    (found,) = session.run(["logits"], inputs)
    positions = np.broadcast_to(np.arange(9, dtype="int32"), (3, 9))
    expected = load_model(served.model("pretrained"))({**inputs, "masked_lm_positions": positions})["masked_lm_logits"]
    assert found.shape == (3, 9, CONFIG.vocab_size)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_the_command_writes_what_the_signature_tells(served, tmp_path):
    pytest.importorskip("tf2onnx", reason="the extra `onnx` is not installed")
    assert cli.main(["export", str(served.model("single")), str(tmp_path / "sst2"), "--onnx"]) == 0
    session = session_of(tmp_path / "sst2" / "1" / "model.onnx")
    assert {value.name: (value.shape, value.type) for value in session.get_inputs()} == {
        name: (["batch", "length"], "tensor(int32)") for name in ("input_ids", "segment_ids", "input_mask")
    }
    assert [value.shape for value in session.get_outputs()] == [["batch", 2]]
    expected = load_export(tmp_path / "sst2")(rows(7, 13), "tokens")
    np.testing.assert_allclose(session.run(["scores"], rows(7, 13))[0], expected["scores"], rtol=0, atol=1e-4)


def test_without_the_converter_the_extra_is_named(served, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(
        UsageError, match=r"--onnx: tf2onnx is not installed; install the extra: pip install tf_bert\[onnx\]"
    ):
        export(served.model("encoder"), tmp_path / "export", onnx=True)
    assert not (tmp_path / "export").exists()
