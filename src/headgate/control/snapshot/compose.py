"""What the data processes are to know: composed, compared, and cut into pieces.  Pure.

Refuses to hold a provider's key in anything but ``Compiled.secrets``, which goes down the channel as Secrets and
nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from msgspec.structs import replace

from headgate.control.snapshot.children import with_parents
from headgate.model import Grant, Provider, SavedPrompt, Snapshot
from headgate.process.channel import (
    MODELS_PER_PART,
    PROMPTS_PER_PART,
    TOKENS_PER_PART,
    Patch,
    SnapshotPart,
    World,
)
from headgate.resources.compiled import Compiled

# A grant with long lists takes longer to decode: a part is full when its strings are as many as those of
# TOKENS_PER_PART plain grants, whichever comes first.  It also keeps a part far below the channel's frame limit.
STRINGS_PER_PART = TOKENS_PER_PART * 4
T = TypeVar("T")


def compose(generation: int, compiled: Compiled, stored: Mapping[bytes, Grant]) -> Snapshot:
    """The whole Snapshot.  A token that the file declares wins over a stored one with the same secret."""
    world = compiled.world
    return Snapshot(
        generation=generation,
        tokens=with_parents({**stored, **compiled.tokens}),
        providers=world.providers,
        aliases=world.aliases,
        default_model=world.default_model,
        timeouts=world.timeouts,
        retries=world.retries,
        unpriced=world.unpriced,
        presets=world.presets,
        tenants=world.tenants,
        groups=world.groups,
        prompts=world.prompts,
    )


def world_of(snapshot: Snapshot) -> World:
    """Everything of a Snapshot but its tokens."""
    return World(
        providers=snapshot.providers,
        aliases=snapshot.aliases,
        default_model=snapshot.default_model,
        timeouts=snapshot.timeouts,
        retries=snapshot.retries,
        unpriced=snapshot.unpriced,
        presets=snapshot.presets,
        tenants=snapshot.tenants,
        groups=snapshot.groups,
        prompts=snapshot.prompts,
    )


def parts(snapshot: Snapshot) -> Iterator[SnapshotPart]:
    """The Snapshot in pieces of which each decodes in ≤ 5 ms: the world with the first providers, further providers,
    the prompts, then the tokens.
    """
    first, *providers = _providers_in_pieces(snapshot.providers) or [{}]
    world = replace(world_of(snapshot), providers=first, prompts={})
    pieces: list[dict[str, Any]] = [
        {"world": world},
        *({"providers": piece} for piece in providers),
        *({"prompts": piece} for piece in _prompts_in_pieces(snapshot.prompts)),
        *({"tokens": group} for group in _grouped(snapshot.tokens)),
    ]
    for seq, piece in enumerate(pieces):
        yield SnapshotPart(snapshot.generation, seq, seq == len(pieces) - 1, **piece)


def _providers_in_pieces(providers: Mapping[str, Provider]) -> list[dict[str, Provider]]:
    return _in_pieces(providers, lambda one: 1 + len(one.models or ()) + len(one.catalog), MODELS_PER_PART)


def _prompts_in_pieces(prompts: Mapping[str, SavedPrompt]) -> list[dict[str, SavedPrompt]]:
    return _in_pieces(prompts, lambda one: one.size, PROMPTS_PER_PART)


def _in_pieces(objects: Mapping[str, T], weigh: Callable[[T], int], most: int) -> list[dict[str, T]]:
    """In order, cut where a piece would weigh more than ``most``.  An object is never cut."""
    pieces: list[dict[str, T]] = []
    room = 0
    for name, one in objects.items():
        weight = weigh(one)
        if not pieces or weight > room:
            pieces.append({})
            room = most
        pieces[-1][name] = one
        room -= weight
    return pieces


def _grouped(tokens: Mapping[bytes, Grant]) -> Iterator[tuple[tuple[bytes, Grant], ...]]:
    group: list[tuple[bytes, Grant]] = []
    strings = 0
    for entry in tokens.items():
        strings += 1 + len(entry[1].scopes) + len(entry[1].models)
        group.append(entry)
        if len(group) >= TOKENS_PER_PART or strings >= STRINGS_PER_PART:
            yield tuple(group)
            group, strings = [], 0
    if group:
        yield tuple(group)


def difference(old: Snapshot, new: Snapshot) -> Patch | None:
    """What makes ``new`` out of ``old``; None where that is so much that the whole Snapshot should be sent in parts."""
    changed = {digest: grant for digest, grant in new.tokens.items() if old.tokens.get(digest) != grant}
    removed = tuple(digest for digest in old.tokens if digest not in new.tokens)
    if len(removed) > TOKENS_PER_PART or len(list(_grouped(changed))) > 1:
        return None
    before, after = world_of(old), world_of(new)
    order: tuple[str, ...] | None = None
    world: World | None = None
    if before != after or not _same_order(old, new):
        order = tuple(after.providers)
        fresh = _fresh(before.providers, after.providers)
        prompts = _fresh(before.prompts, after.prompts)
        if len(_providers_in_pieces(fresh)) > 1 or len(_prompts_in_pieces(prompts)) > 1:
            return None
        world = replace(after, providers=fresh, prompts=prompts)
    gone = tuple(key for key in old.prompts if key not in new.prompts)
    return Patch(old.generation, new.generation, tuple(changed.items()), removed, world, order, gone)


def _fresh(before: Mapping[str, T], after: Mapping[str, T]) -> dict[str, T]:
    return {name: one for name, one in after.items() if before.get(name) != one}


def same(old: Snapshot, new: Snapshot) -> bool:
    """True where nothing but the generation differs."""
    return old.tokens == new.tokens and world_of(old) == world_of(new) and _same_order(old, new)


def _same_order(old: Snapshot, new: Snapshot) -> bool:
    """Equal mappings may differ in this, and it decides who is asked first."""
    return list(old.providers) == list(new.providers) and list(old.aliases) == list(new.aliases)
