"""What an operator does with the vault as a whole: look after it, change its keys, take it elsewhere.

Nothing here ever returns a provider's key, but sealed under a passphrase.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import stat
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import SecretStr, ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.identity import vault_file
from headgate.control.identity.vault import ACCOUNT, Vault, key_of
from headgate.control.identity.vault_file import BadFile, ExportedKey
from headgate.control.objects import changes
from headgate.control.objects.assemble import Sources, problem_of_account
from headgate.control.objects.headers import all_sealed_blobs, everything
from headgate.control.objects.registry import Objects
from headgate.control.refusals import ALREADY_EXISTS
from headgate.control.snapshot.publication import Publication
from headgate.errors import INVALID_VALUE, GatewayError
from headgate.resources.account import AccountTerms, AccountWish

PRIVATE = 0o077  # what others may do: nothing


@dataclass(frozen=True, slots=True)
class VaultFinding:
    """``subject``: an account, a data key or a file."""

    mark: Literal["good", "warning", "bad"]
    subject: str
    sentence: str


@dataclass(frozen=True, slots=True)
class ResealedBatch:
    """``resealed`` now, ``left`` for the next batch; ``damaged``: secrets that do not open, under any key."""

    key: str
    resealed: int
    left: int
    damaged: int


@dataclass(frozen=True, slots=True)
class Imported:
    """Ids of accounts.  ``refused``: with the reason."""

    stored: tuple[str, ...]
    there: tuple[str, ...]
    refused: Mapping[str, str]


class VaultKeys:
    """On one store."""

    def __init__(self, publication: Publication, engine: AsyncEngine, state: Path) -> None:
        self._publication = publication
        self._engine = engine
        self._state = state
        self._order = asyncio.Lock()  # keys change one at a time

    @property
    def vault(self) -> Vault:
        return self._publication.keyring.vault

    @property
    def _objects(self) -> Objects:
        return self._publication.sources.objects

    def counts(self) -> dict[str, int]:
        """How many secrets each data key has sealed, oldest key first."""
        found = dict.fromkeys(self.vault.key_ids, 0)
        for blob in all_sealed_blobs(self._objects):
            ident = key_of(blob)
            found[ident] = found.get(ident, 0) + 1
        return found

    # ------------------------------------------------------------------------------------- keys

    async def rotate(self, most: int, *, new_key: bool) -> ResealedBatch:
        """Seals at most ``most`` secrets with the newest data key, which is made now where ``new_key`` says so.  Keys
        that are not needed any more go with the last batch.  Raises SQLAlchemyError, GatewayError.
        """
        async with self._order:
            if new_key:
                await self.vault.add_key(self._engine)
            done, left = await self._publication.rewrite(partial(self._publication.keyring.resealed, most=most))
            if not left:
                async with self._publication.turn():  # no change that seals is under way
                    await self.vault.drop_keys(self._engine, all_sealed_blobs(self._objects))
            blobs = all_sealed_blobs(self._objects)
            damaged = sum(not self.vault.is_current(blob) for blob in blobs) - left
            return ResealedBatch(self.vault.current, done, left, damaged)

    async def rewrap(self, key: bytes) -> bool:
        """See ``Vault.rewrap``."""
        async with self._order:
            return await self.vault.rewrap(self._engine, key)

    # ------------------------------------------------------------------------------------- elsewhere

    def exported(self, passphrase: str) -> tuple[bytes, int]:
        """The stored accounts in one file, and how many they are.  Blocks for a third of a second."""
        secrets, declared = self._publication.secrets, self._publication.sources.compiled.secrets
        damaged = self._publication.keyring.damaged
        keys = [
            ExportedKey(one.provider, one.label, secrets[ident], one.priority, one.free, one.terms.to_store())
            for ident, one in self._objects.accounts.items()
            if ident not in damaged and ident not in declared
        ]
        return vault_file.sealed(keys, passphrase), len(keys)

    async def take_in(self, content: bytes, passphrase: str) -> tuple[Imported, bool]:
        """Stores the accounts of an exported vault that are not there; and whether every data process knows them.

        Raises GatewayError, SQLAlchemyError.
        """
        try:
            keys = await asyncio.to_thread(vault_file.opened, content, passphrase)
        except BadFile as error:
            raise GatewayError(INVALID_VALUE, f"The vault was not imported: {error}.", param="data") from error
        return await self._publication.change(partial(self._with, keys))

    def _with(self, keys: list[ExportedKey], sources: Sources) -> tuple[Objects, Imported]:
        stored, there, refused = [], [], {}
        for one in keys:
            ident = f"{one.provider}/{one.label}"
            try:
                sources = replace(sources, objects=_added(sources, self._publication.keyring.seal, one))
                stored.append(ident)
            except GatewayError as error:
                if error.kind is ALREADY_EXISTS:
                    there.append(ident)
                else:
                    refused[ident] = error.message
            except ValidationError:
                refused[ident] = "its fields are not what this release knows"
        return sources.objects, Imported(tuple(stored), tuple(there), refused)

    # ------------------------------------------------------------------------------------- doctor

    def findings(self) -> list[VaultFinding]:
        """Everything that can be wrong with the vault."""
        return [*self._files(), *self._seals(), *self._accounts(), *self._twice()]

    def _files(self) -> Iterator[VaultFinding]:
        for path in sorted(self._state.iterdir()):
            with_mode = path.lstat().st_mode
            if stat.S_ISREG(with_mode) and with_mode & PRIVATE and _is_secret(path):
                mode = oct(stat.S_IMODE(with_mode))[2:]
                yield VaultFinding("bad", str(path), f"others may read it (mode {mode}): chmod 600")

    def _seals(self) -> Iterator[VaultFinding]:
        damaged = self._publication.keyring.damaged
        rows = list(everything(self._objects))
        for purpose, row, blob in rows:
            if row in damaged:
                how = "set it anew" if purpose == ACCOUNT else "set the provider's headers anew"
                yield VaultFinding("bad", row, f"the seal does not open (key {key_of(blob)}): {how}")
        old = sum(not self.vault.is_current(blob) for _purpose, row, blob in rows if row not in damaged)
        if old:
            sentence = f"{old} of {len(rows)} secrets have an earlier key: headgate vault rotate ends the rotation"
            yield VaultFinding("warning", self.vault.current, sentence)

    def _accounts(self) -> Iterator[VaultFinding]:
        now = time.time()
        for ident, account in self._objects.accounts.items():
            if problem := problem_of_account(account, self._publication.snapshot.providers):
                yield VaultFinding("warning", ident, f"no provider uses it: {problem}")
            elif account.terms.expires is not None and account.terms.expires <= now:
                yield VaultFinding("warning", ident, "it has expired: give it a later date, or remove it")

    def _twice(self) -> Iterator[VaultFinding]:
        """Accounts with the same key, found by fingerprints of this one look."""
        once = os.urandom(32)
        found: dict[bytes, list[str]] = defaultdict(list)
        for ident, secret in self._publication.secrets.items():
            if ":" not in ident:  # else a header's value
                provider = ident.partition("/")[0]
                found[provider.encode() + hmac.digest(once, secret.encode(), "sha256")].append(ident)
        for idents in found.values():
            if len(idents) > 1:
                yield VaultFinding("warning", idents[0], f"the same key as {', '.join(idents[1:])}")


def _is_secret(path: Path) -> bool:
    return path.suffix in (".key", ".token", ".db", ".bin") or path.name.startswith(("headgate.db", "vault.key"))


def _added(sources: Sources, seal: changes.Seal, one: ExportedKey) -> Objects:
    terms = AccountTerms.from_store(one.terms)
    wish = AccountWish(
        provider=one.provider, key=SecretStr(one.key), label=one.label, priority=one.priority, free=one.free,
        **{name: getattr(terms, name) for name in AccountTerms.model_fields},
    )  # fmt: skip
    return changes.add_account(sources, seal, wish)[0]
