"""What a string of a foreign error is: JSON, the representation of a Python value, XML, or no text at all."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headgate.wire import codec

_BINARY = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\ufffd]")


def tag(text: str, name: str) -> str:
    lowered = text[:8192].lower()
    start = lowered.find(f"<{name.lower()}>")
    end = lowered.find("</", start + 1) if start >= 0 else -1
    return text[start + len(name) + 2 : end].strip() if 0 <= start < end else ""


def decoded(data: bytes) -> Any:
    """The plain values of a JSON text; None for anything else."""
    if data[:1] not in (b"{", b"[", b'"'):
        return None
    for candidate in (data, codec.repair(data)):
        try:
            return msgspec.json.decode(candidate)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return None


def is_binary(text: str) -> bool:
    """True for what is no text, or text in an encoding that is not ours."""
    return len(_BINARY.findall(text[:2048])) * 20 > min(len(text), 2048)
