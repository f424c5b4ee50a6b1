"""From an origin to a connected socket: names, happy eyeballs, proxies, TLS.

Owns the proxy variables' meaning and the TLS contexts (one per CA file).  Names are looked up for every new
connection and never kept: a provider that moves is followed at the pace of the pool's ``max_age_s``.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import aiohappyeyeballs

P = TypeVar("P", bound=asyncio.BaseProtocol)
FAMILY_DELAY_S = 0.25  # RFC 8305 §8
MAX_PROXY_HEAD = 16 << 10


class ProxyNotServed(ValueError):
    """A proxy variable that cannot be followed.  Going round the proxy in silence would be worse than not starting."""


class Origin(NamedTuple):
    """Where a base URL points.  ``authority`` is what goes into Host; ``path`` has no slash at its end."""

    tls: bool
    host: str
    port: int
    path: str
    authority: str


class Proxy(NamedTuple):
    host: str
    port: int
    authorization: bytes  # a header line, or empty


def origin_of(url: str) -> Origin:
    """Raises ValueError where ``url`` is not an http(s) URL with a host."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an http or https URL")
    tls = parts.scheme == "https"
    host = parts.hostname
    port = parts.port or (443 if tls else 80)
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port == (443 if tls else 80) else f"{shown}:{port}"
    return Origin(tls, host, port, parts.path.rstrip("/"), authority)


class Dialer:
    """Makes connections.  ``environment`` holds the proxy variables as curl reads them.  Raises ProxyNotServed."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        spelt = sorted(environment)  # capitals sort first, so that the lower-case variable wins, as with curl
        lower = {name.lower(): environment[name] for name in spelt if name.lower().endswith("_proxy")}
        self._proxies = {
            tls: _proxy(lower.get("https_proxy" if tls else "http_proxy") or lower.get("all_proxy"))
            for tls in (True, False)
        }
        direct = lower.get("no_proxy", "").lower().split(",")
        self._direct = [entry.strip().lstrip(".") for entry in direct if entry.strip()]
        self._contexts: dict[str | None, ssl.SSLContext] = {}

    async def dial(self, origin: Origin, ca_file: str | None, factory: Callable[[], P]) -> P:
        """Connects, through a proxy where the environment says so.  Raises OSError, ssl.SSLError."""
        proxy = self._proxy_for(origin)
        sock = await _connect(proxy.host, proxy.port) if proxy else await _connect(origin.host, origin.port)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if proxy is not None and origin.tls:
                await _tunnel(sock, origin, proxy)
            context = self._context(ca_file) if origin.tls else None
            _, protocol = await asyncio.get_running_loop().create_connection(
                factory, sock=sock, ssl=context, server_hostname=origin.host if origin.tls else None
            )
        except BaseException:
            sock.close()
            raise
        return protocol

    def plain_proxy(self, origin: Origin) -> Proxy | None:
        """The proxy that must be told the whole URL of a plain-text request (RFC 9112 §3.2.2)."""
        return None if origin.tls else self._proxy_for(origin)

    def _proxy_for(self, origin: Origin) -> Proxy | None:
        proxy = self._proxies[origin.tls]
        if proxy is None or _is_loopback(origin.host):
            return None
        for entry in self._direct:
            if entry == "*" or origin.host == entry or origin.host.endswith("." + entry):
                return None
        return proxy

    def _context(self, ca_file: str | None) -> ssl.SSLContext:
        context = self._contexts.get(ca_file)
        if context is None:
            context = ssl.create_default_context()
            if ca_file is not None:
                context.load_verify_locations(ca_file)
            context.set_alpn_protocols(["http/1.1"])
            self._contexts[ca_file] = context
        return context


async def _connect(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # from the IDNA codec: a label that is too long, or that no name may have
        raise OSError(0, "its host is not a name that can be looked up") from error
    return await aiohappyeyeballs.start_connection(
        [(family, kind, protocol, name, address) for family, kind, protocol, name, address in addresses],
        happy_eyeballs_delay=FAMILY_DELAY_S,
    )


async def _tunnel(sock: socket.socket, origin: Origin, proxy: Proxy) -> None:
    """CONNECT (RFC 9110 §9.3.6).  Raises OSError where the proxy refuses."""
    loop = asyncio.get_running_loop()
    authority = f"{f'[{origin.host}]' if ':' in origin.host else origin.host}:{origin.port}".encode()
    await loop.sock_sendall(
        sock, b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (authority, authority, proxy.authorization)
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        # Byte by byte at the end would be exact; a proxy sends nothing behind its head before we speak TLS.
        data = await loop.sock_recv(sock, 4096)
        head += data
        if not data or len(head) > MAX_PROXY_HEAD:
            raise OSError(0, "the proxy closed the connection")
    status = head.split(b" ", 2)[1] if head.count(b" ") else b"?"
    if not status.startswith(b"2"):
        raise OSError(0, f"the proxy answered CONNECT with {status.decode('latin-1')[:3]}")


def _proxy(url: str | None) -> Proxy | None:
    if not url:
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise ProxyNotServed(f"the proxy variables name a {parts.scheme}:// proxy; only http:// ones are served")
    authorization = b""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        authorization = b"Proxy-Authorization: Basic " + base64.b64encode(user) + b"\r\n"
    return Proxy(parts.hostname, parts.port or 80, authorization)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
