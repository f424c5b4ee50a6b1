"""(a provider's authentication scheme, its key) → the lines of the request head.

The one place where a provider's key becomes bytes; ``serving.transport`` and ``control.check`` import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

SHORTEST = 6  # characters of a header's value that is removed from texts: shorter values are ordinary words


def credential(auth: str, key: str) -> tuple[bytes, str]:
    """Return the header lines and the query string (``""`` or ``name=value``) that contain ``key``.

    Raises ValueError for a scheme that is not served, and for a key that could end a header line.
    """
    if not key.isprintable() or not key.isascii():
        raise ValueError("a provider key holds characters that a header cannot carry")
    match auth:
        case "none":
            return b"", ""
        case "bearer":
            return b"Authorization: Bearer " + key.encode() + b"\r\n", ""
        case "x-api-key" | "api-key" | "x-goog-api-key":
            return auth.encode() + b": " + key.encode() + b"\r\n", ""
        case "query":
            return b"", "key=" + quote(key, safe="")
        case _:
            raise ValueError(f"authentication scheme {auth!r} is not served")


def header_secret(provider: str, name: str) -> str:
    """Return the id of a provider's header value in Secrets.  It has a colon, which no account's label contains."""
    return f"{provider}/header:{name.lower()}"


def header_values(provider: str, headers: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str] | None:
    """Return a provider's headers with their values; empty ones come from ``secrets``.  None if one is missing."""
    found = {name: value or secrets.get(header_secret(provider, name)) for name, value in headers.items()}
    known = {name: value for name, value in found.items() if value is not None}
    return known if len(known) == len(found) else None


def hidden_values(provider: str, headers: Mapping[str, str], secrets: Mapping[str, str]) -> tuple[str, ...]:
    """Return the texts to remove from foreign texts, so that a provider's secret headers stay secret: each value, and
    its part after a scheme (``Bearer …``).  Longest first.
    """
    values = [secrets.get(header_secret(provider, name), "") for name, value in headers.items() if not value]
    found = {part for value in values for part in (value, value.partition(" ")[2]) if len(part) >= SHORTEST}
    return tuple(sorted(found, key=len, reverse=True))
