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
    # The prices for a lost call: nano-USD per million tokens of the first target, -1 unknown.
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
    """The tokens that a running call has delivered.  If the call is lost, it is billed by them."""

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
    # The tokens that it used, with a continuation's prefill: the operator's cost
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: int = -1  # nano-USD, -1 unknown or none
    skipped: int = 0  # events of its stream that could not be read


class SeamRecord(Struct, array_like=True, gc=False):
    """The place where a broken stream went on.  ``after``: characters before it.  ``origin`` and ``target``:
    ``provider/model`` of both attempts.  ``why``: the code of the error that broke the stream.
    """

    after: int
    origin: str
    target: str
    why: str


class Share(Struct, array_like=True, gc=False):
    """One target's part of an answer that several targets wrote, and its cost.  The first one has the prompt."""

    provider: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    cost: int = -1  # nano-USD, -1 unknown


class Closed(Struct, array_like=True, tag=3, gc=False):
    """A call ended.  ``outcome``: delivered | failed | cancelled | truncated | hollow | refused | budget_exceeded.

    The phases are µs, -1 if the call did not get there.  ``queue_us``: the wait in the queue of the alias and for a
    connection.  ``connect_us``: TCP and TLS (0 on a pooled connection).  ``ttfb_us``: request sent → response head.
    ``ttft_us``: received → first visible token.
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
    continued: tuple[SeamRecord, ...] = ()
    not_continued: str = ""  # of a stream that broke and could not go on: why
    shares: tuple[Share, ...] = ()  # of an answer that several targets wrote
    price_id: str = ""  # of the price itself: catalog.money.price_id
    token_details: TokenDetails | None = None
    cache: str = ""  # how it used the response cache: hit | miss | bypass; empty: not at all
    saved: int = -1  # nano-USD that a hit did not cost, -1 unknown


class Refused(Struct, array_like=True, tag=4, gc=False):
    """``count`` requests were refused with ``code`` in the second that starts at ``at``, before a token was known."""

    at: int
    code: str
    count: int


class Rotated(Struct, array_like=True, tag=5, gc=False):
    """The last record of a full segment: the next one is in the next file."""

    next: int


Record = Opened | Progress | Closed | Refused | Rotated
