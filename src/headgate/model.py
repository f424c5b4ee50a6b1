"""The nouns.  Frozen values that every package may hold; nothing here does anything.

Configuration as the data plane sees it (Provider, Alias, Grant, Snapshot), one call's values (Call, Target, Attempt,
Plan, Hold, Usage), and what is remembered of it (Opened, Progress, Closed, Refused).  They are msgspec structs
because they also travel: down the channel as MessagePack, up through the journal as MessagePack arrays.

Units: durations are seconds (float), instants are Unix nanoseconds (int) unless the name says otherwise,
prices are integer nano-USD per *million* tokens, costs integer nano-USD.
What there are thousands of travels without its default values (``omit_defaults``): half the bytes, half the time.
No value here ever holds a provider's key or a client's token: accounts are named, tokens are HMAC digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from msgspec import Raw, Struct, field

# ------------------------------------------------------------------------------------- configuration


class Timeouts(Struct, frozen=True, gc=False):
    """Deadlines of one attempt.  Non-streamed calls use ``connect`` and ``total`` only."""

    connect: float = 3.0
    headers: float = 60.0
    first_token: float = 60.0
    stall: float = 60.0
    total: float = 600.0


class PriceTier(Struct, frozen=True, gc=False):
    """What a call of more than ``above`` prompt tokens costs instead, all of it."""

    above: int
    input: int | None = None
    output: int | None = None
    cached_input: int | None = None
    cache_write: int | None = None


class Price(Struct, frozen=True, gc=False, omit_defaults=True):
    """nano-USD per million tokens; ``None`` is unknown, which is not the same as free.

    ``tiers`` come in rising order.  ``source`` is the price list's snapshot id: ``file``, ``store`` or
    ``genai-prices <version>``; empty where nothing is known.
    """

    input: int | None = None
    output: int | None = None
    cached_input: int | None = None
    cache_write: int | None = None
    tiers: tuple[PriceTier, ...] = ()
    source: str = ""


FREE = Price(0, 0, 0, 0)


class Pool(Struct, frozen=True, gc=False):
    """Limits of a provider's connections.  ``wait_s`` bounds the wait for a free one."""

    max_connections: int = 1000
    idle_s: float = 60.0
    max_age_s: float = 600.0
    wait_s: float = 5.0


class Account(Struct, frozen=True, gc=False):
    """One credential of a provider, by reference: ``id`` is the key into the Secrets.

    Ids are ``<provider>/<label or position>``, e.g. ``openai/0``.
    """

    id: str
    label: str | None = None
    priority: int = 0
    free: bool = False


class ModelRow(Struct, frozen=True, gc=False, omit_defaults=True):
    """What one provider offers under one id.  ``kind``: chat | embedding | image | speech | transcription | other."""

    id: str
    upstream_model: str | None = None
    canonical: str | None = None
    context_window: int | None = None
    max_output: int | None = None
    capabilities: tuple[str, ...] = ()
    prefill: str | None = None  # none | trailing | continue_final_message | prefix; None: as its provider
    price: Price = Price()
    tokenizer: str | None = None
    timeouts: Mapping[str, float] = field(default_factory=dict)
    param_defaults: Mapping[str, bytes] = field(default_factory=dict)
    param_drop: tuple[str, ...] = ()
    param_map: Mapping[str, str] = field(default_factory=dict)
    title: str | None = None
    kind: str = "chat"
    retired: bool = False  # its maker has announced its end, or ended it
    prefill_trims: str | None = None  # yes | no: is a prefill's trailing white space lost; None: as its provider


class Provider(Struct, frozen=True, omit_defaults=True):
    """One row of ``providers:``.  ``models is None`` means that any model id may follow the slash; ``catalog`` then
    holds what is known of some of them (prices, context windows): facts, no fence.

    ``headers``: a value that is empty is a secret, kept where keys are (``wire.signing.header_secret``).

    ``origin``: ``file`` (declared in the YAML), ``store``, ``environment`` (its key was found there), ``detected`` (an
    engine on this machine) or ``builtin``.  ``preset`` names its row of ``providers/``.
    """

    name: str
    base_url: str
    dialect: str = "openai_chat"
    auth: str = "bearer"  # bearer | x-api-key | api-key | query | sigv4 | none
    accounts: tuple[Account, ...] = ()
    ca_file: str | None = None
    pool: Pool = Pool()
    headers: Mapping[str, str] = field(default_factory=dict)
    forward_headers: tuple[str, ...] = ("openai-organization", "openai-project")
    quirks: tuple[str, ...] = ()
    training: str = "unknown"
    models: Mapping[str, ModelRow] | None = None
    price: Price = Price()  # of models that have no row of their own
    origin: str = "file"
    title: str | None = None
    preset: str | None = None
    catalog: Mapping[str, ModelRow] = field(default_factory=dict)
    prefill: str = "none"  # of models whose row does not say
    prefill_trims: str | None = None  # the same; None: a probe finds out


class TargetRef(Struct, frozen=True, gc=False):
    """One entry of an alias's chain: ``model`` is ``provider/model id``."""

    model: str
    weight: int = 1


class Alias(Struct, frozen=True):
    """A name for a job.  ``timeouts`` holds only the keys that the alias sets.

    ``origin``: ``file``, ``store``, or ``shipped`` (bound by us to whatever is configured; ``why`` says how).
    """

    name: str
    targets: tuple[TargetRef, ...] = ()
    use_case: str | None = None
    timeouts: Mapping[str, float] = field(default_factory=dict)
    retries: int | None = None
    origin: str = "file"
    why: str | None = None
    strategy: str = "priority"  # priority | weighted | cheapest | fastest | balanced
    on_midstream_failure: str = "continue"  # continue | error
    on_disconnect: str = "cancel"  # cancel | drain | detach
    drain_s: float = 120.0
    drain_tokens: int = 8192
    resumable_s: float = 0.0
    early_commit_s: float | None = None
    tool_calls: str = "stream"  # stream | hold
    structured: str = "error"  # error | buffer
    affinity: str = "prompt_cache"  # none | prompt_cache | session
    privacy: str = "any"  # any | no_train | trusted | own

    @property
    def holds(self) -> bool:
        """Some of its streams are not passed on before they are complete."""
        return self.tool_calls == "hold" or self.structured == "buffer"


class Grant(Struct, frozen=True, gc=False):
    """What the holder of a token may do.  ``id`` is public; the token itself is nowhere.

    ``models`` empty means all.  ``expires`` is Unix seconds.
    """

    id: str
    name: str
    scopes: tuple[str, ...] = ("gate:chat", "gate:models", "gate:usage")
    models: tuple[str, ...] = ()
    expires: float | None = None
    origin: str = "file"


class Snapshot(Struct, frozen=True):
    """The world as one call sees it, from its first byte to its last.

    ``tokens`` maps HMAC-SHA256(instance key, whole token) to its Grant.
    """

    generation: int = 0
    tokens: Mapping[bytes, Grant] = field(default_factory=dict)
    providers: Mapping[str, Provider] = field(default_factory=dict)
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    default_model: str = "auto"
    timeouts: Timeouts = Timeouts()
    retries: int = 2
    unpriced: str = "allow"  # allow | refuse: a target whose price is not known
    # Services that are known and may not be configured, with some of their models: errors name the next step
    presets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Limits(Struct, frozen=True, gc=False):
    """What the listener, the transport and the dialects refuse to exceed.  Bytes and seconds."""

    max_body: int = 20 << 20
    max_bodies: int = 512 << 20  # of all requests that arrive and of the calls that run; at least ``max_body``
    max_answer: int = 32 << 20
    max_event: int = 8 << 20
    max_head: int = 32 << 10
    max_header_fields: int = 100
    max_connections: int = 20_000
    header_timeout: float = 10.0
    body_timeout: float = 60.0
    idle_timeout: float = 75.0
    keep_alive: float = 10.0
    drain: float = 60.0
    replay_max: int = 256 << 20  # what all kept calls may take
    replay_per_stream: int = 256 << 10
    replay_ttl: float = 300.0  # how long a kept stream stays after its end
    idempotency_ttl: float = 600.0  # the same, of an answer to an Idempotency-Key


class DataSettings(Struct, frozen=True):
    """All that a data process is told at birth; it reads no file but its instance key and its last snapshot."""

    state_dir: str
    worker: str = "w0"
    limits: Limits = Limits()
    cors_origins: tuple[str, ...] = ()
    public_catalog: bool = True
    control_url: str = ""
    log_level: str = "info"
    log_format: str = "auto"
    public_url: str = ""  # what clients reach this gateway under; empty: links are relative


class DataBoot(Struct, frozen=True):
    """The one message on a data process's boot socket; the listening socket comes with it (SCM_RIGHTS).

    ``snapshot`` is compiled from the file alone; ``secrets`` maps Account.id to the provider's key.
    """

    settings: DataSettings
    snapshot: Snapshot
    secrets: Mapping[str, str] = field(default_factory=dict)


# ------------------------------------------------------------------------------------- one call

AUTO = "auto"  # the alias that is always there
FEATURES = ("tools", "json_schema", "vision", "audio")  # what a call may use, and not every model has
CAPABILITIES = (*FEATURES, "reasoning", "pdf", "video", "web_search")  # what a model may be said to have


class Options(Struct, frozen=True, gc=False):
    """What one request says about its own way: the members of its ``headgate`` object.  None: not said."""

    max_cost: int | None = None  # nano-USD
    fallback_models: tuple[str, ...] = ()
    preferred_providers: tuple[str, ...] = ()
    excluded_providers: tuple[str, ...] = ()
    retries: int | None = None
    privacy: str | None = None
    on_disconnect: str | None = None
    resumable_s: float | None = None
    on_midstream_failure: str | None = None


NO_OPTIONS = Options()


class Prompt(Protocol):
    """What policy may know of a request.  Made by the client's dialect; a member costs something only when it is read.

    ``obstacle``: why another attempt cannot continue the answer.  ``structured``: it follows a grammar; ``sampled``: it
    depends on how it came about (several choices, log probabilities, penalties, audio, tools that the provider runs,
    its conversation state); None: nothing is in the way.
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


class Call(Struct, gc=False):
    """What a client asks for.  ``body`` is canonical: the members of a chat completion, each with its own bytes.

    ``native`` are the members as the client sent them, where its API (``dialect``) is another one; None as soon as the
    gateway has changed the request.
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
    dialect: str = ""  # of the client, where ``native`` is set
    native: dict[str, Raw] | None = None


class Target(Struct, frozen=True):
    """Where an attempt goes: a provider, one of its models, and the deadlines that hold there.

    ``prefill`` is how it is asked to go on with a text; ``none``: it cannot.  ``prefill_trims``: whether it drops
    that text's trailing white space; None: it does not say.
    """

    provider: Provider
    model: str
    upstream_model: str
    price: Price
    timeouts: Timeouts
    row: ModelRow | None = None
    prefill: str = "none"
    prefill_trims: bool | None = None


class Attempt(Struct, frozen=True):
    """One upstream request: which target, with which account (``None``: the provider needs none)."""

    target: Target
    account: Account | None


class Candidate(Struct, frozen=True):
    """A target that was looked at: used where ``reason`` is empty, else why not (``code: sentence``).

    ``cost`` is what the call is expected to cost there (nano-USD, None unknown or not asked for), ``weight`` its share
    with the strategy ``weighted``; a strategy chooses among those of one ``rank``, lower ranks come first.
    """

    target: Target
    reason: str = ""
    cost: int | None = None
    weight: int = 1
    rank: int = 0


NO_ALIAS = Alias("")


class Plan(Struct, frozen=True):
    """What may be tried, in order of preference: one Attempt per usable (target, account).

    ``requested`` is the name that the client used, after defaulting.  ``alias`` says how its calls are conducted
    (``NO_ALIAS``, all defaults, for a bare model).  ``retries`` is how often one target is asked again.
    ``ordered``: the attempts stand in the order to try; else chance, the accounts' headroom and ``affinity`` (a digest
    of whose prompt cache this is, empty: nobody's) have a say.
    """

    requested: str
    attempts: tuple[Attempt, ...]
    candidates: tuple[Candidate, ...] = ()
    alias: Alias = NO_ALIAS
    retries: int = 2
    ordered: bool = True
    affinity: bytes = b""


class Hold(Struct, gc=False):
    """What admission has set aside for a running call; a lease, returned by ``admission.settle``."""

    grant_id: str
    tokens: int = 0


class Usage(Struct, gc=False):
    """Token counts with their basis: ``provider`` (reported), ``counted`` or ``estimated``.

    ``cached`` and ``cache_write`` are parts of ``prompt``, ``reasoning`` is part of ``completion``, as OpenAI counts.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    basis: str = "estimated"


class Delivered(Struct, frozen=True):
    """What a client has seen of a stream that broke.

    ``text``: the content, exactly; None where it was not kept (too long, or nobody asked for it).  ``kinds``: the
    delta's members that were seen.  ``tokens``: of the content, as well as can be told.  ``finished``: with its finish
    reasons; what went wrong came behind them.
    """

    text: str | None
    kinds: frozenset[str]
    choices: int
    tokens: int
    finished: bool = False


# ------------------------------------------------------------------------------------- what is remembered

# Records are MessagePack arrays with an integer tag, one per journal record.  Fields are only ever added at the end,
# with a default: an older record then still decodes.


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


class Progress(Struct, array_like=True, tag=2, gc=False):
    """A running call has delivered so much: what a lost one is billed from."""

    id: str
    at: int
    completion_tokens: int  # estimated


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
    """A call ended.  ``outcome``: delivered | failed | cancelled | truncated | hollow | refused.

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


class Refused(Struct, array_like=True, tag=4, gc=False):
    """``count`` requests were refused with ``code`` in the second that starts at ``at``, before a token was known."""

    at: int
    code: str
    count: int


class Rotated(Struct, array_like=True, tag=5, gc=False):
    """The last record of a full segment: the next one is in the next file."""

    next: int


Record = Opened | Progress | Closed | Refused | Rotated
