"""(how a provider authenticates, its key) → what the request head needs.

The one place where a provider's key becomes bytes; ``serving.transport`` and ``control.check`` import it.
"""

from __future__ import annotations

from urllib.parse import quote


def credential(auth: str, key: str) -> tuple[bytes, str]:
    """The header lines and the query string (``""`` or ``name=value``) that carry ``key``.

    Raises ValueError for a scheme that is not served, and for a key that could end a header line.
    """
    if not key.isprintable() or not key.isascii():
        raise ValueError("a provider key holds characters that a header cannot carry")
    match auth:
        case "none":
            return b"", ""
        case "bearer":
            return b"Authorization: Bearer " + key.encode() + b"\r\n", ""
        case "x-api-key" | "api-key":
            return auth.encode() + b": " + key.encode() + b"\r\n", ""
        case "query":
            return b"", "key=" + quote(key, safe="")
        case _:
            raise ValueError(f"authentication scheme {auth!r} is not served")
