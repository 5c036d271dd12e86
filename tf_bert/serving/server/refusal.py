"""Requests that are not answered: one clear line, and the status that each protocol has for it."""

import enum
import re

_SHOWN = 60
_LONGEST = 300
# Of TensorFlow's messages: lines before the one that says what is wrong, and the names of operations around it.
_OTHER_LINES = re.compile(r"Graph execution error|Detected at node|<stack trace|File |\s*$")
_BEFORE, _AFTER = re.compile(r"^\{\{.*?\}\}\s*"), re.compile(r"\s*\[\[|\s*\[Op:")
_ASSERTION = re.compile(r"assertion failed: \[(.*)\]")  # around the line of an export's own check


class Status(enum.Enum):
    """Why a request is refused: an HTTP status and the name of a gRPC one."""

    INVALID = (400, "INVALID_ARGUMENT")
    NOT_FOUND = (404, "NOT_FOUND")
    SLOW_BODY = (408, "DEADLINE_EXCEEDED")
    TOO_LARGE = (413, "RESOURCE_EXHAUSTED")
    TOO_MANY = (429, "RESOURCE_EXHAUSTED")
    FAILED = (500, "INTERNAL")
    STOPPING = (503, "UNAVAILABLE")
    TOO_LATE = (504, "DEADLINE_EXCEEDED")

    @property
    def http(self) -> int:
        """As an HTTP status."""
        return self.value[0]

    @property
    def grpc(self) -> str:
        """As a gRPC status."""
        return self.value[1]


class Refusal(Exception):
    """A request that gets a status and a line in the place of an answer."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


def invalid(message: str) -> Refusal:
    """The client's mistake."""
    return Refusal(Status.INVALID, message)


def shown(value: object) -> str:
    """A client's value in a message: short, on one line."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def cause_of(error: Exception) -> str:
    """The line of a message, of TensorFlow or of another library, that says what is wrong."""
    lines = [line for line in str(getattr(error, "message", error)).splitlines() if not _OTHER_LINES.match(line)]
    line = _AFTER.split(_BEFORE.sub("", lines[0]))[0].strip() if lines else ""
    return _ASSERTION.sub(r"\1", line)[:_LONGEST] or type(error).__name__
