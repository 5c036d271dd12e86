"""Exports in int8 and bfloat16: how they are stored, what they answer, and what their model card says of it."""

import dataclasses
import re

import numpy as np
import pytest
from portable_ops import PORTABLE_TEXT_OPS
from saved_graphs import CORE, operations, trace
from served_models import CONFIG, VOCABULARY, WORDS

from tf_bert import cli
from tf_bert.errors import InputError
from tf_bert.finetuning.examples import Example
from tf_bert.finetuning.export_predictor import measure_on_files
from tf_bert.finetuning.model_directory import open_finetuned_model
from tf_bert.models.directory import save_model
from tf_bert.models.model import BertModel
from tf_bert.serving.export import export, megabytes
from tf_bert.serving.exported import load_export
from tf_bert.serving.quantization import QuantizedWeight, quantize
from tf_bert.tokenization.tokenizer import save_tokenizer

pytestmark = pytest.mark.slow

TEXTS = ["the old people came", "anna berg saw it", "é " * 50, ""]


def test_rounding_to_int8_is_off_by_half_a_step_of_its_channel_at_most():
    value = np.random.default_rng(0).normal(size=(50, 30)).astype("float32") * np.logspace(-3, 2, 30, dtype="float32")
    value[:, 4] = 0.0
    for axis in (0, 1):
        rounded, scales = quantize(value, axis)
        assert rounded.dtype == np.int8 and scales.shape == ((50, 1) if axis == 0 else (1, 30))
        largest = np.abs(value).max(axis=1 - axis, keepdims=True)
        assert (np.abs(rounded * scales - value) <= largest / 254 * 1.0001).all()
        assert (np.abs(rounded).max(axis=1 - axis)[largest.ravel() > 0] == 127).all()


def test_embeddings_have_a_scale_a_row_and_kernels_one_an_output():
    value = np.zeros((64, 128), "float32")
    value[0, 0], value[5, 7] = 1000.0, 0.001
    by_row, by_output = (QuantizedWeight(value, axis).read().numpy() for axis in (0, 1))
    for found in (by_row, by_output):  # neither loses the small number beside the large one
        np.testing.assert_allclose(found, value, rtol=1e-6)
    value[5, 0] = 1.0  # in the row of the small one
    assert QuantizedWeight(value, 0).read().numpy()[5, 7] == 0.0
    np.testing.assert_allclose(QuantizedWeight(value, 1).read().numpy()[5, 7], 0.001, rtol=1e-6)


@pytest.mark.parametrize(("kind", "precision"), [("single", "int8"), ("pretrained", "int8"), ("single", "bfloat16")])
def test_lower_precision_answers_nearly_the_same(served, kind, precision):
    texts = {"text": ["the [MASK] came", *TEXTS]}
    whole, rounded = (served(kind, p).loaded(texts) for p in ("float32", precision))
    difference = np.abs(rounded["scores"] - whole["scores"]).max()
    assert 0 < difference < 0.06
    assert operations(served(kind, precision).version_dir) - CORE <= PORTABLE_TEXT_OPS


def test_int8_is_dequantised_once_by_whoever_loads_it_and_by_each_for_itself(served):
    version_dir = served("pretrained", "int8").version_dir
    texts = {"text": ["the [MASK] came"]}
    first, second = load_export(version_dir), load_export(version_dir)
    expected = first(texts)["scores"]
    del first
    np.testing.assert_array_equal(second(texts)["scores"], expected)
    found, _ = trace(version_dir, texts)
    np.testing.assert_allclose(found["scores"], expected, rtol=0, atol=1e-6)


def test_int8_takes_less_than_a_third_of_the_room(tmp_path):
    """With as many weights as it takes for the graph to be small beside them."""
    config = dataclasses.replace(CONFIG, vocab_size=100_000, hidden_size=128, intermediate_size=512)
    (tmp_path / "model").mkdir()
    save_model(BertModel(config, parts=("encoder",)), tmp_path / "model", {})
    save_tokenizer(tmp_path / "model", VOCABULARY, lower_case=True)
    whole, rounded = (
        megabytes(export(tmp_path / "model", tmp_path / precision, precision=precision))
        for precision in ("float32", "int8")
    )
    assert whole > 50 and rounded <= 0.30 * whole


def test_bfloat16_takes_half_of_the_room(served):
    whole, half = (megabytes(served("single", name).version_dir / "variables") for name in ("float32", "bfloat16"))
    assert half <= 0.53 * whole


def test_the_card_tells_what_was_measured_also_in_float32(served, tmp_path):
    norms = {}

    def measure(exported):
        vectors = exported({"text": TEXTS})["embedding"]
        norms[exported.version] = float(np.linalg.norm(vectors))
        return {"norm": norms[exported.version], "examples": 4.0}

    source = "runs/minilm, step 90"
    version_dir = export(served.model("encoder"), tmp_path, precision="int8", version=2, measure=measure, source=source)
    card = (version_dir / "model_card.md").read_text()
    expected = float(np.linalg.norm(served("encoder").loaded({"text": TEXTS})["embedding"]))
    assert norms[0] == pytest.approx(expected, rel=1e-6) and 0 < abs(norms[2] / expected - 1) < 0.05
    assert f"- measured of the export, int8: norm {norms[2]:.4f}, examples 4\n" in card
    assert f"- measured of the export, float32: norm {norms[0]:.4f}, examples 4\n" in card
    assert f"- exported from {source} by tf_bert" in card


def write_examples(path, predictor, columns, wrong):
    """A file whose labels are those that a model finds, but for `wrong` examples; returns how many there are."""
    texts = [[f"{first} {word}", second] for first in TEXTS for second in TEXTS for word in WORDS[:2] if second]
    examples = [Example("", tuple(row[: len(columns) - 1]), None, str(i)) for i, row in enumerate(texts)]
    labels = [answer["label"] for answer in predictor.predict(examples)]
    labels[:wrong] = [next(one for one in predictor.family.labels if one != label) for label in labels[:wrong]]
    rows = [[*example.texts, label] for example, label in zip(examples, labels, strict=True)]
    path.write_text("".join("\t".join(row) + "\n" for row in [columns, *rows]), encoding="utf-8")
    return len(rows)


def test_the_command_measures_on_the_task_s_files(served, tmp_path, capsys):
    """The metrics of the task, of the export and of the same model in float32."""
    predictor = open_finetuned_model(served.model("single"))
    count = write_examples(tmp_path / "dev.tsv", predictor, ["sentence", "label"], wrong=3)
    words = ["export", str(served.model("single")), str(tmp_path / "sst2"), "--measure", str(tmp_path)]
    assert cli.main([*words, "--precision", "int8"]) == 0
    printed, told = capsys.readouterr()
    card = (tmp_path / "sst2" / "1" / "model_card.md").read_text()
    whole = f"accuracy {1 - 3 / count:.4f}, examples {count}"
    assert f"- measured of the export, float32: {whole}\n" in card
    (rounded,) = re.findall(r"^- measured of the export, int8: accuracy (\S+), examples (\d+)$", card, re.MULTILINE)
    assert abs(float(rounded[0]) - (1 - 3 / count)) < 0.1 and rounded[1] == str(count)
    lines = printed.splitlines()
    assert lines[:2] == [f"measured, int8: accuracy {rounded[0]}, examples {count}", f"measured, float32: {whole}"]
    assert len(lines) == 3 and told == ""
    assert cli.main([*words, "--split", "train"]) == 1
    printed, told = capsys.readouterr()
    assert printed == "" and told == (
        f"tf-bert export: {tmp_path}: has no train.tsv, the train file of SST-2; found 'dev.tsv', 'sst2'; name the "
        "right directory\n"
    )
    assert sorted(path.name for path in (tmp_path / "sst2").iterdir() if path.name.isdecimal()) == ["1"]


def test_what_cannot_be_measured_is_one_line(served, tmp_path, capsys):
    for kind, words, code, message in (
        ("encoder", ["--measure", "x"], 1, "has no task.json; expected a finetuned model's directory, as `tf-bert fi"),
        ("single", ["--measure", "absent.tsv"], 1, "absent.tsv: no such file or directory; expected dev.tsv of SST-2"),
        ("single", ["--split", "dev"], 2, "--split: says which files are measured; add --measure DATA"),
    ):
        assert cli.main(["export", str(served.model(kind)), str(tmp_path / "out"), *words]) == code
        printed, told = capsys.readouterr()
        assert printed == "" and message in told and told.count("\n") == 1
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\ta\n")
    measure = measure_on_files(str(served.model("single")), str(tmp_path), "test")
    with pytest.raises(InputError, match=r"test.tsv: line 2: no label was read; choose a split that has labels"):
        measure(served("single").loaded)
    assert not (tmp_path / "out").exists()
