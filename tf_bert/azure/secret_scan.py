"""Strings that look like secrets, in files that are about to leave this machine. What is found is never shown."""

import dataclasses
import re
from pathlib import Path

_BINARY_PROBE = 8192
_BLOCK = 2**20

# What a secret is called, and how it looks: the fixed parts and lengths that the services give their tokens, so that
# prose about them does not match. Patterns begin with what is fixed, and look back from there, which makes them fast.
_KINDS: tuple[tuple[str, str], ...] = (
    ("a private key", r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    ("a storage account's key", r"AccountKey\s*=\s*[A-Za-z0-9+/]{86}=="),
    ("an access key of a connection string", r"SharedAccessKey\s*=\s*[A-Za-z0-9+/]{40,}=*"),
    ("a shared access signature (SAS)", r"[?&;]sig=[A-Za-z0-9%+/]{40,}"),
    (
        "a client secret of Microsoft Entra",
        r"Q~(?<=[A-Za-z0-9_.~-]{3}[78]Q~)[A-Za-z0-9_.~-]{31,34}(?![A-Za-z0-9])",
    ),
    ("an access key of AWS", r"A[KS]IA(?<![A-Z0-9]....)[A-Z0-9]{16}(?![A-Z0-9])"),
    ("a token of GitHub", r"(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})"),
    ("a token of Hugging Face", r"hf_(?<![A-Za-z0-9]...)[A-Za-z0-9]{34}(?![A-Za-z0-9])"),
    ("a token of PyPI", r"pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}"),
    ("a key of Google's services", r"AIza(?<![A-Za-z0-9]....)[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    ("a token of Slack", r"xox[abprs]-[A-Za-z0-9-]{20,}"),
    ("a signed token (JWT)", r"eyJ(?<![A-Za-z0-9]...)[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{15,}"),
    ("a password in an address", r"://(?<=[a-z]://)[^\s/:@{}$<>\"']+:[^\s/@{}$<>\"']{6,}@[A-Za-z0-9]"),
    (
        "a password or key",
        r"(?i:password|passwd|secret|api_?key|access_?key|client_?secret|auth_?token)[\"']?\s*[:=]\s*"
        r"(?P<quote>[\"'])(?=[^\"']*[0-9])(?=[^\"']*[A-Za-z])[^\s\"'{}$<>]{16,}(?P=quote)",
    ),
)
_PATTERNS = tuple((kind, re.compile(pattern.encode())) for kind, pattern in _KINDS)


@dataclasses.dataclass(frozen=True)
class FoundSecret:
    """Where a file has something that looks like a secret."""

    line: int
    """From 1."""
    kind: str
    """What it looks like."""


def find_secret(path: Path) -> FoundSecret | None:
    """The first secret of a text file, or None; binary files are passed over."""
    with path.open("rb") as file:
        if b"\0" in file.peek(_BINARY_PROBE)[:_BINARY_PROBE]:
            return None
        lines_before = 0
        while block := b"".join(file.readlines(_BLOCK)):  # whole lines
            if found := _search(block):
                place, kind = found
                return FoundSecret(lines_before + block.count(b"\n", 0, place) + 1, kind)
            lines_before += block.count(b"\n")
    return None


def kind_of_secret(text: str) -> str | None:
    """What the first secret in a text looks like, or None."""
    found = _search(text.encode())
    return found[1] if found else None


def _search(block: bytes) -> tuple[int, str] | None:
    """Place and kind of the first secret in some bytes."""
    return min(((match.start(), kind) for kind, pattern in _PATTERNS if (match := pattern.search(block))), default=None)
