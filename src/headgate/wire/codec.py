"""The one JSON boundary of the data plane: msgspec, with what msgspec leaves to its user.

An object is read as ``dict[str, Raw]``.  Every value keeps its own bytes, so that unknown values survive, numbers of
any size included.  Of duplicate keys the last one counts. msgspec skips over strings without checking their UTF-8.
It meets deep nesting with RecursionError (at about a thousand levels).  Both are reported here as malformed. The
``as_*`` readers give ``None`` for a value of another type; they never raise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar

import msgspec
from msgspec import Raw

from headgate.errors import INVALID_JSON, GatewayError

Object = dict[str, Raw]
T = TypeVar("T")

NULL = Raw(b"null")
TRUE = Raw(b"true")
FALSE = Raw(b"false")
ZERO = Raw(b"0")
EMPTY_TEXT = Raw(b'""')
EMPTY_OBJECT = Raw(b"{}")
EMPTY_ARRAY = Raw(b"[]")

_object = msgspec.json.Decoder(dict[str, Raw]).decode
_objects = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_text = msgspec.json.Decoder(str).decode
_texts = msgspec.json.Decoder(list[str]).decode
_raws = msgspec.json.Decoder(list[Raw]).decode
_any = msgspec.json.Decoder().decode
_number = msgspec.json.Decoder(int | float).decode
_boolean = msgspec.json.Decoder(bool).decode

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_exact = msgspec.json.Decoder(float_hook=Decimal).decode
_sorted = msgspec.json.Encoder(order="sorted", decimal_format="number").encode

encode = msgspec.json.Encoder().encode
"""Any value of plain types and Raw as compact JSON, in the order of its keys."""

# Half of a surrogate pair, escaped: JSON's grammar allows it, Unicode does not.  Servers that cut text by UTF-16 units
# send it.
_LONE_SURROGATE = re.compile(
    rb"(?<!\\)((?:\\\\)*)"
    rb"(?:(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u([dD][89a-fA-F][0-9a-fA-F]{2}))"
)


def decode_object(data: bytes, what: str = "The request body") -> Object:
    """Return the members of one JSON object.  ``what`` begins the sentence of the error.

    Raises GatewayError(INVALID_JSON), with the position where the parser stopped.
    """
    try:
        if not data.isascii():
            data.decode()
        return _object(data)
    except msgspec.ValidationError as error:
        raise GatewayError(INVALID_JSON, f"{what} must be a JSON object ({error}).") from None
    except msgspec.DecodeError as error:
        half = next((found for found in _LONE_SURROGATE.finditer(data) if found[3]), None)
        if half is not None:
            fault = f"\\u{half[3].decode()} at byte {half.start(3) - 2} is half of a surrogate pair"
            raise GatewayError(INVALID_JSON, f"{what} is not valid Unicode: {fault}.") from None
        reason = str(error).removeprefix("JSON is malformed: ")
        raise GatewayError(INVALID_JSON, f"{what} is not valid JSON: {reason}.") from None
    except UnicodeDecodeError as error:
        raise GatewayError(INVALID_JSON, f"{what} is not valid UTF-8 (byte {error.start}).") from None
    except RecursionError:
        raise GatewayError(INVALID_JSON, f"{what} is nested too deeply.") from None


def repair(data: bytes) -> bytes:
    """Return nearly valid JSON as JSON that every reader accepts: see ``mend``.  Halves of surrogate pairs become
    U+FFFD.
    """
    data = mend(data)
    if b"\n" in data and as_object(data) is None:
        data = _FOREIGN.sub(_without_line_feeds, data)
    return join_halves(data) if not data.isascii() and _HALF.search(data) else data


def mend(data: bytes) -> bytes:
    """Return ``data`` with U+FFFD for bytes that are not UTF-8, JSON's words for those of other languages, and escapes
    for control characters in strings.  Line feeds stay, because ``data`` may be several payloads.

    Halves of surrogate pairs stay apart, each as the three bytes that UTF-8 would make of it (``halves_apart``).
    """
    if not data.isascii():
        try:
            data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            data = data.decode(errors="replace").encode()
    data = halves_apart(data)
    return _FOREIGN.sub(_in_json, data) if _MAY_BE_FOREIGN.search(data) or _UNESCAPED.search(data) else data


# ``json.dumps`` of Python writes NaN and Infinity (log probabilities of 0), ``str`` of a dict the other words.  The
# strings are matched too, so that their content stays.  A string without an end is matched to the end of the text, so
# that this is linear.
_MAY_BE_FOREIGN = re.compile(rb"(?<![\w.])(?:nan|[+-]?inf|none|true|false|undefined)", re.IGNORECASE)
_FOREIGN = re.compile(
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
    rb"|(?<![\w.])[+-]?(nan|infinity|inf|none|true|false|undefined)(?![\w.])",
    re.IGNORECASE | re.DOTALL,
)


# In a string: characters that need an escape, and escapes that JSON does not have.
_UNESCAPED = re.compile(rb"[\x00-\x09\x0b-\x1f]|(?<!\\)((?:\\\\)*)\\'")


def _escaped(found: re.Match[bytes]) -> bytes:
    if found[1] is not None:
        return found[1] + b"'"
    return b"\\u%04x" % ord(found[0])


def _without_line_feeds(found: re.Match[bytes]) -> bytes:
    return found[0].replace(b"\n", b"\\n") if found[1] is None else found[0]


def _in_json(found: re.Match[bytes]) -> bytes:
    word = found[1]
    if word is None:
        return _UNESCAPED.sub(_escaped, found[0])
    word = word.lower()
    return word if word in (b"true", b"false") else b"null"


def halves_apart(data: bytes) -> bytes:
    """Return ``data`` with escaped halves of surrogate pairs as unique bytes.  Pairs stay escaped."""
    if b"\\ud" in data or b"\\uD" in data:
        data = _LONE_SURROGATE.sub(_as_bytes, data)
    return data


def has_halves(data: bytes) -> bool:
    return not data.isascii() and _HALF.search(data) is not None


def join_halves(data: bytes) -> bytes:
    """Return ``data`` with pairs of halves (``halves_apart``) as their characters, and single halves as U+FFFD."""
    return _HALVES.sub(_joined, data)


def split_half(data: bytes) -> tuple[bytes, bytes]:
    """Return ``data`` without the first half of a pair at its end, and that half."""
    if len(data) >= 3 and data[-3] == 0xED and 0xA0 <= data[-2] <= 0xAF:
        return data[:-3], data[-3:]
    return data, b""


_HALF = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
_HALVES = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]|\xed[\xa0-\xbf][\x80-\xbf]")


def _as_bytes(found: re.Match[bytes]) -> bytes:
    pair: bytes = found[1] + found[2] if found[2] else b""
    return pair or found[1] + chr(int(found[3], 16)).encode("utf-8", "surrogatepass")


def _joined(found: re.Match[bytes]) -> bytes:
    halves = found[0].decode("utf-8", "surrogatepass")
    if len(halves) == 1:
        return b"\\ufffd"
    return halves.encode("utf-16", "surrogatepass").decode("utf-16").encode()


def object_length(data: memoryview) -> int | None:
    """Return the length of the JSON object that ``data`` begins with; None if no bytes follow it, or if it is none."""
    try:
        _object(data)
    except msgspec.DecodeError as error:
        found = _BEHIND.search(str(error))
        return int(found[1]) - 1 if found is not None else None  # msgspec counts from 1
    except (UnicodeDecodeError, RecursionError):
        return None
    return None


_BEHIND = re.compile(r"trailing characters \(byte (\d+)\)")


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


def as_any(raw: Raw | bytes | None) -> object:
    """Return any value, decoded to its last member; None if it cannot be read."""
    return _read(_any, raw)


def as_list(raw: Raw | bytes | None) -> list[Raw] | None:
    return _read(_raws, raw)


def as_texts(raw: Raw | bytes | None) -> list[str] | None:
    return _read(_texts, raw)


def as_boolean(raw: Raw | bytes | None) -> bool | None:
    return _read(_boolean, raw)


def as_number(raw: Raw | bytes | None) -> int | float | None:
    return _read(_number, raw)


def as_integer(raw: Raw | bytes | None) -> int | None:
    """Return an integer, also from ``12.0``."""
    number = _read(_number, raw)
    if isinstance(number, float):
        return int(number) if number.is_integer() else None
    return number


def as_index(raw: Raw | bytes | None) -> int | None:
    """Return an integer, also from a string."""
    text = as_text(raw) if raw is not None and memoryview(raw)[0] == 0x22 else None
    return as_integer(text.encode() if text is not None else raw)


def is_json(data: bytes) -> bool:
    return _read(_any, data) is not None or data.strip() == NULL


def are_alike(one: str, other: str) -> bool:
    """True if both are JSON of the same value."""
    first, second = (_read(_any, text.encode("utf-8", "replace")) for text in (one, other))
    return first is not None and first == second


def repaired(raw: Raw | None) -> Raw | None:
    """Return a value without halves of surrogate pairs, so that it can be read."""
    return Raw(join_halves(bytes(raw))) if raw is not None and has_halves(bytes(raw)) else raw


def canonical(raw: Raw | bytes) -> bytes:
    """Return a value with its members in order and without white space.  Numbers keep all of their digits.  A value
    that cannot be read is returned as it is.
    """
    try:
        return _sorted(_exact(raw))
    except (*_UNREADABLE, ArithmeticError):  # the last: an exponent that is out of Decimal's range
        return bytes(raw)


def is_null(raw: Raw | None) -> bool:
    """True for a missing member and for ``null``."""
    return raw is None or raw == NULL


def raw(value: object) -> Raw:
    """Return any plain value as JSON."""
    return Raw(encode(value))


def _read(decode: Callable[[Raw | bytes], T], data: Raw | bytes | None) -> T | None:
    if data is None:
        return None
    try:
        return decode(data)
    except _UNREADABLE:
        return None
