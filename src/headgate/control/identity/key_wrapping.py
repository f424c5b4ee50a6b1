"""The port to the key that wraps data keys: a key of this machine, or one class for a key service.

The wrapping key (the *master key*) seals data keys and nothing else.  Data keys seal what is in the store.
"""

from __future__ import annotations

import hashlib
import os
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
KEY_ID_BYTES = 8


class WrongKey(Exception):
    """A wrapped key does not open: another key wrapped it, or it was changed."""


class KeyWrapper(Protocol):
    """Wraps data keys.  A class for a key service may block: it is called in a thread."""

    @property
    def id(self) -> str:
        """Return the public name of the wrapping key.  It is stored beside each data key."""

    def wrap(self, key: bytes, about: bytes) -> bytes:
        """Return ``key``, sealed for storage.  ``about`` is authenticated: ``unwrap`` needs the same."""

    def unwrap(self, wrapped: bytes, about: bytes) -> bytes:
        """Return the key that ``wrap`` was given.  Raises WrongKey."""


class LocalKey:
    """Wraps with 32 bytes that this process holds: AES-256-GCM, nonces of 96 random bits."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self.id = key_id(key).hex()

    def __repr__(self) -> str:  # a traceback must not print keys
        return f"LocalKey({self.id})"

    def wrap(self, key: bytes, about: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, key, about)

    def unwrap(self, wrapped: bytes, about: bytes) -> bytes:
        try:
            return self._cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], about)
        except (InvalidTag, ValueError) as error:
            raise WrongKey from error


def key_id(key: bytes) -> bytes:
    """Return the public name of a key: eight bytes of its hash."""
    return hashlib.sha256(b"headgate vault key id\0" + key).digest()[:KEY_ID_BYTES]
