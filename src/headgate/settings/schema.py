"""The shape of the configuration file: one pydantic model per table, and the keys that are known but not served yet.

A key that nothing enforces is refused, never ignored: an unenforced budget is worse than an error.  ``LATER`` tells
such keys from typing mistakes; the number is the step of the plan that brings the key, None where none is fixed.
Units as in the file: seconds, megabytes, USD per million tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from headgate.catalog.names import nearest
from headgate.control.objects.conduct import Conduct, Drain, Retries, Weight
from headgate.control.objects.fields import (
    Credential,
    Positive,
    Url,
    Usd,
    capability,
    credential,
    header_names,
    header_values,
    instant,
    wrong,
)
from headgate.dialects.openai_chat.quirks import QUIRKS

BUILTIN = "builtin"
MIN_SECRET = 16
Port = Annotated[int, Field(ge=1, le=65_535)]


class Row(BaseModel):
    """A table of the file.  ``LATER`` holds its keys that are documented but not served yet."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=False)
    LATER: ClassVar[dict[str, int | None]] = {}

    @field_validator("*", mode="before")
    @classmethod
    def _no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """``resumable_s: true`` would be one second."""
        if isinstance(value, bool) and _numeric(cls.model_fields[str(info.field_name)].annotation):
            raise wrong("must be a number")
        return value


def _numeric(annotation: Any) -> bool:
    return annotation in (int, float) or any(_numeric(part) for part in get_args(annotation))


def _host(value: str) -> str:
    if not value or any(c.isspace() or c in "/@[]" for c in value):
        raise wrong("must be a host name or an IP address, without scheme, port or brackets")
    return value


def _origins(value: list[str]) -> list[str]:
    for origin in value:
        if origin != "*" and not re.fullmatch(r"https?://[^\s/?#@]+", origin):
            raise wrong(f"{origin!r} is not an origin: write * or https://HOST[:PORT]")
    return value


def _secret(value: SecretStr) -> SecretStr:
    secret = credential(value)
    if len(secret.get_secret_value()) < MIN_SECRET:
        raise wrong(f"is too short to be a secret: at least {MIN_SECRET} characters, better 32 random ones")
    return secret


def _as_key(value: Any) -> Any:
    """``keys: [sk-1]`` is short for ``keys: [{key: sk-1}]``."""
    return {"key": value} if isinstance(value, str) else value


def _as_target(value: Any) -> Any:
    return {"target": value} if isinstance(value, str) else value


def _as_table(value: Any) -> Any:
    """``groq:`` with nothing behind it: all of it from the preset."""
    return {} if value is None else value


def _quirks(value: list[str]) -> list[str]:
    for name in value:
        if name not in QUIRKS:
            raise wrong(f"there is no quirk {name!r}{nearest(name, QUIRKS)}; known are {', '.join(sorted(QUIRKS))}")
    return value


Secret = Annotated[SecretStr, AfterValidator(_secret)]
Host = Annotated[str, AfterValidator(_host)]


class Server(Row):
    LATER = {"workers": 9, "max_upload_mb": None, "tls": 11, "trusted_proxies": None}
    host: Host = "127.0.0.1"
    port: Port = 4000
    public_url: Url | None = None
    max_body_mb: Annotated[float, Field(gt=0, le=1024)] = 20
    max_bodies_mb: Annotated[float, Field(gt=0, le=1_048_576)] = 512
    max_answer_mb: Annotated[float, Field(gt=0, le=1024)] = 32
    max_event_mb: Annotated[float, Field(gt=0, le=256)] = 8
    max_head_kb: Annotated[float, Field(ge=1, le=1024)] = 32
    header_timeout_s: Positive = 10
    body_timeout_s: Positive = 60
    idle_timeout_s: Positive = 75
    keep_alive_s: Positive = 10
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    drain_s: Annotated[float, Field(ge=0, le=86_400)] = 60
    cors_origins: Annotated[list[str], AfterValidator(_origins)] = []
    public_catalog: bool = True


class Control(Row):
    LATER = {"public_url": 5}
    host: Host = "127.0.0.1"
    port: Port = 4001
    allowed_hosts: list[Host | Literal["*"]] = []


Prefill = Literal["none", "trailing", "continue_final_message", "prefix"]


def _prefill(value: Any) -> Any:
    """``true`` is short for the spelling that needs nothing beside the message.  The environment has it as a text."""
    return {
        **dict.fromkeys(("true", "yes", "on"), "trailing"),
        **dict.fromkeys(("false", "no", "off"), "none"),
    }.get(str(value).lower(), value)


YesNo = Literal["yes", "no"]


def _yes_no(value: Any) -> Any:
    """YAML reads a bare ``yes`` as true, and the environment has ``true`` as a text."""
    return {"true": "yes", "false": "no"}.get(str(value).lower(), value)


def _training(value: Any) -> Any:
    """YAML reads a bare ``yes`` as true."""
    return "yes" if value is True else value


Tokens = Annotated[int, Field(ge=1, le=1_000_000_000)]


def _parameters(value: Iterable[str]) -> None:
    for name in value:
        if name in ("model", "messages", "stream", "stream_options", "headgate"):
            raise wrong(f"{name!r} is the gateway's own to set")


def _parameter_names(value: list[str]) -> list[str]:
    _parameters(value)
    return value


def _parameter_values(value: dict[str, Any]) -> dict[str, Any]:
    _parameters(value)
    return value


def _parameter_map(value: dict[str, str]) -> dict[str, str]:
    _parameters([*value, *value.values()])
    return value


class Key(Row):
    key: Credential
    label: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    free: bool = False


class PoolLimits(Row):
    idle_s: Positive = 60
    max_age_s: Positive = 600
    wait_s: Annotated[float, Field(ge=0, le=3600)] = 5


class Deadlines(Row):
    """Only the keys that are set count; the rest comes from the level below."""

    connect: Positive | None = None
    headers: Positive | None = None
    first_token: Positive | None = None
    stall: Positive | None = None
    total: Positive | None = None


class PriceRow(Row):
    input: Usd | None = None
    output: Usd | None = None
    cached_input: Usd | None = None
    cache_write: Usd | None = None


class Params(Row):
    """Edits of the client's parameters: set if missing, dropped, renamed."""

    default: Annotated[dict[str, Any], AfterValidator(_parameter_values)] = {}
    drop: Annotated[list[str], AfterValidator(_parameter_names)] = []
    map: Annotated[dict[str, str], AfterValidator(_parameter_map)] = {}


class Model(Row):
    LATER = {"tokenizer": None}
    upstream_model: Annotated[str, Field(min_length=1)] | None = None
    canonical: str | None = None
    context_window: Tokens | None = None
    max_output: Tokens | None = None
    capabilities: list[Annotated[str, AfterValidator(capability)]] = []
    prefill: Annotated[Prefill, BeforeValidator(_prefill)] | None = None
    prefill_trims: Annotated[YesNo, BeforeValidator(_yes_no)] | None = None
    price: PriceRow = PriceRow()
    timeouts: Deadlines = Deadlines()
    params: Params = Params()


class Provider(Row):
    """After ``presets.expand``: the values of the preset's row are here too.  An empty ``base_url`` was never given."""

    preset: str | None = None
    base_url: Url = ""
    dialect: Literal["openai_chat"] = "openai_chat"
    auth: Literal["bearer", "x-api-key", "api-key", "query", "none"] = "bearer"
    keys: list[Annotated[Key, BeforeValidator(_as_key)]] = []
    ca_file: str | None = None
    max_connections: Annotated[int, Field(ge=1, le=65_535)] = 1000
    pool: PoolLimits = PoolLimits()
    headers: Annotated[dict[str, str], AfterValidator(header_values)] = {}
    forward_headers: Annotated[list[str], AfterValidator(header_names)] = ["openai-organization", "openai-project"]
    quirks: Annotated[list[str], AfterValidator(_quirks)] = []
    training: Annotated[Literal["never", "unknown", "yes"], BeforeValidator(_training)] = "unknown"
    prefill: Annotated[Prefill, BeforeValidator(_prefill)] = "none"
    prefill_trims: Annotated[YesNo, BeforeValidator(_yes_no)] | None = None
    models: dict[str, Model | None] | None = None


class Detect(Row):
    local_engines: bool = True
    environment: bool = True


class Defaults(Row):
    timeouts: Deadlines = Deadlines()
    retries: Retries = 2


class TargetRow(Row):
    target: str
    weight: Weight = 1


class DrainRow(Row, Drain):
    pass


class Alias(Row, Conduct):
    LATER = {
        **dict.fromkeys(["hold_tokens", "queue", "cache", "unpriced"], 5),
        "store_bodies": 7,
    }
    use_case: str | None = None
    targets: list[Annotated[TargetRow, BeforeValidator(_as_target)]] = []
    drain: DrainRow = DrainRow()
    timeouts: Deadlines = Deadlines()


class Token(Row):
    LATER = dict.fromkeys(["tenant", "limits", "budget", "free_only"], 5)
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    secret: Secret
    scopes: list[Literal["gate:chat", "gate:models", "gate:usage"]] = ["gate:chat", "gate:models", "gate:usage"]
    models: list[str] = []
    expires: Annotated[float, BeforeValidator(instant), Field(gt=0, allow_inf_nan=False)] | None = None


class Replay(Row):
    """The memory for resumable streams."""

    max_mb: Annotated[float, Field(gt=0, le=65_536)] = 256
    per_stream_kb: Annotated[float, Field(ge=16, le=65_536)] = 256
    ttl_s: Annotated[float, Field(ge=1, le=86_400)] = 300


class Logging(Row):
    """The log of the serve terminal.  ``calls``: a line per call."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
    calls: bool = True


class File(Row):
    """The whole file."""

    LATER = {
        "shared_state": 9,
        "master_key": 5,
        "brand": 6,
        "tenants": 5,
        "cache": 5,
        "traces": 7,
        "telemetry": 7,
        "webhooks": 5,
        "hosters": 8,
    }
    server: Server = Server()
    control: Control = Control()
    state_dir: str | None = None
    database: Annotated[str | None, Field(repr=False)] = None  # a password may stand in it
    admin_token: Secret | None = None
    default_model: Annotated[str, Field(min_length=1)] = "auto"
    detect: Detect = Detect()
    unpriced: Literal["allow", "refuse"] = "allow"
    providers: dict[str, Annotated[Provider, BeforeValidator(_as_table, json_schema_input_type=Provider | None)]] = {}
    defaults: Defaults = Defaults()
    replay: Replay = Replay()
    logging: Logging = Logging()
    aliases: dict[str, Alias] = {}
    tokens: list[Token] = []
