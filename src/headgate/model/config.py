"""Configuration as the data plane sees it: providers, models, aliases, tokens, limits, and the Snapshot of them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from headgate.model.limits import NO_LIMITS, Budget, CallGroup, CallLimits, Tenant
from headgate.model.prices import Price
from headgate.model.prompts import SavedPrompt

AUTO = "auto"  # the alias that is always there
FEATURES = ("tools", "json_schema", "vision", "audio")  # what a call may use, and not every model has
CAPABILITIES = (*FEATURES, "reasoning", "pdf", "video", "web_search")  # what a model may be said to have


class Timeouts(Struct, frozen=True, gc=False):
    """Deadlines of one attempt.  Non-streamed calls use ``connect`` and ``total`` only."""

    connect: float = 3.0
    headers: float = 60.0
    first_token: float = 60.0
    stall: float = 60.0
    total: float = 600.0


class ConnectionLimits(Struct, frozen=True, gc=False):
    """Limits of a provider's connections.  ``wait_s`` bounds the wait for a free one."""

    max_connections: int = 1000
    idle_s: float = 60.0
    max_age_s: float = 600.0
    wait_s: float = 5.0


class Spend(Struct, frozen=True, gc=False):
    """How much may be spent with an account (nano-USD) in a UTC ``day`` or ``month``; then ``warn`` or ``park``."""

    limit: int
    period: str = "month"
    action: str = "park"


class Account(Struct, frozen=True, gc=False, omit_defaults=True):
    """One credential of a provider, by reference: ``id`` is the key into the Secrets.

    Ids are ``<provider>/<label or position>``, e.g. ``openai/0``.  ``owner`` is the tenant whose key it is, empty:
    everybody's; with ``share`` other tenants may use it after their own.  Limits are requests within a minute and
    within a UTC day.  ``expires`` and ``paused_until`` are Unix seconds; control sets the latter where the spend limit
    is reached.
    """

    id: str
    label: str | None = None
    priority: int = 0
    free: bool = False
    owner: str = ""
    share: bool = False
    minute_limit: int | None = None
    daily_limit: int | None = None
    expires: float | None = None
    spend: Spend | None = None
    paused_until: float = 0.0

    @property
    def has_terms(self) -> bool:
        """True if it may be out of use by its own limits, which have to be looked at before each use."""
        return (
            self.minute_limit is not None
            or self.daily_limit is not None
            or self.expires is not None
            or self.paused_until > 0.0
        )

    def may_serve(self, tenant: str) -> bool:
        """True if calls of ``tenant`` (empty: of none) may use it."""
        return not self.owner or self.share or self.owner == tenant


class ModelRow(Struct, frozen=True, gc=False, omit_defaults=True):
    """A model as one provider offers it.  ``kind``: chat | embedding | image | speech | transcription | other."""

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
    """One row of ``providers:``.  ``models is None`` means that any model id may follow the slash.  ``catalog`` then
    describes some of these models (prices, context windows); it does not restrict them.

    ``headers``: an empty value stands for a secret, which is stored with the keys (``wire.signing.header_secret``).

    ``origin``: ``file`` (declared in the YAML), ``store``, ``environment`` (its key was found there), ``detected`` (an
    engine on this machine) or ``builtin``.  ``preset`` names its row of ``providers/``.
    """

    name: str
    base_url: str
    dialect: str = "openai_chat"
    auth: str = "bearer"  # bearer | x-api-key | api-key | query | sigv4 | none
    accounts: tuple[Account, ...] = ()
    ca_file: str | None = None
    pool: ConnectionLimits = ConnectionLimits()
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
    carrier: str = "http"  # the kind of way to it: a key of serving.upstream.carriers

    @property
    def family(self) -> str:
        """The service that this is an entrance to.  Its other entrances accept what it has signed."""
        return self.preset or self.name


class TargetRef(Struct, frozen=True, gc=False):
    """One entry of an alias's chain: ``model`` is ``provider/model id``."""

    model: str
    weight: int = 1


class Alias(Struct, frozen=True):
    """A name for a job.  ``timeouts`` holds only the keys that the alias sets.

    ``origin``: ``file``, ``store``, or ``shipped`` (Headgate chose its targets; ``why`` says how).
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
    hold_tokens: int = 1024  # of output, which admission holds at first
    unpriced: str | None = None  # allow | refuse; None: as the gateway
    queue_size: int = 0  # calls of one tenant that may wait for a limit; 0: none waits
    queue_wait_s: float = 10.0
    cache_enabled: bool = False
    cache_ttl_s: float = 3600.0
    cache_pace: str = "at_once"  # at_once | recorded

    @property
    def keeps(self) -> bool:
        """True if answers to its calls may be kept: for clients that come back, or in the response cache."""
        return self.cache_enabled or self.resumable_s > 0 or self.on_disconnect != "cancel"

    @property
    def holds(self) -> bool:
        """True if some of its streams are passed on only when they are complete."""
        return self.tool_calls == "hold" or self.structured == "buffer"


class Grant(Struct, frozen=True, gc=False, omit_defaults=True):
    """What the holder of a token may do.  ``id`` is public; the token itself is nowhere.

    ``models`` empty means all.  ``expires`` is Unix seconds.  ``tenant``: the name of its Tenant; empty: none.
    ``over_budget``: the alias that serves where the budget is spent; empty: its tenant's.  ``free_only``: only models
    that cost nothing; ``priced_only``: only those whose price is known.  ``parent``: the id of the token whose holder
    has made this one, ``run``: the holder's name for what it is for.  ``tiers``: those of slow,
    medium, fast and ludicrous that a call may name, empty: all; ``tier``: of a call that names none.
    """

    id: str
    name: str
    scopes: tuple[str, ...] = ("gate:chat", "gate:models", "gate:usage")
    models: tuple[str, ...] = ()
    expires: float | None = None
    origin: str = "file"
    tenant: str = ""
    limits: CallLimits = NO_LIMITS
    budget: Budget | None = None
    over_budget: str = ""
    free_only: bool = False
    priced_only: bool = False
    parent: str = ""
    run: str = ""
    tier: str = ""
    tiers: tuple[str, ...] = ()


class Snapshot(Struct, frozen=True):
    """The configuration of one call, from its first byte to its last.

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
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    groups: tuple[CallGroup, ...] = ()  # ``budgets:``
    prompts: Mapping[str, SavedPrompt] = field(default_factory=dict)  # by SavedPrompt.key


class Limits(Struct, frozen=True, gc=False):
    """The limits of the listener, the transport and the dialects, in bytes and seconds."""

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
    replay_max: int = 256 << 20  # memory of all kept calls
    replay_per_stream: int = 256 << 10
    replay_ttl: float = 300.0  # how long a kept stream stays after its end
    idempotency_ttl: float = 600.0  # the same, of an answer to an Idempotency-Key
    cache_max: int = 256 << 20  # memory of the response cache; 0: there is none


class HookSettings(Struct, frozen=True):
    """One entry of ``hooks:``.  ``on_error``: refuse | pass.  ``allowance_ms``: of CPU, for one call of the hook."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    on_error: str = "refuse"
    allowance_ms: float = 20.0


class DataSettings(Struct, frozen=True):
    """The settings of a data process at its start.  It reads only two files: its instance key and its last snapshot."""

    state_dir: str
    worker: str = "w0"
    limits: Limits = Limits()
    cors_origins: tuple[str, ...] = ()
    public_catalog: bool = True
    log_level: str = "info"
    log_format: str = "auto"
    public_url: str = ""  # what clients reach this gateway under; empty: links are relative
    hooks: tuple[HookSettings, ...] = ()


class DataBoot(Struct, frozen=True):
    """The one message on a data process's boot socket; the listening socket comes with it (SCM_RIGHTS).

    ``snapshot`` is compiled from the file alone; ``secrets`` maps Account.id to the provider's key.
    """

    settings: DataSettings
    snapshot: Snapshot
    secrets: Mapping[str, str] = field(default_factory=dict)
