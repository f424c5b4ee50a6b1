"""The values of a stored provider's extra headers, sealed like keys.  Pure; which values are secrets:
``header_secrets``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from headgate.catalog.presets import Row
from headgate.control.objects.registry import Objects, StoredProvider
from headgate.resources.header_secrets import own
from headgate.resources.provider import ProviderBody
from headgate.wire.signing import header_secret

Seal = Callable[[str, str], bytes]


def sealed(name: str, body: ProviderBody, rows: Mapping[str, Row], seal: Seal) -> ProviderBody:
    """A body for the store: secrets are sealed as accounts are.  Raises statedir.StateError."""
    secret = dict(own(body.preset, body.headers or {}, rows))
    if not secret:
        return body
    kept = {header: blob for header, blob in body.sealed_headers.items() if header in (body.headers or {})}
    fresh = {header: seal(header_secret(name, header), value) for header, value in secret.items()}
    headers = {**(body.headers or {}), **dict.fromkeys(secret, "")}
    return body.model_copy(update={"headers": headers, "sealed_headers": {**kept, **fresh}})


def all_sealed(objects: Objects, rows: Mapping[str, Row], seal: Seal) -> Objects:
    """Stored objects as an earlier release left them, with nothing in the clear."""
    providers = {
        name: StoredProvider(kept.created_at, kept.updated_at, sealed(name, kept.body, rows, seal))
        for name, kept in objects.providers.items()
    }
    return replace(objects, providers=providers)


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
