"""The vault: secrets in the store, sealed with data keys that the master key wraps.

AES-256-GCM.  A sealed secret is ``version (1) · data key id (8) · nonce (12) · ciphertext and tag``.  The header, the
purpose and the row's id are associated data, so a sealed secret that was copied to another row does not open.  Nonces
are random, 96 bits: far below 2³² writes of one key.

The newest data key seals; every one opens.  A rotation adds a key, seals the rows anew and drops the keys that no row
needs: it may end at any moment.  Secrets of earlier releases (version 1) are sealed with STATE/vault.key itself; they
open as long as that file is there, and the first start of this release seals them anew.

Refuses to start with data keys that the master key did not wrap (``master_key.VaultLocked``).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.audit.chain import Change, changing, record
from headgate.control.identity import master_key
from headgate.control.identity.key_wrapping import KEY_ID_BYTES, NONCE_BYTES, KeyWrapper, LocalKey, WrongKey, key_id
from headgate.control.identity.master_key import FILE, Found, VaultLocked
from headgate.control.store.vault_tables import data_keys
from headgate.process.boot import MasterKey
from headgate.process.credentials import KEY_BYTES, read_key

VERSION = b"\x02"
EARLIER = b"\x01"  # sealed with STATE/vault.key itself
_HEADER = 1 + KEY_ID_BYTES
SHOWN_FROM = 20  # characters: of a shorter key, seven would be too much of it

ACCOUNT, HEADER = "account key", "provider header"  # purposes


class Damaged(Exception):
    """A sealed secret does not open: it was changed, or belongs to another row."""


class Vault:
    """Seals and opens.  Mutable: its data keys and the key that wraps them.  Made by ``open_vault``."""

    def __init__(self, state: Path, found: Found, keys: dict[str, bytes], earlier: bytes | None) -> None:
        """``keys``: data keys by id, oldest first; ``earlier``: what sealed secrets of version 1."""
        self._state = state
        self.found = found
        self._keys = keys
        self._earlier = earlier

    def __repr__(self) -> str:  # a traceback must not print keys
        return f"Vault({self.found.place})"

    @property
    def current(self) -> str:
        """Return the id of the data key that seals."""
        return next(reversed(self._keys))

    @property
    def key_ids(self) -> list[str]:
        """Return the ids of all data keys, oldest first."""
        return list(self._keys)

    def seal(self, row: str, secret: str, purpose: str = ACCOUNT) -> bytes:
        """A secret for the store.  ``row``: the id of what it belongs to."""
        header = VERSION + bytes.fromhex(self.current)
        nonce = os.urandom(NONCE_BYTES)
        cipher = AESGCM(self._keys[self.current])
        return header + nonce + cipher.encrypt(nonce, secret.encode(), _about(header, purpose, row))

    def open(self, row: str, sealed: bytes, purpose: str = ACCOUNT) -> str:
        """The secret that ``seal`` was given.  Raises Damaged."""
        header, nonce, rest = sealed[:_HEADER], sealed[_HEADER : _HEADER + NONCE_BYTES], sealed[_HEADER + NONCE_BYTES :]
        if sealed[:1] == EARLIER:
            key, about = self._earlier, header + row.encode()
            if key is not None and header[1:] != key_id(key):
                key = None
        else:
            key, about = self._keys.get(header[1:].hex()), _about(header, purpose, row)
        if key is None or sealed[:1] not in (VERSION, EARLIER):
            raise Damaged(row)
        try:
            return AESGCM(key).decrypt(nonce, rest, about).decode()
        except (InvalidTag, ValueError) as error:
            raise Damaged(row) from error

    def is_current(self, sealed: bytes) -> bool:
        """True if the newest data key sealed it."""
        return key_of(sealed) == self.current

    # ------------------------------------------------------------------------------------- its keys

    async def add_key(self, engine: AsyncEngine) -> None:
        """A new data key, stored before anything is sealed with it.  Raises SQLAlchemyError."""
        ident, key = await _made(engine, self.found.wrapper)
        self._keys[ident] = key

    async def drop_keys(self, engine: AsyncEngine, sealed: Iterable[bytes]) -> None:
        """Forgets the data keys that nothing in ``sealed`` (all that the store has) needs.  Raises SQLAlchemyError."""
        used = {key_of(one) for one in sealed} | {self.current}
        gone = [ident for ident in self._keys if ident not in used]
        if gone:
            async with changing(engine) as connection:
                await connection.execute(delete(data_keys).where(data_keys.c.id.in_(gone)))
                await record(connection, *(Change("data_key", ident, "deleted") for ident in gone))
        for ident in gone:
            del self._keys[ident]

    async def rewrap(self, engine: AsyncEngine, key: bytes) -> bool:
        """Wraps the data keys with another master key, in one transaction.  True if STATE/vault.key holds it from now
        on, False where the operator has to put it where the former one was.  Raises SQLAlchemyError, StateError.
        """
        wrapper = LocalKey(key)
        if self.found.file:
            master_key.replace_file(self._state, key)
        async with changing(engine) as connection:
            for ident, one in self._keys.items():
                wrapped = wrapper.wrap(one, _wrapped_about(ident))
                await connection.execute(
                    update(data_keys).where(data_keys.c.id == ident).values(wrapped=wrapped, wrapper=wrapper.id)
                )
            change = Change("vault", "", "master_key_changed", {"master_key": self.found.wrapper.id},
                            {"master_key": wrapper.id})  # fmt: skip
            await record(connection, change)
        was = self.found
        self.found = Found(wrapper, was.place if was.file else "the request that changed it", was.file)
        if was.file:
            master_key.adopt_next(self._state)
        return was.file


async def open_vault(engine: AsyncEngine, state: Path, declared: MasterKey, sealed: Iterable[bytes]) -> Vault:
    """The vault of a store.  ``sealed``: all that it holds.  The first start makes its keys.

    Raises VaultLocked, StateError, SQLAlchemyError.
    """
    async with engine.connect() as connection:
        rows = (await connection.execute(select(data_keys).order_by(data_keys.c.created_at, data_keys.c.id))).all()
    earlier = _earlier(state, [one for one in sealed if one[:1] == EARLIER])
    needed = next((row.wrapper for row in rows), None)
    found = await asyncio.to_thread(master_key.find, state, declared, needed)
    keys: dict[str, bytes] = {}
    for row in rows:
        try:
            wrapped = bytes(row.wrapped)
            keys[row.id] = await asyncio.to_thread(found.wrapper.unwrap, wrapped, _wrapped_about(row.id))
        except WrongKey as error:
            raise VaultLocked(
                f"the data key {row.id} of the vault does not open with {found.place}: it was changed; restore the "
                "database from a backup"
            ) from error
    if not keys:
        ident, key = await _made(engine, found.wrapper)
        keys[ident] = key
    return Vault(state, found, keys, earlier)


def _earlier(state: Path, sealed: list[bytes]) -> bytes | None:
    """The key of secrets that an earlier release sealed.  Raises VaultLocked, StateError."""
    if not sealed:
        return None
    path = state / FILE
    key = read_key(path, master_key.REMEDY)
    known = key_id(key) if key else None
    lost = [one for one in sealed if one[1:_HEADER] != known]
    if lost:
        what = f"{path} is not the key that sealed" if key else f"{path} is missing, which sealed"
        raise VaultLocked(
            f"{what} {len(lost)} of the provider keys in the store: restore it from a backup, or delete the rows of "
            "the table accounts and add the keys anew"
        )
    return key


async def _made(engine: AsyncEngine, wrapper: KeyWrapper) -> tuple[str, bytes]:
    key = os.urandom(KEY_BYTES)
    ident = os.urandom(KEY_ID_BYTES).hex()
    wrapped = await asyncio.to_thread(wrapper.wrap, key, _wrapped_about(ident))
    async with changing(engine) as connection:
        values = {"id": ident, "wrapped": wrapped, "wrapper": wrapper.id, "created_at": time.time_ns()}
        await connection.execute(insert(data_keys).values(values))
        await record(connection, Change("data_key", ident, "created"))
    return ident, key


def key_of(sealed: bytes) -> str:
    """The id of the key that sealed it."""
    return sealed[1:_HEADER].hex()


def _about(header: bytes, purpose: str, row: str) -> bytes:
    return header + purpose.encode() + b"\0" + row.encode()


def _wrapped_about(ident: str) -> bytes:
    return b"headgate data key\0" + ident.encode()


def hint(key: str) -> str:
    """What may be shown of a provider's key: ``sk-…abcd``; of a short one, only that it is short."""
    return f"{key[:3]}…{key[-4:]}" if len(key) >= SHOWN_FROM else f"under {SHOWN_FROM} characters"
