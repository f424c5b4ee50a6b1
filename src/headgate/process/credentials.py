"""The instance key, the master key and fresh tokens: where randomness becomes a credential.

Both processes and the CLI read keys and make tokens through this file.  It logs and stores no token.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import string
from pathlib import Path

from headgate.process.statedir import StateError

INSTANCE_KEY = "instance.key"
KEY_BYTES = 32
_ALPHABET = string.ascii_letters + string.digits
MOST_KEY_FILE = 1024
KEY_FORM = "it must be 32 random bytes, as they are, in hex or in base64 (openssl rand -base64 32)"
_TOKEN = re.compile(r"hg_pat_([A-Za-z0-9]+)_[A-Za-z0-9_-]{16,}")
_MINTED = re.compile(r"hg_pat_[0-9a-f]{8}_[A-Za-z0-9_-]{43}")


def instance_key(state_dir: Path) -> bytes:
    """Return the key for the digests of tokens: 32 bytes in STATE/instance.key (0600), made if there is none.

    Raises StateError if the file is not a key, or cannot be read or written.
    """
    path = state_dir / INSTANCE_KEY
    return read_key(path, "issue every token anew") or make_key(path)


def read_key(path: Path, remedy: str) -> bytes | None:
    """Return a file's 32 bytes, None without a file.  ``remedy``: the next step, for the error's text.

    Raises StateError if the file is not a key, or cannot be read.
    """
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path} cannot be read ({error.strerror})") from error
    if len(key) != KEY_BYTES:
        raise StateError(
            f"{path} is damaged: {len(key)} bytes instead of {KEY_BYTES}; restore it from a backup, or remove it and "
            f"{remedy}"
        )
    return key


def make_key(path: Path) -> bytes:
    """Write a fresh key (0600), unless another process was first; return the one that is there.  Raises StateError."""
    # Written whole under another name and then linked: a second process sees a whole file or none, and the first wins
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, secrets.token_bytes(KEY_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        return path.read_bytes()
    except OSError as error:
        raise StateError(f"{path} cannot be written ({error.strerror})") from error


def parse_key(text: str) -> bytes | None:
    """The 32 bytes that a text holds as 64 hex digits or as base64 (either alphabet); None if it holds none."""
    text = text.strip()
    try:
        if len(text) == 2 * KEY_BYTES:
            return bytes.fromhex(text)
        plain = text.rstrip("=").replace("-", "+").replace("_", "/")
        key = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (ValueError, binascii.Error):
        return None
    return key if len(key) == KEY_BYTES else None


def read_master_key(path: Path) -> bytes:
    """The key in a file: 32 bytes as they are, or as hex or base64.  Raises StateError with a sentence."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_KEY_FILE)
    except OSError as error:
        raise StateError(f"{path} cannot be read ({error.strerror})") from error
    key = content if len(content) == KEY_BYTES else parse_key(content.decode("ascii", "replace"))
    if key is None:
        raise StateError(f"{path} holds no master key: {KEY_FORM}")
    return key


def public_id(token: str) -> str | None:
    """Return the public part of an agent token; None if Headgate did not make it."""
    match = _TOKEN.fullmatch(token)
    return match[1] if match else None


def is_minted(token: str) -> bool:
    """True if ``token`` has the exact form of an agent token that ``mint`` makes."""
    return _MINTED.fullmatch(token) is not None


def fresh_id() -> str:
    """Return a new public id of a token: eight hex digits."""
    return secrets.token_hex(4)


def mint(ident: str, form: str = "pat") -> str:
    """A fresh agent token: 200 bits of secret at least.  ``form``: pat and triple have its public id in them."""
    if form == "triple":
        return f"cli_{ident}:key_{secrets.token_hex(16)}:secret_{secrets.token_urlsafe(32)}"
    if form == "plain":
        return f"hg_{''.join(secrets.choice(_ALPHABET) for _ in range(40))}"
    return f"hg_pat_{ident}_{secrets.token_urlsafe(32)}"


def mint_admin() -> str:
    """Return a fresh admin token with 256 bits of secret."""
    return f"hg_admin_{secrets.token_urlsafe(32)}"
