"""The values of a provider's extra headers: secrets, unless its preset's row (which anybody can read) says the same.

Takes them out of what travels in Snapshots, is written to disk and shown; they go where keys go.  Pure, and without the
store: the settings are read by processes that do without it.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from headgate.catalog.presets import Row
from headgate.model import Provider
from headgate.wire.signing import header_secret


def secrets_of(provider: Provider, rows: Mapping[str, Row]) -> dict[str, str]:
    """The values of its headers that are secrets, by ``header_secret``."""
    return {header_secret(provider.name, name): value for name, value in own(provider.preset, provider.headers, rows)}


def without_secrets(provider: Provider, rows: Mapping[str, Row]) -> Provider:
    """The same provider with names in their place."""
    secret = dict(own(provider.preset, provider.headers, rows))
    return replace(provider, headers={**provider.headers, **dict.fromkeys(secret, "")}) if secret else provider


def own(preset: str | None, headers: Mapping[str, str], rows: Mapping[str, Row]) -> list[tuple[str, str]]:
    """Names and values of the headers that are secrets."""
    row = rows.get(preset or "")
    public = {name.lower(): value for name, value in row.headers.items()} if row else {}
    return [(name, value) for name, value in headers.items() if value and public.get(name.lower()) != value]
