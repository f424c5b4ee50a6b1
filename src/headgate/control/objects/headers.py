"""What the vault has sealed among stored objects: accounts' keys, and the values of providers' extra headers.  Pure.

Which values of headers are secrets: ``header_secrets``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from headgate.catalog.presets import Row
from headgate.control.identity.vault import ACCOUNT, HEADER
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
    """Everything in the store that the vault has sealed."""
    return [blob for _purpose, _row, blob in everything(objects)]


def everything(objects: Objects) -> Iterator[tuple[str, str, bytes]]:
    """Everything that the vault has sealed: its purpose, the id of its row, and itself."""
    for ident, account in objects.accounts.items():
        yield ACCOUNT, ident, account.sealed
    for ident, blob in sealed_secrets(objects).items():
        yield HEADER, ident, blob


def with_blobs(objects: Objects, fresh: Mapping[tuple[str, str], bytes]) -> Objects:
    """The same objects with other seals, by purpose and id of the row."""
    accounts = {
        ident: replace(account, sealed=fresh.get((ACCOUNT, ident), account.sealed))
        for ident, account in objects.accounts.items()
    }
    providers = {}
    for name, kept in objects.providers.items():
        blobs = {
            header: fresh.get((HEADER, header_secret(name, header)), blob)
            for header, blob in kept.body.sealed_headers.items()
        }
        if blobs != kept.body.sealed_headers:
            kept = replace(kept, body=kept.body.model_copy(update={"sealed_headers": blobs}))
        providers[name] = kept
    return replace(objects, accounts=accounts, providers=providers)
