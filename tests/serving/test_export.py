"""What an export is made of: its graph, its versions, the files beside it."""

import builtins
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from portable_ops import PORTABLE_TEXT_OPS
from saved_graphs import CORE, longest, operations, trace
from served_models import CONFIG, FAMILIES, LINEAGE, MAX_SEQ_LENGTH, VOCABULARY, WORDS, write_model

from tf_bert.config import VocabTrainConfig
from tf_bert.finetuning.examples import Example
from tf_bert.finetuning.model_directory import open_finetuned_model, write_finetuned_model
from tf_bert.serving.deployment_files import _endpoint_name
from tf_bert.serving.embed import EmbeddingOptions, SentenceEncoder
from tf_bert.serving.export import export, megabytes
from tf_bert.serving.exported import load_export, versions
from tf_bert.serving.network import Network
from tf_bert.serving.opened_model import open_model
from tf_bert.serving.vectors import Vectors
from tf_bert.tokenization.sentencepiece import SentencePieceTokenizer, train_sentencepiece

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SIGNATURES = {"serving_default", "tokens", "examples", "embed"}
TEXTS = ["the old people came", "anna berg saw it", "é " * 50, ""]


@pytest.mark.parametrize("kind", [*(kind for kind in FAMILIES if kind != "question"), "pretrained", "encoder"])
def test_a_graph_holds_only_what_every_server_links(served, kind):
    used = operations(served(kind).version_dir)
    assert used - CORE <= PORTABLE_TEXT_OPS
    assert {"NormalizeUTF8", "RegexSplitWithOffsets", "WordpieceTokenizeWithOffsets", "Erfc"} <= used


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs", "alias"),
    [
        ("single", {"text"}, {"label", "scores", "labels"}, set()),
        ("pair", {"text", "text_pair"}, {"label", "scores", "labels"}, set()),
        ("multilabel", {"text"}, {"predicted", "scores", "labels"}, set()),
        ("regression", {"text", "text_pair"}, {"score"}, set()),
        (
            "question or none",
            {"question", "context"},
            {"answer", "score", "start", "end", "answers", "answer_scores", "best_text", "null_score_difference"},
            {"answer"},
        ),
        (
            "entities",
            {"text"},
            {"entity_types", "entity_texts", "entity_starts", "entity_ends", "entity_count"},
            {"entities"},
        ),
        ("pretrained", {"text"}, {"tokens", "scores", "mask_count"}, {"fill_mask"}),
        ("encoder", {"text"}, {"embedding"}, set()),
    ],
)
def test_signatures_name_what_they_take_and_tell(served, kind, inputs, outputs, alias):
    exported = served(kind).loaded
    assert set(exported.signatures) == SIGNATURES | alias | ({"words"} if kind == "entities" else set())
    for name in {"serving_default"} | alias:
        assert set(exported.inputs(name)) == inputs
        found = exported.signatures[name].structured_outputs
        assert set(found) == outputs | {"model_version"}
        assert all(spec.shape.rank and spec.shape[0] is None for spec in found.values()), "batches cannot be split"
    rows = exported.inputs("tokens")
    assert set(rows) == {"input_ids", "segment_ids", "input_mask"}
    assert all(spec.shape.as_list() == [None, None] and spec.dtype == tf.int32 for spec in rows.values())


def test_the_saved_graph_computes_nothing_for_tokens_that_are_not_there(served):
    texts = {"text": ["the", "the old castle"], "text_pair": ["old", "it"]}
    found, shapes = trace(served("pair").version_dir, texts)
    assert longest(shapes) == 7, "[CLS] the old castle [SEP] it [SEP]"
    expected = served("pair").loaded(texts)
    np.testing.assert_allclose(found["scores"], expected["scores"], rtol=0, atol=1e-6)
    _, shapes = trace(served("pair").version_dir, {"text": ["the " * 200], "text_pair": ["old " * 200]})
    assert longest(shapes) == MAX_SEQ_LENGTH


def test_texts_of_many_lengths_are_not_padded_to_the_longest_of_all(served):
    def shapes_of(texts):
        found, shapes = trace(served("single").version_dir, {"text": texts})
        alone = [served("single").loaded({"text": [text]})["scores"][0] for text in texts[:4]]
        np.testing.assert_allclose(found["scores"][:4], alone, rtol=0, atol=1e-6)
        hidden = {tuple(shape[:2]) for shape in shapes if len(shape) == 3 and shape[2] == CONFIG.hidden_size}
        return {shape for shape in hidden if shape[0] > 1}

    short, long = "anna", "the " * 28
    assert shapes_of([long, short, short, short] * 10) == {(16, 3), (16, 30), (8, 30)}
    assert shapes_of([long, short, long] * 12) == {(36, 30)}  # too little padding for it to be worth while


# --- versions ------------------------------------------------------------------------------------------------------


def test_versions_count_up_and_the_newest_is_loaded(served, tmp_path):
    directory = served.model("encoder")
    (tmp_path / "notes").mkdir()
    assert export(str(directory), str(tmp_path), version="7") == tmp_path / "7"
    assert export(directory, tmp_path, version=3) == tmp_path / "3"
    assert versions(tmp_path) == [3, 7]
    (tmp_path / "9.partial").mkdir()
    (tmp_path / "10").mkdir()  # without a graph: still being copied
    exported = load_export(tmp_path)
    assert (exported.version, exported.directory) == (7, tmp_path / "7")
    assert exported({"text": ["a"]})["model_version"].tolist() == [b"7"]
    assert load_export(tmp_path / "3").version == 3
    assert export(directory, tmp_path) == tmp_path / "11"


def test_a_run_s_directory_stands_for_its_model(served, tmp_path):
    write_model(tmp_path / "run" / "model", "single")
    version_dir = export(tmp_path / "run", tmp_path / "export")
    expected = served("single").loaded({"text": TEXTS})
    np.testing.assert_array_equal(load_export(version_dir)({"text": TEXTS})["scores"], expected["scores"])


# --- files beside the graph ----------------------------------------------------------------------------------------


def test_files_of_a_version(served):
    version_dir = served("multilabel").version_dir
    assert (version_dir / "labels.txt").read_text(encoding="utf-8") == "ä\nb c\nd\n"
    request = json.loads((version_dir / "sample_request.json").read_text(encoding="utf-8"))
    (instance,) = request["instances"]
    assert request["signature_name"] == "serving_default" and instance["text"].split()[:3] == list(WORDS[:3])
    assert set(load_export(version_dir)({name: [text] for name, text in instance.items()})) == {
        "scores",
        "labels",
        "predicted",
        "model_version",
    }
    assert not (served("regression").version_dir / "labels.txt").exists()
    assert (version_dir / "task.json").read_bytes() == (served("multilabel").model_dir / "task.json").read_bytes()
    request = json.loads((served("pretrained").version_dir / "sample_request.json").read_text(encoding="utf-8"))
    assert request["instances"][0]["text"].startswith("[MASK] the")


@pytest.mark.parametrize("kind", ["pair", "question or none", "entities", "pretrained"])
def test_warmup_requests_are_answered_and_reach_every_signature(served, kind):
    log = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2", reason="the extra `serving` is not installed"
    )
    version_dir = served(kind).version_dir
    exported, reached = served(kind).loaded, []
    path = str(version_dir / "assets.extra" / "tf_serving_warmup_requests")
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
        request = log.PredictionLog.FromString(record).predict_log.request
        name = request.model_spec.signature_name
        outputs = exported({key: tf.make_ndarray(value) for key, value in request.inputs.items()}, name)
        assert {len(value) for value in outputs.values()} == {1}
        reached.append(name)
    assert {name: reached.count(name) for name in reached} == dict.fromkeys(exported.signatures, 3)


def test_without_the_protos_no_warmup_is_written_and_it_is_told(served, tmp_path, monkeypatch):
    def refuse(name, *arguments, real=builtins.__import__):
        if name.startswith("tensorflow_serving"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments)

    for name in [name for name in sys.modules if name.startswith("tensorflow_serving")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    monkeypatch.setattr(builtins, "__import__", refuse)
    told = []
    version_dir = export(served.model("encoder"), tmp_path, notify=told.append)
    assert len(told) == 1 and told[0].startswith("no warmup requests were written: tensorflow-serving-api is not inst")
    assert not (version_dir / "assets.extra").exists()
    assert load_export(version_dir)({"text": ["a"]})["embedding"].shape == (1, CONFIG.hidden_size)


def test_the_card_tells_task_metrics_lineage_and_limits(served):
    card = (served("pair").version_dir / "model_card.md").read_text(encoding="utf-8")
    assert card.startswith("# MNLI, version 1\n\nOne of its labels for every pair of texts")
    for line in (
        "- inputs: text, text_pair",
        "- labels, in the order of the scores: contradiction, entailment, neutral",
        f"- model: BERT of 2 layers, hidden size 32, {len(VOCABULARY)} tokens, uncased",
        "- precision: float32: weights and arithmetic in float32.",
        f"- size: {megabytes(served('pair').version_dir):.1f} MB",
        "- dev, when it was trained: accuracy 0.9128, examples 872",
        "  - learning_rate: 2e-05",
        "  - source: runs/pretrain/model",
        "- Texts are cut to 32 tokens, of the longer text first, without a word in the answer.",
        "- Vectors (`embed`) read 48 tokens of a text.",
    ):
        assert f"\n{line}\n" in card, line
    assert "early_stopping" not in card and str(served("pair").model_dir) in card
    card = (served("encoder").version_dir / "model_card.md").read_text(encoding="utf-8")
    assert "- none are recorded with the model" in card and "- not known" in card
    card = (served("question or none").version_dir / "model_card.md").read_text(encoding="utf-8")
    assert "Contexts of any length are read, in windows of 32 tokens" in card


def test_the_servers_files_name_the_export_and_those_that_were_edited_stay(served, tmp_path):
    directory = tmp_path / "my_model.v2"
    export(served.model("single"), directory)
    readme = (directory / "README.md").read_text(encoding="utf-8")
    (api,) = re.findall(r'"tensorflow-serving-api~=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert f'"$PWD:/models/my_model.v2:ro" -e MODEL_NAME=my_model.v2 \\\n  tensorflow/serving:{api} ' in readme
    assert 'request.model_spec.name = "my_model.v2"' in readme
    batching = (directory / "batching_parameters.txt").read_text()
    values = dict(re.findall(r"^(\w+) \{ value: (\d+) \}$", batching, re.MULTILINE))
    assert set(values) == {"max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"}
    assert "pad_variable_length_inputs" not in batching
    endpoint, deployment = (
        yaml.safe_load((directory / "azureml" / f"{name}.yml").read_text()) for name in ("endpoint", "deployment")
    )
    assert endpoint["name"] == deployment["endpoint_name"] == "my-model-v2"
    assert (directory / "azureml" / deployment["model"]["path"]).resolve() == directory
    variables = deployment["environment_variables"]
    assert variables == {
        "MODEL_BASE_PATH": "/var/azureml-app/azureml-models/my-model-v2/1",
        "MODEL_NAME": "my_model.v2",
    }
    environment = deployment["environment"]
    assert environment["image"] == f"docker.io/tensorflow/serving:{api}"
    assert environment["inference_config"]["scoring_route"] == {"port": 8501, "path": "/v1/models/my_model.v2:predict"}
    (directory / "batching_parameters.txt").write_text("mine")
    export(served.model("single"), directory)
    assert (directory / "batching_parameters.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sst2", "sst2"), ("2", "bert-2"), ("a", "a-endpoint"), ("x_" * 30, "x-" * 15 + "x")],
)
def test_names_of_endpoints_are_those_that_azure_allows(name, expected):
    assert _endpoint_name(name) == expected
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]", expected)


# --- SentencePiece -------------------------------------------------------------------------------------------------


def test_a_sentencepiece_model_is_served_and_its_card_says_what_it_needs(tmp_path):
    lines = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))] * 4
    vocabulary = train_sentencepiece(
        lines, VocabTrainConfig(input="unused", kind="sentencepiece", vocab_size=40, output=str(tmp_path / "a.model"))
    )
    family = FAMILIES["single"]
    model = family.make_model(CONFIG, "float32", dropout_seed=0)
    write_finetuned_model(
        tmp_path / "model", model, family, SentencePieceTokenizer(vocabulary), MAX_SEQ_LENGTH, LINEAGE
    )
    version_dir = export(tmp_path / "model", tmp_path / "export")
    assert operations(version_dir) - CORE == {"SentencepieceOp", "SentencepieceTokenizeOp"}
    card = (version_dir / "model_card.md").read_text()
    assert "needs the operations of TensorFlow Text for it (SentencepieceOp, SentencepieceTokenizeOp)" in card
    expected = open_finetuned_model(tmp_path / "model").predict(
        [Example("", (text,), None, str(i)) for i, text in enumerate(TEXTS)]
    )
    found = load_export(version_dir)({"text": TEXTS})
    np.testing.assert_allclose(found["scores"], [list(told["scores"].values()) for told in expected], rtol=0, atol=1e-5)


# --- sentence-transformers -----------------------------------------------------------------------------------------


def vectors_of(opened):
    vectors = Vectors(Network(opened.model, False), opened.vectors, opened.vector_length, opened.tokenizer)
    return vectors.of_texts(tf.constant(TEXTS))["embedding"].numpy()


def test_vectors_follow_sentence_transformers_files(served, tmp_path):
    directory = write_model(tmp_path / "model", "encoder")
    steps = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in steps]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "cls"}))
    (directory / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 9, "do_lower_case": True}))
    expected = list(SentenceEncoder(directory, EmbeddingOptions()).embed(TEXTS))
    found = vectors_of(open_model(directory, "float32"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)
    expected = list(SentenceEncoder(directory, EmbeddingOptions(pooling="mean")).embed(TEXTS))
    found = vectors_of(open_model(directory, "float32", "mean"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command_tells_where_and_how_large_the_export_is(served, tmp_path):
    words = ["export", str(served.model("encoder")), "exports/minilm", "--precision", "bfloat16", "--version", "4"]
    done = subprocess.run([sys.executable, "-m", "tf_bert.cli", *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    size = megabytes(tmp_path / "exports" / "minilm" / "4")
    assert done.stdout == f"exports/minilm/4: {size:.1f} MB; exports/minilm/4/model_card.md tells what it is\n"
    assert load_export(tmp_path / "exports" / "minilm")({"text": ["a"]})["model_version"].tolist() == [b"4"]
