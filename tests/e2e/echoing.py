"""A provider that quotes the key it was sent, in every place of an answer and in every spelling."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.spellings import spellings

CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
TEXT = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "so far"}, "finish_reason": None}]}
WHOLE = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "well"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip
# Fields of an answer's head that gateways look at or pass on
FIELDS = (
    *("x-request-id", "request-id", "retry-after", "retry-after-ms", "www-authenticate", "server", "via", "set-cookie"),
    *("x-ratelimit-limit-requests", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens", "x-should-retry"),
    *("openai-organization", "openai-processing-ms", "anthropic-organization-id", "cf-ray", "content-language"),
)
PLACES = (
    *("message", "code", "type", "param", "nested", "string", "text", "html", "list", "head", "reason", "redirect"),
    *("content-type", "good head", "event", "torn event", "named event", "no json", "no http"),
)


def forms(key: str) -> dict[str, str]:
    """What is said of a key: its spellings, and words around it."""
    return {
        **spellings(key),
        "bearer": f"Authorization: Bearer {key}",
        "quoted": f"'{key}'",
        "cut": key[: len(key) - 3],
    }


@dataclass
class Echoing:
    """``url`` is its base URL.  ``seen``: the values of the header ``X-Team-Secret``; ``paths``: ends of paths."""

    url: str
    seen: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)


@contextmanager
def echoing() -> Iterator[Echoing]:
    """A model is ``<status>.<place>.<form>``, by the number of the form."""
    seen: set[str] = set()
    paths: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._say(401, "message", f"the key {self._key()} is not good")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            paths.add(re.split("[/:]", self.path.partition("?")[0])[-1])
            seen.add(self.headers.get("x-team-secret", ""))
            named = body.get("model") or re.sub(r".*/models/|:.*", "", self.path)
            status, place, form = named.split(".")
            self._say(int(status), place.replace("_", " "), list(forms(self._key()).values())[int(form)])

        def _key(self) -> str:
            fields = ("authorization", "x-api-key", "x-goog-api-key")
            return next(filter(None, map(self.headers.get, fields)), "").removeprefix("Bearer ")

        def _say(self, status: int, place: str, words: str) -> None:
            if place in ("event", "torn event", "named event"):
                return self._stream(place, words)
            if place == "no http":
                self.wfile.write(f"{words}\r\n\r\n".encode())
                self.close_connection = True
                return None
            fields, content = answer(place, words)
            if place == "good head":
                status, content = 200, json.dumps(WHOLE)
            self.send_response_only(302 if place == "redirect" else status, words if place == "reason" else None)
            for name, value in {"content-length": str(len(content)), **fields}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content.encode())

        def _stream(self, place: str, words: str) -> None:
            error = {"error": {"message": f"no good: {words}", "type": words, "code": words, "param": words}}
            name = b"event: error\n" if place == "named event" else b""
            data = name + b"data: " + json.dumps(error).encode() + b"\n\n"
            self.send_response_only(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(b"data: " + json.dumps({**CHUNK, **TEXT}).encode() + b"\n\n")
            middle = data.index(words[:4].encode()) + 7 if place == "torn event" and words[:4].encode() in data else 1
            for piece in (data[:middle], data[middle:]):
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(0.005)
            self.close_connection = True

        def log_message(self, *_arguments: Any) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Echoing(f"http://127.0.0.1:{server.server_port}/v1", seen, paths)
    finally:
        server.shutdown()
        server.server_close()


def answer(place: str, words: str) -> tuple[dict[str, str], str]:
    """The fields and the body of a whole answer."""
    plain = {"message": "no", "type": "invalid_request_error", "code": "bad", "param": "model"}
    if place in ("message", "code", "type", "param"):
        return {"content-type": "application/json"}, json.dumps({"error": {**plain, place: f"it is {words}"}})
    if place in ("head", "good head"):
        return dict.fromkeys(FIELDS, words) | {"content-type": "application/json"}, json.dumps({"error": plain})
    texts = {
        "nested": json.dumps({"error": {"message": json.dumps({"error": {"message": words}})}}),
        "string": json.dumps({"error": words}),
        "list": json.dumps({"detail": [{"loc": [words], "msg": words}]}),
        "html": f"<html><head><title>{words}</title></head><body>{words}</body></html>",
        "no json": '{"error": {"message": "' + words,
    }
    if place == "redirect":
        return {"location": f"http://127.0.0.1:1/{words}?key={words}"}, ""
    if place == "content-type":
        return {"content-type": words}, words
    return {"content-type": "text/html" if place == "html" else "application/json"}, texts.get(place, f"it is {words}")
