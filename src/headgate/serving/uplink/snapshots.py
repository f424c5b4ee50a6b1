"""Snapshots as they travel, put together: from parts, from patches, and from the file that outlives the process.

The last Snapshot is kept on disk as the frames it came in.  So a process that starts while control is away still
knows its tokens.  No frame has a secret in it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from headgate.model import Alias, Grant, ModelRow, Price, Provider, SavedPrompt, Snapshot
from headgate.process.channel import Patch, SnapshotPart, World, down_frames, frame

MAX_PATCHES = 1000  # behind a whole Snapshot
MAX_PATCHED = 2 << 20  # their bytes: read at every start

log = logging.getLogger("headgate.link")


def compose(generation: int, world: World, tokens: Mapping[bytes, Grant]) -> Snapshot:
    """A Snapshot from what travels."""
    return Snapshot(
        generation, tokens, world.providers, world.aliases, world.default_model, world.timeouts, world.retries,
        world.unpriced, world.presets, world.tenants, world.groups, world.prompts,
    )  # fmt: skip


class Assembly:
    """One Snapshot out of its parts; each part is decoded when it comes."""

    _world: World | None
    _providers: dict[str, Provider]
    _prompts: dict[str, SavedPrompt]
    _tokens: dict[bytes, Grant]

    def __init__(self) -> None:
        self.drop()

    def follows(self, part: SnapshotPart) -> bool:
        """It is the first of a Snapshot, or the next of this one."""
        return part.seq == 0 or (part.seq == self._seq and part.generation == self._generation)

    def take(self, part: SnapshotPart) -> Snapshot | None:
        """The Snapshot, when the last of its parts is taken.  Raises ValueError where the first one has no world."""
        if part.seq == 0:
            self.drop()
            self._world = part.world
        if self._world is None:
            raise ValueError("a snapshot without its world")
        self._seq, self._generation = part.seq + 1, part.generation
        self._providers |= self._world.providers if part.seq == 0 else part.providers
        self._prompts |= part.prompts
        self._tokens.update(part.tokens)
        if not part.last:
            return None
        world = replace(self._world, providers=self._providers, prompts=self._prompts)
        whole = compose(part.generation, world, self._tokens)
        self.drop()
        return whole

    def drop(self) -> None:
        """Discard the parts of an incomplete Snapshot."""
        self._seq = self._generation = 0
        self._world, self._providers, self._prompts, self._tokens = None, {}, {}, {}


def patched(snapshot: Snapshot, patch: Patch) -> Snapshot:
    """Return a new Snapshot with the changed objects; the old one stays as it is.  If only tokens changed, both share
    providers and aliases.  Copies the tokens' table: 0.1 ms for 20,000.

    Raises KeyError where the patch is not for this Snapshot.
    """
    tokens = dict(snapshot.tokens)
    for digest in patch.removed_tokens:
        tokens.pop(digest, None)
    tokens.update(patch.tokens)
    world = patch.world
    if world is None:
        return replace(snapshot, generation=patch.generation, tokens=tokens)
    if patch.order is not None:
        known = {**snapshot.providers, **world.providers}
        prompts = {key: one for key, one in snapshot.prompts.items() if key not in patch.removed_prompts}
        providers = {name: known[name] for name in patch.order}
        world = replace(world, providers=providers, prompts={**prompts, **world.prompts})
    return compose(patch.generation, world, tokens)


# ------------------------------------------------------------------------------------- on disk


class SnapshotFile:
    """The file, 0600: a whole Snapshot, then the patches on top of it.  A failed write is logged and has no other
    effect.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fresh = path.with_suffix(".new")
        self._patches = 0
        self._patched = 0

    @property
    def full(self) -> bool:
        """So many patches lie there that a whole Snapshot should be asked for."""
        return self._patches >= MAX_PATCHES or self._patched >= MAX_PATCHED

    def take_part(self, part: SnapshotPart) -> None:
        """Parts in order; with the last one the new Snapshot takes the old one's place."""
        if self._write(self._fresh, frame(part), os.O_APPEND if part.seq else os.O_TRUNC) and part.last:
            self._fresh.replace(self._path)
            self._patches = self._patched = 0

    def take_patch(self, patch: Patch) -> None:
        data = frame(patch)
        self._patches += 1
        self._patched += len(data)
        self._write(self._path, data, os.O_APPEND)

    def _write(self, path: Path, data: bytes, how: int) -> bool:
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600), "wb") as file:
                file.write(data)
        except OSError as error:
            log.warning("the snapshot could not be kept on disk: %s", error.strerror)
            return False
        return True


def load(path: Path) -> Snapshot | None:
    """The Snapshot that ``SnapshotFile`` wrote, as far as it is sound; None where there is none."""
    snapshot: Snapshot | None = None
    assembly = Assembly()
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, msgspec.MsgspecError):
        for message in down_frames().feed(path.read_bytes()):
            if isinstance(message, SnapshotPart):
                snapshot = assembly.take(message) or snapshot
            elif isinstance(message, Patch) and snapshot is not None and message.base == snapshot.generation:
                snapshot = patched(snapshot, message)
    return snapshot


def boot_snapshot(declared: Snapshot, kept: Snapshot | None) -> Snapshot:
    """Return the Snapshot to serve with until control sends one: the file's objects as they are now, the others as
    they last were.

    ``declared`` comes from the configuration file and the environment; it has no prices from the price list.
    """
    if kept is None:
        return declared
    tokens = {digest: grant for digest, grant in kept.tokens.items() if grant.origin != "file"}
    providers = _providers(declared.providers, kept.providers)
    return replace(
        declared,
        generation=0,
        tokens={**tokens, **declared.tokens},
        providers=providers,
        aliases=_aliases(declared.aliases, kept.aliases, providers),
        tenants={**{name: one for name, one in kept.tenants.items() if one.origin == "store"}, **declared.tenants},
        groups=(*declared.groups, *(group for group in kept.groups if group.origin == "store")),
        prompts={**{key: one for key, one in kept.prompts.items() if one.origin == "store"}, **declared.prompts},
    )


def _providers(declared: Mapping[str, Provider], kept: Mapping[str, Provider]) -> dict[str, Provider]:
    """File and environment as declared, then store and detection, the built-in one last."""
    merged = {
        name: _with_facts(provider, kept.get(name))
        for name, provider in declared.items()
        if provider.origin != "builtin"
    }
    for name, provider in kept.items():
        if provider.origin in ("store", "detected"):
            merged.setdefault(name, provider)
    return merged | {name: provider for name, provider in declared.items() if provider.origin == "builtin"}


def _with_facts(provider: Provider, kept: Provider | None) -> Provider:
    """Return control's knowledge of the same provider: its catalog, and the undeclared fields of its models."""
    if kept is None or kept.base_url != provider.base_url:
        return provider
    fuller = replace(provider, accounts=provider.accounts or kept.accounts)
    if provider.models is None:
        return replace(fuller, catalog=provider.catalog or kept.catalog)
    rows = kept.models or {}
    return replace(fuller, models={name: _filled(row, rows.get(name)) for name, row in provider.models.items()})


def _filled(row: ModelRow, kept: ModelRow | None) -> ModelRow:
    if kept is None or kept.upstream_model != row.upstream_model:
        return row
    return replace(
        row,
        price=kept.price if row.price == Price() and kept.price.source != "file" else row.price,
        context_window=row.context_window or kept.context_window,
        max_output=row.max_output or kept.max_output,
        capabilities=row.capabilities or kept.capabilities,
        title=row.title or kept.title,
    )


def _aliases(
    declared: Mapping[str, Alias], kept: Mapping[str, Alias], providers: Mapping[str, Provider]
) -> dict[str, Alias]:
    """The file's as declared, the store's as they were; a shipped one as it was where it leads nowhere yet."""
    merged = dict(declared)
    for name, alias in kept.items():
        now = declared.get(name)
        ours = now is None or now.origin == "shipped"
        leads = all(ref.model.partition("/")[0] in providers for ref in alias.targets)
        unbound = now is None or not now.targets
        if ours and (alias.origin == "store" or (alias.origin == "shipped" and unbound and leads)):
            merged[name] = alias
    return merged
