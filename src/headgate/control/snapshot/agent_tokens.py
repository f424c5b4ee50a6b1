"""Agent tokens as the operator changes them: first in the store, then at every data process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.identity import tokens
from headgate.control.identity.tokens import Minted, Stored
from headgate.control.objects import holders, named
from headgate.control.refusals import MANAGED_BY_FILE, TOKEN_NOT_FOUND
from headgate.control.snapshot import children
from headgate.control.snapshot.publication import Publication
from headgate.errors import GatewayError
from headgate.model import Grant
from headgate.process.credentials import fresh_id
from headgate.resources.callers.token import ChildWish


class AgentTokens:
    """``key``: the instance's, which digests are made with."""

    def __init__(self, publication: Publication, engine: AsyncEngine, key: bytes) -> None:
        self._publication = publication
        self._engine = engine
        self._key = key

    async def create(self, wish: Grant, form: str = "pat") -> tuple[Minted, bool]:
        """A new token, and whether it is effective.  Raises GatewayError (its name is taken, its tenant is not there),
        SQLAlchemyError.
        """
        async with self._publication.turn():
            holders.existing_tenant(wish.tenant, self._publication.sources)
            generation, minted = await self._add(wish, form)
        return minted, await self._publication.effective(generation)

    async def create_child(self, parent: str, wish: ChildWish) -> tuple[Minted, bool]:
        """A new token within the token ``parent``, for its holder, and whether it is effective.  Raises GatewayError,
        SQLAlchemyError.
        """
        async with self._publication.turn():
            holder, now = self._holder(parent), time.time()
            siblings = await tokens.children(self._engine, parent)
            for one in siblings:
                if one.grant.expires is not None and one.grant.expires <= now:
                    await self._drop(one.grant.id)
            good = [one.grant for one in siblings if one.grant.id in {grant.id for grant in self.all()}]
            child = children.wished(wish, holder, good, f"{holder.name}/{wish.name or fresh_id()}", now)
            named.models(set(child.models) - set(holder.models), self._publication.snapshot)
            generation, minted = await self._add(child, "pat")
        return minted, await self._publication.effective(generation)

    async def children(self, parent: str) -> list[Stored]:
        """The children of a token.  Raises SQLAlchemyError."""
        return await tokens.children(self._engine, parent)

    async def revoke_child(self, parent: str, ident: str) -> bool:
        """End a child of ``parent``; whether every connected data process refuses it now.  Raises GatewayError (404),
        SQLAlchemyError.
        """
        if not any(one.grant.id == ident for one in await self.children(parent)):
            raise GatewayError(TOKEN_NOT_FOUND, f"This API key has no child {ident!r}.")
        return (await self.revoke(ident))[1]

    def _holder(self, ident: str) -> Grant:
        """The token as data knows it."""
        found = [grant for grant in self._publication.snapshot.tokens.values() if grant.id == ident]
        if not found:
            raise GatewayError(TOKEN_NOT_FOUND, "This API key is not in use any more.")
        return max(found, key=lambda grant: float("inf") if grant.expires is None else grant.expires)

    async def _add(self, wish: Grant, form: str) -> tuple[int, Minted]:
        named.free_name(wish.name, self.all())
        minted = await tokens.create(self._engine, self._key, wish, form)
        self._publication.tokens[minted.digest] = minted.grant
        return await self._publication.publish_tokens(), minted

    async def _drop(self, ident: str) -> bool:
        """Without a token and its children.  False where the store has none of this id that is good."""
        found = await tokens.revoke(self._engine, ident)
        if found:
            self._publication.tokens = self._others(ident)
        return found

    async def revoke(self, wanted: str) -> tuple[str, bool]:
        """The id of the token with this id or name, and whether every connected data process refuses it now.  Raises
        GatewayError, SQLAlchemyError.
        """
        async with self._publication.turn():
            ident = named.token_id(wanted, self.all())
            # A token of the store first: a file-declared one may bear the same id and must not shield it
            if not await self._drop(ident):
                self._refuse(ident)
            generation = await self._publication.publish_tokens()
        return ident, await self._publication.effective(generation)

    async def edit(self, wanted: str, edit: Callable[[Grant], Grant]) -> tuple[Stored, bool]:
        """A token that may do something else.  Raises GatewayError, SQLAlchemyError."""
        async with self._publication.turn():
            ident = named.token_id(wanted, self.all())
            entry = await self._good(ident)
            grant = edit(entry.grant)
            if grant.tenant != entry.grant.tenant:
                holders.existing_tenant(grant.tenant, self._publication.sources)
            if grant.name != entry.grant.name:
                named.free_name(grant.name, self.all(), ident)
            await tokens.edit(self._engine, grant, entry.form)
            await self._renew(ident)
            generation = await self._publication.publish_tokens()
        return replace(entry, grant=grant), await self._publication.effective(generation)

    async def rotate(self, wanted: str, overlap_s: float) -> tuple[Minted, float | None, bool]:
        """A new secret for a token, until when the former one is good beside it (Unix seconds), and whether that is
        effective.  Raises GatewayError, SQLAlchemyError.
        """
        async with self._publication.turn():
            ident = named.token_id(wanted, self.all())
            minted, until = await tokens.rotate(self._engine, self._key, await self._good(ident), overlap_s)
            await self._renew(ident)
            generation = await self._publication.publish_tokens()
        return minted, until, await self._publication.effective(generation)

    async def _renew(self, ident: str) -> None:
        self._publication.tokens = {**self._others(ident), **await tokens.grants(self._engine, ident)}

    def _others(self, ident: str) -> dict[bytes, Grant]:
        """Every token of the store but this one and its children."""
        found = self._publication.tokens.items()
        return {digest: grant for digest, grant in found if ident not in (grant.id, grant.parent)}

    async def _good(self, ident: str) -> Stored:
        entry = await tokens.one(self._engine, ident)
        if entry is None or entry.revoked_at is not None:
            self._refuse(ident)
        assert entry is not None
        return entry

    def _refuse(self, ident: str) -> None:
        if any(grant.id == ident for grant in self.of_file()):
            raise GatewayError(
                MANAGED_BY_FILE,
                f"The token {ident!r} is declared in the configuration file: change it there and reload.",
            )
        raise GatewayError(TOKEN_NOT_FOUND, f"There is no token {ident!r} that is in use.")

    def of_file(self) -> list[Grant]:
        return list(self._publication.sources.compiled.tokens.values())

    def all(self) -> list[Grant]:
        """Every token that is good, those of the store first.  One that was rotated may stand there twice."""
        return [*self._publication.tokens.values(), *self.of_file()]
