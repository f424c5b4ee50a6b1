"""The values of one call: its request, its targets, and the tokens held, used and delivered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from msgspec import Raw, Struct
from msgspec.structs import astuple

from headgate.model.config import Account, Alias, ModelRow, Provider, Timeouts
from headgate.model.prices import Price, TokenDetails
from headgate.model.prompts import PromptReference


class CacheWish(Struct, frozen=True, gc=False):
    """A request's ``headgate.cache``.  None: as its alias has it."""

    enabled: bool = True
    ttl_s: float | None = None
    pace: str | None = None


class Options(Struct, frozen=True, gc=False):
    """The members of a request's ``headgate`` object, which change how this call is routed.  None: not given."""

    max_cost: int | None = None  # nano-USD
    fallback_models: tuple[str, ...] = ()
    preferred_providers: tuple[str, ...] = ()
    excluded_providers: tuple[str, ...] = ()
    retries: int | None = None
    privacy: str | None = None
    on_disconnect: str | None = None
    resumable_s: float | None = None
    on_midstream_failure: str | None = None
    cache: CacheWish | None = None
    tier: str | None = None


NO_OPTIONS = Options()


class Prompt(Protocol):
    """The part of a request that policy may read.  The client's dialect makes it; a member is computed when it is read.

    ``obstacle`` says why another attempt cannot continue the answer.  ``structured``: the answer follows a grammar.
    ``sampled``: the answer depends on more than its text: several choices, log probabilities, penalties, audio, tools
    that the provider runs, or its conversation state.  None: there is no obstacle.
    """

    @property
    def size(self) -> int:
        """Bytes of the conversation."""

    @property
    def tokens(self) -> int:
        """Estimated tokens of the conversation, quickly: for admission."""

    @property
    def text_tokens(self) -> int:
        """Estimated tokens without attached images and sounds: for routing."""

    def uses(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of the features ``names`` (see ``FEATURES``) that the request uses."""

    @property
    def effort(self) -> str | None:
        """The reasoning effort that the client asks for; None: it names none."""

    @property
    def cache_key(self) -> bytes:
        """The client's own name for a prompt cache, or b""."""

    @property
    def user(self) -> bytes:
        """The client's name for its user, or b""."""

    @property
    def beginning(self) -> bytes:
        """The part of the conversation that is the same in each of its turns."""

    @property
    def has_code(self) -> bool:
        """True if the newest part of the conversation holds source code."""

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings."""

    @property
    def choices(self) -> int:
        """Number of answers that are asked for."""

    @property
    def obstacle(self) -> str | None: ...

    @property
    def follows_result(self) -> bool:
        """True if the conversation ends with a tool's result: an agent's model may have nothing to say to it."""


class Thought(Struct, frozen=True, gc=False):
    """A model's reasoning, as the client returns it.  It belongs to the message at ``position`` of the canonical body,
    and is for the family that made it only (``Provider.family``).
    """

    position: int
    family: str
    text: str


class Call(Struct, gc=False):
    """A client's request.  ``body`` is canonical: the members of a chat completion, each with its own bytes.

    ``dialect`` is the client's API if that is another one; ``native`` then holds the members as the client sent them,
    until the gateway changes the request.  ``lost``: the client's members that ``body`` has no form for.  ``thoughts``:
    reasoning of earlier turns, which ``body`` does not contain.  ``saved_prompt``: its
    messages go before those of ``body``; None: the request names none.
    """

    body: dict[str, Raw]
    model: str | None
    stream: bool
    include_usage: bool
    prompt: Prompt
    max_tokens: int | None = None
    timeout_ms: int | None = None
    metadata: Mapping[str, str] | None = None
    options: Options = NO_OPTIONS
    trace: bool = False  # the route trace is wanted in the answer
    dialect: str = ""
    native: dict[str, Raw] | None = None
    lost: tuple[str, ...] = ()
    thoughts: tuple[Thought, ...] = ()
    saved_prompt: PromptReference | None = None


class Target(Struct, frozen=True):
    """The destination of an attempt: a provider, one of its models, and its deadlines.

    ``prefill`` is the spelling of a request to continue a text; ``none``: the target cannot.  ``prefill_trims``: true
    if the target drops that text's trailing white space; None: not configured.
    """

    provider: Provider
    model: str
    upstream_model: str
    price: Price
    timeouts: Timeouts
    row: ModelRow | None = None
    prefill: str = "none"
    prefill_trims: bool | None = None

    @property
    def name(self) -> str:
        """``provider/model``, as clients write it."""
        return f"{self.provider.name}/{self.model}"


class Rendered(Struct, frozen=True, gc=False):
    """A request for an upstream: its path, its body, and further header lines (``Name: value\\r\\n``).

    ``passes``: the client's header fields whose names begin so belong to the body, and go with it.  They replace
    ``fields``.  ``dropped``: the members of the client's request that have no form in this one.
    """

    path: str
    body: bytes
    fields: bytes = b""
    passes: bytes = b""
    dropped: tuple[str, ...] = ()


class Attempt(Struct, frozen=True):
    """One upstream request: its target and its account (``None``: the provider needs none)."""

    target: Target
    account: Account | None


class Candidate(Struct, frozen=True):
    """A target that was considered.  ``reason``: empty if it is used, else why it is not (``code: sentence``).

    ``cost`` is the call's expected cost there, in nano-USD; None if it is unknown or not needed.  ``weight`` is its
    share with the strategy ``weighted``.  A strategy chooses among candidates of one ``rank``; lower ranks come first.
    """

    target: Target
    reason: str = ""
    cost: int | None = None
    weight: int = 1
    rank: int = 0


NO_ALIAS = Alias("")


class Plan(Struct, frozen=True):
    """The attempts that a call may make: one for each usable (target, account).

    ``requested`` is the name that the client used, after defaulting.  ``alias`` says how its calls are conducted
    (``NO_ALIAS``, all defaults, for a bare model).  ``retries`` is how often one target is asked again.
    ``ordered``: the attempts stand in the order to try; else chance, the accounts' headroom and ``affinity`` (a digest
    of whose prompt cache this is, empty: nobody's) have a say.  ``tenant``: whose own accounts come first, empty:
    nobody's.  ``has_terms``: some account may be out of use by its own limits, so no order is final.  ``keeps``: false
    if its alias is known not to keep answers.
    """

    requested: str
    attempts: tuple[Attempt, ...]
    candidates: tuple[Candidate, ...] = ()
    alias: Alias = NO_ALIAS
    retries: int = 2
    ordered: bool = True
    affinity: bytes = b""
    tenant: str = ""
    has_terms: bool = False
    keeps: bool = True


class Usage(Struct, gc=False):
    """Token counts with their basis: ``provider`` (reported), ``counted`` or ``estimated``.

    ``cached`` and ``cache_write`` are parts of ``prompt``, ``reasoning`` is part of ``completion``, as OpenAI counts;
    ``details`` are further parts.  ``policy.metering.tokens_by_kind`` takes them apart.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    basis: str = "estimated"
    details: TokenDetails | None = None

    def plus(self, later: Usage) -> Usage:
        """Return the sum.  Its basis is that of ``later``, which knows of both."""
        return Usage(
            self.prompt + later.prompt, self.completion + later.completion, self.cached + later.cached,
            self.cache_write + later.cache_write, self.reasoning + later.reasoning, later.basis,
            _added(self.details, later.details, 1),
        )  # fmt: skip

    def minus(self, before: Usage) -> Usage:
        """Return what must be added to ``before`` so that this is the sum."""
        return Usage(
            self.prompt - before.prompt, self.completion - before.completion, self.cached - before.cached,
            self.cache_write - before.cache_write, self.reasoning - before.reasoning, self.basis,
            _added(self.details, before.details, -1),
        )  # fmt: skip


def _added(first: TokenDetails | None, second: TokenDetails | None, sign: int) -> TokenDetails | None:
    if second is None:
        return first
    pairs = zip(astuple(first or TokenDetails()), astuple(second), strict=True)
    return TokenDetails(*(one + sign * other for one, other in pairs))


class Used(Struct, frozen=True, gc=False):
    """The tokens that one attempt used.  ``delivered``: its part of the answer, as the client has it.  ``billed``: all
    tokens that its provider charges for.

    ``delivered`` is added to that of earlier attempts.  A report may show that an earlier estimate was too high: a
    count in it is then negative.
    """

    delivered: Usage
    billed: Usage


NOTHING = Used(Usage(), Usage())
"""Of an attempt of which nothing came, as far as anybody knows.  Never changed."""


class Delivered(Struct, frozen=True):
    """The part of a broken stream that its client has seen.

    ``text``: the content, exactly; None where it was not kept (too long, or nobody asked for it).  ``members``: the
    delta's members that were seen.  ``tokens``: of the content, as well as can be told.  ``finished``: with its finish
    reasons; what went wrong came behind them.
    """

    text: str | None
    members: frozenset[str]
    choices: int
    tokens: int
    finished: bool = False
