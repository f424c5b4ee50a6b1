"""Settings: the operator's configuration, checked whole, as the values that start the two planes.

Owns the way from YAML + environment + command line to ``Compiled`` (control) and ``DataSettings`` (data).
``file.py`` reads the tree, ``presets.py`` adds the rows of ``providers/``, ``schema.py`` has the allowed keys and
types.  ``check.py`` checks the sense, ``origins.py`` the origin of each value.  No module below ``app`` imports this
package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from headgate.catalog.presets import BadRow, Row, rows
from headgate.catalog.shipped_aliases import shipped
from headgate.control.store import postgres
from headgate.model import FREE, DataSettings, Limits, ModelRow, Provider, Timeouts
from headgate.policy.auth import digest
from headgate.process.boot import AccessSettings, AlertSettings, MasterKey
from headgate.process.channel import World
from headgate.process.locate import default_state_dir
from headgate.process.statedir import url_of
from headgate.resources.compiled import Compiled
from headgate.resources.header_secrets import secrets_of, without_secrets
from headgate.resources.provider import ProviderTable
from headgate.settings.check import beside, check, flat
from headgate.settings.file import ConfigError, Tree, find, read
from headgate.settings.origins import Origin, origins
from headgate.settings.presets import from_environment
from headgate.settings.schema import BUILTIN, File

__all__ = [
    "ConfigError",
    "File",
    "Origin",
    "Settings",
    "compile",
    "control_fields",
    "data_settings",
    "explained",
    "fixed",
    "load",
    "masked",
    "needs_restart",
    "state_dir",
]

_MB = 1 << 20
_BUILTIN_MODELS = {
    "lorem": ModelRow("lorem", title="says a fixed text, for trying things out"),
    "echo": ModelRow("echo", title="says the last user message back"),
}


@dataclass(frozen=True)
class Settings:
    """A valid file and what follows from it.  ``database`` is a SQLAlchemy URL, secrets are SecretStr in ``file``.

    ``found``: providers that the file does not declare and whose key is in the environment.  ``rows``: all of
    ``providers/``.  ``tree`` knows where every value comes from (its values hold secrets in the clear).
    """

    file: File
    path: Path | None
    state_dir: Path
    database: str = field(repr=False)  # its password would be in it
    found: Mapping[str, ProviderTable] = field(default_factory=dict)
    rows: Mapping[str, Row] = field(default_factory=dict, repr=False)
    tree: Tree = field(default_factory=lambda: Tree(None), repr=False)

    @property
    def admin_token(self) -> str | None:
        token = self.file.admin_token
        return token.get_secret_value() if token else None

    @property
    def master_key(self) -> MasterKey:
        """What the configuration says of the vault's master key."""
        key, file = self.file.master_key, self.file.master_key_file
        return MasterKey(key.get_secret_value() if key else "", str(beside(self.path, file)) if file else "")

    @property
    def alerting(self) -> AlertSettings:
        return self.file.alerts.settings(self.file.webhooks)

    @property
    def data_url(self) -> str:
        return url_of(self.file.server.host, self.file.server.port)


def load(config: str | None, environ: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> Settings:
    """Reads and checks the configuration.  ``overrides``: dotted keys from the command line.

    Raises ConfigError and nothing else: this runs inside of gateways that serve, and no file may end one.
    """
    try:
        return _load(config, environ, overrides or {})
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError([f"{error.filename or 'the configuration'}: cannot be read ({error.strerror})"]) from error
    except Exception as error:
        # Its text stays out: it may quote a secret
        raise ConfigError([f"the configuration cannot be understood ({type(error).__name__})"]) from error


def _load(config: str | None, environ: Mapping[str, str], overrides: Mapping[str, str]) -> Settings:
    path = find(config, environ)
    tree = read(path, environ, overrides)
    named = tree.root.get("state_dir")
    state = state_dir(named if isinstance(named, str) else None, environ)
    try:
        known = rows([*([path.parent / "providers"] if path else []), state / "providers"])
    except BadRow as error:
        raise ConfigError([str(error)]) from error
    except PermissionError as error:
        if not Path(error.filename or "").is_relative_to(state):
            raise
        sentence = f"the state directory {state} cannot be used ({error.strerror}); choose another with --state-dir"
        raise ConfigError([sentence], store=True) from error
    tables = from_environment(tree, known, environ)
    problems: list[str] = []
    about_store = False
    try:
        file = check(tree, known, environ, tables)
    except ConfigError as error:
        problems += error.problems
    named = tree.root.get("database")
    try:
        database = _database(named if isinstance(named, str) and named else None, state)
    except ConfigError as error:
        about_store = error.store and not problems
        problems += error.problems
    if problems:
        raise ConfigError(problems, store=about_store)
    found = {name: ProviderTable.model_validate(table) for name, table in tables.items()}
    return Settings(file, path, state, database, found, known, tree)


def state_dir(configured: str | None, environ: Mapping[str, str]) -> Path:
    """Absolute.  The key, else XDG_STATE_HOME/headgate, else ~/.local/state/headgate."""
    if configured:
        return _absolute("state_dir", configured)
    return default_state_dir(environ)


def _database(configured: str | None, state: Path) -> str:
    scheme, _, rest = (configured or f"sqlite:///{state / 'headgate.db'}").partition("://")
    if scheme in ("sqlite", "sqlite+aiosqlite") and rest.startswith("/") and len(rest) > 1:
        return f"sqlite+aiosqlite:///{_absolute('database', rest[1:])}"
    sentence = postgres.problem(configured) if configured else postgres.SHAPE
    if configured and sentence is None:
        return configured
    raise ConfigError([f"database: {sentence}"], store=True)


def _absolute(key: str, path: str) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError([f"{key}: {path.partition('/')[0]} is nobody's home directory"]) from error


# ------------------------------------------------------------------------------------- for the planes


def data_settings(settings: Settings, worker: str) -> DataSettings:
    """The boot message of a data process."""
    server = settings.file.server
    limits = Limits(
        max_body=int(server.max_body_mb * _MB),
        max_bodies=int(server.max_bodies_mb * _MB),
        max_answer=int(server.max_answer_mb * _MB),
        max_event=int(server.max_event_mb * _MB),
        max_head=int(server.max_head_kb * 1024),
        max_connections=server.max_connections,
        header_timeout=server.header_timeout_s,
        body_timeout=server.body_timeout_s,
        idle_timeout=server.idle_timeout_s,
        keep_alive=server.keep_alive_s,
        drain=server.drain_s,
        replay_max=int(settings.file.replay.max_mb * _MB),
        replay_per_stream=int(settings.file.replay.per_stream_kb * 1024),
        replay_ttl=settings.file.replay.ttl_s,
        cache_max=int(settings.file.cache.max_mb * _MB),
    )
    return DataSettings(
        state_dir=str(settings.state_dir),
        worker=worker,
        limits=limits,
        cors_origins=tuple(server.cors_origins),
        public_catalog=server.public_catalog,
        public_url=server.public_url or "",
        log_level=settings.file.logging.level,
        log_format=settings.file.logging.format,
        hooks=tuple(hook.settings() for hook in settings.file.hooks),
    )


def control_fields(settings: Settings) -> dict[str, Any]:
    """The fields of the control process's boot message that are settings."""
    control, logging = settings.file.control, settings.file.logging
    return {
        "state_dir": str(settings.state_dir),
        "database": settings.database,
        "host": control.host,
        "port": control.port,
        "access": AccessSettings(
            tuple(name.lower() for name in _allowed_hosts(settings)),
            control.public_url or "",
            control.oidc.settings() if control.oidc else None,
        ),
        "data_url": settings.data_url,
        "log_level": logging.level,
        "log_format": logging.format,
        "log_calls": logging.calls,
        "master_key": settings.master_key,
        "born": fixed(settings),
    }


def _allowed_hosts(settings: Settings) -> tuple[str, ...]:
    """The names that the control plane is reached under, and that of ``public_url``.  An empty tuple allows every name
    where it listens for other machines, so that one alone is not added there.
    """
    control = settings.file.control
    public = urlsplit(control.public_url or "").hostname
    listed = bool(control.allowed_hosts) or control.host in ("127.0.0.1", "::1", "localhost")
    return (*control.allowed_hosts, public) if public and listed else tuple(control.allowed_hosts)


def compile(settings: Settings, instance_key: bytes, builtin_url: str) -> Compiled:
    """The file as a Snapshot's World, its tokens as digests, its providers' keys by account id."""
    file = settings.file
    base = settings.path.parent if settings.path else Path()
    declared = [("file", *item) for item in file.providers.items()]
    declared += [("environment", *item) for item in settings.found.items()]
    providers = {name: row.provider(name, base, settings.rows, origin) for origin, name, row in declared}
    header_secrets: dict[str, str] = {}
    for name, provider in providers.items():
        header_secrets |= secrets_of(provider, settings.rows)
        providers[name] = without_secrets(provider, settings.rows)
    # Last, so that computed orders never begin with it.
    providers[BUILTIN] = Provider(
        name=BUILTIN, base_url=builtin_url, auth="none", price=FREE, origin="builtin", training="never",
        title="built-in provider", catalog=_BUILTIN_MODELS,
    )  # fmt: skip
    aliases = {name: row.alias(name) for name, row in file.aliases.items()}
    world = World(
        providers=providers,
        aliases={**aliases, **shipped(providers, aliases, settings.rows)},
        default_model=file.default_model,
        timeouts=Timeouts(**file.defaults.timeouts.set_ones()),
        retries=file.defaults.retries,
        unpriced=file.unpriced,
        presets={name: tuple(row.models) for name, row in settings.rows.items() if not row.local},
        tenants={name: row.tenant(name, "file") for name, row in file.tenants.items()},
        groups=tuple(row.group(row.ident, "file") for row in file.budgets),
        prompts={row.key: row.declared_prompt() for row in file.prompts},
    )
    tokens = {digest(instance_key, row.secret.get_secret_value().encode()): row.grant() for row in file.tokens}
    secrets = {one.id: key for _origin, name, row in declared for one, key in row.accounts(name).items()}
    secrets |= header_secrets
    return Compiled(
        world=world,
        tokens=tokens,
        secrets=secrets,
        rows=settings.rows,
        detect_engines=file.detect.local_engines,
        alerting=settings.alerting,
    )


def fixed(settings: Settings) -> dict[str, str]:
    """Return the values of the boot messages that no reload changes: dotted key → a value for comparison."""
    admin, master, oidc = settings.admin_token, settings.master_key.value, settings.file.control.oidc
    login = oidc.client_secret.get_secret_value() if oidc and oidc.client_secret else ""
    return {
        **{f"server.{key}": value for key, value in flat(settings.file.server)},
        **{f"control.{key}": value for key, value in flat(settings.file.control)},
        **{f"replay.{key}": value for key, value in flat(settings.file.replay)},
        **{f"cache.{key}": value for key, value in flat(settings.file.cache)},
        **{f"logging.{key}": value for key, value in flat(settings.file.logging)},
        "hooks": hashlib.sha256(repr([hook.settings() for hook in settings.file.hooks]).encode()).hexdigest(),
        "state_dir": str(settings.state_dir),
        "database": settings.database,
        "admin_token": hashlib.sha256(admin.encode()).hexdigest() if admin else "",
        "control.oidc.client_secret": hashlib.sha256(login.encode()).hexdigest() if login else "",
        "master_key": hashlib.sha256(master.encode()).hexdigest() if master else "",
        "master_key_file": settings.master_key.file,
    }


def needs_restart(born: Mapping[str, str], new: Settings) -> tuple[str, ...]:
    """The keys of ``fixed`` that have another value now."""
    keys = [key for key, value in fixed(new).items() if born.get(key) != value]
    if "state_dir" in keys and "database" in keys:  # it lies there: one change, not two
        keys.remove("database")
    return tuple(keys)


def masked(settings: Settings) -> dict[str, Any]:
    """Return the effective configuration as plain values, with the environment's providers.  Keys, secrets, the
    values of extra headers and a database's password are masked.
    """
    shown = settings.file.model_dump(mode="json")
    for name, found in settings.found.items():
        shown["providers"][name] = found.model_dump(mode="json")
    for row in shown["providers"].values():
        row["headers"] = dict.fromkeys(row["headers"], "**********")
    for hook in shown["hooks"]:
        hook["options"] = dict.fromkeys(hook["options"], "**********")
    shown["state_dir"] = str(settings.state_dir)
    _fill(shown)
    database = settings.database
    shown["database"] = postgres.masked(database) if database.startswith("postgres") else database
    return shown


def _fill(shown: dict[str, Any]) -> None:
    """Puts the values that hold in place of those that nobody has set."""
    defaults = shown["defaults"]
    deadlines = {**msgspec.to_builtins(Timeouts()), **_set(defaults["timeouts"])}
    defaults["timeouts"] = {name: deadlines[name] for name in defaults["timeouts"]}
    for alias in shown["aliases"].values():
        alias["timeouts"] = {name: value if value is not None else deadlines[name]
                             for name, value in alias["timeouts"].items()}  # fmt: skip
        alias |= {name: defaults[name] for name, value in alias.items() if value is None and name in defaults}


def _set(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def explained(settings: Settings) -> list[Origin]:
    """Every value of ``masked`` with where it comes from, for ``headgate config show --origin``."""
    return origins(settings.tree, masked(settings))
