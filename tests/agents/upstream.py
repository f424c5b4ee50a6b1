"""A provider that plays a script of turns, in whichever API it is asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.agents.turns import APIS, AgentRequest, Turn, UpstreamApi

_AUXILIARY = Turn("A short title")  # for requests without tools


class AgentUpstream(ThreadingHTTPServer):
    """``cut``: the turns whose first streamed answer breaks off in the middle.  ``cut_after``: the next streamed answer
    breaks off after so many events.  ``counts``: its answer to a question for tokens; None: it has none.  ``requests``:
    what was asked, in order: path, headers, body.
    """

    daemon_threads = True

    def __init__(self, script: Sequence[Turn], cut: Sequence[int] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.script = script
        self.to_cut = set(cut)
        self.cut_after: int | None = None
        self.counts: int | None = None
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def turn(self, request: AgentRequest) -> tuple[Turn, int, bool]:
        """Return the turn, its number, and whether its stream breaks off."""
        if not request.has_tools:
            return _AUXILIARY, 99, False
        number = min(request.results, len(self.script) - 1)
        with self.lock:
            cut = request.stream and number in self.to_cut
            self.to_cut.discard(number)
        return self.script[number], number, cut


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: AgentUpstream

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        if path.endswith("/count_tokens") and self.server.counts is not None:
            self._send(200, "application/json", json.dumps({"input_tokens": self.server.counts}).encode())
            return
        api = next((one for one in APIS if path.endswith(one.suffix)), None)
        if api is None:
            self._send(404, "application/json", b'{"error":{"message":"no such path"}}')
            return
        self._answer(api, api.read(path, body))

    def _answer(self, api: UpstreamApi, request: AgentRequest) -> None:
        turn, number, cut = self.server.turn(request)
        if not request.stream:
            self._send(200, "application/json", json.dumps(api.document(turn, number)).encode())
            return
        events = api.events(turn, number)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            for event in events[: self._length(len(events), cut)]:
                self.wfile.write(event)
                self.wfile.flush()

    def _length(self, whole: int, cut: bool) -> int:
        with self.server.lock:
            after, self.server.cut_after = self.server.cut_after, None
        return after if after is not None else whole // 2 if cut else whole

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextlib.contextmanager
def agent_upstream(script: Sequence[Turn], cut: Sequence[int] = ()) -> Iterator[AgentUpstream]:
    with AgentUpstream(script, cut) as server:
        thread = threading.Thread(target=server.serve_forever, name="agent upstream", daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)
