"""A small endpoint that keeps the contract, and breaks it in exactly one chosen way: what `headgate conform` must find.

A flaw is a name; ``Endpoint(flaw)`` serves it on a free port, one thread for each connection.  Without a flaw it is
without fault.  Only the first stream is paced: the checks of timing look at that one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

KEY = "key-of-the-tests"
GAP_S = 0.015
LIMIT = 1 << 20
Chunks = list[dict[str, Any]]


class Closed(Exception):
    """The client has left, or the connection is to end."""


def delta(chunks: Chunks, number: int) -> dict[str, Any]:
    found: dict[str, Any] = chunks[number]["choices"][0]["delta"]
    return found


def set_all(chunks: Chunks, **members: Any) -> None:
    for chunk in chunks:
        chunk.update(members)


def each_choice(chunks: Chunks) -> Iterator[dict[str, Any]]:
    for chunk in chunks:
        yield from chunk["choices"]


def second_finish(chunks: Chunks) -> None:
    last = next(number for number, chunk in enumerate(chunks) if chunk["choices"][0]["finish_reason"])
    chunks.insert(last + 1, json.loads(json.dumps(chunks[last])))


def text_after_finish(chunks: Chunks) -> None:
    last = next(number for number, chunk in enumerate(chunks) if chunk["choices"][0]["finish_reason"])
    late = json.loads(json.dumps(chunks[last]))
    late["choices"][0].update(delta={"content": "more"}, finish_reason=None)
    chunks.insert(last + 1, late)


def no_finish(chunks: Chunks) -> None:
    for choice in each_choice(chunks):
        choice["finish_reason"] = None


def role_everywhere(chunks: Chunks) -> None:
    for choice in each_choice(chunks):
        choice["delta"]["role"] = "assistant"


def ids_change(chunks: Chunks) -> None:
    for number, chunk in enumerate(chunks):
        chunk["id"] += str(number)


def without_finish_key(chunks: Chunks) -> None:
    for choice in each_choice(chunks):
        if choice["finish_reason"] is None:
            del choice["finish_reason"]


def torn_text(chunks: Chunks) -> None:
    for choice in each_choice(chunks):
        if choice["delta"].get("content"):
            choice["delta"]["content"] = re.sub("[^\x00-\x7f]", "�", choice["delta"]["content"])


def silent(chunks: Chunks) -> None:
    for choice in each_choice(chunks):
        choice["delta"].pop("content", None)


def error_inside(chunks: Chunks) -> None:
    chunks[2]["error"] = {"message": "the provider failed"}


# What happens to the chunks of every stream, before usage and [DONE].
CHUNKS: dict[str, Callable[[Chunks], None]] = {
    "role on every chunk": role_everywhere,
    "no role": lambda chunks: delta(chunks, 0).pop("role"),
    "second finish": second_finish,
    "text after the finish": text_after_finish,
    "no finish": no_finish,
    "ids change": ids_change,
    "one id for all": lambda chunks: set_all(chunks, id="chatcmpl-1"),
    "no finish_reason key": without_finish_key,
    "object of another name": lambda chunks: set_all(chunks, object="chunk"),
    "torn characters": torn_text,
    "says nothing": silent,
    "an error inside": error_inside,
    "empty choices": lambda chunks: chunks.insert(1, {**chunks[0], "choices": []}),
}
# What happens to the events' bytes, [DONE] included.
BLOCKS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "id-only block": lambda blocks: [b"id: 7\n\n", *blocks],
    "no last blank line": lambda blocks: [*blocks[:-1], blocks[-1].rstrip(b"\n")],
    "torn events": lambda blocks: [half for block in blocks for half in (block[:9], block[9:])],
    "no JSON": lambda blocks: [blocks[0], b"data: hello\n\n", *blocks[1:]],
    "no done": lambda blocks: blocks[:-1],
    "data after done": lambda blocks: [*blocks, blocks[1]],
    "all at the end": lambda blocks: [b"".join(blocks)],
}
CODES = {
    401: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    431: "too_large",
}


class Endpoint:
    """``with Endpoint(flaw) as endpoint``: ``endpoint.url``."""

    def __init__(self, flaw: str = "") -> None:
        self.flaw = flaw
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.serial = itertools.count(1)
        self.left = 0
        self.paced = False
        self.threads: list[threading.Thread] = []
        self.accepting = threading.Thread(target=self.accept, name="endpoint")
        self.idle = threading.active_count()  # other tests keep threads of their own

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.sock.getsockname()[1]}"

    def __enter__(self) -> Endpoint:
        self.accepting.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.shutdown(socket.SHUT_RDWR)
        self.accepting.join(5)
        for thread in self.threads:
            thread.join(5)
        self.sock.close()

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.sock.accept()
            except OSError:
                return
            thread = threading.Thread(target=self.serve, args=(sock,), name="connection")
            self.threads.append(thread)
            thread.start()

    def serve(self, sock: socket.socket) -> None:
        sock.settimeout(8)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock, contextlib.suppress(Closed, OSError):
            try:
                client = Client(sock)
                while True:
                    Exchange(self, client).perform()
            finally:
                # What was not read must not become a reset that destroys the answer.
                sock.shutdown(socket.SHUT_WR)
                sock.settimeout(0.2)
                while sock.recv(1 << 16):
                    pass


class Client:
    """One connection's bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.buffer = sock, b""

    def until(self, mark: bytes, most: int = 100_000) -> bytes:
        while mark not in self.buffer:
            if len(self.buffer) > most:
                raise ValueError
            self.more()
        data, _, self.buffer = self.buffer.partition(mark)
        return data

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self.more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def more(self) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise Closed
        self.buffer += data


class Exchange:
    """One request and its answer."""

    def __init__(self, endpoint: Endpoint, client: Client) -> None:
        self.endpoint, self.client, self.flaw = endpoint, client, endpoint.flaw
        self.method = self.path = ""
        self.fields: list[tuple[str, str]] = []

    def perform(self) -> None:
        try:
            head = self.client.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        except ValueError:
            if self.flaw == "takes any head":
                self.client.until(b"\r\n\r\n", 1 << 30)
                self.error(404)
                return
            self.error(431, close=True)
        if head[0].count(" ") != 2:
            self.error(400, close=True)
        self.method, self.path, _ = head[0].split(" ")
        self.fields = [(n.lower(), v.strip()) for n, _, v in (line.partition(":") for line in head[1:])]
        if self.ambiguous():
            self.error(400, close=True)
        body = self.read_body()
        self.route(body)
        if self.header("connection") == "close" and self.flaw != "ignores close":
            raise Closed
        if self.flaw == "one request per connection":
            raise Closed

    def header(self, name: str) -> str:
        return next((value for key, value in self.fields if key == name), "")

    def ambiguous(self) -> bool:
        names = [name for name, _ in self.fields]
        if "host" not in names and self.flaw != "no host needed":
            return True
        if names.count("content-length") > 1 and self.flaw != "takes the first length":
            return True
        both = "content-length" in names and "transfer-encoding" in names
        return both and self.flaw != "takes length and chunked"

    def read_body(self) -> bytes:
        if self.header("expect") and self.flaw != "ignores expect":
            self.client.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = self.header("content-length")
        if length:
            if int(length) > LIMIT and self.flaw != "reads on":
                self.error(500 if self.flaw == "500 for a gigabyte" else 413, close=True)
            return self.client.exactly(int(length))
        if self.header("transfer-encoding") and self.flaw != "no chunked requests":
            body = b""
            while size := int(self.client.until(b"\r\n"), 16):
                body += self.client.exactly(size)
                self.client.until(b"\r\n")
            self.client.until(b"\r\n")
            return body
        return b""

    # ---- what is asked

    def route(self, body: bytes) -> None:
        if self.flaw == "answers out of order" and b"/no/such" in self.client.buffer:
            self.error(404)
            self.client.until(b"\r\n\r\n")
        if self.path == "/v1/models" and self.method in ("GET", "HEAD"):
            return self.answer(200, {"object": "list", "data": [{"id": "embed-1"}, {"id": "m"}]})
        if self.path != "/v1/chat/completions":
            if self.flaw == "any path":
                return self.answer(200, {})
            return self.error(404)
        if self.method == "OPTIONS":
            if self.flaw in ("no options", "500 for options"):
                return self.error(405 if self.flaw == "no options" else 500)
            return self.answer(204, None, "Allow: POST, OPTIONS")
        if self.method != "POST":
            return self.error(404 if self.flaw == "no 405" else 405)
        return self.chat(body)

    def chat(self, body: bytes) -> None:
        key = self.header("authorization").removeprefix("Bearer ")
        if key != KEY and self.flaw != "open to all":
            if self.flaw == "repeats the token":
                return self.error(401, message=f"no such key: {key}")
            return self.error({"403 without a token": 403, "500 for a token": 500}.get(self.flaw, 401))
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            deep = body.startswith(b"[[")
            bad = (self.flaw == "500 for deep JSON" and deep) or (self.flaw == "500 for bad JSON" and not deep)
            return self.error(500 if bad else 400)
        if "messages" not in asked:
            return self.error(400, param=None if self.flaw == "no param" else "messages")
        if type(asked.get("stream", False)) is not bool and self.flaw != "guesses":
            return self.error(400, param="stream")
        if asked["model"] != "m":
            if self.flaw == "errors as events" and asked.get("stream"):
                return self.stream([b'data: {"error":{"message":"no such model"}}\n\n'], 0)
            return self.error(400 if self.flaw == "400 for the model" else 404, param="model")
        return self.complete(asked)

    def complete(self, asked: dict[str, Any]) -> None:
        words = re.findall(r"\s*\S+", asked["messages"][0]["content"])
        ident = f"chatcmpl-{next(self.endpoint.serial)}"
        if asked.get("stream") is True:
            usage = bool(asked.get("stream_options"))
            blocks = self.blocks(self.chunks(ident, words, asked), ident, usage)
            gap, self.endpoint.paced = (0 if self.endpoint.paced else GAP_S), True
            if self.flaw == "stalls when busy" and threading.active_count() > self.endpoint.idle + 4:
                raise Closed
            if self.flaw == "dies of leavers" and self.endpoint.left:
                return self.error(503)
            return self.stream(blocks, gap)
        message = {"role": "assistant", "content": "".join(words)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage_now = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        whole = {"id": ident, "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        if self.flaw == "no message":
            choice["message"] = "".join(words)
        if self.flaw == "wrong total":
            usage_now["total_tokens"] = 9
        if self.flaw == "whole answer is empty":
            message["content"] = ""
        return self.answer(200, {**whole, "usage": usage_now})

    # ---- a stream

    def chunks(self, ident: str, words: list[str], asked: dict[str, Any]) -> Chunks:
        head = {"id": ident, "object": "chat.completion.chunk", "created": 1, "model": "m"}
        made: Chunks = []

        def add(index: int, given: dict[str, Any], reason: str | None = None) -> None:
            made.append({**head, "choices": [{"index": index, "delta": given, "finish_reason": reason}]})

        for index in range(asked.get("n", 1)):
            if index and self.flaw == "second choice without end":
                add(index, {"role": "assistant", "content": "hello"})
                continue
            add(index, {"role": "assistant", "content": ""})
            if asked.get("tools"):
                call = {
                    "index": 0,
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": ""},
                }
                add(index, {"tool_calls": [call]})
                arguments = '{"place":' if self.flaw == "broken arguments" else '{"place":"x"}'
                again = {"id": "call_1"} if self.flaw == "tool id again" else {}
                add(index, {"tool_calls": [{"index": 0, **again, "function": {"arguments": arguments}}]})
                add(index, {}, "stop" if self.flaw == "stop after tools" else "tool_calls")
                continue
            for word in words:
                add(index, {"content": word})
            add(index, {}, "stop")
        CHUNKS.get(self.flaw, lambda chunks: None)(made)
        return made

    def blocks(self, chunks: Chunks, ident: str, usage: bool) -> list[bytes]:
        counts = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        if usage and self.flaw != "no usage: null":
            set_all(chunks, usage=None)
        if self.flaw == "usage unasked" and not usage:
            chunks[-1]["usage"] = counts
        if usage and self.flaw == "usage on the finish":
            chunks[-1]["usage"] = counts
        elif usage and self.flaw != "usage never":
            if self.flaw == "usage that does not add up":
                counts["total_tokens"] = 4
            chunks.append({**chunks[0], "choices": [], "usage": counts})
        blocks = [b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n" for chunk in chunks]
        return BLOCKS.get(self.flaw, lambda blocks: blocks)([*blocks, b"data: [DONE]\n\n"])

    def stream(self, blocks: list[bytes], gap: float) -> None:
        fields = ["Content-Type: text/event-stream", "Cache-Control: no-cache", "X-Accel-Buffering: no"]
        if self.flaw == "stream as JSON":
            fields[0] = "Content-Type: application/json"
        if self.flaw == "cacheable":
            fields[1:] = ["Cache-Control: max-age=60"]
        if self.flaw == "compressed":
            fields.append("Content-Encoding: gzip")
        if self.flaw == "closes after streams":
            fields.append("Connection: close")
        self.write(self.head(200, [*fields, "Transfer-Encoding: chunked"]))
        if self.flaw == "all at the end":
            time.sleep(gap * 30)
        for block in blocks:
            self.write(b"%x\r\n%b\r\n" % (len(block), block))
            time.sleep(gap)
        if self.flaw == "cut":
            raise Closed
        self.write(b"0\r\n\r\n")
        if self.flaw in ("closes after streams", "closes unsaid after streams"):
            raise Closed

    # ---- writing

    def head(self, status: int, fields: list[str]) -> bytes:
        if self.flaw != "no request id":
            fields.append("x-request-id: r1")
        if self.flaw != "no timing":
            fields.append("Server-Timing: gateway;dur=1")
        if self.flaw == "two lengths":
            fields += [field for field in fields if field.startswith("Content-Length")]
        return "\r\n".join([f"HTTP/1.1 {status} X", *fields, "", ""]).encode()

    def answer(self, status: int, value: Any, *fields: str, close: bool = False) -> None:
        body = json.dumps(value).encode() if value is not None else b""
        kind = "text/plain" if self.flaw == "JSON as text" and status == 200 else "application/json"
        lines = [*fields, f"Content-Type: {kind}", f"Content-Length: {len(body)}"] + ["Connection: close"] * close
        if self.method == "HEAD" and self.flaw != "HEAD with a body":
            body = b""
        self.write(self.head(status, lines) + body)
        if close or (status == 400 and self.flaw == "closes unsaid after errors"):
            raise Closed

    def error(self, status: int, *, param: str | None = None, message: str = "no", close: bool = False) -> None:
        error = {"message": message, "type": "t", "param": param, "code": CODES.get(status, "invalid")}
        if self.flaw == "three keys":
            del error["param"]
        value: Any = {"detail": "no"} if self.flaw == "another shape" else {"error": error}
        challenge = ["WWW-Authenticate: Bearer"] if status == 401 and self.flaw != "no challenge" else []
        self.answer(status, value, *challenge, close=close)

    def write(self, data: bytes) -> None:
        try:
            self.client.sock.sendall(data)
        except OSError as gone:
            self.endpoint.left += 1
            raise Closed from gone
