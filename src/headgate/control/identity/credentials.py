"""The instance key, the vault's key and fresh tokens: where randomness becomes a credential.

Nothing here stores or logs a token; it is returned once to whoever asked for it.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

KEY_BYTES = 32
_TOKEN = re.compile(r"hg_pat_([A-Za-z0-9]+)_[A-Za-z0-9_-]{16,}")


def instance_key(state_dir: Path) -> bytes:
    """The key under which tokens are hashed: 32 bytes in STATE/instance.key (0600), made where there is none.

    Raises ValueError where the file is not a key, OSError where it cannot be read or written.
    """
    return read_key(state_dir / "instance.key", "all tokens") or make_key(state_dir / "instance.key")


def read_key(path: Path, protects: str) -> bytes | None:
    """A file's 32 bytes, None where there is no file.  ``protects``: what is lost with it.

    Raises ValueError where the file is not a key, OSError where it cannot be read.
    """
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"{path} is damaged: {len(key)} bytes instead of {KEY_BYTES}; restore it, or remove it and {protects}"
        )
    return key


def make_key(path: Path) -> bytes:
    """Writes a fresh key (0600), unless another process was first; returns the one that is there.  Raises OSError."""
    # Written whole under another name and then linked: a second process sees all of it or nothing, and the first wins
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(KEY_BYTES))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(draft, path)
    except FileExistsError:
        return path.read_bytes()
    finally:
        draft.unlink()
    return path.read_bytes()


def public_id(token: str) -> str | None:
    """The public part of an agent token, None where it is not one of ours."""
    match = _TOKEN.fullmatch(token)
    return match[1] if match else None


def fresh_id() -> str:
    """A token's public id: eight hex digits."""
    return secrets.token_hex(4)


def mint(ident: str) -> str:
    """A fresh agent token of this public id: 256 bits of secret."""
    return f"hg_pat_{ident}_{secrets.token_urlsafe(32)}"
