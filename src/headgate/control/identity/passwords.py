"""Passwords: argon2id hashes, made and verified off the event loop, a few at a time.

The parameters are OWASP's for argon2id (19 MiB, two passes).  A stored hash has its own in it: ``outdated`` says when
it should be made anew.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import unicodedata

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

AT_ONCE = 2  # 19 MiB each
PASSES, MEMORY_KIB, LANES = 2, 19_456, 1
FORM = f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}$"  # how a hash with these parameters begins


class Passwords:
    """One per application.  Mutable: how many are being hashed, and the hash that stands for users without one."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._nobody: str | None = None

    async def hashed(self, password: str) -> str:
        """The hash for the store."""
        async with self._slots:
            return await asyncio.to_thread(_hash, _bytes(password))

    async def matches(self, stored: str | None, password: str) -> bool:
        """Whether the password is the one of this hash.  Without a hash it takes the same time and is False."""
        if self._nobody is None:
            self._nobody = await self.hashed(secrets.token_urlsafe())
        async with self._slots:
            good = await asyncio.to_thread(_verified, stored or self._nobody, _bytes(password))
        return good and stored is not None

    def outdated(self, stored: str) -> bool:
        """True if the hash was made with other parameters."""
        return not stored.startswith(FORM)


def _hash(password: bytes) -> str:
    salt = os.urandom(16)
    hasher = Argon2id(salt=salt, length=32, iterations=PASSES, lanes=LANES, memory_cost=MEMORY_KIB)
    return hasher.derive_phc_encoded(password)


def _verified(stored: str, password: bytes) -> bool:
    try:
        Argon2id.verify_phc_encoded(password, stored)
    except (InvalidKey, ValueError):
        return False
    return True


def _bytes(password: str) -> bytes:
    # The same characters, typed on another keyboard, may be other code points (NIST SP 800-63B, 5.1.1.2)
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
