"""The records of calls, as they stand in the journal.

MessagePack arrays with an integer tag, one per journal record.  Fields are only ever added at the end, with a default:
an older record then still decodes.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from headgate.model.prices import TokenDetails


class Opened(Struct, array_like=True, tag=1, gc=False):
    """A call was admitted.  ``at`` is Unix ns."""

    id: str
    at: int
    grant: str
    requested: str
    stream: bool
    prompt_tokens: int  # estimated
    label: str = ""  # the client's own x-request-id, not unique
    # What a lost call is priced with: nano-USD per million tokens of the first target, -1 unknown.
    price_input: int = -1
    price_output: int = -1
    provider: str = ""
    model: str = ""
    tenant: str = ""
    hold: int = -1  # nano-USD that admission has set aside; -1: not said
    session: str = ""
    user: str = ""  # the client's name for its user
    tags: Mapping[str, str] | None = None  # ``headgate.metadata``


class Progress(Struct, array_like=True, tag=2, gc=False):
    """A running call has delivered so much: what a lost one is billed from."""

    id: str
    at: int
    completion_tokens: int  # estimated
    hold: int = -1  # nano-USD that are set aside by now; -1: as before


class AttemptRecord(Struct, array_like=True, gc=False):
    """One upstream request of a closed call.  Durations in µs since the call was received."""

    provider: str
    model: str
    account: str
    status: int = 0
    code: str = ""
    started_us: int = 0
    ended_us: int = 0
    # Why it was made: first | retry | account | fallback | probe | continue | restart
    why: str = "first"
    # What it used, where it used anything: the operator's cost, which a continued call's prefill is a part of
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: int = -1  # nano-USD, -1 unknown or none
    skipped: int = 0  # events of its stream that could not be read


class Seam(Struct, array_like=True, gc=False):
    """Where a broken stream went on: after so many characters, from one ``provider/model`` to another, and the code of
    what broke it.
    """

    after: int
    origin: str
    target: str
    why: str


class Share(Struct, array_like=True, gc=False):
    """What one target wrote of an answer that several did, and what that costs; the prompt is the first one's."""

    provider: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    cost: int = -1  # nano-USD, -1 unknown


class Closed(Struct, array_like=True, tag=3, gc=False):
    """A call ended.  ``outcome``: delivered | failed | cancelled | truncated | hollow | refused | budget_exceeded.

    The phases are µs, -1 where the call never got there: ``queue_us`` waiting for a connection, ``connect_us`` TCP
    and TLS (0 on a pooled one), ``ttfb_us`` request sent → response head, ``ttft_us`` received → first visible token.
    ``cost`` is nano-USD, -1 unknown.
    """

    id: str
    at: int
    outcome: str
    status: int
    code: str
    provider: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    basis: str
    cost: int
    duration_us: int
    queue_us: int = -1
    connect_us: int = -1
    ttfb_us: int = -1
    ttft_us: int = -1
    bytes_out: int = 0
    attempts: tuple[AttemptRecord, ...] = ()
    cache_write_tokens: int = 0
    price_source: str = ""  # Price.source of what it was priced with
    continued: tuple[Seam, ...] = ()
    not_continued: str = ""  # of a stream that broke and could not go on: why
    shares: tuple[Share, ...] = ()  # of an answer that several targets wrote
    price_id: str = ""  # of the price itself: catalog.money.price_id
    token_details: TokenDetails | None = None


class Refused(Struct, array_like=True, tag=4, gc=False):
    """``count`` requests were refused with ``code`` in the second that starts at ``at``, before a token was known."""

    at: int
    code: str
    count: int


class Rotated(Struct, array_like=True, tag=5, gc=False):
    """The last record of a full segment: the next one is in the next file."""

    next: int


Record = Opened | Progress | Closed | Refused | Rotated
