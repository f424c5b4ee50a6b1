"""What the data processes are to know: composed, compared, and cut into pieces.  Pure.

Refuses to hold a provider's key in anything but ``Compiled.secrets``, which goes down the channel as Secrets and
nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from headgate.control.snapshot.children import with_parents
from headgate.model import Grant, Provider, Snapshot
from headgate.process.channel import MODELS_PER_PART, TOKENS_PER_PART, Patch, SnapshotPart, World
from headgate.resources.compiled import Compiled

# A grant with long lists takes longer to decode: a part is full when its strings are as many as those of
# TOKENS_PER_PART plain grants, whichever comes first.  It also keeps a part far below the channel's frame limit.
STRINGS_PER_PART = TOKENS_PER_PART * 4


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
    )


def parts(snapshot: Snapshot) -> Iterator[SnapshotPart]:
    """The Snapshot in pieces of which each decodes in ≤ 5 ms: the world with the first providers, further providers,
    then the tokens.
    """
    first, *providers = _in_pieces(snapshot.providers) or [{}]
    tokens = list(_grouped(snapshot.tokens))
    last = len(providers) + len(tokens)
    world = replace(world_of(snapshot), providers=first)
    yield SnapshotPart(snapshot.generation, 0, last == 0, world=world)
    for seq, piece in enumerate(providers, 1):
        yield SnapshotPart(snapshot.generation, seq, seq == last, providers=piece)
    for seq, group in enumerate(tokens, 1 + len(providers)):
        yield SnapshotPart(snapshot.generation, seq, seq == last, tokens=group)


def _in_pieces(providers: Mapping[str, Provider]) -> list[dict[str, Provider]]:
    """In order, cut where a piece would have more than MODELS_PER_PART models.  A provider is never cut."""
    pieces: list[dict[str, Provider]] = []
    room = 0
    for name, provider in providers.items():
        weight = 1 + len(provider.models or ()) + len(provider.catalog)
        if not pieces or weight > room:
            pieces.append({})
            room = MODELS_PER_PART
        pieces[-1][name] = provider
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
        fresh = {name: row for name, row in after.providers.items() if before.providers.get(name) != row}
        if len(_in_pieces(fresh)) > 1:
            return None
        world = replace(after, providers=fresh)
    return Patch(old.generation, new.generation, tuple(changed.items()), removed, world, order)


def same(old: Snapshot, new: Snapshot) -> bool:
    """True where nothing but the generation differs."""
    return old.tokens == new.tokens and world_of(old) == world_of(new) and _same_order(old, new)


def _same_order(old: Snapshot, new: Snapshot) -> bool:
    """Equal mappings may differ in this, and it decides who is asked first."""
    return list(old.providers) == list(new.providers) and list(old.aliases) == list(new.aliases)
