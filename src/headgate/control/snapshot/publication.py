"""What the data processes are told, and when: sources in, a Snapshot out.

Owns the current Snapshot, its generation (which increases for ever), and the order of changes: one at a time, first
the store, then the channel.  Waiting for acks is outside of that order, so that one stuck worker delays nobody else's
change.  What takes time (composing, comparing) is done in a thread.

``begin`` composes what is known at once: file, environment, store.  ``upkeep`` adds what has to be looked for,
``agent_tokens`` changes the tokens, ``change`` the other objects of the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.audit.chain import Change
from headgate.control.identity import tokens
from headgate.control.objects import registry
from headgate.control.objects.assemble import Sources, assemble
from headgate.control.objects.registry import Objects
from headgate.control.snapshot.compose import compose, difference, same, world_of
from headgate.control.snapshot.keyring import Keyring
from headgate.control.store.database import read_meta, write_meta
from headgate.errors import CONTROL_AWAY, GatewayError
from headgate.model import Grant, Snapshot
from headgate.process.channel import Down, Patch, Secrets, Uses
from headgate.resources.compiled import Compiled

PATIENCE_S = 5.0
T = TypeVar("T")


class Audience(Protocol):
    """Who is told: the link's data processes, or nobody while nothing runs."""

    def tell(self, message: Down) -> None: ...

    def send_patch(self, patch: Patch | None) -> None: ...

    def release(self) -> None: ...

    async def effective(self, generation: int) -> bool: ...


class Publication:
    """See ``hub.Source``.  ``begin`` first; then ``link`` is set.  ``tokens``: the store's, by digest."""

    def __init__(self, engine: AsyncEngine, keyring: Keyring, stored: Objects) -> None:
        self._engine = engine
        self._order = asyncio.Lock()
        self._begun = stored
        self.keyring = keyring
        self.behind = False  # a change was written and could not be told
        self.sources: Sources
        self.tokens: dict[bytes, Grant] = {}
        self.snapshot = Snapshot()
        self.secrets: Mapping[str, str] = {}
        self.uses = Uses({}, {})
        self.inherited = 0  # the last generation of the life before this one
        self.settled = False
        self.link: Audience

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One change at a time.  Raises GatewayError (503) where the ones before it take too long: a store that is
        blocked must not pile up those who wait.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._order.acquire()
        except TimeoutError:
            raise GatewayError(CONTROL_AWAY, "The store is busy with other changes; try again.") from None
        try:
            yield
        finally:
            self._order.release()

    async def begin(self, compiled: Compiled) -> None:
        """Composes the first Snapshot of this life of control.  Raises SQLAlchemyError."""
        stored = await asyncio.to_thread(self.keyring.begun, self._begun, compiled)
        if stored != self._begun:
            await registry.save(self._engine, self._begun, stored)
        self.sources = Sources(compiled, stored, environ=os.environ)
        self.tokens = dict(await tokens.grants(self._engine))
        self.secrets = self.keyring.secrets(self.sources)
        async with self._engine.connect() as connection:
            self.inherited = int(await read_meta(connection, "generation") or 0)
        self.snapshot = await asyncio.to_thread(self._composed, await self._next_generation())

    def settle(self) -> None:
        """All that is looked for has been found: who waits for this Snapshot may have it."""
        self.settled = True
        self.link.release()

    def tell_uses(self, uses: Uses) -> None:
        """Keep the uses of 30 days, and tell everybody."""
        self.uses = uses
        self.link.tell(uses)

    async def effective(self, generation: int) -> bool:
        """True once every connected data process serves with it."""
        return await self.link.effective(generation)

    async def change(self, alter: Callable[[Sources], tuple[Objects, T]]) -> tuple[T, bool]:
        """Judges, writes and publishes one change of stored objects: what ``alter`` returns beside them, and whether
        it is effective.  Raises what ``alter`` raises (GatewayError), SQLAlchemyError, OSError.
        """
        async with self.turn():
            before = self.sources.objects
            after, made = await asyncio.to_thread(alter, self.sources)
            await registry.save(self._engine, before, after)
            self.sources = replace(self.sources, objects=after)
            generation = await self.publish()
        return made, await self.effective(generation)

    async def rewrite(self, alter: Callable[[Objects], tuple[Objects, T]]) -> T:
        """Writes stored objects that say the same as before, so no data process is told.  Raises SQLAlchemyError,
        GatewayError (503).
        """
        async with self.turn():
            before = self.sources.objects
            after, made = await asyncio.to_thread(alter, before)
            await registry.save(self._engine, before, after, [Change("vault", "", "resealed")])
            self.sources = replace(self.sources, objects=after)
        return made

    def _composed(self, generation: int) -> Snapshot:
        sources = self.sources
        return compose(generation, replace(sources.compiled, world=assemble(sources)), self.tokens)

    async def publish_changes(self) -> int:
        """What differs now, where something does; and what could not be told before."""
        async with self.turn():
            return await self.publish(unless_same=True)

    async def publish(self, unless_same: bool = False) -> int:
        """Composes everything anew and tells what differs.  Returns the generation that now holds."""
        self.behind = True
        old, former = self.snapshot, self.secrets
        self.secrets = self.keyring.secrets(self.sources)
        if former != self.secrets:  # before the Snapshot that names their accounts
            self.link.tell(Secrets({**former, **self.secrets}))
        draft, patch, unchanged = await asyncio.to_thread(self._compared, old)
        generation = old.generation if unchanged and unless_same else await self._tell(draft, patch)
        if former.keys() - self.secrets.keys():  # and behind the one that names them no more
            self.link.tell(Secrets(self.secrets))
        self.behind = False
        return generation

    def _compared(self, old: Snapshot) -> tuple[Snapshot, Patch | None, bool]:
        draft = self._composed(0)
        return draft, difference(old, draft), same(old, draft)

    async def publish_tokens(self) -> int:
        """As ``publish`` where nothing but tokens changed."""
        behind, self.behind = self.behind, True
        world = replace(self.sources.compiled, world=world_of(self.snapshot))
        draft = compose(0, world, self.tokens)
        generation = await self._tell(draft, await asyncio.to_thread(difference, self.snapshot, draft))
        self.behind = behind
        return generation

    async def _tell(self, draft: Snapshot, patch: Patch | None) -> int:
        generation = await self._next_generation()
        self.snapshot = msgspec.structs.replace(draft, generation=generation)
        self.link.send_patch(patch and msgspec.structs.replace(patch, generation=generation))
        return generation

    async def _next_generation(self) -> int:
        """Persisted before anybody is told.  Starts at the time in ms, so that a store that was thrown away and made
        anew still gives higher numbers than a data process may hold on disk.
        """
        async with self._engine.begin() as connection:
            last = int(await read_meta(connection, "generation") or 0)
            generation = max(last + 1, int(time.time() * 1000))
            await write_meta(self._engine, connection, "generation", str(generation))
        return generation
