"""The common part of all APIs: the canonical deltas, and the Protocols of both sides of an API.

A *client dialect* is an API that callers speak, a *backend dialect* one that providers speak.  Each is one folder with
one ``Client`` or one ``Backend`` (or both) in ``registry``: N + M of them serve N × M pairs.

- **Requests** are canonical in the form of chat completions: ``Call.body`` holds such members for every client.  If
  the client speaks another API, ``Call.native`` holds its own members too, for a backend of that API.  A request
  that the gateway has changed (a continuation) has no ``native``.
- **Answers** are canonical as deltas.  A ``Source`` reads deltas from an upstream's bytes, and a ``Face`` writes them
  as the client's bytes.  ``composed`` joins the two, with the tally and the seam between.
- If both sides speak the same API, a backend may offer a *pass-through* instead: one object that observes bytes and
  rebuilds nothing (``openai_chat.ChatStream``).

The deltas' vocabulary is that of the AI SDK's stream parts (ai-sdk.dev, Stream Protocols).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from msgspec import Raw, Struct

from headgate.dialects.seam import Seam
from headgate.errors import GatewayError
from headgate.model import NOTHING, Call, Prompt, PromptMessage, Rendered, Target, Usage, Used
from headgate.ports import StreamBridge

# ------------------------------------------------------------------------------------- deltas


class TextDelta(Struct, frozen=True, gc=False):
    """More of the answer's text."""

    text: str


class ReasoningDelta(Struct, frozen=True, gc=False):
    """More of the model's reasoning.  ``signature``: the provider's seal on it, which later requests must return."""

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
    stop: str = ""  # the stop string that ended it, if the provider names it


class RawDelta(Struct, frozen=True, gc=False):
    """A part of an answer that only clients of ``api`` understand, with its own bytes.  ``key``: where it stands.
    ``shows``: a reader sees something of it.
    """

    key: str
    value: Raw
    api: str
    shows: bool = True


class PassedEvent(Struct, gc=False):
    """An event that a client of the provider's own API gets as it is.

    ``kind``, ``text`` and ``size`` describe its visible part as ``tally.ClientView`` counts it.  No kind: it shows
    nothing.
    """

    event: bytes
    kind: str = ""
    text: str = ""
    size: int = 0


Delta = TextDelta | ReasoningDelta | RefusalDelta | ToolStart | ToolDelta | Finish | RawDelta | PassedEvent


# ------------------------------------------------------------------------------------- values


class Quotable(Protocol):
    """A request as its upstream got it, and may quote it: the client's header fields and the body."""

    @property
    def headers(self) -> Mapping[bytes, bytes]: ...

    @property
    def body(self) -> bytes: ...


class Reply(Struct, gc=False):
    """The parameters of one attempt's answer, for its Source and its Face.

    ``ident`` is the answer's id as the client reads it, ``created`` Unix seconds.  ``model`` is the target's id, for an
    answer that names none; ``prompt_tokens`` is an estimate, for an answer without usage.  ``sent`` is the request,
    which an error may quote.  ``secrets`` are removed from the upstream's texts.

    ``hold``: the part that is returned only when it is complete, so that another attempt can still send it.  It is
    ``tools`` (from the first tool call on), ``all``, or empty for none.  ``keep``: the text is kept, so that another
    attempt can continue it.  ``choices``: the number of requested answers.  ``before``: the usage that earlier attempts
    have delivered of an answer that this one continues.  ``prompt``: the client's; it says whether an answer may be
    empty.  ``takes_empty``: the reader of this answer judges an empty one.  ``family``: see ``model.Provider``.
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
    prompt: Prompt | None = None
    takes_empty: bool = False
    family: str = ""

    @property
    def may_be_empty(self) -> bool:
        """True if an answer without anything in it is one, where its end is sound."""
        return self.takes_empty or (self.prompt is not None and self.prompt.follows_result)


def _write_nothing(extra: bytes | None, trace: bytes | None) -> bytes:
    return b""


class Answer(Struct, gc=False):
    """A whole answer for the client, or an ``error``.

    ``write`` makes its body.  Its arguments are the gateway's additions as JSON, which need the receipt's figures: the
    ``headgate`` object and the route trace.
    ``used``: as the upstream reports it, else an estimate; the body says the same.  ``text_bytes`` is the basis of the
    estimate.  A hollow answer and an ``error`` deliver nothing; they are billed at the upstream's report.
    ``hollow``: no text, no tool call, no refusal, and no reason for it: a failure, despite its status.
    ``model`` is the name in the body: the upstream's own.
    """

    write: Callable[[bytes | None, bytes | None], bytes] = _write_nothing
    used: Used = NOTHING
    text_bytes: int = 0
    hollow: bool = False
    finish: str = ""
    failed: str = ""  # the finish word of a choice that broke off
    error: GatewayError | None = None
    skipped: int = 0  # unreadable events, if it came as a stream
    model: str = ""


# ------------------------------------------------------------------------------------- the two ends of an answer


class Source(Protocol):
    """One attempt's answer as deltas.  Pure.  Bytes after ``done`` or ``error`` are ignored.

    ``reported``: the usage that the provider has reported so far; None: none yet.  ``model``: the provider's name of
    the model, empty until it comes.  ``done``, ``error``, ``events``, ``skipped`` and ``quiet``: see
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
        """End the body.  ``clean``: it is complete by its framing.  Set ``error`` if the answer was cut."""

    def whole(self, body: bytes) -> Sequence[Delta]:
        """Read an answer that came whole, and be ``done``; or set ``error``."""


class Face(Protocol):
    """One answer as its client reads it.  It outlives an attempt: the deltas of a later attempt continue it."""

    def put(self, deltas: Sequence[Delta], model: str) -> bytes:
        """Events for the client; the first ones begin its stream.  ``deltas`` holds no ``Finish``: see ``tail``.

        Raises GatewayError for what the client must not have.
        """

    def tail(self, finish: Finish, usage: Usage, extra: bytes | None, trace: bytes | None) -> bytes:
        """Return the events that end a complete stream."""

    def error(self, error: GatewayError) -> bytes:
        """Return the events that end a stream with an error."""

    def whole(
        self, deltas: Sequence[Delta], model: str, usage: Usage, extra: bytes | None, trace: bytes | None
    ) -> bytes:
        """Return a whole answer's body, for a client without a stream.  ``deltas`` ends with a ``Finish``."""

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


class CountedBy(Protocol):
    """A client's question how many tokens a request has."""

    path: str  # after the base URL

    def read(self, body: bytes) -> Call:
        """Read the request.  Raises GatewayError (400) as ``Client.read`` does."""

    def answer(self, tokens: int) -> bytes:
        """Return the body of the answer."""


class CountingOf(Protocol):
    """The same question to a provider."""

    def render(self, call: Call, target: Target) -> Rendered: ...

    def read(self, body: bytes) -> int | None:
        """Return the number in an answer; None if it has none."""


class Client(Protocol):
    """An API that callers speak."""

    name: str
    path: str  # after the base URL, e.g. /chat/completions; with a slash at its end: the root of the paths of models
    prefix: str  # of the ids of its answers, e.g. chatcmpl-
    counts: CountedBy | None  # None: this API has no question for the tokens of a request
    keep_alive: bytes  # what a stream sends while its upstream is silent
    whole_calls: bool  # its Face sends a tool call only when it is complete, so holding calls back delays nothing

    def begin(self, path: bytes, query: bytes) -> Client:
        """Return this API for one request: itself, or a client that knows what the path names and where its stream
        stands.
        """

    def read(self, body: bytes) -> Call:
        """Read a client's request.  Raises GatewayError (400) with ``param`` if a member is invalid."""

    def with_prompt(self, call: Call, messages: Sequence[PromptMessage]) -> Call:
        """Return the call with a saved prompt's messages before its own, in every form in which it has them."""

    def requested(self, body: bytes) -> str:
        """Return the model that a refused request names, for its receipt; empty if it has no printable name."""

    def face(self, reply: Reply, before: StreamBridge | None = None) -> Face:
        """Return the Face of an answer.  With ``before`` it writes the rest of an answer that began there."""

    def error_body(self, error: GatewayError) -> bytes:
        """The body of an error answer."""

    def error_event(self, error: GatewayError, ident: str) -> bytes:
        """Return the event that ends a stream which has begun and cannot be completed."""


class PassThrough(Protocol):
    """How answers of an API reach a client of the same API: observed, completed, and not rebuilt.

    ``returns``: header fields of an answer whose names begin so go to the client.
    """

    returns: tuple[bytes, ...]

    def stream(self, reply: Reply) -> StreamBridge:
        """The stream of one attempt."""

    def joined(self, before: StreamBridge, seam: Seam, reply: Reply) -> StreamBridge | None:
        """Return the stream of an attempt that continues ``before``; None if it must be continued as deltas."""

    def answer(self, body: bytes, reply: Reply) -> Answer | Iterator[Answer | None]:
        """Read a whole answer.  A stream is read in parts: the iterator yields None after each, at last the Answer."""

    def refusal(self, body: bytes, reply: Reply, error: GatewayError) -> bytes:
        """Return the body of a failed attempt as the client gets it, without secrets; empty: it gets its own form of
        ``error``.
        """


class Backend(Protocol):
    """An API that providers speak.  ``passes`` holds its pass-through for clients of the same API, if it has one."""

    name: str
    passes: PassThrough | None
    usage_fields: frozenset[str]  # of a request, which only ``ask_usage`` adds
    counts: CountingOf | None  # None: this API has no question for the tokens of a request

    def render(self, call: Call, target: Target, ask_usage: bool) -> Rendered:
        """Return the upstream's request.  ``ask_usage``: a stream must report its usage, asked or not."""

    def adds_usage_field(self, call: Call) -> bool:
        """True if ``ask_usage`` adds a field that the client has not sent.  A server may refuse that field."""

    def source(self, reply: Reply) -> Source: ...

    def failure(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes, reply: Reply, now: float
    ) -> GatewayError:
        """Return the error of an answer whose status is not a success.  ``now``: Unix seconds."""

    def usage(self, body: bytes) -> Usage | None:
        """Return the usage that a whole answer reports; None if it reports none."""
