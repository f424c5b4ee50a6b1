"""The proxy variables: choose the proxy, if any, of a connection to a host.  Pure.

The same rules hold for traffic and for checks of a provider.  They are those of curl, Go and requests.  ``NO_PROXY``
is a list, separated by commas or blanks: names (with their subdomains), ``.names`` and ``*.names``, addresses,
networks (CIDR), each with or without a port.  An unsupported value is refused: bypassing the proxy in silence would
be worse than not starting.  No message quotes a variable's value, because it may contain a password.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

ENCODE = "a user or password with @ : / ? # or % in it is written percent-encoded (/ is %2F)"

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_BRACKETED = re.compile(r"\[([^\]]*)\](?:/([0-9]+))?(?::([0-9]+))?")
_WITH_PORT = re.compile(r"([^:]*):([0-9]+)")


class ProxyNotServed(ValueError):
    """A proxy variable with an unsupported value.  The message names the variable."""


class Proxy(NamedTuple):
    """``authorization`` is a header line, or empty."""

    host: str
    port: int
    authorization: bytes


class NoProxyRule(NamedTuple):
    """One entry of ``NO_PROXY``: a network, a pattern, or a name with its subdomains.  ``port``: only this one."""

    network: _Network | None
    name: str
    below_only: bool
    port: int | None


class Proxies:
    """The proxies that the environment names.  Raises ProxyNotServed."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        spelt = sorted(environment)  # capitals sort first, so that the lower-case variable wins, as with curl
        found = {name.lower(): name for name in spelt if name.lower().endswith("_proxy")}
        self._proxies = {
            tls: _proxy(environment, [found.get("https_proxy" if tls else "http_proxy"), found.get("all_proxy")])
            for tls in (True, False)
        }
        self._direct = _entries(environment.get(found.get("no_proxy", ""), ""))

    def of(self, tls: bool, host: str, port: int) -> Proxy | None:
        """Return the proxy for ``host``; None: a direct connection.  Loopback never has a proxy."""
        proxy = self._proxies[tls]
        if proxy is None:
            return None
        name = plain_host(host)
        address = _address(name)
        if name == "localhost" or (address is not None and address.is_loopback):
            return None
        return None if any(_spares(entry, name, address, port) for entry in self._direct) else proxy


def problem(environment: Mapping[str, str]) -> str | None:
    """Return the reason why the proxy variables are not supported; None if they are."""
    try:
        Proxies(environment)
    except ProxyNotServed as error:
        return str(error)
    return None


def plain_host(host: str) -> str:
    """Return a host in lower case, without brackets, zone and final dot; names in the resolver's form."""
    name = host.strip("[]").partition("%")[0].rstrip(".").lower()
    if name.isascii():
        return name
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return name


# ------------------------------------------------------------------------------------- the proxy


def _proxy(environment: Mapping[str, str], names: list[str | None]) -> Proxy | None:
    for name in names:
        if name is not None and (text := environment[name].strip()):
            return _read(name, text)
    return None


def _read(variable: str, text: str) -> Proxy:
    if any(c.isspace() or not c.isprintable() for c in text):
        raise ProxyNotServed(f"{variable} has a blank or a control character in it; write http://HOST:PORT")
    if "://" in text and not text.lower().startswith("http://"):
        scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,15}(?=://)", text)
        what = f"a {scheme[0].lower()}:// proxy" if scheme else "no proxy"
        raise ProxyNotServed(f"{variable} names {what}; only http:// ones are served")
    rest = text[7:] if "://" in text else text
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in rest[len(authority) :]:
        raise ProxyNotServed(f"{variable} cannot be read: {ENCODE}")
    try:
        parts = urlsplit(f"http://{authority}")
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")
    except (ValueError, UnicodeError):
        raise ProxyNotServed(
            f"{variable} cannot be read: write http://HOST:PORT, the port a number up to 65535; {ENCODE}"
        ) from None
    if not host or port == 0 or "%" in host:
        raise ProxyNotServed(f"{variable} names no host that can be called: write http://HOST:PORT")
    return Proxy(host, port or 80, _authorization(parts.username, parts.password))


def _authorization(user: str | None, password: str | None) -> bytes:
    if user is None:
        return b""
    login = b":".join(unquote_to_bytes(part.encode("utf-8", "surrogateescape")) for part in (user, password or ""))
    return b"Proxy-Authorization: Basic " + base64.b64encode(login) + b"\r\n"


# ------------------------------------------------------------------------------------- exceptions


def _entries(text: str) -> list[NoProxyRule]:
    return [entry for word in re.split(r"[\s,;|]+", text) if (entry := _entry(word.lower())) is not None]


def _entry(word: str) -> NoProxyRule | None:
    word = re.sub(r"^[a-z]+://", "", word).rstrip("/")
    port = None
    if bracketed := _BRACKETED.fullmatch(word):
        word = bracketed[1] + (f"/{bracketed[2]}" if bracketed[2] else "")
        port = bracketed[3]
    elif with_port := _WITH_PORT.fullmatch(word):
        word, port = with_port[1], with_port[2]
    below = word.startswith("*.")
    name = plain_host(word.removeprefix("*").lstrip(".") if below else word.lstrip("."))
    if not name:
        return None
    network = _network(word)
    if network is not None and network.prefixlen != network.max_prefixlen:
        return NoProxyRule(network, "", False, int(port) if port else None)
    address = _address(name)  # one form for each address
    network = ipaddress.ip_network(address) if address is not None else None
    return NoProxyRule(network, name, below, int(port) if port else None)


def _spares(entry: NoProxyRule, name: str, address: _Address | None, port: int) -> bool:
    if entry.port is not None and entry.port != port:
        return False
    if entry.network is not None:
        return address is not None and address.version == entry.network.version and address in entry.network
    if entry.name == "*":
        return True
    if "*" in entry.name:
        return fnmatchcase(name, entry.name)
    return (name == entry.name and not entry.below_only) or name.endswith("." + entry.name)


def _address(text: str) -> _Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _network(word: str) -> _Network | None:
    if "/" not in word:
        return None
    try:
        return ipaddress.ip_network(word, strict=False)
    except ValueError:
        return None
