"""What the configuration file and the environment change, for the audit log.

The store remembers the file as it was when it was last read, without secrets: a secret is a keyed digest there, so that
a new one is noticed, also between two lives of the gateway.  The rows say only that it changed.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.audit.chain import FILE, Change, changed_secret, changing, differences, record
from headgate.control.store.database import read_meta, write_meta
from headgate.model import Provider
from headgate.process.boot import WebhookSettings
from headgate.resources.callers.prompt import outline
from headgate.resources.compiled import Compiled

REMEMBERED = "audited_file"  # in the table meta
DECLARED = frozenset({"file", "environment"})
DIGEST = "secret"

Nouns = dict[str, dict[str, dict[str, Any]]]  # noun → id → description


async def record_changes(engine: AsyncEngine, compiled: Compiled, key: bytes) -> None:
    """Writes a row for each object of the file that differs from the last time.  ``key``: of the digests.  Raises
    SQLAlchemyError.
    """
    now = json.dumps(described(compiled, key), sort_keys=True, ensure_ascii=False)
    async with engine.connect() as connection:
        if await read_meta(connection, REMEMBERED) == now:
            return
    async with changing(engine) as connection:
        before: Nouns = json.loads(await read_meta(connection, REMEMBERED) or "{}")
        after: Nouns = json.loads(now)
        for noun, objects in after.items():
            for change in differences(noun, before.get(noun, {}), objects):
                await record(connection, _without_digests(change), actor=FILE)
        await write_meta(engine, connection, REMEMBERED, now)


def described(compiled: Compiled, key: bytes) -> Nouns:
    """The objects that the file and the environment declare."""
    providers = {name: one for name, one in compiled.world.providers.items() if one.origin in DECLARED}
    secrets: dict[str, list[str]] = {}
    for ident, secret in sorted(compiled.secrets.items()):
        secrets.setdefault(ident.partition("/")[0], []).append(f"{ident}={secret}")
    return {
        "provider": {name: _provider(one, _digest(key, secrets.get(name, []))) for name, one in providers.items()},
        "alias": {name: _plain(alias) for name, alias in compiled.world.aliases.items() if alias.origin in DECLARED},
        "token": {
            grant.id: {**_plain(grant), DIGEST: _digest(key, [digest.hex()])}
            for digest, grant in compiled.tokens.items()
        },
        "prompt": {key: outline(prompt) for key, prompt in compiled.world.prompts.items()},
        "webhook": {one.name: _webhook(one, key) for one in compiled.alerting.webhooks},
    }


def _provider(provider: Provider, digest: str | None) -> dict[str, Any]:
    shown = _plain(provider)
    if provider.headers:
        shown["headers"] = sorted(provider.headers)
    return shown if digest is None else {**shown, DIGEST: digest}


def _webhook(hook: WebhookSettings, key: bytes) -> dict[str, Any]:
    return {
        "host": hook.host,
        "events": list(hook.events),
        "format": hook.format,
        DIGEST: _digest(key, [hook.url, hook.key.hex()]),
    }


def _plain(noun: object) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(noun, str_keys=True)
    return {name: value for name, value in found.items() if value not in (None, [], {}, "") and name != "name"}


def _digest(key: bytes, secrets: list[str]) -> str | None:
    return hmac.digest(key, "\n".join(secrets).encode(), "sha256").hex() if secrets else None


def _without_digests(change: Change) -> Change:
    before, after = _shown(change.before), _shown(change.after)
    if change.before and change.after and after is not None and change.before.get(DIGEST) != change.after.get(DIGEST):
        after = changed_secret(after)
    return Change(change.noun, change.object, change.action, before, after)


def _shown(description: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if description is None else {name: value for name, value in description.items() if name != DIGEST}
