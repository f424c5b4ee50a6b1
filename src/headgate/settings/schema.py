"""What the configuration file may say: one pydantic model per table, and the keys that are known but not served yet.

A key that nothing enforces is refused, never ignored: an unenforced budget is worse than an error.  ``LATER`` tells
such keys from typing mistakes; the number is the step of the plan that brings the key, None where none is fixed.
Units as in the file: seconds, megabytes, USD per million tokens.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError

BUILTIN = "builtin"
MIN_SECRET = 16
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# The transport frames, routes and authenticates the request; a header that says otherwise would smuggle or leak.
_OURS = frozenset(
    (
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "proxy-connection",
        "authorization",
        "x-api-key",
        "api-key",
        "cookie",
        "proxy-authorization",
    )
)

Positive = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=1, le=65_535)]


def wrong(sentence: str) -> PydanticCustomError:
    """A validation error whose text is a whole sentence for the operator."""
    return PydanticCustomError("headgate", "{sentence}", {"sentence": sentence})


class Row(BaseModel):
    """A table of the file.  ``LATER`` holds its keys that are documented but not served yet."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=False)
    LATER: ClassVar[dict[str, int | None]] = {}


def _host(value: str) -> str:
    if not value or any(c.isspace() or c in "/@[]" for c in value):
        raise wrong("must be a host name or an IP address, without scheme, port or brackets")
    return value


def _url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
        raise wrong("must be http://HOST[:PORT]/PATH or https://…, without user, query or fragment")
    return value.rstrip("/")


def _header_names(value: list[str]) -> list[str]:
    for name in value:
        if not _HEADER_NAME.fullmatch(name):
            raise wrong(f"{name!r} is not a header name")
        if name.lower() in _OURS:
            raise wrong(f"{name!r} is never taken over from the client: the gateway sets it")
    return [name.lower() for name in value]


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _HEADER_NAME.fullmatch(name):
            raise wrong(f"{name!r} is not a header name")
        if name.lower() in _OURS:
            raise wrong(f"{name!r} cannot be set here: the gateway sets it (keys belong in keys:)")
        if any(ord(c) < 32 or ord(c) in (127,) or ord(c) > 255 for c in text):
            raise wrong(f"the value of {name!r} has characters that no header may have")
    return value


def _origins(value: list[str]) -> list[str]:
    for origin in value:
        if origin != "*" and not re.fullmatch(r"https?://[^\s/?#@]+", origin):
            raise wrong(f"{origin!r} is not an origin: write * or https://HOST[:PORT]")
    return value


def _credential(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise wrong("must be printable ASCII without spaces" if text else "is empty")
    return value


def _secret(value: SecretStr) -> SecretStr:
    if len(_credential(value).get_secret_value()) < MIN_SECRET:
        raise wrong(f"is too short to be a secret: at least {MIN_SECRET} characters, better 32 random ones")
    return value


def _as_key(value: Any) -> Any:
    """``keys: [sk-1]`` is short for ``keys: [{key: sk-1}]``."""
    return {"key": value} if isinstance(value, str) else value


def _as_target(value: Any) -> Any:
    return {"target": value} if isinstance(value, str) else value


def _usd(value: Any) -> Any:
    """Numbers are read by their decimal digits: 0.1 in the file is exactly 0.1 USD, not the nearest binary fraction."""
    if isinstance(value, bool):
        raise wrong("must be a number: USD per million tokens")
    return str(value) if isinstance(value, float) else value


def _nano(value: Decimal) -> Decimal:
    if value.scaleb(9) % 1:
        raise wrong("has more than nine decimals: prices are kept in nano-USD per million tokens")
    return value


def _instant(value: Any) -> Any:
    """Unix seconds, or a date or instant as YAML reads them; without a zone it is UTC, a date is its first moment."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise wrong("must be a date, an instant like 2027-01-31T12:00:00Z, or Unix seconds") from error
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    return value


Usd = Annotated[Decimal, BeforeValidator(_usd), Field(ge=0, le=1_000_000, allow_inf_nan=False), AfterValidator(_nano)]
Credential = Annotated[SecretStr, AfterValidator(_credential)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
Url = Annotated[str, AfterValidator(_url)]
Host = Annotated[str, AfterValidator(_host)]


class Server(Row):
    LATER = {"workers": 9, "public_url": 4, "max_upload_mb": None, "tls": 11, "trusted_proxies": None}
    host: Host = "127.0.0.1"
    port: Port = 4000
    max_body_mb: Annotated[float, Field(gt=0, le=1024)] = 20
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


class Key(Row):
    LATER = {"priority": 4, "free": 4}
    key: Credential
    label: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None


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


class Model(Row):
    LATER = {"prefill": 4, "tokenizer": None, "params": 4}
    upstream_model: Annotated[str, Field(min_length=1)] | None = None
    canonical: str | None = None
    context_window: Annotated[int, Field(ge=1)] | None = None
    max_output: Annotated[int, Field(ge=1)] | None = None
    capabilities: list[str] = []
    price: PriceRow = PriceRow()
    timeouts: Deadlines = Deadlines()


class Provider(Row):
    LATER = {"preset": 3, "quirks": 3}
    base_url: Url
    dialect: Literal["openai_chat"] = "openai_chat"
    auth: Literal["bearer", "x-api-key", "api-key", "query", "none"] = "bearer"
    keys: list[Annotated[Key, BeforeValidator(_as_key)]] = []
    ca_file: str | None = None
    max_connections: Annotated[int, Field(ge=1, le=65_535)] = 1000
    pool: PoolLimits = PoolLimits()
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = {}
    forward_headers: Annotated[list[str], AfterValidator(_header_names)] = ["openai-organization", "openai-project"]
    training: Literal["never", "unknown", "yes"] = "unknown"
    models: dict[str, Model | None] | None = None


class Defaults(Row):
    LATER = {"retries": 4}
    timeouts: Deadlines = Deadlines()


class TargetRow(Row):
    LATER = {"weight": 4}
    target: str


class Alias(Row):
    LATER = {
        **dict.fromkeys(
            [
                "strategy",
                "retries",
                "on_midstream_failure",
                "on_disconnect",
                "drain",
                "resumable_s",
                "early_commit_s",
                "tool_calls",
                "structured",
                "affinity",
                "privacy",
            ],
            4,
        ),
        **dict.fromkeys(["hold_tokens", "queue", "cache", "unpriced"], 5),
        "store_bodies": 7,
    }
    use_case: str | None = None
    targets: list[Annotated[TargetRow, BeforeValidator(_as_target)]] = []
    timeouts: Deadlines = Deadlines()


class Token(Row):
    LATER = dict.fromkeys(["tenant", "limits", "budget", "free_only"], 5)
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    secret: Secret
    scopes: list[Literal["gate:chat", "gate:models", "gate:usage"]] = ["gate:chat", "gate:models", "gate:usage"]
    models: list[str] = []
    expires: Annotated[float, BeforeValidator(_instant), Field(gt=0, allow_inf_nan=False)] | None = None


class File(Row):
    """The whole file."""

    LATER = {
        "shared_state": 9,
        "master_key": 5,
        "brand": 6,
        "detect": 3,
        "unpriced": 5,
        "tenants": 5,
        "cache": 5,
        "replay": 4,
        "traces": 7,
        "telemetry": 7,
        "webhooks": 5,
        "hosters": 8,
    }
    server: Server = Server()
    control: Control = Control()
    state_dir: str | None = None
    database: str | None = None
    admin_token: Secret | None = None
    default_model: Annotated[str, Field(min_length=1)] = "auto"
    providers: dict[str, Provider] = {}
    defaults: Defaults = Defaults()
    aliases: dict[str, Alias] = {}
    tokens: list[Token] = []
