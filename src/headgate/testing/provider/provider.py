"""The built-in provider: an OpenAI-compatible server for trying, measuring and testing, with every byte on a real
socket.

    POST …/chat/completions    models ``echo``, ``lorem``, ``engine`` and ``fault/<name>``, streamed or not
    GET  …/models, …/models/ID the models
    GET  /__seen               the received requests, if it keeps them (``keep``)
    POST /__reset              forgets the counts of the faults and the requests seen

``echo`` sends the last user message, word by word and at once.  ``lorem`` sends ``tokens`` of a fixed text at ``rate``
tokens/s after ``ttft`` seconds: ``lorem?rate=100&ttft=0.2&tokens=400`` as the model, or ``"lorem": {"rate":
100}`` in the body.  A trailing assistant message is a prefill: lorem goes on where it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import msgspec

from headgate.testing.engine import engine
from headgate.testing.faults import meaning, oddities
from headgate.testing.faults.scene import FAULTS, FaultCounts, Scene
from headgate.testing.provider import lorem, shapes, tools
from headgate.testing.provider.playing import Pace, play
from headgate.testing.provider.server import ProviderConnection, ReplyWriter, RequestLog, Seen
from headgate.testing.provider.shapes import ChatRequest, Invalid, Shape

FAULT_FILES = (meaning, oddities, tools)  # importing them fills FAULTS
LOREM_DEFAULTS = {"rate": 50.0, "ttft": 0.1, "tokens": 120.0}
_MODELS = {
    "echo": "says the last user message back, word by word, at once",
    "engine": "says what follows from the text so far, and fails where it is told to: headgate.testing.engine.engine",
    "lorem": "says a fixed text; lorem?rate=100&ttft=0.2&tokens=400 sets tokens/s, seconds to the first, and length",
}


_chat_decoder = msgspec.json.Decoder(ChatRequest)


class Provider:
    """The value of ``serve``: the address, and the requests that the provider has seen.

    ``requests`` are the last ``keep`` exchanges, oldest first.
    """

    def __init__(self, keys: Collection[str] = (), keep: int = 10_000, timed: bool = False) -> None:
        self.host, self.port, self.scheme = "", 0, "http"
        self.keys = frozenset(keys)
        self.connections: set[ProviderConnection] = set()
        self.accepted = 0
        self.started = int(time.time())
        self._journal = RequestLog(deque(maxlen=keep), timed)
        self._memory = FaultCounts()
        self._serial = itertools.count(1)

    @property
    def url(self) -> str:
        """The base URL, as clients of OpenAI's API want it."""
        return f"{self.scheme}://{self.host}:{self.port}/v1"

    @property
    def requests(self) -> deque[Seen]:
        return self._journal.requests

    def reset(self) -> None:
        """Forget the faults' counts and the requests."""
        self._memory.reset()
        self.requests.clear()

    async def until(self, condition: Callable[[Provider], object], within: float = 5.0) -> None:
        """Wait until ``condition(self)`` holds; it is checked when a connection or an exchange begins or ends.

        ``within`` is in seconds; raises TimeoutError.
        """
        changed = asyncio.Event()
        self._journal.listeners.append(changed.set)
        try:
            async with asyncio.timeout(within):
                while not condition(self):
                    changed.clear()
                    await changed.wait()
        finally:
            self._journal.listeners.remove(changed.set)

    def connection(self) -> ProviderConnection:
        """The protocol of a new connection."""
        self.accepted += 1
        return ProviderConnection(self.accepted, self._answer, self._journal, self.connections)

    # ---- what is asked

    def _answer(self, reply: ReplyWriter) -> None:
        try:
            self._route(reply)
        except Invalid as wrong:
            kind = "authentication_error" if wrong.status == 401 else "invalid_request_error"
            body = shapes.error(wrong.message, kind, wrong.code, wrong.param)
            reply.whole(wrong.status, shapes.dumps(body))

    def _route(self, reply: ReplyWriter) -> None:
        method, path = reply.request.method, reply.request.path.rstrip("/")
        self._check_key(reply)
        if path == "/__seen" and method == "GET":
            return reply.whole(200, shapes.dumps(list(self.requests)))
        if path == "/__reset" and method == "POST":
            self.reset()
            return reply.whole(200, b"{}")
        if method == "POST" and path.endswith("/chat/completions"):
            return self._chat(reply, shapes.read_chat(reply.request.body, _chat_decoder))
        if method in ("GET", "HEAD") and path.endswith("/models"):
            entries = [self._entry(model) for model in self._catalog()]
            return reply.whole(200, shapes.dumps({"object": "list", "data": entries}))
        if method in ("GET", "HEAD") and "/models/" in path:
            return self._one_model(reply, path.partition("/models/")[2].replace("%2F", "/"))
        raise Invalid(f"Invalid URL ({method} {path})", status=404, code="unknown_url")

    def _check_key(self, reply: ReplyWriter) -> None:
        sent = (reply.request.header("authorization") or "").removeprefix("Bearer ")
        if self.keys and sent not in self.keys:
            raise Invalid("Incorrect API key provided.", status=401, code="invalid_api_key")

    def _catalog(self) -> dict[str, str]:
        return {**_MODELS, **{row.model: row.summary for row in FAULTS.values()}}

    def _entry(self, model: str) -> dict[str, Any]:
        about = self._catalog()[model]
        return {"id": model, "object": "model", "created": self.started, "owned_by": "headgate", "description": about}

    def _one_model(self, reply: ReplyWriter, model: str) -> None:
        if model not in self._catalog():
            raise _no_such_model(model)
        reply.whole(200, shapes.dumps(self._entry(model)))

    # ---- what is answered

    def _chat(self, reply: ReplyWriter, chat: ChatRequest) -> None:
        id = f"chatcmpl-{next(self._serial):024x}"
        if chat.model.partition("?")[0] == "engine":
            return engine.begin(reply, self._memory, id)
        if chat.n not in (None, 1):
            raise Invalid("this model makes one choice: n must be 1", "n")
        name, given, key = shapes.read_model(chat.model)
        shape = Shape(id, int(time.time()), name, chat.include_usage)
        if name == "echo":
            shapes.with_defaults(given, {}, "model")
            return play(reply, chat, shape, _last_user_words(chat), Pace())
        if name == "lorem":
            tokens, pace = _lorem(chat, given)
            return play(reply, chat, shape, tokens, pace)
        row = FAULTS.get(name.removeprefix("fault/")) if name.startswith("fault/") else None
        if row is None:
            raise _no_such_model(name)
        scene = Scene(reply, chat, shape, row, shapes.with_defaults(given, row.params, "model"), self._memory, key)
        return reply.run(_perform(scene), f"{name} on connection {reply.seen.connection}")


async def _perform(scene: Scene) -> None:
    await scene.row.act(scene)


def _no_such_model(model: str) -> Invalid:
    return Invalid(f"The model '{model}' does not exist", "model", status=404, code="model_not_found")


def _last_user_words(chat: ChatRequest) -> list[str]:
    questions = [message for message in chat.messages if message.role == "user"]
    if not questions:
        raise Invalid("echo needs a message of role user", "messages")
    return lorem.split(questions[-1].text)


def _lorem(chat: ChatRequest, given: dict[str, float]) -> tuple[list[str], Pace]:
    """Return the tokens to send, and their pace.  The body overrides the model id.  Raises Invalid."""
    body = {label: shapes.number(label, value, "lorem") for label, value in (chat.lorem or {}).items()}
    params = shapes.with_defaults(body, shapes.with_defaults(given, LOREM_DEFAULTS, "model"), "lorem")
    if params["tokens"] > lorem.MAX_TOKENS:
        raise Invalid(f"lorem says at most {lorem.MAX_TOKENS} tokens", "model")
    return lorem.remaining(lorem.tokens(int(params["tokens"])), chat.prefill), Pace(params["rate"], params["ttft"])


@contextlib.asynccontextmanager
async def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    sock: socket.socket | None = None,
    keys: Collection[str] = (),
    keep: int = 10_000,
    tls: ssl.SSLContext | None = None,
    timed: bool = False,
) -> AsyncIterator[Provider]:
    """Serve in the running loop until the block is left; calls that still run are cut off.

    ``sock`` is a bound socket that is used instead of ``host`` and ``port`` (0: any free one).  With ``keys``, only
    those bearer keys are let in.  ``keep``: number of exchanges to remember, with their headers and bodies (0:
    none).  ``timed``: also remember the time of each sent piece.  Raises OSError if it cannot listen.
    """
    provider = Provider(keys, keep, timed)
    loop = asyncio.get_running_loop()
    if sock is None:
        server = await loop.create_server(provider.connection, host, port, ssl=tls, backlog=2048)
    else:
        server = await loop.create_server(provider.connection, sock=sock, ssl=tls, backlog=2048)
    provider.host, provider.port = server.sockets[0].getsockname()[:2]
    provider.scheme = "https" if tls else "http"
    try:
        yield provider
    finally:
        server.close()
        await _cut_off(provider)


async def _cut_off(provider: Provider) -> None:
    acts = [task for connection in provider.connections for task in connection.tasks]
    for connection in tuple(provider.connections):
        connection.abort()
    for task in acts:
        task.cancel()
    await asyncio.gather(*acts, return_exceptions=True)


def exchanges(answer: bytes) -> list[Seen]:
    """Return the answer of GET /__seen as ``Seen``."""
    return msgspec.json.decode(answer, type=list[Seen])
