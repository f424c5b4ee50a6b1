"""Contributors: others who put a key into the vault by a link, and may take it out again.

The operator never sees the key; the contributor needs no account here.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import partial

from pydantic import SecretStr, ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.identity import invites
from headgate.control.identity.invites import ENTER, WITHDRAW, Invite
from headgate.control.objects import changes
from headgate.control.objects.assemble import Sources, all_providers
from headgate.control.objects.discovery.probe import try_key
from headgate.control.objects.registry import Objects
from headgate.control.refusals import INVITE_NOT_FOUND, INVITE_OVER, KEY_REFUSED, NO_PUBLIC_URL
from headgate.control.snapshot.publication import Publication
from headgate.errors import INVALID_VALUE, GatewayError
from headgate.resources import wording
from headgate.resources.account import AccountWish

PATH = "/invite/"
_OVER = {
    "used": "This link was used already. It is good for one key.",
    "withdrawn": "The key of this link was removed.",
    "revoked": "This link was revoked by those who sent it.",
    "expired": "This link has expired: it was good for 72 hours.",
}


@dataclass(frozen=True, slots=True)
class Contributed:
    """A key is stored.  ``withdrawal``: the link that removes it, shown once; ``said``: by the provider."""

    invite: Invite
    withdrawal: str
    said: str


class Contributors:
    """``public_url``: of the control plane, empty where there is none."""

    def __init__(self, publication: Publication, engine: AsyncEngine, key: bytes, public_url: str) -> None:
        self._publication = publication
        self._engine = engine
        self._key = key
        self._public_url = public_url.rstrip("/")
        self._order = asyncio.Lock()

    # ------------------------------------------------------------------------------------- for the operator

    async def create(self, provider: str, label: str | None, note: str) -> tuple[Invite, str]:
        """A new invite and its link.  Raises GatewayError, SQLAlchemyError."""
        if not self._public_url:
            raise GatewayError(
                NO_PUBLIC_URL,
                "Invites need control.public_url, the address under which contributors reach the control plane, like "
                "https://gate.example.com: set it in the configuration and restart.",
            )
        self._trial(provider, label, "sk-of-a-contributor")
        invite, token = await invites.create(self._engine, self._key, provider, label, note)
        return invite, self._link(token)

    async def every(self) -> list[Invite]:
        """The invites, the newest first."""
        return await invites.every(self._engine)

    async def revoke(self, ident: str) -> Invite:
        """Ends a link.  Raises GatewayError where there is none, or where it was used."""
        await invites.revoke(self._engine, ident)
        found = next((one for one in await self.every() if one.id == ident), None)
        if found is None:
            raise GatewayError(INVITE_NOT_FOUND, f"There is no invite {ident!r}.")
        if found.used_at is not None:
            step = f"remove the key instead: {found.account}" if found.account else "there is nothing to revoke"
            raise GatewayError(INVITE_OVER, f"The invite {ident} was used; {step}.")
        return found

    # ------------------------------------------------------------------------------------- for the contributor

    async def look(self, token: str) -> Invite:
        """The invite of a link that is good.  Raises GatewayError with a sentence for the contributor."""
        invite = await self._known(token, ENTER)
        state = invite.state(time.time_ns())
        if state in _OVER:
            raise GatewayError(INVITE_OVER, _OVER[state])
        return invite

    async def contribute(self, token: str, key: str) -> Contributed:
        """Tries the key, and stores it.  Raises GatewayError: the link is then as good as before."""
        invite = await self.look(token)
        sources, wish = self._trial(invite.provider, invite.label, key)
        provider = all_providers(sources)[invite.provider]
        account = f"{invite.provider}/{invite.label}"
        tested = await try_key(provider, account, wish.key.get_secret_value(), self._publication.secrets)
        if tested.refused:
            said = (tested.words or tested.message).rstrip(".")
            raise GatewayError(KEY_REFUSED, f"The provider refuses this key: {said}.")
        if tested.status is None:
            said = tested.message.rstrip(".")
            raise GatewayError(KEY_REFUSED, f"The key could not be tried ({said}). Try again later.")
        async with self._order:
            if not await invites.take(self._engine, invite.id):
                return await self._refused(token)
            try:
                seal = self._publication.keyring.seal
                made, _ = await self._publication.change(partial(changes.add_account, seal=seal, wish=wish))
            except BaseException:
                await asyncio.shield(invites.give_back(self._engine, invite.id))
                raise
            withdrawal = await invites.settle(self._engine, self._key, invite.id, made.id, made.created_at)
        return Contributed(invite, self._link(f"withdraw/{withdrawal}"), tested.message)

    async def look_back(self, token: str) -> Invite:
        """The invite whose key a link removes.  Raises GatewayError with a sentence for the contributor."""
        invite = await self._known(token, WITHDRAW)
        if invite.withdrawn_at is not None:
            raise GatewayError(INVITE_OVER, "The key was removed already.")
        return invite

    async def withdraw(self, token: str) -> Invite:
        """Removes the key for good.  Raises GatewayError."""
        invite = await self.look_back(token)
        await self._publication.change(partial(_without, invite))
        await invites.withdraw(self._engine, invite.id)
        return invite

    async def _known(self, token: str, purpose: str) -> Invite:
        invite = await invites.of_token(self._engine, self._key, token, purpose)
        if invite is None:
            raise GatewayError(INVITE_NOT_FOUND, "This link is not known here. Is it complete?")
        return invite

    async def _refused(self, token: str) -> Contributed:
        await self.look(token)
        raise GatewayError(INVITE_OVER, _OVER["used"])

    def _trial(self, provider: str, label: str | None, key: str) -> tuple[Sources, AccountWish]:
        """The sources with a key that is not stored.  Raises GatewayError where it could not be."""
        try:
            wish = AccountWish(provider=provider, label=label, key=SecretStr(key))
        except ValidationError as error:
            wrong = wording.phrase(error.errors()[0])
            raise GatewayError(INVALID_VALUE, f"This cannot be a key: it {wrong}.") from None
        sources = self._publication.sources
        return replace(sources, objects=changes.add_account(sources, lambda _row, _key: b"", wish)[0]), wish

    def _link(self, token: str) -> str:
        return f"{self._public_url}{PATH}{token}"


def _without(invite: Invite, sources: Sources) -> tuple[Objects, None]:
    """Without the contributed key; where the operator has removed it, or has another one of its name, as it is."""
    account = sources.objects.accounts.get(invite.account or "")
    if account is None or account.created_at != invite.account_at:
        return sources.objects, None
    return changes.drop_account(sources, account.id), None
