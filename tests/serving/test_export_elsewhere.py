"""An export answers where nothing of this project is: another process, the C API, TensorFlow's own command."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tf_bert.serving.exported import load_export

pytestmark = pytest.mark.slow

TEXTS = ["the old people came from vienna", "Été 中文 \x00 [MASK]", "castle " * 100, ""]

STRANGER = """
import json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tf_bert":
            raise ImportError(f"{name} is not to be imported")

sys.meta_path.insert(0, Refuse())
import tensorflow as tf
import tensorflow_text

asked = json.load(sys.stdin)
signature = tf.saved_model.load(asked["export"]).signatures[asked["signature"]]
outputs = signature(**{name: tf.constant(value) for name, value in asked["inputs"].items()})
plain = {name: value.numpy().tolist() for name, value in outputs.items()}
assert not [name for name in sys.modules if name.split(".")[0] == "tf_bert"]
print(json.dumps(plain, default=bytes.decode))
"""


def decoded(value):
    return value.decode() if isinstance(value, bytes) else value


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value.dtype == np.float32:
            np.testing.assert_allclose(np.reshape(found[name], value.shape), value, rtol=0, atol=1e-6)
        else:
            assert [*np.ravel(np.array(found[name], object))] == [decoded(one) for one in value.ravel().tolist()]


@pytest.mark.parametrize("kind", ["single", "question or none"])
def test_a_process_with_nothing_of_the_project_answers_the_same(served, kind, tmp_path):
    exported = served(kind).loaded
    inputs = dict.fromkeys(exported.inputs(), TEXTS)
    asked = {"export": str(served(kind).version_dir), "signature": "serving_default", "inputs": inputs}
    done = subprocess.run(
        [sys.executable, "-c", STRANGER], input=json.dumps(asked), capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same(json.loads(done.stdout), exported(inputs))


def directory_of(package):
    return str(Path(importlib.util.find_spec(package).origin).parent)


@pytest.mark.parametrize(("kind", "precision"), [("pair", "float32"), ("single", "int8")])
def test_the_c_api_answers_the_same(served, kind, precision, tmp_path):
    version_dir = served(kind, precision).version_dir
    exported = load_export(version_dir)
    inputs = dict.fromkeys(exported.inputs(), TEXTS)
    saved = saved_model_pb2.SavedModel.FromString((version_dir / "saved_model.pb").read_bytes())
    signature = saved.meta_graphs[0].signature_def["serving_default"]
    expected = {name: value for name, value in exported(inputs).items() if value.dtype in (np.float32, object)}
    asked = {
        "tensorflow": directory_of("tensorflow"),
        "tensorflow_text": directory_of("tensorflow_text"),
        "export": str(version_dir),
        "inputs": {signature.inputs[name].name: texts for name, texts in inputs.items()},
        "outputs": [signature.outputs[name].name for name in expected],
    }
    done = subprocess.run(
        [sys.executable, "-I", str(Path(__file__).with_name("c_api_worker.py"))],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert_same({name: found[signature.outputs[name].name] for name in expected}, expected)


def test_saved_model_cli_shows_and_runs_it(served, tmp_path):
    cli = "import tensorflow_text; from tensorflow.python.tools.saved_model_cli import main; main()"
    where = ["--dir", str(served("single").version_dir), "--tag_set", "serve", "--signature_def", "serving_default"]

    def run(*words):
        done = subprocess.run([sys.executable, "-c", cli, *words], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    shown = run("show", *where)
    assert "inputs['text'] tensor_info:\n      dtype: DT_STRING\n      shape: (-1)" in shown
    assert "outputs['scores'] tensor_info:\n      dtype: DT_FLOAT\n      shape: (-1, 2)" in shown
    run("run", *where, "--input_exprs", f"text={[text.encode() for text in TEXTS[:1]]!r}", "--outdir", str(tmp_path))
    expected = served("single").loaded({"text": TEXTS[:1]})["scores"]
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), expected, rtol=0, atol=1e-6)
    assert tf.io.gfile.exists(str(tmp_path / "label.npy"))
