"""One run's view of the endpoint: the requests that checks share are made once and their answers kept.

Owns the prompt, the model and the token, and the split of a stream's bytes into events.  Judges nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from headgate.conform.wire import Endpoint, RawConnection, Response, Unreachable

UNICODE = "Grüße aus Zürich — 日本語 🎉🚀 👩‍👩‍👧‍👦 naïve"
PROMPT = f"Repeat the following line, with nothing before or after it: one two three four five six seven {UNICODE}"
NO_SUCH_MODEL = "no-such-model-0f9e8d7c"
NOT_CHAT = re.compile("embed|whisper|tts|dall-e|image|moderation|audio|realtime|transcri|rerank", re.IGNORECASE)
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
VISIBLE = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call")
_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")


@dataclass(frozen=True)
class StreamEvent:
    """One block of a stream.  ``data`` is None without such a line; ``chunk`` is None if the data is no object."""

    block: bytes
    data: bytes | None
    chunk: dict[str, Any] | None

    @property
    def comment(self) -> bool:
        return all(line.startswith(b":") for line in self.block.splitlines())


class StreamedAnswer:
    """A streamed answer, split into events."""

    def __init__(self, response: Response) -> None:
        self.response = response
        *blocks, self.rest = _END.split(response.body)
        self.events = [_event(block) for block in blocks if block]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [event.chunk for event in self.events if event.chunk is not None]

    @property
    def choices(self) -> list[dict[str, Any]]:
        """Every choice of every chunk, in order."""
        found = [chunk.get("choices") for chunk in self.chunks]
        return [choice for choices in found if isinstance(choices, list) for choice in choices if type(choice) is dict]

    @property
    def visible(self) -> int:
        """The number of deltas with a visible value."""
        return sum(any(delta_of(choice).get(key) for key in VISIBLE) for choice in self.choices)

    @property
    def text(self) -> str:
        return "".join(str(delta_of(choice).get("content") or "") for choice in self.choices)


def delta_of(choice: Mapping[str, Any]) -> dict[str, Any]:
    delta = choice.get("delta")
    return delta if isinstance(delta, dict) else {}


def _event(block: bytes) -> StreamEvent:
    lines = [line[5:].removeprefix(b" ") for line in block.splitlines() if line.startswith(b"data:")]
    data = b"\n".join(lines) if lines else None
    try:
        chunk = json.loads(data) if data is not None else None
    except ValueError:
        chunk = None
    return StreamEvent(block, data, chunk if isinstance(chunk, dict) else None)


class EndpointProbe:
    """The input of checks.  ``timeout`` is in seconds and bounds each answer."""

    def __init__(self, endpoint: Endpoint, token: str | None, model: str | None, timeout: float = 60.0) -> None:
        self.endpoint = endpoint
        self.token = token
        self.timeout = timeout
        self._refused: dict[str, Response] = {}
        self.model = model or self._choose_model()

    # ---- requests

    def head(self, method: str, path: str, *fields: str, token: str | None = "", host: bool = True) -> bytes:
        """Return a request's head.  ``token``: None sends none, empty the run's own.  ``path`` is below the base."""
        key = self.token if token == "" else token
        lines = [f"{method} {self.endpoint.base}{path} HTTP/1.1"]
        lines += [f"Host: {self.endpoint.authority}"] if host else []
        lines += [f"Authorization: Bearer {key}"] if key else []
        lines += ["Accept: */*", "Accept-Encoding: gzip, br", "User-Agent: headgate-conform", *fields]
        return "\r\n".join([*lines, "", ""]).encode()

    def post(self, body: bytes, *fields: str, token: str | None = "") -> bytes:
        """A whole request to /chat/completions."""
        kind, length = "Content-Type: application/json", f"Content-Length: {len(body)}"
        return self.head("POST", "/chat/completions", kind, length, *fields, token=token) + body

    def body(self, **members: Any) -> bytes:
        """A chat completion's body; a member that is None is left out."""
        members = {"model": self.model, "messages": [{"role": "user", "content": PROMPT}], **members}
        return json.dumps({key: value for key, value in members.items() if value is not None}).encode()

    def connect(self) -> RawConnection:
        return RawConnection(self.endpoint, self.timeout)

    def ask(self, request: bytes, method: str = "POST", timeout: float | None = None) -> Response:
        """Send one request on a new connection."""
        with self.connect() as connection:
            connection.send(request)
            return connection.read(method, timeout=timeout)

    def stream(self, **members: Any) -> StreamedAnswer:
        return StreamedAnswer(self.ask(self.post(self.body(stream=True, **members))))

    # ---- what many checks look at

    @cached_property
    def plain(self) -> StreamedAnswer:
        """The answer to a stream request without usage."""
        return self.stream()

    @cached_property
    def counted(self) -> StreamedAnswer:
        """The answer to a stream request with usage."""
        return self.stream(stream_options={"include_usage": True})

    @cached_property
    def whole(self) -> Response:
        return self.ask(self.post(self.body()))

    def refused(self, name: str) -> Response:
        """The answer to one of REFUSALS; asked once."""
        if name not in self._refused:
            self._refused[name] = REFUSALS[name](self)
        return self._refused[name]

    def _choose_model(self) -> str:
        """Return the first model of the catalog that may be a chat model.  Raises Unreachable."""
        answer = self.ask(self.head("GET", "/models", "Connection: close"), "GET", timeout=15)
        rows = answer.json.get("data") if isinstance(answer.json, dict) else None
        for row in rows if isinstance(rows, list) else []:
            ident = row.get("id") if isinstance(row, dict) else None
            if isinstance(ident, str) and not NOT_CHAT.search(ident):
                return ident
        raise Unreachable(f"{self.endpoint.authority} names no model ({answer.summary})", "name one with --model")


def _oversized(probe: EndpointProbe) -> Response:
    """Announce a gigabyte and send a few bytes of it: an endpoint with a limit can refuse it at once."""
    head = probe.head("POST", "/chat/completions", "Content-Type: application/json", f"Content-Length: {1 << 30}")
    return probe.ask(head + b'{"model":', timeout=5)


REFUSALS: dict[str, Callable[[EndpointProbe], Response]] = {
    "no token": lambda probe: probe.ask(probe.post(probe.body(), token=None)),
    "wrong token": lambda probe: probe.ask(probe.post(probe.body(), token="hg_wrong_0123456789abcdefghijklmn")),
    "unknown model": lambda probe: probe.ask(probe.post(probe.body(model=NO_SUCH_MODEL))),
    "unknown model, streamed": lambda probe: probe.ask(probe.post(probe.body(model=NO_SUCH_MODEL, stream=True))),
    "invalid JSON": lambda probe: probe.ask(probe.post(b'{"model": "x", "messages": [')),
    "JSON too deep": lambda probe: probe.ask(probe.post(b"[" * 50_000)),
    "no messages": lambda probe: probe.ask(probe.post(probe.body(messages=None))),
    'stream: "yes"': lambda probe: probe.ask(probe.post(probe.body(stream="yes"))),
    "oversize": _oversized,
    "method": lambda probe: probe.ask(probe.head("GET", "/chat/completions"), "GET"),
    "unknown path": lambda probe: probe.ask(probe.head("GET", "/no/such/path"), "GET"),
}
