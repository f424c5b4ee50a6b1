"""An exported vault: provider keys in one file, under a passphrase.

``magic · version (1) · scrypt's log2 n, r, p (1 each) · salt (16) · nonce (12) · ciphertext and tag`` of JSON, sealed
with AES-256-GCM; everything before the ciphertext is associated data.  scrypt (RFC 7914) costs 128 MB and a third of a
second, for an attacker too.  Refuses parameters that would cost an importer more than eight times that.
"""

from __future__ import annotations

import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Struct

MAGIC = b"headgate vault\n"
VERSION = 1
LOG2_N, R, P = 17, 8, 1
MOST_LOG2_N, MOST_R, MOST_P = 20, 8, 1
SALT_BYTES, NONCE_BYTES = 16, 12
SHORTEST = 12  # characters of a passphrase
_FIXED = len(MAGIC) + 4
_HEADER = _FIXED + SALT_BYTES + NONCE_BYTES


class BadFile(Exception):
    """The file cannot be read, or not with this passphrase.  The message is a sentence."""


class ExportedKey(Struct, frozen=True, omit_defaults=True):
    """One account.  ``terms``: JSON of ``resources.account.AccountTerms``."""

    provider: str
    label: str
    key: str
    priority: int = 0
    free: bool = False
    terms: str = "{}"

    def __repr__(self) -> str:  # a traceback must not print keys
        return f"ExportedKey({self.provider}/{self.label})"


def sealed(keys: list[ExportedKey], passphrase: str) -> bytes:
    """The file."""
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    header = MAGIC + bytes((VERSION, LOG2_N, R, P)) + salt + nonce
    return header + _cipher(header, passphrase).encrypt(nonce, msgspec.json.encode(keys), header)


def opened(content: bytes, passphrase: str) -> list[ExportedKey]:
    """What ``sealed`` was given.  Raises BadFile."""
    if not content.startswith(MAGIC) or len(content) < _HEADER:
        raise BadFile("this is no exported vault")
    version, log2_n, r, p = content[len(MAGIC) : _FIXED]
    if version != VERSION:
        raise BadFile(f"this vault was exported in format {version}; this release reads format {VERSION}")
    if not (1 <= log2_n <= MOST_LOG2_N and 1 <= r <= MOST_R and 1 <= p <= MOST_P):
        raise BadFile("this exported vault asks for more memory than one of Headgate's ever does")
    header = content[:_HEADER]
    try:
        plain = _cipher(header, passphrase).decrypt(header[-NONCE_BYTES:], content[_HEADER:], header)
        return msgspec.json.decode(plain, type=list[ExportedKey])
    except InvalidTag as error:
        raise BadFile("the passphrase is wrong, or the file was changed") from error
    except (msgspec.DecodeError, MemoryError, ValueError) as error:
        raise BadFile("this exported vault cannot be read") from error


def _cipher(header: bytes, passphrase: str) -> AESGCM:
    _version, log2_n, r, p = header[len(MAGIC) : _FIXED]
    derive = Scrypt(salt=header[_FIXED : _FIXED + SALT_BYTES], length=32, n=1 << log2_n, r=r, p=p)
    return AESGCM(derive.derive(passphrase.encode()))
