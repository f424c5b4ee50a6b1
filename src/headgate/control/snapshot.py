"""What the data processes are to know: composed, compared, and cut into pieces.  Pure.

Refuses to hold a provider's key in anything but ``Compiled.secrets``, which goes down the channel as Secrets and
nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from headgate.channel import TOKENS_PER_PART, Patch, SnapshotPart, World
from headgate.model import Grant, Snapshot

# A grant with long lists takes longer to decode: a part is full when its strings are as many as those of
# TOKENS_PER_PART plain grants, whichever comes first.  It also keeps a part far below the channel's frame limit.
STRINGS_PER_PART = TOKENS_PER_PART * 4


@dataclass(frozen=True)
class Compiled:
    """What the configuration file says.  ``tokens`` by digest; ``secrets`` by Account.id, never printed;
    ``needs_restart``: the keys that differ from what the running processes were started with.
    """

    world: World
    tokens: dict[bytes, Grant]
    secrets: dict[str, str] = field(repr=False)
    needs_restart: tuple[str, ...] = ()


def compose(generation: int, compiled: Compiled, stored: Mapping[bytes, Grant]) -> Snapshot:
    """The whole Snapshot.  A token that the file declares wins over a stored one with the same secret."""
    world = compiled.world
    return Snapshot(
        generation=generation,
        tokens={**stored, **compiled.tokens},
        providers=world.providers,
        aliases=world.aliases,
        default_model=world.default_model,
        timeouts=world.timeouts,
        retries=world.retries,
        unpriced=world.unpriced,
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
    )


def parts(snapshot: Snapshot) -> Iterator[SnapshotPart]:
    """The Snapshot in pieces of which each decodes in ≤ 5 ms.  The world travels alone in the first."""
    groups = list(_grouped(snapshot.tokens))
    world = world_of(snapshot)
    yield SnapshotPart(generation=snapshot.generation, seq=0, last=not groups, world=world)
    for seq, group in enumerate(groups, 1):
        yield SnapshotPart(generation=snapshot.generation, seq=seq, last=seq == len(groups), tokens=group)


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
    return Patch(
        base=old.generation,
        generation=new.generation,
        tokens=tuple(changed.items()),
        removed_tokens=removed,
        world=None if before == after else after,
    )


def same(old: Snapshot, new: Snapshot) -> bool:
    """True where nothing but the generation differs."""
    return old.tokens == new.tokens and world_of(old) == world_of(new)
