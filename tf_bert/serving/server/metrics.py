"""What the server counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("protocol", "method")
        self._requests = Counter(
            "tf_bert_requests", "Requests, by the status of the answer", (*labels, "code"), registry=self._registry
        )
        self._seconds = Histogram(
            "tf_bert_request_seconds",
            "Time from a request to its answer",
            labels,
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "tf_bert_batch_size",
            "Examples that were run at once",
            ("signature",),
            buckets=_SIZES,
            registry=self._registry,
        )
        self._queued = Gauge("tf_bert_queued_examples", "Examples that wait to be run", registry=self._registry)
        self._version = Gauge("tf_bert_model_version", "The version that is served", registry=self._registry)
        ProcessCollector(registry=self._registry)

    def watch(self, queued: Callable[[], int], version: Callable[[], int]) -> None:
        """Says where two numbers are to be asked for."""
        self._queued.set_function(queued)
        self._version.set_function(version)

    def observe_request(self, protocol: str, method: str, code: str, seconds: float) -> None:
        """Counts a request: protocol rest or grpc; what was asked for; the status of the answer."""
        self._requests.labels(protocol, method, code).inc()
        self._seconds.labels(protocol, method).observe(seconds)

    def observe_batch(self, signature: str, count: int) -> None:
        """Counts a batch of `count` examples."""
        self._batches.labels(signature).observe(count)

    def render(self) -> bytes:
        """The page of metrics, as CONTENT_TYPE."""
        return generate_latest(self._registry)
