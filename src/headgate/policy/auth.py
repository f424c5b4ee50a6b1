"""Authenticate a caller: find the Grant of a token by its digest, in one look-up for any token."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from headgate.errors import EXPIRED_KEY, INVALID_KEY, MISSING_KEY, SCOPE_MISSING, TOKEN_FORMAT, GatewayError
from headgate.model import Grant

MAX_TOKEN = 1024


class Digester:
    """HMAC-SHA256 (RFC 2104) under one key, with the key's two blocks hashed beforehand: 1.0 instead of 1.7 µs a
    token.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def __call__(self, token: bytes) -> bytes:
        inner = self._inner.copy()
        inner.update(token)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


def digest(key: bytes, token: bytes) -> bytes:
    """Return the HMAC-SHA256 of a whole token under the instance key.  It is stored instead of the token."""
    return Digester(key)(token)


def check(
    headers: Mapping[bytes, bytes],
    tokens: Mapping[bytes, Grant],
    digester: Digester,
    now: float,
    scope: str | None = "gate:chat",
) -> Grant:
    """Return the Grant of ``Authorization: Bearer``, ``x-api-key`` or ``x-goog-api-key``; of two tokens, that of the
    first known one.

    ``now`` is Unix seconds.  ``scope`` None accepts every known token.  The time of the look-up reveals no token: it
    compares digests under a key that the caller does not know.
    Raises GatewayError: 401 for an unknown or expired token, 403 for one without the scope.
    """
    header = headers.get(b"authorization", b"")
    token = header[7:].strip() if header[:7].lower() == b"bearer " else b""
    grant = tokens.get(digester(token)) if len(token) <= MAX_TOKEN else None
    if grant is None:
        key, other = headers.get(b"x-api-key"), headers.get(b"x-goog-api-key")
        if other is not None and (key is None or digester(key.strip()[:MAX_TOKEN]) not in tokens):
            key = other
        grant = _by_key(key, header, token, tokens, digester)
    if grant.expires is not None and grant.expires <= now:
        raise GatewayError(EXPIRED_KEY, f"the API key {grant.name!r} has expired; ask for a new one")
    if scope is not None and scope not in grant.scopes:
        raise GatewayError(SCOPE_MISSING, f"the API key {grant.name!r} lacks the scope {scope}")
    return grant


def carried(headers: Mapping[bytes, bytes]) -> bool:
    """True if the request has a token, valid or not."""
    return b"authorization" in headers or b"x-api-key" in headers or b"x-goog-api-key" in headers


def _by_key(key: bytes | None, header: bytes, token: bytes, tokens: Mapping[bytes, Grant], digester: Digester) -> Grant:
    """Return the Grant of ``x-api-key``, after Authorization (``header`` and its ``token``) was unknown."""
    if key is not None:
        key = key.strip()
        grant = tokens.get(digester(key)) if len(key) <= MAX_TOKEN else None
        if grant is not None:
            return grant
    elif not header:
        raise GatewayError(MISSING_KEY, "no API key: send the header Authorization: Bearer <token>, or x-api-key")
    if _is_token(token) or (key is not None and _is_token(key)):
        raise GatewayError(INVALID_KEY, "this API key is not known here; `headgate token list` shows which are")
    wrong = "the Authorization header is not of the form: Bearer <token>" if header else "x-api-key has no token"
    raise GatewayError(TOKEN_FORMAT, wrong)


def _is_token(token: bytes) -> bool:
    return 0 < len(token) <= MAX_TOKEN and token.isascii() and token.decode("ascii").isprintable()
