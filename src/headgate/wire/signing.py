"""(a provider's authentication scheme, its key) → the lines of the request head.

The one place where a provider's key becomes bytes; ``serving.transport`` and ``control.check`` import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

SHORTEST = 6  # of a header's value that is taken out of texts: shorter ones are words like any other


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


def header_secret(provider: str, name: str) -> str:
    """The id under which Secrets hold the value of a provider's header; no account's label has a colon."""
    return f"{provider}/header:{name.lower()}"


def header_values(provider: str, headers: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str] | None:
    """A provider's headers with their values; one that stands empty is among ``secrets``.  None: one is not known."""
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
