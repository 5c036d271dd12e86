"""What the fields of several settings have in common: strictness, and types that carry their range."""

import re
from typing import Annotated
from urllib.parse import urlsplit

import pydantic
from pydantic import Field

STRICT = pydantic.ConfigDict(extra="forbid", use_attribute_docstrings=True)

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]
MaskedShare = Annotated[float, Field(gt=0.0, lt=1.0)]
SpanWords = Annotated[float, Field(ge=1.0, le=100.0)]
# A single value on the command line or in YAML is a sequence of one.
Strings = Annotated[
    tuple[str, ...], pydantic.BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
]


def _server_address(value: object) -> object:
    label = r"[A-Za-z0-9-]{1,63}"
    pattern = rf"https?://({label}(\.{label})*|\[[0-9a-f:.]+\])(:[0-9]{{1,5}})?(/[A-Za-z0-9._~/-]*)?"
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise ValueError(f"found {value!r}, expected an address such as https://dumps.wikimedia.org")
    _ = urlsplit(value).port  # raises if it is out of range
    return value.rstrip("/")


ServerAddress = Annotated[str, pydantic.BeforeValidator(_server_address)]


def check_spans(mean_span_words: float, whole_word_masking: bool) -> None:
    """Raises `ValueError` if runs of words are to be masked, but not whole words."""
    if mean_span_words > 1.0 and not whole_word_masking:
        raise ValueError(
            f"mean_span_words {mean_span_words:g} chooses runs of whole words, but whole_word_masking is false; "
            "set it to true, or mean_span_words to 1"
        )
