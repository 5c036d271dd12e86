"""What a job does differently inside of Azure Machine Learning: its numbers also go to the run's page in the studio.

Azure tells a job of itself through environment variables. Nothing of Azure's or MLflow's is imported elsewhere, nor on
ranks other than 0, which never call the tracker.
"""

import importlib.util
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from tf_bert.errors import InputError

RUN_ID = "AZUREML_RUN_ID"
TRACKING_URI = "MLFLOW_TRACKING_URI"
TRACKING_RUN_ID = "MLFLOW_RUN_ID"
RUN_TOKEN = "AZUREML_RUN_TOKEN"

LIVE_DIR = Path("logs")
"""In the job's working directory; Azure uploads what appears there while the job runs."""

FLUSH_SECONDS = 30.0
"""How long a run waits in the end for numbers that are not sent yet."""


def in_azure_job() -> bool:
    """Whether Azure Machine Learning, or a rehearsal of it, started this process."""
    return RUN_ID in os.environ


class _Service(Protocol):
    def scalars(self, step: int, values: Mapping[str, float], milliseconds: int) -> None: ...

    def tags(self, tags: Mapping[str, str]) -> None: ...

    def flush(self) -> None: ...


class AzureTracker:
    """Sends numbers and tags to the run that this process belongs to; a `tf_bert.run_log.Tracker`.

    A thread of its own sends them, so that no step waits for the service. Whatever the service does, the training goes
    on: the first failure is told, later ones are not, and later numbers are still tried.

    Args:
      notify: is told of the first failure.
    """

    def __init__(self, notify: Callable[[str], object] = print) -> None:
        self._notify = notify
        self._waiting: queue.SimpleQueue[Callable[[_Service], object] | threading.Event] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._has_failed = False

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name. What is not finite is left out: no service shows it, and some refuse the others with it."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        milliseconds = time.time_ns() // 1_000_000
        if finite:
            self._send(lambda service: service.scalars(step, finite, milliseconds))

    def tags(self, tags: Mapping[str, str]) -> None:
        """Texts by name, shown beside the run."""
        self._send(lambda service: service.tags(tags))

    def flush(self) -> None:
        """Waits until everything is sent, or `FLUSH_SECONDS`."""
        if self._thread is None:
            return
        done = threading.Event()
        self._send(lambda service: service.flush())
        self._waiting.put(done)
        if not done.wait(FLUSH_SECONDS):
            self._failed(f"no answer in {FLUSH_SECONDS:g} seconds")

    def _send(self, action: Callable[[_Service], object]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="Azure metrics", daemon=True)
            self._thread.start()
        self._waiting.put(action)

    def _work(self) -> None:
        service = None
        try:
            service = _connect()
        except Exception as error:  # an SDK may raise anything
            self._failed(error)
        while True:
            action = self._waiting.get()
            if isinstance(action, threading.Event):
                action.set()
            elif service is not None:
                try:
                    action(service)
                except Exception as error:
                    self._failed(error)

    def _failed(self, error: object) -> None:
        if not self._has_failed:
            self._has_failed = True
            reason = " ".join(str(error).split()) or type(error).__name__
            self._notify(f"metrics do not all reach Azure: {reason[:300]}; the run goes on, and metrics.jsonl has them")


def _connect() -> _Service:
    """The service that this job's numbers belong to: MLflow in jobs of SDK v2, Run in those of SDK v1."""
    address = os.environ.get(TRACKING_URI, "")
    if address and _is_installed("mlflow") and (not address.startswith("azureml") or _is_installed("azureml.mlflow")):
        return _Mlflow()
    if RUN_TOKEN in os.environ and _is_installed("azureml.core"):
        return _SdkV1()
    raise InputError(
        "expected azureml-mlflow (SDK v2) or azureml-core (SDK v1) in the job's environment; add it to the image"
    )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False


class _Mlflow:
    def __init__(self) -> None:
        from mlflow import MlflowClient

        logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would tell of every attempt
        self._client = MlflowClient()
        self._run_id = os.environ.get(TRACKING_RUN_ID) or os.environ[RUN_ID]

    def scalars(self, step: int, values: Mapping[str, float], milliseconds: int) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(name, value, milliseconds, step) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(self._run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def flush(self) -> None:
        pass  # every batch was sent when its call returned


class _SdkV1:
    def __init__(self) -> None:
        from azureml.core import Run

        self._run = Run.get_context(allow_offline=False)

    def scalars(self, step: int, values: Mapping[str, float], milliseconds: int) -> None:
        for name, value in values.items():
            self._run.log(name, value, step=step)

    def tags(self, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            self._run.tag(name, value)

    def flush(self) -> None:
        self._run.flush(timeout_seconds=FLUSH_SECONDS)
