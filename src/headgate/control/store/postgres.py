"""PostgreSQL URLs as operators write them: read once, by libpq's rules, into what the driver takes.

Owns which options are served and what they mean (PostgreSQL documentation, 34.1.1.2 and 34.1.2).  Refuses the others in
a sentence; no sentence quotes the URL, since a password may stand anywhere in one that cannot be read.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from headgate.catalog.names import nearest
from headgate.process import trust

SHAPE = "must be sqlite:///PATH or postgresql://USER@HOST/NAME"
ENCODE = "a user, password or name with @ : / ? # or % in it is written percent-encoded (@ is %40, / is %2F)"
MASK = "**********"
CONNECT_S = 10.0
MIN_CONNECT_S = 2.0  # libpq's own
NAME = "headgate"

_SCHEME = re.compile(r"(?:postgresql|postgres)(?:\+([a-z0-9]+))?://")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SESSIONS = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
_SECRETS = ("password", "sslpassword")
_NUMBER = re.compile(r"-?[0-9]{1,9}")


class BadUrl(ValueError):
    """The URL cannot be used.  The message is the end of a sentence that begins with the setting's name."""


@dataclass(frozen=True)
class Dsn:
    """The values of a URL.  ``hosts``: names, addresses or socket folders with their ports; none: the driver's default.
    ``shown`` is the URL without its password.
    """

    hosts: tuple[tuple[str, int], ...]
    user: str | None
    password: str | None = field(repr=False)
    database: str
    options: Mapping[str, str] = field(repr=False)
    shown: str

    def arguments(self) -> dict[str, Any]:
        """For ``asyncpg.connect``.  Raises OSError, ssl.SSLError where a certificate cannot be read."""
        given: dict[str, Any] = {
            "user": self.user,
            "password": self.password,
            "database": self.database,
            "timeout": _timeout(self.options.get("connect_timeout")),
            "target_session_attrs": self.options.get("target_session_attrs"),
            "passfile": self.options.get("passfile"),
            "server_settings": _server_settings(self.options),
            # A pooler in transaction mode (PgBouncer) gives every transaction another connection: a statement that
            # was prepared in an earlier one is not there.
            "statement_cache_size": 0,
        }
        if self.hosts:
            given["host"] = [host for host, _ in self.hosts]
            given["port"] = [port for _, port in self.hosts]
        if (tls := _tls(self.options)) is not None:
            given["ssl"] = tls
        return {name: value for name, value in given.items() if value is not None}


def parse(url: str) -> Dsn:
    """Raises BadUrl."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise BadUrl(SHAPE)
    if scheme[1] not in (None, "asyncpg"):
        raise BadUrl(f"the driver {scheme[1]} is not used here: write postgresql://…")
    authority, path, query = _split(url[scheme.end() :])
    options = _options(query)
    user, password, hosts = _authority(authority)
    for name, value in (("user", user), ("password", password)):
        if value is not None:
            options.setdefault(name, value)
    database = _decoded(path) or options.get("dbname", "")
    if not database:
        raise BadUrl("names no database: postgresql://USER@HOST/NAME")
    if "host" in options:
        hosts = _hosts(options["host"].split(","), options.get("port", "").split(","))
    elif "port" in options:
        raise BadUrl("the option port stands without host")
    user, password = options.pop("user", None), options.pop("password", None)
    return Dsn(tuple(hosts), user, password, database, options, _shown(url, scheme.end(), authority, path, query))


def masked(url: str) -> str:
    """The URL without its passwords; of one that cannot be read, only the scheme."""
    try:
        return parse(url).shown
    except BadUrl:
        return f"{url.partition('://')[0]}://{MASK}" if _SCHEME.match(url) else MASK


def problem(url: str) -> str | None:
    """Why the URL cannot be used, its certificates included; None where it can."""
    try:
        parse(url).arguments()
    except BadUrl as error:
        return str(error)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        return f"a TLS file of its options cannot be used: {getattr(error, 'strerror', None) or error}"
    return None


# ------------------------------------------------------------------------------------- reading


def _split(rest: str) -> tuple[str, str, str]:
    """Authority, path without its slash, query."""
    if any(not c.isprintable() or c == " " for c in rest):
        raise BadUrl(f"has a blank or a control character in it; {ENCODE}")
    head, _, query = rest.partition("?")
    authority, _, path = head.partition("/")
    if "@" in path or "#" in rest or ("@" not in authority and "@" in query and "://" not in query and "/" in query):
        raise BadUrl(f"cannot be read: {ENCODE}")
    if "/" in path:
        raise BadUrl(f"cannot be read: there is more than a database's name behind the host; {ENCODE}")
    return authority, path, query


def _authority(text: str) -> tuple[str | None, str | None, list[tuple[str, int]]]:
    login, at, places = text.rpartition("@")  # a host has no @, so what stands before the last one is the login
    user, colon, password = login.partition(":")
    names, ports = [], []
    for place in places.split(",") if places else ():
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(?::([^:]*))?", place)
        if match is None:
            raise BadUrl(f"its host cannot be read (an IPv6 address stands in brackets); {ENCODE}")
        names.append(_decoded(match[1].strip("[]")))
        ports.append(match[2] or "")
    return (
        (_decoded(user) or None) if at else None,
        _decoded(password) if colon else None,
        _hosts(names, ports) if names else [],
    )


def _hosts(names: list[str], ports: list[str]) -> list[tuple[str, int]]:
    if len(ports) == 1:
        ports = ports * len(names)
    if len(ports) != len(names):
        raise BadUrl("has more ports than hosts, or fewer")
    found = []
    for name, port in zip(names, ports, strict=True):
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
            raise BadUrl(f"its port must be a number from 1 to 65535; {ENCODE}")
        found.append((name or "localhost", int(port or 5432)))
    return found


def _decoded(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise BadUrl(f"has a % that begins no code; {ENCODE}")
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise BadUrl("has codes (%…) that are no UTF-8") from error
    if "\0" in decoded:
        raise BadUrl("has a NUL in it (%00)")
    return decoded


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        name = _decoded(name)
        check = _OPTIONS.get(name)
        if check is None:
            # An @ may be the login's end, and the name a piece of a password
            known_shape = re.fullmatch(r"[A-Za-z_]{1,40}", name) and equals and "@" not in query
            shown = f" {name!r}" if known_shape else ""
            raise BadUrl(f"its option{shown} is not served{nearest(name, _OPTIONS) if shown else ''}")
        if not equals:
            raise BadUrl(f"its option {name} has no value")
        if name in options:
            raise BadUrl(f"its option {name} stands twice")
        options[name] = _decoded(value)
        if sentence := check(options[name]):
            raise BadUrl(f"its option {name} {sentence}")
    return options


def _shown(url: str, start: int, authority: str, path: str, query: str) -> str:
    login, at, places = authority.rpartition("@")
    user, colon, _password = login.partition(":")
    pairs = [pair.partition("=") for pair in query.split("&")] if query else []
    kept = "&".join(f"{name}={MASK if name in _SECRETS else value}" for name, _, value in pairs)
    text = f"{url[:start]}{user}{colon and ':' + MASK}{at}{places}"
    return f"{text}{'/' + path if path or '/' in url[start:].partition('?')[0] else ''}{kept and '?' + kept}"


# ------------------------------------------------------------------------------------- options

Check = Callable[[str], str | None]


def _one_of(*values: str) -> Check:
    return lambda value: None if value in values else f"must be {', '.join(values[:-1])} or {values[-1]}"


def _only(*values: str, why: str) -> Check:
    return lambda value: None if value in values else f"may only be {' or '.join(values)} here: {why}"


def _any(_value: str) -> None:
    return None


def _number(value: str) -> str | None:
    return None if _NUMBER.fullmatch(value) else "must be a number"


def _file(value: str) -> str | None:
    return None if Path(value).expanduser().is_file() else f"names a file that does not exist: {value}"


def _roots(value: str) -> str | None:
    if value == "system":
        return None
    problem = trust.problem(Path(value).expanduser())
    return problem and f"cannot be used: {value} {problem}"


_OPTIONS: dict[str, Check] = {
    "host": _any,
    "port": _any,
    "user": _any,
    "password": _any,
    "dbname": _any,
    "passfile": _any,
    "sslmode": _one_of(*_SSL_MODES),
    "sslrootcert": _roots,
    "sslcert": _file,
    "sslkey": _file,
    "sslpassword": _any,
    "application_name": _any,
    "fallback_application_name": _any,
    "connect_timeout": _number,
    "options": _any,
    "client_encoding": _only("utf8", "UTF8", "utf-8", "UTF-8", "auto", why="the driver speaks UTF-8"),
    "channel_binding": _only("disable", "prefer", why="the driver does not bind channels; use sslmode=verify-full"),
    "target_session_attrs": _one_of(*_SESSIONS),
    "gssencmode": _only("disable", "prefer", why="the driver does not encrypt by GSSAPI"),
    "sslnegotiation": _only("postgres", why="connections begin with PostgreSQL's own request"),
    "sslcompression": _only("0", why="TLS has none any more"),
    "sslsni": _only("1", why="the name is always sent"),
    "load_balance_hosts": _only("disable", why="hosts are tried in their order"),
    # Options that other programs need for a pooler; here their effect always holds
    "pgbouncer": _any,
    "statement_cache_size": _any,
    "prepared_statement_cache_size": _any,
    # The kernel's own hold
    "keepalives": _number,
    "keepalives_idle": _number,
    "keepalives_interval": _number,
    "keepalives_count": _number,
    "tcp_user_timeout": _number,
}


def _timeout(value: str | None) -> float:
    seconds = float(value or 0)
    return max(seconds, MIN_CONNECT_S) if seconds > 0 else CONNECT_S


def _server_settings(options: Mapping[str, str]) -> dict[str, str]:
    name = options.get("application_name") or options.get("fallback_application_name") or NAME
    settings = {"application_name": name}
    if options.get("options"):
        settings["options"] = options["options"]
    return settings


def _tls(options: Mapping[str, str]) -> ssl.SSLContext | str | None:
    """As libpq: `require` checks no certificate unless there is a root to check it by; None is the driver's default."""
    mode, roots, own = options.get("sslmode"), options.get("sslrootcert"), options.get("sslcert")
    checked = mode in ("verify-ca", "verify-full") or (mode == "require" and roots not in (None, "system"))
    if not checked and (own is None or mode in (None, "disable", "allow", "prefer")):
        return mode
    context = ssl.create_default_context(
        cafile=None if roots in (None, "system") else str(Path(str(roots)).expanduser())
    )
    context.check_hostname = mode == "verify-full"
    if not checked:
        context.verify_mode = ssl.CERT_NONE
    if own is not None:
        key = options.get("sslkey")
        context.load_cert_chain(Path(own).expanduser(), key and Path(key).expanduser(), options.get("sslpassword"))
    return context
