"""A real export behind the server: its vectors over REST and gRPC are those of the model itself."""

import dataclasses

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf
from local_servers import running
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tf_bert.config import BertConfig
from tf_bert.models.directory import save_model
from tf_bert.models.model import BertModel
from tf_bert.serving.embed import EmbeddingOptions, SentenceEncoder
from tf_bert.serving.export import export
from tf_bert.tokenization.tokenizer import save_tokenizer
from tf_bert.tokenization.vocab import Vocabulary

CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=20,
)
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "river", "##s", "stone", "fell", ".", "wide", "東", "é")
TEXTS = (
    "a river",
    "",
    " \t\n",
    "stone fell . " * 200,
    "\x00\u200b\ufeff",
    "[MASK] [SEP]",
    "ÉE\u0301 é",
    "東京 Rivers!",
    "😀" * 50,
    "\u202ea",
    "x" * 3000,
)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    keras.utils.set_random_seed(3)
    directory = tmp_path_factory.mktemp("model")
    save_model(BertModel(dataclasses.replace(CONFIG, initializer_range=0.3)), directory, {"pad_token_id": 0})
    save_tokenizer(directory, Vocabulary(WORDS), lower_case=True)
    return directory


@pytest.fixture(scope="module")
def server(model_dir, tmp_path_factory):
    export_dir = tmp_path_factory.mktemp("exports") / "river"
    export(model_dir, export_dir)
    with running(export_dir) as server:
        yield server


@pytest.mark.parametrize("copies", [1, 5])
def test_vectors_are_those_of_the_model(model_dir, server, copies):
    texts = [text for text in TEXTS for _ in range(copies)]
    expected = np.array(list(SentenceEncoder(model_dir, EmbeddingOptions()).embed(texts)))
    with server.client() as client:
        response = client.post("/v1/models/river:predict", json={"instances": texts})
        alone = client.post("/v1/models/river:predict", json={"instances": texts[3:4], "signature_name": "embed"})
    rows = response.json()["predictions"]
    np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=1e-5)
    assert {row["model_version"] for row in rows} == {"1"}
    np.testing.assert_allclose(alone.json()["predictions"][0]["embedding"], expected[3], atol=1e-5)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "river"
    request.inputs["text"].CopyFrom(tf.make_tensor_proto([text.encode() for text in texts]))
    with grpc.insecure_channel(server.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        outputs = stub.Predict(request, timeout=60).outputs
    np.testing.assert_allclose(tf.make_ndarray(outputs["embedding"]), expected, atol=1e-5)


def test_its_own_warm_up_and_batches(server):
    assert server.lines == ["river: version 1 is loaded"]
    with server.client() as client:
        signatures = client.get("/v1/models/river/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) >= {"serving_default", "tokens", "examples", "embed"}
