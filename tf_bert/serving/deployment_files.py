"""Files beside an export that servers and their callers need: requests, batching, images, Azure ML.

Those of a version lie in its directory, the others in the export's own, where what is there already stays as it is.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tf_bert.files import atomic_writer
from tf_bert.serving.exported import DEFAULT
from tf_bert.serving.opened_model import OpenedModel
from tf_bert.serving.sample_texts import sample_inputs

SERVER_IMAGE = "tensorflow/serving:2.20.0"
SAMPLE_REQUEST_FILE = "sample_request.json"
BATCHING_FILE = "batching_parameters.txt"
README_FILE = "README.md"
AZURE_DIR = "azureml"

_BATCHING = """\
# How TensorFlow Serving puts requests together, with --enable_batching=true --batching_parameters_file=THIS FILE.
# Texts of any lengths share a batch, which the graph pads to its longest. Requests to the signature `tokens` that are
# to share one have to be of the same length: do not let the server pad them, it repeats their first number.
max_batch_size { value: 64 }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 256 }
num_batch_threads { value: 4 }
"""
_SAMPLE_WORDS = 12


def write_sample_request(directory: Path, opened: OpenedModel) -> None:
    """Writes the body of a REST request, with a text in the words of the vocabulary."""
    request = {"signature_name": DEFAULT, "instances": [_sample(opened)]}
    text = json.dumps(request, indent=2, ensure_ascii=False)
    (directory / SAMPLE_REQUEST_FILE).write_text(f"{text}\n", encoding="utf-8")


def write_deployment_files(export_dir: Path, opened: OpenedModel) -> None:
    """Writes what is the same for all versions, as far as it is not there."""
    name = export_dir.resolve().name
    _write_if_absent(export_dir / BATCHING_FILE, _BATCHING)
    _write_if_absent(export_dir / README_FILE, _readme(name, opened))
    (export_dir / AZURE_DIR).mkdir(exist_ok=True)
    for file, definition in _azure_definitions(name).items():
        text = yaml.safe_dump(definition, sort_keys=False, allow_unicode=True)
        _write_if_absent(export_dir / AZURE_DIR / file, text)


def _write_if_absent(path: Path, text: str) -> None:
    if not path.exists():
        with atomic_writer(path) as file:
            file.write(text.encode())


def _sample(opened: OpenedModel) -> dict[str, str]:
    has_mask = opened.task.kind == "fill_mask"
    return sample_inputs(opened.task.inputs, opened.tokenizer.vocabulary, _SAMPLE_WORDS, has_mask)


def _readme(name: str, opened: OpenedModel) -> str:
    inputs = "\n".join(
        f'request.inputs["{key}"].CopyFrom(tf.make_tensor_proto([{text!r}]))' for key, text in _sample(opened).items()
    )
    return f"""\
# {name}

Versions of a model for TensorFlow Serving, written by `tf-bert export`. Each has its `model_card.md`. A running server
that watches this directory takes up a new version when it appears.

## The official server

```sh
docker run --rm -p 8500:8500 -p 8501:8501 -v "$PWD:/models/{name}:ro" -e MODEL_NAME={name} \\
  {SERVER_IMAGE} --enable_batching=true --batching_parameters_file=/models/{name}/{BATCHING_FILE}
```

REST, on port 8501:

```sh
curl -d @1/{SAMPLE_REQUEST_FILE} http://localhost:8501/v1/models/{name}:predict
```

gRPC, on port 8500, with `pip install tensorflow-serving-api`:

```python
import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel("localhost:8500"))
request = predict_pb2.PredictRequest()
request.model_spec.name = "{name}"
request.model_spec.signature_name = "{DEFAULT}"
{inputs}
response = stub.Predict(request, timeout=10.0)
print({{key: tf.make_ndarray(value) for key, value in response.outputs.items()}})
```

To try it out without Docker: `tf-bert serve {name}`, from the directory above.

## Azure ML

A managed online endpoint with the official server as a custom container:

```sh
az ml online-endpoint create -f {AZURE_DIR}/endpoint.yml
az ml online-deployment create -f {AZURE_DIR}/deployment.yml --all-traffic
az ml online-endpoint invoke -n {_endpoint_name(name)} --request-file 1/{SAMPLE_REQUEST_FILE}
```
"""


def _azure_definitions(name: str) -> dict[str, dict[str, Any]]:
    """The files of a managed online endpoint, by name; the schemas are Azure ML's, version 2."""
    endpoint = _endpoint_name(name)
    route = {"port": 8501, "path": f"/v1/models/{name}"}
    schemas = "https://azuremlschemas.azureedge.net/latest"
    return {
        "endpoint.yml": {
            "$schema": f"{schemas}/managedOnlineEndpoint.schema.json",
            "name": endpoint,
            "auth_mode": "key",
        },
        "deployment.yml": {
            "$schema": f"{schemas}/managedOnlineDeployment.schema.json",
            "name": "blue",
            "endpoint_name": endpoint,
            "model": {"name": endpoint, "version": "1", "path": f"../../{name}", "type": "custom_model"},
            "environment_variables": {
                # Azure ML puts the model's folder there; the image's entry point adds MODEL_NAME to it.
                "MODEL_BASE_PATH": f"/var/azureml-app/azureml-models/{endpoint}/1",
                "MODEL_NAME": name,
            },
            "environment": {
                "name": f"{endpoint}-server",
                "version": "1",
                "image": f"docker.io/{SERVER_IMAGE}",
                "inference_config": {
                    "liveness_route": route,
                    "readiness_route": dict(route),
                    "scoring_route": {**route, "path": f"{route['path']}:predict"},
                },
            },
            "instance_type": "Standard_DS3_v2",
            "instance_count": 1,
        },
    }


def _endpoint_name(name: str) -> str:
    """As Azure ML wants it: 3 to 32 letters, digits and dashes, a letter first and no dash last."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    plain = plain if plain[:1].isalpha() else f"bert-{plain}"
    return f"{plain[:24].strip('-')}-endpoint" if len(plain) < 3 else plain[:32].strip("-")
