"""The versions of a model: found in its export's directory, loaded, warmed, replaced and unloaded.

As in TensorFlow Serving the highest number is served. A new version is loaded and has answered its warm-up requests
before requests go to it; the old one stays until its last request is answered.
"""

import contextlib
import dataclasses
import gc
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401 (registers the operations that an export's tokenizer is made of)
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, prediction_log_pb2

from tf_bert.errors import InputError
from tf_bert.serving.server.proto_tensors import read_inputs
from tf_bert.serving.server.refusal import Refusal, Status, cause_of, invalid, shown
from tf_bert.serving.server.signature import Limits, Signature
from tf_bert.serving.server.version_files import GRAPH_FILE, check_export, marks_of, newest_version, number_of

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
DEFAULT_SIGNATURE = "serving_default"

_TAG = "serve"
_GUESS = "A text to warm up with."


class ModelVersion:
    """A loaded SavedModel.

    Args:
      directory: its place.
      number: its version.
      limits: of requests.

    Raises:
      InputError: if it cannot be loaded, has no signature or does not answer its warm-up requests.
    """

    def __init__(self, directory: Path, number: int, limits: Limits) -> None:
        self.number = number
        self.metadata, self.signatures = _load(directory)
        """A SignatureDefMap, as it is in the file, and what can be run."""
        self._condition = threading.Condition()
        self._requests = 0
        self._is_let_go = False
        _warm_up(directory / WARMUP_FILE, self, limits)

    def signature(self, name: str) -> Signature:
        """A signature by name; the default one where the name is empty."""
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            known = ", ".join(sorted(self.signatures))
            raise invalid(f"signature_name: found {shown(name)}, expected one of {known}")
        return self.signatures[name]

    def hold(self) -> None:
        """Keeps it loaded, until `release`."""
        with self._condition:
            self._requests += 1

    def release(self) -> None:
        """Takes one `hold` back."""
        with self._condition:
            self._requests -= 1
            self._condition.notify_all()

    def let_go(self) -> None:
        """Ends waiting for requests."""
        with self._condition:
            self._is_let_go = True
            self._condition.notify_all()

    def unload(self) -> None:
        """Waits for its last request, and frees its memory."""
        with self._condition:
            self._condition.wait_for(lambda: self._requests == 0 or self._is_let_go)
        self.signatures = {}
        gc.collect()  # what TensorFlow loads refers to itself


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """What is told of a version."""

    state: str
    """As TensorFlow Serving has it: LOADING, AVAILABLE, UNLOADING or END."""
    error: str = ""
    """Why it was not loaded."""


class Models:
    """The model that is served, by name.

    Args:
      export_dir: a directory with versions, which are directories whose names are numbers.
      name: of the model.
      limits: of requests.
    """

    def __init__(self, export_dir: Path, name: str, limits: Limits) -> None:
        self.name = name
        self._export_dir, self._limits = export_dir, limits
        self._lock = threading.Lock()
        self._current: ModelVersion | None = None
        self._retiring: ModelVersion | None = None
        self._statuses: dict[int, VersionStatus] = {}
        self._broken: tuple[object, ...] = ()

    @property
    def number(self) -> int:
        """The version that is served; 0 before there is one."""
        current = self._current
        return current.number if current else 0

    def refresh(self) -> Iterator[str]:
        """Looks for a new version, serves it and unloads the old one; yields lines that tell of it.

        A version that cannot be loaded is told of once, and tried again when its files have changed.
        """
        directory = newest_version(self._export_dir)
        if directory is None or (number := number_of(directory)) == self.number:
            return
        marks = marks_of(directory)
        if marks == self._broken:
            return
        self._statuses[number] = VersionStatus("LOADING")
        try:
            version = ModelVersion(directory, number, self._limits)
        except InputError as error:
            self._broken = marks
            self._statuses[number] = VersionStatus("END", str(error))
            yield f"{error}; version {self.number} stays" if self._current else str(error)
            return
        with self._lock:
            self._retiring, self._current = self._current, version
        self._statuses[number] = VersionStatus("AVAILABLE")
        yield f"{self.name}: version {number} is loaded"
        if old := self._retiring:
            self._statuses[old.number] = VersionStatus("UNLOADING")
            old.unload()
            self._retiring = None
            self._statuses[old.number] = VersionStatus("END")
            yield f"{self.name}: version {old.number} is unloaded"

    def load_first(self) -> str:
        """As `refresh`, where there must be a version.

        Raises:
          InputError: if there is none, or it cannot be loaded.
        """
        check_export(self._export_dir)
        line = "".join(self.refresh())
        if self._current is None:
            raise InputError(line)
        return line

    def close(self) -> None:
        """Ends a `refresh` that waits for requests."""
        if retiring := self._retiring:
            retiring.let_go()

    def check_name(self, name: str) -> None:
        """Refuses another name than the model's."""
        if name != self.name:
            raise Refusal(Status.NOT_FOUND, f"model: found {shown(name)}, expected {self.name}")

    @contextlib.contextmanager
    def use(self, name: str, number: int | None = None) -> Iterator[ModelVersion]:
        """A version, which stays loaded in the meantime.

        Args:
          name: the model's.
          number: of the version; None: the newest.

        Raises:
          Refusal: if it is not there.
        """
        self.check_name(name)
        with self._lock:
            version = self._current
            if version is None or number not in (None, version.number):
                found = f"found {number}, expected {self.number}" if version else "none is loaded"
                raise Refusal(Status.NOT_FOUND, f"version of {self.name}: {found}")
            version.hold()
        try:
            yield version
        finally:
            version.release()

    def statuses(self, name: str, number: int | None = None) -> Mapping[int, VersionStatus]:
        """What is known of one version or of all, the newest first; raises `Refusal` if that is nothing."""
        self.check_name(name)
        found = {n: status for n, status in sorted(self._statuses.items(), reverse=True) if number in (None, n)}
        if not found:
            raise Refusal(Status.NOT_FOUND, f"version of {self.name}: found {number}, expected {self.number}")
        return found


def _load(directory: Path) -> tuple[Any, dict[str, Signature]]:
    try:
        definition = saved_model_pb2.SavedModel.FromString((directory / GRAPH_FILE).read_bytes())
        graphs = [graph for graph in definition.meta_graphs if _TAG in graph.meta_info_def.tags]
        loaded = tf.saved_model.load(str(directory), tags=[_TAG])
        metadata = get_model_metadata_pb2.SignatureDefMap(signature_def=graphs[0].signature_def)
        functions = dict(loaded.signatures)
        specs = {name: _specs(function) for name, function in functions.items()}
    except Exception as error:  # of many kinds, for what TensorFlow finds in a damaged directory
        raise InputError(f"{directory}: cannot be loaded: {cause_of(error)}; export it again") from error
    if not functions:
        raise InputError(f"{directory}: has no signature; export it again with `tf-bert export`")
    return metadata, {name: Signature(name, *specs[name], function) for name, function in functions.items()}


def _specs(function: Any) -> tuple[dict[str, tf.TensorSpec], dict[str, tf.TensorSpec]]:
    """Inputs and outputs, which the file has in no order."""
    _, inputs = function.structured_input_signature
    return dict(sorted(inputs.items())), dict(sorted(function.structured_outputs.items()))


def _warm_up(path: Path, version: ModelVersion, limits: Limits) -> None:
    """Runs the requests of a warm-up file, which makes the first clients' answers as quick as the later ones."""
    if not path.exists():
        _guess_request(version)
        return
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            if log.HasField("predict_log"):
                request = log.predict_log.request
                signature = version.signature(request.model_spec.signature_name)
                inputs = read_inputs(request, signature, limits)
                signature.check(inputs, limits)
                signature.run(inputs)
    except Exception as error:  # a damaged file, or a model that does not answer
        cause = cause_of(error)
        raise InputError(f"{path}: a warm-up request was not answered: {cause}; export the model again") from error


def _guess_request(version: ModelVersion) -> None:
    signature = version.signatures.get(DEFAULT_SIGNATURE)
    if signature and signature.is_batchable:
        with contextlib.suppress(Refusal):  # the texts may have to be something else
            signature.run({name: np.array([_GUESS.encode()], object) for name in signature.inputs})
