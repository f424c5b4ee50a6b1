"""The shape of the configuration file: its tables beside the nouns of ``resources``, and the whole.

Keys of later versions are refused, never ignored: an unenforced budget is worse than an error.  ``LATER`` tells
such keys from typing mistakes; the number is the step of the plan that brings the key, None where none is fixed.
Units as in the file: seconds, megabytes, USD per million tokens.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from headgate.catalog.words import Level, LogForm
from headgate.model import HookSettings
from headgate.process.credentials import KEY_FORM, parse_key
from headgate.resources.alias import AliasTable, Retries
from headgate.resources.callers.group import GroupTable
from headgate.resources.callers.prompt import PromptTable
from headgate.resources.callers.tenant import TenantName, TenantWish
from headgate.resources.callers.token import Secret, TokenTable
from headgate.resources.fields import Positive, Resource, Url, wrong
from headgate.resources.provider import ProviderTable
from headgate.resources.timeouts import TimeoutsWish
from headgate.settings.alerts import MAX_WEBHOOKS, AlertsTable, WebhookTable
from headgate.settings.oidc import OidcTable

BUILTIN = "builtin"
SHIPPED_HOOKS = ("mask-secrets", "mask-personal")
Port = Annotated[int, Field(ge=1, le=65_535)]


def _host(value: str) -> str:
    if not value or any(c.isspace() or c in "/@[]" for c in value):
        raise wrong("must be a host name or an IP address, without scheme, port or brackets")
    return value


def _origins(value: list[str]) -> list[str]:
    for origin in value:
        if origin != "*" and not re.fullmatch(r"https?://[^\s/?#@]+", origin):
            raise wrong(f"{origin!r} is not an origin: write * or https://HOST[:PORT]")
    return value


def _as_table(value: Any) -> Any:
    """``groq:`` with nothing behind it: all of it from the preset."""
    return {} if value is None else value


def _as_hook(value: Any) -> Any:
    """``- mask-secrets``: a hook with its defaults."""
    return {"name": value} if isinstance(value, str) else value


def _master_key(value: SecretStr) -> SecretStr:
    if parse_key(value.get_secret_value()) is None:
        raise wrong(KEY_FORM.removeprefix("it "))
    return value


Host = Annotated[str, AfterValidator(_host)]


class Server(Resource):
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


class Control(Resource):
    host: Host = "127.0.0.1"
    port: Port = 4001
    allowed_hosts: list[Host | Literal["*"]] = []
    public_url: Url | None = None
    oidc: OidcTable | None = None


class Detect(Resource):
    local_engines: bool = True
    environment: bool = True


class Defaults(Resource):
    timeouts: TimeoutsWish = TimeoutsWish()
    retries: Retries = 2


class Replay(Resource):
    """The memory for resumable streams."""

    max_mb: Annotated[float, Field(gt=0, le=65_536)] = 256
    per_stream_kb: Annotated[float, Field(ge=16, le=65_536)] = 256
    ttl_s: Annotated[float, Field(ge=1, le=86_400)] = 300


class Cache(Resource):
    """The memory for the response cache; 0: there is none."""

    max_mb: Annotated[float, Field(ge=0, le=65_536)] = 256


class HookTable(Resource):
    """One hook.  ``on_request`` and ``on_answer`` are options of those that ship, ``options`` of others."""

    name: Annotated[str, Field(min_length=1, max_length=128, examples=["mask-secrets"])]
    on_request: Literal["refuse", "mask", "off"] = "mask"
    on_answer: Literal["mask", "off"] = "mask"
    on_error: Literal["refuse", "pass"] = "refuse"
    allowance_ms: Annotated[float, Field(gt=0, le=10_000)] = 20
    options: dict[str, Any] = Field({}, repr=False)

    def settings(self) -> HookSettings:
        shipped = {"on_request": self.on_request, "on_answer": self.on_answer}
        options = shipped if self.name in SHIPPED_HOOKS else self.options
        return HookSettings(self.name, options, self.on_error, self.allowance_ms)


class Logging(Resource):
    """The log of the serve terminal.  ``calls``: a line per call."""

    level: Level = "info"
    format: LogForm = "auto"
    calls: bool = True


class File(Resource):
    """The whole file."""

    LATER = {
        "shared_state": 9,
        "brand": 6,
        "traces": 7,
        "telemetry": 7,
        "hosters": 8,
    }
    server: Server = Server()
    control: Control = Control()
    state_dir: str | None = None
    database: Annotated[str | None, Field(repr=False)] = None  # a password may stand in it
    admin_token: Secret | None = None
    master_key: Annotated[SecretStr, AfterValidator(_master_key)] | None = None
    master_key_file: str | None = None
    default_model: Annotated[str, Field(min_length=1)] = "auto"
    detect: Detect = Detect()
    unpriced: Literal["allow", "refuse"] = "allow"
    providers: dict[
        str, Annotated[ProviderTable, BeforeValidator(_as_table, json_schema_input_type=ProviderTable | None)]
    ] = {}
    defaults: Defaults = Defaults()
    replay: Replay = Replay()
    cache: Cache = Cache()
    hooks: list[Annotated[HookTable, BeforeValidator(_as_hook, json_schema_input_type=HookTable | str)]] = []
    logging: Logging = Logging()
    aliases: dict[str, AliasTable] = {}
    tokens: list[TokenTable] = []
    tenants: dict[TenantName, TenantWish] = {}
    budgets: list[GroupTable] = []
    prompts: list[PromptTable] = []
    alerts: AlertsTable = AlertsTable()
    webhooks: Annotated[list[WebhookTable], Field(max_length=MAX_WEBHOOKS)] = []
