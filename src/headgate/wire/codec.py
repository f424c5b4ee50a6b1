"""The one JSON boundary of the data plane: msgspec, with what msgspec leaves to its user.

An object is read as ``dict[str, Raw]``: every value keeps its own bytes, so that what we do not know survives, numbers
of any size included; of duplicate keys the last one counts.  msgspec skips over strings without looking at their UTF-8,
and meets deep nesting with RecursionError (at about a thousand levels): both are answered here, as malformed.
The ``as_*`` readers give ``None`` for a value of another type; they never raise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import Raw

from headgate.errors import INVALID_JSON, GatewayError

Object = dict[str, Raw]
T = TypeVar("T")

NULL = Raw(b"null")
TRUE = Raw(b"true")
ZERO = Raw(b"0")
EMPTY_TEXT = Raw(b'""')
EMPTY_OBJECT = Raw(b"{}")

_object = msgspec.json.Decoder(dict[str, Raw]).decode
_objects = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_text = msgspec.json.Decoder(str).decode
_texts = msgspec.json.Decoder(list[str]).decode
_number = msgspec.json.Decoder(int | float).decode
_boolean = msgspec.json.Decoder(bool).decode

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

encode = msgspec.json.Encoder().encode
"""Any value of plain types and Raw as compact JSON, in the order of its keys."""

# Half of a surrogate pair, escaped: JSON's grammar allows it, Unicode does not.  Servers that cut text by UTF-16 units
# send it.
_LONE_SURROGATE = re.compile(
    rb"(?<!\\)((?:\\\\)*)"
    rb"(?:(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


def decode_object(data: bytes, what: str = "The request body") -> Object:
    """The members of one JSON object.  ``what`` begins the sentence of the error.

    Raises GatewayError(INVALID_JSON), with the position where the parser stopped.
    """
    try:
        if not data.isascii():
            data.decode()
        return _object(data)
    except msgspec.ValidationError as error:
        raise GatewayError(INVALID_JSON, f"{what} must be a JSON object ({error}).") from None
    except msgspec.DecodeError as error:
        reason = str(error).removeprefix("JSON is malformed: ")
        raise GatewayError(INVALID_JSON, f"{what} is not valid JSON: {reason}.") from None
    except UnicodeDecodeError as error:
        raise GatewayError(INVALID_JSON, f"{what} is not valid UTF-8 (byte {error.start}).") from None
    except RecursionError:
        raise GatewayError(INVALID_JSON, f"{what} is nested too deeply.") from None


def repair(data: bytes) -> bytes:
    """``data`` with U+FFFD in place of what is not UTF-8 and of escaped halves of surrogate pairs."""
    if not data.isascii():
        data = data.decode(errors="replace").encode()
    if b"\\u" in data:
        data = _LONE_SURROGATE.sub(lambda found: found[1] + (found[2] or b"\\ufffd"), data)
    return data


def as_object(raw: Raw | bytes | None) -> Object | None:
    if raw is None:
        return None
    try:
        return _object(raw)
    except _UNREADABLE:
        return None


def as_objects(raw: Raw | bytes | None) -> list[Object] | None:
    if raw is None:
        return None
    try:
        return _objects(raw)
    except _UNREADABLE:
        return None


def as_text(raw: Raw | bytes | None) -> str | None:
    return _read(_text, raw)


def as_texts(raw: Raw | bytes | None) -> list[str] | None:
    return _read(_texts, raw)


def as_boolean(raw: Raw | bytes | None) -> bool | None:
    return _read(_boolean, raw)


def as_number(raw: Raw | bytes | None) -> int | float | None:
    return _read(_number, raw)


def as_integer(raw: Raw | bytes | None) -> int | None:
    """An integer, also where it is spelled ``12.0``."""
    number = _read(_number, raw)
    if isinstance(number, float):
        return int(number) if number.is_integer() else None
    return number


def is_null(raw: Raw | None) -> bool:
    """True for a missing member and for ``null``."""
    return raw is None or raw == NULL


def raw(value: object) -> Raw:
    """Any plain value as it stands in JSON."""
    return Raw(encode(value))


def _read(decode: Callable[[Raw | bytes], T], data: Raw | bytes | None) -> T | None:
    if data is None:
        return None
    try:
        return decode(data)
    except _UNREADABLE:
        return None
