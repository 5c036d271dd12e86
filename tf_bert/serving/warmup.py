"""Requests that TensorFlow Serving runs before a version answers, so that no caller waits for its first steps.

`assets.extra/tf_serving_warmup_requests`: a TFRecord file of PredictionLog, read by the server by this name.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_bert.serving.graph_inputs import Rows
from tf_bert.serving.opened_model import OpenedModel
from tf_bert.serving.sample_texts import WARMUP_WORDS, sample_inputs

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
LEFT_OUT = (
    "no warmup requests were written: tensorflow-serving-api is not installed (extra `serving`); servers start as well "
    "without, and the first requests take longer"
)


def write_warmup(directory: Path, opened: OpenedModel, signatures: Sequence[str]) -> bool:
    """Writes requests of every signature, of some lengths.

    Args:
      directory: of the version.
      opened: the model.
      signatures: their names.

    Returns:
      False if the protos are not installed, and so nothing was written.
    """
    try:
        predict = importlib.import_module("tensorflow_serving.apis.predict_pb2")
        log = importlib.import_module("tensorflow_serving.apis.prediction_log_pb2")
    except ModuleNotFoundError:
        return False
    path = directory / WARMUP_FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in _requests(opened, signatures):
            request = predict.PredictRequest()
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.PredictionLog(predict_log=log.PredictLog(request=request)).SerializeToString())
    return True


def _requests(opened: OpenedModel, signatures: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    task, vocabulary = opened.task, opened.tokenizer.vocabulary
    for signature in signatures:
        names = ("text",) if signature == "embed" else task.inputs
        has_mask = task.kind == "fill_mask" and signature != "embed"
        for words in WARMUP_WORDS:
            texts = sample_inputs(names, vocabulary, words, has_mask)
            if signature == "tokens":
                length = min(words + 2, task.max_seq_length)
                row = [vocabulary.cls_id, vocabulary.mask_id, *[vocabulary.unk_id] * (length - 3), vocabulary.sep_id]
                values = zip(Rows._fields, (row, [0] * length, [1] * length), strict=True)
                yield signature, {name: tf.constant([value], tf.int32) for name, value in values}
            elif signature == "examples":
                yield signature, {"examples": [serialized_example(texts)]}
            elif signature == "words":
                yield signature, {"words": ["\n".join(texts["text"].split())]}
            else:
                yield signature, {name: [text] for name, text in texts.items()}


def serialized_example(texts: Mapping[str, str]) -> bytes:
    """A tf.Example with a bytes feature for every text, as the signature `examples` takes it."""
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()])) for name, text in texts.items()
    }
    serialized: bytes = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    return serialized
