"""Passwords: argon2id hashes, made and verified off the event loop, a few at a time.

The parameters are OWASP's for argon2id (19 MiB, two passes).  A stored hash has its own in it: ``outdated`` says when
it should be made anew.
"""

from __future__ import annotations

import asyncio
import secrets
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

AT_ONCE = 2  # 19 MiB each


class Passwords:
    """One per application.  Mutable: how many are being hashed, and the hash that stands for users without one."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._nobody: str | None = None

    async def hashed(self, password: str) -> str:
        """The hash for the store."""
        async with self._slots:
            return await asyncio.to_thread(self._hasher.hash, _bytes(password))

    async def matches(self, stored: str | None, password: str) -> bool:
        """Whether the password is the one of this hash.  Without a hash it takes the same time and is False."""
        if self._nobody is None:
            self._nobody = await self.hashed(secrets.token_urlsafe())
        async with self._slots:
            good = await asyncio.to_thread(self._verified, stored or self._nobody, _bytes(password))
        return good and stored is not None

    def _verified(self, stored: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    def outdated(self, stored: str) -> bool:
        """True if the hash was made with other parameters."""
        return self._hasher.check_needs_rehash(stored)


def _bytes(password: str) -> bytes:
    # The same characters, typed on another keyboard, may be other code points (NIST SP 800-63B, 5.1.1.2)
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
