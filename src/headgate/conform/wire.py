"""One HTTP/1.1 client connection that reports everything: the bytes, their times and pieces, and the end.

No client library does this: they repair framing, hide interim answers and join pieces.  No answer of a server raises
an error; a connection that cannot be made raises Unreachable.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


class Unreachable(Exception):
    """The endpoint cannot be checked: one sentence and the next step."""

    def __init__(self, sentence: str, step: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.step = step


@dataclass(frozen=True)
class Endpoint:
    """The address of the API.  ``base`` is the path before ``/chat/completions``, without a slash at its end."""

    host: str
    port: int
    base: str
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """A base URL; one without a path means ``/v1``.  Raises Unreachable."""
        parts = urlsplit(url if "//" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError as error:
            raise Unreachable(
                f"{url!r} has no usable port", "give the base URL, like http://127.0.0.1:4000/v1"
            ) from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unreachable(f"{url!r} is no http(s) URL", "give the base URL, like http://127.0.0.1:4000/v1")
        base = parts.path.rstrip("/").removesuffix("/chat/completions")
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), base or "/v1", tls)

    @property
    def authority(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.tls else 80) else f"{name}:{self.port}"


@dataclass
class Response:
    """One answer as it came.

    ``status`` is 0 without an answer.  ``pieces`` are (seconds since the request was sent, bytes of the body).  There
    is one for each HTTP chunk of a chunked body, else one for each read.  ``ended``: ``complete`` (by the framing),
    ``eof``, ``reset``, ``timeout`` or ``garbage``.  ``eof`` is also the proper end of a body without framing
    (``framed`` False).
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)
    ended: str = "eof"
    framed: bool = True
    chunked: bool = False
    seconds: float = 0.0

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.pieces)

    @property
    def complete(self) -> bool:
        return self.ended == "complete" or (self.ended == "eof" and not self.framed)

    @property
    def json(self) -> Any:
        """The decoded body; None where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def summary(self) -> str:
        """Describe the exchange in a few words."""
        if not self.status:
            return {"timeout": "no answer in time", "eof": "closed without an answer"}.get(self.ended, self.ended)
        return f"{self.status}" + ("" if self.complete else f", {self.ended} before its end")


class RawConnection:
    """One connection; ``with`` closes it.  Several requests may be sent on it, together or one after the other."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self._timeout = timeout
        self._buffer = b""
        self._sent = 0.0
        try:
            self.sock = socket.create_connection((endpoint.host, endpoint.port), min(timeout, 10))
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if endpoint.tls:
                self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=endpoint.host)
        except ssl.SSLError as error:
            raise Unreachable(
                f"{endpoint.authority} speaks no TLS that can be trusted: {error}", "try http://"
            ) from error
        except OSError as error:
            raise Unreachable(
                f"nothing answers at {endpoint.authority}: {getattr(error, 'strerror', None) or error}",
                "start it, or check host and port of the URL",
            ) from error

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Writes; that the server has closed already shows when its answer is read."""
        self._sent = time.monotonic()
        try:
            self.sock.sendall(data)
        except OSError:
            return

    def read(
        self, method: str = "POST", *, upto: bytes = b"", interim: bool = False, timeout: float | None = None
    ) -> Response:
        """The next answer, whole, or its beginning up to ``upto`` in its body, or with ``interim`` up to the first 1xx.

        ``timeout`` is in seconds.
        """
        response = Response()
        until = time.monotonic() + (timeout or self._timeout)
        try:
            self._read(response, method, upto, interim, until)
        except TimeoutError:
            response.ended = "timeout"
        except ConnectionError:
            response.ended = "reset"
        except (ValueError, IndexError):
            response.ended = "garbage"
        except EOFError:
            response.ended = "eof"
        response.seconds = time.monotonic() - self._sent
        return response

    def closed(self, timeout: float = 2.0) -> bool:
        """Whether the server closes now, without a further answer."""
        try:
            self.sock.settimeout(timeout)
            return not self._buffer and not self.sock.recv(1)
        except TimeoutError:
            return False
        except OSError:
            return True

    # ---- bytes

    def _read(self, response: Response, method: str, upto: bytes, interim: bool, until: float) -> None:
        while not response.status:
            self._read_head(response, until)
            if interim and response.interim:
                return
        headers = response.headers
        response.chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        if method == "HEAD" or response.status in (204, 304):
            response.ended = "complete"
        elif response.chunked:
            self._read_chunks(response, upto, until)
        else:
            length = headers.get("content-length")
            response.framed = length is not None
            self._read_length(response, int(length) if length is not None else None, upto, until)

    def _read_head(self, response: Response, until: float) -> None:
        head = self._take_until(b"\r\n\r\n", until).decode("latin-1").split("\r\n")
        version, status = head[0].split(" ", 2)[:2]
        if not version.startswith("HTTP/1."):
            raise ValueError(head[0])
        if 100 <= int(status) < 200:
            response.interim.append(int(status))
            return
        for line in head[1:]:
            name, _, value = line.partition(":")
            if name.lower() in response.headers:
                response.repeated.append(name.lower())
            response.headers[name.lower()] = value.strip()
        response.status = int(status)

    def _read_chunks(self, response: Response, upto: bytes, until: float) -> None:
        while True:
            size = int(self._take_until(b"\r\n", until).split(b";")[0], 16)
            if not size:
                while self._take_until(b"\r\n", until):
                    pass  # trailers
                response.ended = "complete"
                return
            data = self._take(size, until)
            response.pieces.append((time.monotonic() - self._sent, data))
            if self._take(2, until) != b"\r\n":
                raise ValueError("a chunk that is longer than it says")
            if upto and upto in response.body:
                return

    def _read_length(self, response: Response, length: int | None, upto: bytes, until: float) -> None:
        left = length
        while left is None or left > 0:
            if not self._buffer:
                self._more(until)
            data, self._buffer = (self._buffer, b"") if left is None else (self._buffer[:left], self._buffer[left:])
            left = None if left is None else left - len(data)
            response.pieces.append((time.monotonic() - self._sent, data))
            if upto and upto in response.body:
                return
        response.ended = "complete"

    def _take_until(self, mark: bytes, until: float) -> bytes:
        while mark not in self._buffer:
            self._more(until)
        data, _, self._buffer = self._buffer.partition(mark)
        return data

    def _take(self, size: int, until: float) -> bytes:
        while len(self._buffer) < size:
            self._more(until)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _more(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(left)
        data = self.sock.recv(1 << 16)
        if not data:
            raise EOFError
        self._buffer += data
