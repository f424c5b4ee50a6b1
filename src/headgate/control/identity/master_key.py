"""Where the master key is looked for: the configuration, the state directory, the system's keyring.

The first place that names a key wins: ``master_key``, ``master_key_file``, ``STATE/vault.key``, the keyring.  Where no
place has one, the first start makes ``STATE/vault.key`` (0600).  Refuses to make one beside data keys that exist: a new
key in the place of a lost one would hide the loss.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from headgate.control.identity.key_wrapping import KeyWrapper, LocalKey
from headgate.process.boot import MasterKey
from headgate.process.credentials import KEY_FORM, make_key, parse_key, read_key, read_master_key
from headgate.process.statedir import StateError, write_private

FILE = "vault.key"
NEXT = "vault.key.next"  # the key that takes the place of FILE, until the store's data keys are wrapped with it
SERVICE = "headgate"  # in the system's keyring; the user is the state directory
REMEDY = "add every stored provider key anew"


class VaultLocked(Exception):
    """The store's data keys do not open.  The message is a sentence for the operator; exit code 4."""


@dataclass(frozen=True)
class Found:
    """A wrapping key and the place where it was found, in words.  ``file``: it is STATE/vault.key."""

    wrapper: KeyWrapper
    place: str
    file: bool = False


def find(state: Path, declared: MasterKey, needed: str | None) -> Found:
    """The master key.  ``needed``: the id of the key that wrapped the store's data keys, None where there are none.

    Raises VaultLocked, StateError (a file is damaged or unreadable).
    """
    found = _explicit(declared) or _of_state(state, needed) or _of_keyring(state)
    if found is None:
        if needed is not None:
            raise VaultLocked(_lost(state, needed))
        return Found(LocalKey(make_key(state / FILE)), str(state / FILE), file=True)
    if needed is not None and found.wrapper.id != needed:
        raise VaultLocked(_wrong(state, declared, found, needed))
    return found


def replace_file(state: Path, key: bytes) -> None:
    """Puts ``key`` beside STATE/vault.key, before the store is wrapped with it.  ``adopt_next`` ends that."""
    write_private(state / NEXT, key)


def adopt_next(state: Path) -> None:
    """The store is wrapped with the key that lies beside: from now on it is STATE/vault.key.  Raises StateError."""
    try:
        (state / NEXT).replace(state / FILE)
    except OSError as error:
        raise StateError(f"{state / FILE} cannot be written ({error.strerror})") from error


def _explicit(declared: MasterKey) -> Found | None:
    if declared.value:
        key = parse_key(declared.value)
        if key is None:
            raise VaultLocked(f"master_key (HEADGATE_MASTER_KEY) holds no key: {KEY_FORM}")
        return Found(LocalKey(key), "master_key (HEADGATE_MASTER_KEY)")
    if declared.file:
        path = Path(declared.file)
        return Found(LocalKey(read_master_key(path)), f"{path} (HEADGATE_MASTER_KEY_FILE)")
    return None


def _of_state(state: Path, needed: str | None) -> Found | None:
    """STATE/vault.key; or the one that was to take its place when the process ended in between."""
    path = state / FILE
    key = read_key(path, REMEDY)
    following = read_key(state / NEXT, REMEDY) if needed is not None else None
    if following is not None and LocalKey(following).id == needed:
        adopt_next(state)
        key = following
    return None if key is None else Found(LocalKey(key), str(path), file=True)


def _of_keyring(state: Path) -> Found | None:
    """The system's keyring, where the package ``keyring`` is installed and has an entry for this state directory."""
    if importlib.util.find_spec("keyring") is None:
        return None
    try:
        text = importlib.import_module("keyring").get_password(SERVICE, str(state))
    except Exception:  # noqa: BLE001  (each of its backends raises its own; the others places are named in the sentence)
        return None
    key = parse_key(text) if text else None
    return None if key is None else Found(LocalKey(key), f"the keyring ({SERVICE}, {state})")


def _lost(state: Path, needed: str) -> str:
    looked = [str(state / FILE), "HEADGATE_MASTER_KEY", "HEADGATE_MASTER_KEY_FILE"]
    if importlib.util.find_spec("keyring") is not None:
        looked.append(f"the keyring ({SERVICE}, {state})")
    return (
        f"the master key {needed} of the vault is missing: looked for it in {', '.join(looked)}; restore it from a "
        f"backup.  {_GIVE_UP}"
    )


def _wrong(state: Path, declared: MasterKey, found: Found, needed: str) -> str:
    other = _of_state(state, needed) if declared.value or declared.file else None
    if other is not None and other.wrapper.id == needed:
        return (
            f"{found.place} is not the master key of the vault ({found.wrapper.id}, not {needed}); {other.place} is: "
            "leave the setting out, or change the key first with: headgate vault rotate --master-key-file NEW"
        )
    return (
        f"{found.place} is not the master key of the vault ({found.wrapper.id}, not {needed}): restore it from a "
        f"backup.  {_GIVE_UP}"
    )


_GIVE_UP = (
    "Nothing was changed.  To give the stored provider keys up, delete the rows of the tables data_keys and accounts "
    "and add the keys anew"
)
