"""What every API has in common: the canonical deltas, and the Protocols of both its sides.

A *client dialect* is an API that callers speak, a *backend dialect* one that providers speak.  Each is one folder with
one ``Client`` or one ``Backend`` (or both) in ``registry``: N + M of them serve N × M pairs.

- **Requests** are canonical in the form of chat completions: ``Call.body`` holds such members, whoever asked.  A client
  of another API keeps its own members in ``Call.native`` too, for a backend of that API; a request that the gateway has
  changed (a continuation) has none.
- **Answers** are canonical as deltas: a ``Source`` reads an upstream's bytes into them, a ``Face`` writes the client's
  bytes from them, and ``composed`` joins the two, with the tally and the seam between.
- Where both sides speak the same API, a backend may offer a *pass-through* instead: one object that observes bytes and
  rebuilds nothing (``openai_chat.ChatStream``).

The deltas' vocabulary is that of the AI SDK's stream parts (ai-sdk.dev, Stream Protocols).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from msgspec import Raw, Struct

from headgate.dialects.seam import Seam
from headgate.errors import GatewayError
from headgate.model import Call, Rendered, Target, Usage
from headgate.ports import StreamBridge

# ------------------------------------------------------------------------------------- deltas


class TextDelta(Struct, frozen=True, gc=False):
    """More of the answer's text."""

    text: str


class ReasoningDelta(Struct, frozen=True, gc=False):
    """More of the model's reasoning.  ``signature``: what its maker wants back with it, where it gives one."""

    text: str = ""
    signature: str = ""


class RefusalDelta(Struct, frozen=True, gc=False):
    """More of the text with which the model declines."""

    text: str


class ToolStart(Struct, frozen=True, gc=False):
    """A tool call begins.  ``index`` is its place among the answer's calls, from 0."""

    index: int
    id: str
    name: str


class ToolDelta(Struct, frozen=True, gc=False):
    """More of a tool call's arguments: a piece of JSON text."""

    index: int
    arguments: str


class Finish(Struct, frozen=True, gc=False):
    """The answer has ended.  ``reason``: stop | length | tool_calls | content_filter.  ``word``: the provider's own."""

    reason: str
    word: str = ""
    stop: str = ""  # the stop string that ended it, where the provider says


class RawDelta(Struct, frozen=True, gc=False):
    """What only clients of the same API understand: a delta's member with its own bytes."""

    key: str
    value: Raw


Delta = TextDelta | ReasoningDelta | RefusalDelta | ToolStart | ToolDelta | Finish | RawDelta


# ------------------------------------------------------------------------------------- values


class Quotable(Protocol):
    """What an upstream was asked, and may quote: the client's header fields and the request's body."""

    @property
    def headers(self) -> Mapping[bytes, bytes]: ...

    @property
    def body(self) -> bytes: ...


class Reply(Struct, gc=False):
    """What the two ends of one attempt's answer are told.

    ``ident`` is the answer's id as the client reads it, ``created`` Unix seconds, ``model`` the target's id for an
    answer that names none, ``prompt_tokens`` the estimate for one without usage.  ``sent`` is the request, which an
    error may quote; ``secrets`` are taken out of what the upstream wrote.

    ``hold``: what is not returned before it is complete, so that it can still come from another attempt: ``tools``
    (from the first tool call on) or ``all``; empty for nothing.  ``keep``: the text is kept, so that another attempt
    can go on where this one breaks.  ``choices``: how many answers were asked for.  ``before``: what earlier attempts
    have delivered of the answer that this one goes on with.
    """

    ident: str
    created: int
    model: str
    include_usage: bool = False
    provider: str = "The upstream"
    secrets: tuple[str, ...] = ()
    max_event: int = 8 << 20
    prompt_tokens: int = 0
    hold: str = ""
    choices: int = 1
    keep: bool = False
    sent: Quotable | None = None
    before: Usage | None = None


def _write_nothing(extra: bytes | None, trace: bytes | None) -> bytes:
    return b""


class Answer(Struct, gc=False):
    """A whole answer for the client, or the ``error`` that it is.

    ``write`` makes its body, with what the gateway adds when the call's receipt has its figures: the ``headgate``
    object and the route trace, as JSON.
    ``usage`` is None where the upstream reported none; ``text_bytes`` is what an estimate can be made from.
    ``hollow``: no text, no tool call, no refusal, and no reason for it: a failure, despite its status.
    ``model`` is the name in the body: the upstream's own.
    """

    write: Callable[[bytes | None, bytes | None], bytes] = _write_nothing
    usage: Usage | None = None
    text_bytes: int = 0
    hollow: bool = False
    finish: str = ""
    failed: str = ""  # the finish word of a choice that broke off
    error: GatewayError | None = None
    skipped: int = 0  # events that could not be read, where it came as a stream
    model: str = ""


# ------------------------------------------------------------------------------------- the two ends of an answer


class Source(Protocol):
    """One attempt's answer as deltas.  Pure.  What comes after ``done`` or ``error`` is ignored.

    ``reported``: what the provider says that the answer used, as of now; None: nothing yet.  ``model``: the provider's
    name of it, empty until it says one.  ``done``, ``error``, ``events``, ``skipped`` and ``quiet``: see
    ``ports.StreamBridge``.
    """

    done: bool
    error: GatewayError | None
    events: int
    skipped: int
    quiet: float
    model: str

    @property
    def reported(self) -> Usage | None: ...

    def feed(self, data: bytes) -> Sequence[Delta]:
        """Read a piece of a streamed body, cut anywhere."""

    def close(self, clean: bool = True) -> Sequence[Delta]:
        """The body has ended; ``clean``: as its framing says.  Set ``error`` on what was cut."""

    def whole(self, body: bytes) -> Sequence[Delta]:
        """Read an answer that came whole, and be ``done``; or set ``error``."""


class Face(Protocol):
    """One answer as its client reads it.  It outlives an attempt: a later one's deltas go on where the client is."""

    def put(self, deltas: Sequence[Delta], model: str) -> bytes:
        """Events for the client; the first ones begin its stream.  ``deltas`` holds no ``Finish``: see ``tail``.

        Raises GatewayError for what the client must not have.
        """

    def tail(self, finish: Finish, usage: Usage, extra: bytes | None, trace: bytes | None) -> bytes:
        """What ends a complete stream."""

    def error(self, error: GatewayError) -> bytes:
        """What ends a stream that will not be complete."""

    def whole(
        self, deltas: Sequence[Delta], model: str, usage: Usage, extra: bytes | None, trace: bytes | None
    ) -> bytes:
        """All of an answer, for a client that did not ask for a stream.  ``deltas`` ends with a ``Finish``."""

    def screen(self, deltas: Sequence[Delta]) -> Sequence[Delta]:
        """Return what the client gets of a whole answer.  Raises GatewayError for what it must not have."""


def finish_of(deltas: Sequence[Delta]) -> Finish:
    """Return the end of a whole answer; an answer without one has stopped."""
    return next((delta for delta in deltas if isinstance(delta, Finish)), Finish("stop"))


def own_members(extra: bytes | None, trace: bytes | None) -> dict[str, object]:
    """Return the gateway's own members of an answer, of their JSON."""
    given = {"headgate": extra, "route_trace": trace}
    return {name: Raw(text) for name, text in given.items() if text is not None}


# ------------------------------------------------------------------------------------- the two sides of an API


class Client(Protocol):
    """An API that callers speak."""

    name: str
    path: str  # behind the base URL, e.g. /chat/completions
    prefix: str  # of the ids of its answers, e.g. chatcmpl-

    def read(self, body: bytes) -> Call:
        """What the client asks for.  Raises GatewayError (400) with ``param`` where it cannot be meant."""

    def requested(self, body: bytes) -> str:
        """The model that a refused request names, for its receipt; empty where it names none that could be shown."""

    def face(self, reply: Reply, before: StreamBridge | None = None) -> Face:
        """A Face for an answer; with ``before``, for the rest of one that began in that pass-through."""

    def error_body(self, error: GatewayError) -> bytes:
        """The body of an error answer."""

    def error_event(self, error: GatewayError, ident: str) -> bytes:
        """The event that ends a stream which has begun and cannot be completed."""


class PassThrough(Protocol):
    """How answers of an API reach a client of the same API: observed, completed, and not rebuilt."""

    def stream(self, reply: Reply) -> StreamBridge:
        """The stream of one attempt."""

    def joined(self, before: StreamBridge, seam: Seam, reply: Reply) -> StreamBridge | None:
        """The stream of a later attempt at the answer that broke in ``before``; None where that was no pass-through."""

    def answer(self, body: bytes, reply: Reply) -> Answer | Iterator[Answer | None]:
        """A whole answer.  One that came as a stream is read in parts: None after each, at last the Answer."""


class Backend(Protocol):
    """An API that providers speak.  ``passes`` holds its pass-through for clients of the same API, if it has one."""

    name: str
    passes: PassThrough | None
    usage_fields: frozenset[str]  # of a request, which only ``ask_usage`` adds

    def render(self, call: Call, target: Target, ask_usage: bool) -> Rendered:
        """The upstream's request.  ``ask_usage``: a stream is to report its usage whether the client asked or not."""

    def adds_usage_field(self, call: Call) -> bool:
        """Whether ``ask_usage`` adds a field that the client has not sent, and that a server may refuse."""

    def source(self, reply: Reply) -> Source: ...

    def failure(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes, reply: Reply, now: float
    ) -> GatewayError:
        """The error that an answer without success is.  ``now``: Unix seconds."""

    def usage(self, body: bytes) -> Usage | None:
        """What a whole answer says that it used; None: it does not say."""
