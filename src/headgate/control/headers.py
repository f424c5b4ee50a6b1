"""The values of a provider's extra headers: secrets, unless its preset's row (which anybody can read) says the same.

Takes them out of what travels in Snapshots, is written to disk and shown; they go where keys go.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from headgate.control.objects import Objects, ProviderBody, StoredProvider
from headgate.model import Provider
from headgate.providers import Row
from headgate.wire.signing import header_secret

Seal = Callable[[str, str], bytes]


def secrets_of(provider: Provider, rows: Mapping[str, Row]) -> dict[str, str]:
    """The values of its headers that are secrets, by ``header_secret``."""
    return {header_secret(provider.name, name): value for name, value in _own(provider.preset, provider.headers, rows)}


def without_secrets(provider: Provider, rows: Mapping[str, Row]) -> Provider:
    """The same provider with names in their place."""
    own = dict(_own(provider.preset, provider.headers, rows))
    return replace(provider, headers={**provider.headers, **dict.fromkeys(own, "")}) if own else provider


def sealed(name: str, body: ProviderBody, rows: Mapping[str, Row], seal: Seal) -> ProviderBody:
    """A body for the store: secrets are sealed as accounts are.  Raises OSError."""
    own = dict(_own(body.preset, body.headers or {}, rows))
    if not own:
        return body
    kept = {header: blob for header, blob in body.sealed_headers.items() if header in (body.headers or {})}
    fresh = {header: seal(header_secret(name, header), value) for header, value in own.items()}
    return replace(body, headers={**(body.headers or {}), **dict.fromkeys(own, "")}, sealed_headers={**kept, **fresh})


def all_sealed(objects: Objects, rows: Mapping[str, Row], seal: Seal) -> Objects:
    """Stored objects as an earlier release left them, with nothing in the clear."""
    providers = {
        name: StoredProvider(kept.created_at, kept.updated_at, sealed(name, kept.body, rows, seal))
        for name, kept in objects.providers.items()
    }
    return Objects(providers, objects.accounts, objects.aliases, objects.models)


def sealed_secrets(objects: Objects) -> dict[str, bytes]:
    """What is sealed in the store beside accounts, by ``header_secret``."""
    return {
        header_secret(name, header): blob
        for name, kept in objects.providers.items()
        for header, blob in kept.body.sealed_headers.items()
    }


def all_sealed_blobs(objects: Objects) -> list[bytes]:
    """Everything in the store that the vault's key has sealed."""
    return [*(account.sealed for account in objects.accounts.values()), *sealed_secrets(objects).values()]


def _own(preset: str | None, headers: Mapping[str, str], rows: Mapping[str, Row]) -> list[tuple[str, str]]:
    row = rows.get(preset or "")
    public = {name.lower(): value for name, value in row.headers.items()} if row else {}
    return [(name, value) for name, value in headers.items() if value and public.get(name.lower()) != value]
