"""What the data processes are told, and when: the file and the store come together here.

Owns the current Snapshot, its generation (which increases for ever), and the order of changes: one at a time, first
the store, then the channel.  Waiting for acks is outside of that order, so that one stuck worker delays nobody else's
change.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.channel import Secrets
from headgate.control import tokens
from headgate.control.link import Link
from headgate.control.snapshot import Compiled, compose, difference, same
from headgate.control.store import read_meta, write_meta
from headgate.control.tokens import Minted
from headgate.model import Grant, Snapshot

log = structlog.get_logger("headgate.publication")


class ManagedByFile(Exception):
    """What the file declares is changed in the file."""


class NoSuchToken(Exception):
    """No good token has this id."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """``changed``: something differs.  ``effective``: every connected data process serves with it.
    ``needs_restart``: changed keys that only a restart applies.
    """

    generation: int
    changed: bool
    effective: bool
    needs_restart: tuple[str, ...] = ()


class Publication:
    """See ``link.Source``.  ``begin`` first; then ``link`` is set.  ``reloaded`` is called after a reload that changed
    something.
    """

    def __init__(
        self, engine: AsyncEngine, key: bytes, load: Callable[[], Compiled], reloaded: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._key = key
        self._load = load
        self._reloaded = reloaded
        self._order = asyncio.Lock()
        self._stored: dict[bytes, Grant] = {}
        self._compiled: Compiled
        self.snapshot = Snapshot()
        self.reload_error: str | None = None
        self.reloaded_at = 0.0  # Unix seconds
        self.link: Link

    @property
    def secrets(self) -> Mapping[str, str]:
        return self._compiled.secrets

    async def begin(self, compiled: Compiled) -> None:
        """Composes the first Snapshot of this life of control.  Raises SQLAlchemyError."""
        self._compiled = compiled
        self._stored = dict(await tokens.grants(self._engine))
        self.reloaded_at = time.time()
        self.snapshot = compose(await self._next_generation(), compiled, self._stored)

    async def _next_generation(self) -> int:
        """Persisted before anybody is told.  Starts at the time in ms, so that a store that was thrown away and made
        anew still gives higher numbers than a data process may hold on disk.
        """
        async with self._engine.begin() as connection:
            last = int(await read_meta(connection, "generation") or 0)
            generation = max(last + 1, int(time.time() * 1000))
            await write_meta(self._engine, connection, "generation", str(generation))
        return generation

    async def create(self, wish: Grant) -> tuple[Minted, bool]:
        """A new token, and whether it is effective.  Raises SQLAlchemyError."""
        async with self._order:
            minted = await tokens.create(self._engine, self._key, wish)
            self._stored[minted.digest] = minted.grant
            generation = await self._publish()
        return minted, await self.link.effective(generation)

    async def revoke(self, ident: str) -> bool:
        """True where every connected data process refuses the token now.  Raises ManagedByFile, NoSuchToken,
        SQLAlchemyError.
        """
        async with self._order:
            # A token of the store first: a file-declared one may bear the same id and must not shield it
            if not await tokens.revoke(self._engine, ident):
                if any(grant.id == ident for grant in self._compiled.tokens.values()):
                    raise ManagedByFile(ident)
                raise NoSuchToken(ident)
            self._stored = {digest: grant for digest, grant in self._stored.items() if grant.id != ident}
            generation = await self._publish()
        return await self.link.effective(generation)

    @property
    def needs_restart(self) -> tuple[str, ...]:
        """Keys that the file gives another value than the running processes were started with."""
        return self._compiled.needs_restart

    def file_tokens(self) -> list[Grant]:
        return list(self._compiled.tokens.values())

    async def reload(self) -> Reloaded:
        """Reads the file again.  Raises ValueError or OSError with a sentence where it is bad: the last good one
        stays.
        """
        async with self._order:
            try:
                compiled = await asyncio.to_thread(self._load)
            except (ValueError, OSError) as error:
                if self.reload_error != str(error):
                    log.error("the configuration was not reloaded; the last good one stays", error=str(error))
                self.reload_error = str(error)
                raise
            self.reload_error = None
            self.reloaded_at = time.time()
            new_secrets = compiled.secrets != self._compiled.secrets
            if compiled.needs_restart and compiled.needs_restart != self._compiled.needs_restart:
                log.warning("these changed keys need a restart", keys=", ".join(compiled.needs_restart))
            self._compiled = compiled
            if new_secrets:  # before the Snapshot that names their accounts
                self.link.tell(Secrets(compiled.secrets))
            changed = not same(self.snapshot, compose(0, compiled, self._stored))
            generation = await self._publish() if changed else self.snapshot.generation
        if changed or new_secrets:
            log.info("configuration reloaded", generation=generation)
            self._reloaded()
        effective = await self.link.effective(generation)
        return Reloaded(generation, changed or new_secrets, effective, compiled.needs_restart)

    async def _publish(self) -> int:
        old = self.snapshot
        self.snapshot = compose(await self._next_generation(), self._compiled, self._stored)
        self.link.send_patch(difference(old, self.snapshot))
        return self.snapshot.generation
