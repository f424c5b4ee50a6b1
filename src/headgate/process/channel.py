"""The socket between the planes: its messages.

A Unix stream socket in the state directory (0600).  Control listens; every data process connects, says Hello, and
reconnects for as long as it lives.  A frame (``frames``) has one of the structs below, told apart by their tag.

    control → data    SnapshotPart*  Patch  Secrets  Resume  AskReply  Uses  Ask  SpentBefore*
    data → control    Hello  Ack  Gauges  Ask  AskReply

A Snapshot comes in parts so small that decoding one never holds the loop for more than 5 ms.  The data process swaps
when the part marked ``last`` has come, then acks the generation.  A Patch has the changed objects on top of the
generation before it.  Neither side ever waits for the other.  When the socket is full, the data process overwrites
Gauges.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct, field

from headgate.model import Alias, CallGroup, Grant, Provider, SavedPrompt, Spent, Tenant, Timeouts
from headgate.process import frames
from headgate.process.frames import Frames

MAX_FRAME = 4 << 20
SUN_PATH = 100  # a Unix socket's address has room for 107 bytes, on some systems for 103
TOKENS_PER_PART = 1000  # about 1 ms to decode
MODELS_PER_PART = 1000  # model rows of providers: about 1.5 ms
PROMPTS_PER_PART = 256 << 10  # characters of saved prompts: well below 1 ms


class World(Struct, frozen=True):
    """A Snapshot without its tokens."""

    providers: Mapping[str, Provider]
    aliases: Mapping[str, Alias]
    default_model: str = "auto"
    timeouts: Timeouts = Timeouts()
    retries: int = 2
    unpriced: str = "allow"
    presets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    groups: tuple[CallGroup, ...] = ()
    prompts: Mapping[str, SavedPrompt] = field(default_factory=dict)


class SnapshotPart(Struct, frozen=True, tag="snapshot"):
    """One piece of a whole Snapshot.  ``world`` is in the first part; parts of one generation come in order.

    ``providers`` are those that had no room in the parts before, in order behind theirs; ``world`` has no prompts.
    """

    generation: int
    seq: int
    last: bool
    tokens: tuple[tuple[bytes, Grant], ...] = ()
    world: World | None = None
    providers: Mapping[str, Provider] = field(default_factory=dict)
    prompts: Mapping[str, SavedPrompt] = field(default_factory=dict)


class Patch(Struct, frozen=True, tag="patch"):
    """Changed objects on top of generation ``base``; a receiver that is not at ``base`` asks anew with Hello.

    ``world`` is None where only tokens changed.  Where ``order`` is given, it names all providers in order, and
    ``world.providers`` has only those that are new or changed.  ``world.prompts`` has only those, too.
    """

    base: int
    generation: int
    tokens: tuple[tuple[bytes, Grant], ...] = ()
    removed_tokens: tuple[bytes, ...] = ()
    world: World | None = None
    order: tuple[str, ...] | None = None
    removed_prompts: tuple[str, ...] = ()


class Secrets(Struct, frozen=True, tag="secrets"):
    """Providers' keys by Account.id: the whole set, replacing the one before.  Only ever in memory."""

    keys: Mapping[str, str]

    def __repr__(self) -> str:  # a log line or a traceback must not print keys
        return f"Secrets({len(self.keys)} keys)"


class Resume(Struct, frozen=True, tag="resume"):
    """Use these accounts of a provider again, even if they rest: a check has succeeded, or an operator wants it.
    ``targets``: its ejected targets too.
    """

    provider: str
    accounts: tuple[str, ...]
    targets: bool = False
    trims: Mapping[str, bool] = field(default_factory=dict)  # by upstream model: the result of a probe of prefills


class AskReply(Struct, frozen=True, tag="answer"):
    """The reply to an ``Ask``: an HTTP status and a JSON body, ready to be sent on."""

    id: int
    status: int
    body: bytes


class Uses(Struct, frozen=True, tag="uses"):
    """Requests of the last 30 days: by the ``provider/model`` that served, and by the requested name.  Sent after the
    Snapshot and about once a minute; only the catalog uses it.
    """

    models: Mapping[str, int]
    names: Mapping[str, int]


class SpentBefore(Struct, frozen=True, tag="spent"):
    """What holders of limits and budgets had used before this data process began.  Sent in parts to one whose Hello
    asks for it, once the journal of those before it is in the store.
    """

    last: bool
    spent: tuple[Spent, ...] = ()


class Hello(Struct, frozen=True, tag="hello"):
    """First frame of a connection.  ``generation`` is what the data process holds; ``salt`` stands in the ids of its
    calls (``model.receipt_ids``).  ``since``: its counters began at this instant (Unix seconds) and want SpentBefore;
    0: they have it, or its build does not know that message.
    """

    worker: str
    boot_id: str
    generation: int
    pid: int
    salt: str = ""
    since: float = 0.0


class Ack(Struct, frozen=True, tag="ack"):
    """The data process now serves with this generation."""

    generation: int


class Gauges(Struct, frozen=True, tag="gauges"):
    """A few present figures; a newer frame replaces an older one."""

    at: int
    values: Mapping[str, float] = field(default_factory=dict)


def queued_at(alias: str) -> str:
    """The name of the gauge of an alias's queue; where no call waits there is none."""
    return f"queued:{alias}"


class Ask(Struct, frozen=True, tag="ask"):
    """A question.  Control gets those that need the store (``kind``: ``request`` | ``usage`` | ``mint`` | ``children``
    | ``end``).  A data process gets those that need its health tables and counters (``explain``, with a request's body;
    ``standings``, of the accounts; ``quotas``) or its response cache (``cache``, its figures; ``cache_clear``).
    ``grant`` is the asker, empty: the operator.

    ``timeout`` is in seconds: after it the asker no longer waits for the ``AskReply``.
    """

    id: int
    kind: str
    grant: str
    timeout: float
    params: Mapping[str, str] = field(default_factory=dict)


Down = SnapshotPart | Patch | Secrets | Resume | AskReply | Uses | Ask | SpentBefore
Up = Hello | Ack | Gauges | Ask | AskReply


def frame(message: Down | Up) -> bytes:
    """One message as it goes over the socket.  Raises ValueError if it is too long."""
    return frames.frame(message, MAX_FRAME)


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """Yield the address to bind or connect to for ``path``.  If the path is longer than an address may be, its folder
    is reached through a descriptor, open inside the ``with``.  Raises OSError.
    """
    if len(os.fsencode(path)) <= SUN_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def down_frames() -> Frames[Down]:
    """The reader of a data process."""
    return Frames(msgspec.msgpack.Decoder(Down), MAX_FRAME)


def up_frames() -> Frames[Up]:
    """The reader of control."""
    return Frames(msgspec.msgpack.Decoder(Up), MAX_FRAME)
