"""The vault: providers' keys in the store, sealed.

AES-256-GCM under the key in STATE/vault.key (0600, made when the first account is sealed).  A sealed key is
``version (1) · key id (8) · nonce (12) · ciphertext and tag``; the header and the account's id are associated data, so
that a row that was copied to another account does not open.  Nonces are random, 96 bits: far below 2³² writes.  The key
id is a hash of the vault's key: it tells a lost key from a damaged row, and keys apart where there are several.

Refuses to start with accounts that its key did not seal: a new key in the place of a lost one would hide the loss.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headgate.process.credentials import make_key, read_key

FILE = "vault.key"
VERSION = b"\x01"  # sealed with the key in the file itself
KEY_ID_BYTES = 8
NONCE_BYTES = 12
_HEADER = len(VERSION) + KEY_ID_BYTES
SHOWN_FROM = 20  # characters: of a shorter key, seven would be too much of it


class VaultLocked(Exception):
    """The key that sealed the accounts is not here.  The message is a sentence for the operator; exit code 4."""


class Damaged(Exception):
    """A sealed key does not open: it was changed, or belongs to another account."""


class Vault:
    """Seals and opens.  Mutable: the key, until the first sealing has made it."""

    def __init__(self, state_dir: Path, sealed: Iterable[bytes]) -> None:
        """``sealed``: what the store has.  Raises VaultLocked, StateError (the key's file is damaged or unreadable)."""
        self._path = state_dir / FILE
        self._key = read_key(self._path, "add every stored provider key anew")
        known = key_id(self._key) if self._key else None
        lost = [one for one in sealed if one[len(VERSION) : _HEADER] != known]
        if lost:
            what = f"{self._path} is not the key that sealed" if self._key else f"{self._path} is missing, which sealed"
            raise VaultLocked(
                f"{what} {len(lost)} of the provider keys in the store: restore it from a backup, or delete the rows "
                "of the table accounts and add the keys anew"
            )

    def __repr__(self) -> str:  # a traceback must not print keys
        return f"Vault({self._path})"

    def seal(self, account: str, key: str) -> bytes:
        """A provider's key for the store.  ``account``: its id.  Raises StateError where a first key cannot be kept."""
        if self._key is None:
            self._key = make_key(self._path)
        header = VERSION + key_id(self._key)
        nonce = os.urandom(NONCE_BYTES)
        return header + nonce + AESGCM(self._key).encrypt(nonce, key.encode(), header + account.encode())

    def open(self, account: str, sealed: bytes) -> str:
        """The key that ``seal`` was given.  Raises Damaged."""
        header, nonce, rest = sealed[:_HEADER], sealed[_HEADER : _HEADER + NONCE_BYTES], sealed[_HEADER + NONCE_BYTES :]
        if self._key is None or header != VERSION + key_id(self._key):
            raise Damaged(account)
        try:
            return AESGCM(self._key).decrypt(nonce, rest, header + account.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise Damaged(account) from error


def key_id(key: bytes) -> bytes:
    """What may be known of the vault's key: eight bytes of its hash."""
    return hashlib.sha256(b"headgate vault key id\0" + key).digest()[:KEY_ID_BYTES]


def hint(key: str) -> str:
    """What may be shown of a provider's key: ``sk-…abcd``; of a short one, only that it is short."""
    return f"{key[:3]}…{key[-4:]}" if len(key) >= SHOWN_FROM else f"under {SHOWN_FROM} characters"
