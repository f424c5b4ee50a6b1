"""Passwords: argon2id hashes, made and verified off the event loop, a few at a time.

The parameters are OWASP's for argon2id (19 MiB, two passes).  A stored hash has its own in it: ``outdated`` says when
it should be made anew.
"""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from typing import Annotated

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import AfterValidator, Field, SecretStr

from headgate.resources.fields import wrong

MIN_CHARACTERS, MAX_CHARACTERS = 12, 256
AT_ONCE = 2  # 19 MiB each


def _fit(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS:
        raise wrong(f"must have {MIN_CHARACTERS} to {MAX_CHARACTERS} characters")
    if len(set(text)) < 4:
        raise wrong("is too uniform: use at least four different characters")
    return value


NewPassword = Annotated[SecretStr, AfterValidator(_fit)]
GivenPassword = Annotated[SecretStr, Field(max_length=4 * MAX_CHARACTERS)]


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
