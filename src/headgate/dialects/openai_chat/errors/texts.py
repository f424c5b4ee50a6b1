"""Recognise the form of a string in a foreign error: JSON, a Python literal, XML, or binary data."""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

import msgspec

from headgate.wire import codec

_BINARY = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\ufffd]")
# AWS's SDKs: "An error occurred (ThrottlingException) when calling …"
EXCEPTION = re.compile(
    r"(?:^|[(\s.])((?:Throttling|ServiceQuotaExceeded|ServiceUnavailable|ModelTimeout|ModelNotReady|ModelStreamError|ModelError"
    r"|InternalServer|Validation|AccessDenied|ResourceNotFound|ExpiredToken|UnrecognizedClient)Exception)\b"
)
SDK = re.compile(r"Error code: \d{3}")  # OpenAI's SDK, at an upstream of the upstream
_LONGEST_LITERAL = 64 << 10
_ENTRY = re.compile(r"'loc': [(\[]([^)\]]{0,300})[)\]], 'msg': (?:'([^'\n]{1,300})'|\"([^\"\n]{1,300})\")")


def tag(text: str, name: str) -> str:
    lowered = text[:8192].lower()
    start = lowered.find(f"<{name.lower()}>")
    end = lowered.find("</", start + 1) if start >= 0 else -1
    return text[start + len(name) + 2 : end].strip() if 0 <= start < end else ""


def decoded(data: bytes) -> Any:
    """Return the plain values of a JSON text or a Python literal; None for anything else."""
    if data[:1] not in (b"{", b"[", b'"'):
        return None
    for candidate in (data, codec.repair(data)):
        try:
            return msgspec.json.decode(candidate)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return _literal(data) if data.startswith((b"{'", b"[{'", b"[['", b"['")) else None


def _literal(data: bytes) -> Any:
    """Read ``str(dict)`` of a server in Python, as FastAPI handlers and SDKs send it; tuples become lists."""
    if len(data) > _LONGEST_LITERAL:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes that Python does not know
            return _plain(ast.literal_eval(data.decode()))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_whole(str(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (int, float)) else _whole(str(value))


def _whole(text: str) -> str:
    """Remove lone surrogates, which UTF-8 cannot encode."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def entries(text: str) -> list[tuple[str, str]]:
    """Return ``loc`` and ``msg`` of a validator's list that contains its server's objects, and so is no literal."""
    return [(found[1] or "", found[2] or found[3]) for found in _ENTRY.finditer(text[:_LONGEST_LITERAL])]


def is_binary(text: str) -> bool:
    """True for binary data, and for text in another encoding than UTF-8."""
    return len(_BINARY.findall(text[:2048])) * 20 > min(len(text), 2048)
