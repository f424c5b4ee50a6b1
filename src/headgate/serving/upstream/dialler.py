"""From an origin to a connected socket: names, happy eyeballs, proxies, TLS.

Owns the TLS contexts (one per CA file, made anew when the file changes); ``wire.proxies`` knows which addresses use a
proxy.  Names are looked up for every new connection and never kept: a provider that moves is followed within the
pool's ``max_age_s``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import aiohappyeyeballs

from headgate.process import trust
from headgate.process.locate import Stamp
from headgate.wire.proxies import Proxies, Proxy

P = TypeVar("P", bound=asyncio.BaseProtocol)
FAMILY_DELAY_S = 0.25  # RFC 8305 §8
MAX_PROXY_HEAD = 16 << 10


class UpstreamOrigin(NamedTuple):
    """The parts of a base URL.  ``authority``: the value of Host.  ``path`` has no slash at its end."""

    tls: bool
    host: str
    port: int
    path: str
    authority: str


log = logging.getLogger("headgate.connect")


def origin_of(url: str) -> UpstreamOrigin:
    """Split a base URL.  Raises ValueError if ``url`` is not an http(s) URL with a host."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an http or https URL")
    tls = parts.scheme == "https"
    host = parts.hostname
    port = parts.port or (443 if tls else 80)
    bracketed = f"[{host}]" if ":" in host else host
    authority = bracketed if port == (443 if tls else 80) else f"{bracketed}:{port}"
    return UpstreamOrigin(tls, host, port, parts.path.rstrip("/"), authority)


class Dialer:
    """Makes connections.  ``environment`` holds the proxy variables.  Raises ProxyNotServed."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._proxies = Proxies(environment)
        self._contexts: dict[str | None, tuple[ssl.SSLContext, Stamp]] = {}
        self._renewed: set[str | None] = set()
        self._unsound: dict[str | None, Stamp] = {}  # changed files that cannot be used: said once each

    async def dial(self, origin: UpstreamOrigin, ca_file: str | None, factory: Callable[[], P]) -> P:
        """Connect, through a proxy if the environment names one.  Raises OSError, ssl.SSLError."""
        proxy = self._proxy_for(origin)
        sock = await _connect(proxy.host, proxy.port) if proxy else await _connect(origin.host, origin.port)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if proxy is not None and origin.tls:
                await _tunnel(sock, origin, proxy)
            context = await self._context(ca_file) if origin.tls else None
            _, protocol = await asyncio.get_running_loop().create_connection(
                factory, sock=sock, ssl=context, server_hostname=origin.host if origin.tls else None
            )
        except BaseException:
            sock.close()
            raise
        return protocol

    def plain_proxy(self, origin: UpstreamOrigin) -> Proxy | None:
        """Return the proxy that needs the whole URL of a plain-text request (RFC 9112 §3.2.2)."""
        return None if origin.tls else self._proxy_for(origin)

    def _proxy_for(self, origin: UpstreamOrigin) -> Proxy | None:
        return self._proxies.of(origin.tls, origin.host, origin.port)

    async def _context(self, ca_file: str | None) -> ssl.SSLContext:
        """Return a context with the file's present content; the former one if it cannot be used (it may be half
        written).
        """
        known, stamp = self._contexts.get(ca_file, (None, None))
        now = trust.stamp(ca_file)
        if known is not None and (now == stamp or now == self._unsound.get(ca_file, stamp)):
            return known
        try:
            made = await asyncio.get_running_loop().run_in_executor(None, trust.context, ca_file)
        except OSError as error:
            if known is None:
                raise
            self._unsound[ca_file] = now
            log.error("the CA file %s has changed and cannot be used (%s): the former one stays", ca_file, error)
            return known
        made.set_alpn_protocols(["http/1.1"])
        if known is not None:
            self._renewed.add(ca_file)
        self._contexts[ca_file] = made, now
        return made

    def changed(self) -> set[str | None]:
        """Return the CA files (None: the system's) that have changed since the last call."""
        unused = {
            ca_file
            for ca_file, (_, stamp) in self._contexts.items()
            if trust.stamp(ca_file) not in (stamp, None, self._unsound.get(ca_file))
        }
        renewed, self._renewed = self._renewed, set()
        return unused | renewed


async def _connect(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # from the IDNA codec: a label that is too long or not allowed
        raise OSError(0, "its host is not a name that can be looked up") from error
    return await aiohappyeyeballs.start_connection(
        [(family, kind, protocol, name, address) for family, kind, protocol, name, address in addresses],
        happy_eyeballs_delay=FAMILY_DELAY_S,
    )


async def _tunnel(sock: socket.socket, origin: UpstreamOrigin, proxy: Proxy) -> None:
    """CONNECT (RFC 9110 §9.3.6).  Raises OSError if the proxy refuses."""
    loop = asyncio.get_running_loop()
    authority = f"{f'[{origin.host}]' if ':' in origin.host else origin.host}:{origin.port}".encode()
    await loop.sock_sendall(
        sock, b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (authority, authority, proxy.authorization)
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        # A proxy sends no byte after its head before the TLS handshake, so larger reads are safe.
        data = await loop.sock_recv(sock, 4096)
        head += data
        if not data or len(head) > MAX_PROXY_HEAD:
            raise OSError(0, "the proxy closed the connection")
    status = head.split(b" ", 2)[1] if head.count(b" ") else b"?"
    if not status.startswith(b"2"):
        raise OSError(0, f"the proxy answered CONNECT with {status.decode('latin-1')[:3]}")
