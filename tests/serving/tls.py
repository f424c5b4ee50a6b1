"""TLS for tests: certificates of an authority made on the spot, and servers that show them."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import trustme

from headgate.testing import Provider, serve


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert(*names).configure_cert(context)
    return context


def ca_file(authority: trustme.CA, folder: Path) -> str:
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@contextmanager
def tls_provider(authority: trustme.CA, *names: str) -> Iterator[Provider]:
    """The built-in provider under TLS, in a thread."""
    started: Future[tuple[Provider, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        stop = asyncio.Event()
        async with serve(tls=server_context(authority, *names)) as provider:
            started.set_result((provider, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="TLS provider", daemon=True)
    thread.start()
    provider, loop, stop = started.result(10)
    try:
        yield provider
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


class TlsServer:
    """Answers each read on a TLS socket with ``data``; one thread per connection."""

    def __init__(self, context: ssl.SSLContext, data: bytes) -> None:
        self._context, self._data = context, data
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.connections = 0
        self.protocols: list[str | None] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._connection, args=(sock,), daemon=True).start()

    def _connection(self, sock: socket.socket) -> None:
        try:
            with self._context.wrap_socket(sock, server_side=True) as secured:
                self.protocols.append(secured.selected_alpn_protocol())
                while secured.recv(65536):
                    secured.sendall(self._data)
        except OSError:
            return

    def close(self) -> None:
        self._listening.close()
