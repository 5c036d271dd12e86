"""The settings of the local server."""

import re
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tf_bert.config.fields import STRICT, NonNegativeInt, PositiveFloat, PositiveInt

Port = Annotated[int, Field(ge=0, le=65_535)]


@dataclass(frozen=True, config=STRICT)
class ServeConfig:
    """`tf-bert serve EXPORT_DIR`: a small server of an export, for trying out. Production uses TensorFlow Serving."""

    export_dir: str
    """EXPORT_DIR, the first word: an export with its numbered versions, as `tf-bert export` writes it."""
    model_name: str | None = None
    """The name that requests call the model by; null: that of the export's directory."""
    host: str = "127.0.0.1"
    """The address to listen at. The default is reached from this machine alone; nobody is asked who they are."""
    rest_port: Port = 8501
    """The port of REST, the page and the metrics; 0: a free one."""
    grpc_port: Port = 8500
    """The port of gRPC; 0: a free one."""
    max_batch_size: PositiveInt = 64
    """Examples that are run at once; a request may have as many."""
    batch_timeout_micros: NonNegativeInt = 1000
    """An example waits so long for others to be run with; 0: not at all, but while another batch runs."""
    num_batch_threads: PositiveInt = 1
    """Batches that run at the same time."""
    max_queued_examples: PositiveInt = 512
    """Examples that wait to be run; requests beyond get 429, or RESOURCE_EXHAUSTED."""
    max_body_megabytes: PositiveFloat = 4.0
    """Size of a request."""
    max_text_bytes: PositiveInt = 100_000
    """Bytes of one text of an example, in UTF-8, or of the numbers in its place."""
    timeout_seconds: PositiveFloat = 30.0
    """A request that is not answered by then gets 504, or DEADLINE_EXCEEDED."""
    poll_seconds: PositiveFloat = 1.0
    """Time between two looks for a new version."""
    stop_deadline_seconds: PositiveFloat = 30.0
    """When told to stop, the server finishes what it has, for so long at most."""

    def __post_init__(self) -> None:
        if self.model_name is not None and not re.fullmatch(r"[A-Za-z0-9_.-]+", self.model_name):
            raise ValueError(f"model_name: found {self.model_name!r}, expected letters, digits, _, . or -")
        if self.max_queued_examples < self.max_batch_size:
            raise ValueError(
                f"max_queued_examples {self.max_queued_examples} is less than max_batch_size {self.max_batch_size}, so "
                "that a full request could never wait; make it as many at least"
            )
        if self.rest_port and self.rest_port == self.grpc_port:
            raise ValueError(f"rest_port and grpc_port are both {self.rest_port}; choose two")
