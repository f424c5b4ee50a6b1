"""Turn streams into whole answers and back, for upstreams that send the one when asked for the other."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from headgate.dialects.base import Answer, Reply
from headgate.dialects.openai_chat.answers import answer
from headgate.dialects.openai_chat.normalise import TEXT_KEYS
from headgate.dialects.openai_chat.stream.stream import ChatStream
from headgate.errors import UPSTREAM_GARBAGE
from headgate.model import NOTHING, Used
from headgate.wire import codec, sse
from headgate.wire.bodies import framing
from headgate.wire.bodies.framing import BodyForm
from headgate.wire.codec import EMPTY_TEXT, NULL, Object

_PART = 8 << 10  # a few dozen events: about as long as one event of each of a few dozen streams


def whole_answer(body: bytes, reply: Reply) -> Answer | Iterator[Answer | None]:
    """Read the completion in a body of any form.  The media type is not trusted.  A stream is read in parts."""
    result = answer(body, reply)
    if result.error is None or result.error.kind is not UPSTREAM_GARBAGE:
        return result
    form = framing.form_of(body)
    if form is BodyForm.ITEMS:
        items = codec.as_list(framing.document(body))
        if items is not None and len(items) == 1:
            return answer(bytes(items[0]), reply)
    if form in (BodyForm.EVENTS, BodyForm.LINES, BodyForm.ITEMS):
        return answer_in_parts(framing.as_events(body, form), reply)
    bare = framing.document(body)
    return result if bare == body else answer(bare, reply)


def answer_in_parts(data: bytes, reply: Reply) -> Iterator[Answer | None]:
    """Read a whole stream in parts of 8 KiB, and yield None after each; at last, yield the sum as one completion.

    A stream that was cut is an error, because a client cannot use half an answer.
    """
    as_stream = msgspec.structs.replace(reply, include_usage=True, hold="", keep=False, choices=1)
    stream = ChatStream(as_stream)
    decoder = sse.Decoder(max_event=2 * reply.max_event + (64 << 10))
    total = _Total()

    def add(events: bytes) -> None:
        for event in decoder.feed(events):
            if event.data != b"[DONE]":
                total.add(codec.decode_object(event.data, "A chunk"))

    for at in range(0, len(data), _PART):
        add(stream.feed(data[at : at + _PART]))
        if stream.error is not None:
            break
        yield None
    add(stream.close())
    if stream.error is not None:
        yield Answer(error=stream.error, used=Used(NOTHING.delivered, stream.used.billed))
        return
    billed = stream.used.billed
    add(stream.tail(billed))
    result = answer(total.body(), msgspec.structs.replace(reply, model=stream.model))
    result.used = Used(NOTHING.delivered if result.hollow or result.error is not None else billed, billed)
    result.skipped = stream.skipped
    yield result


def answer_from_stream(data: bytes, reply: Reply) -> Answer:
    """Return the last value of ``answer_in_parts``."""
    *_, last = answer_in_parts(data, reply)
    assert last is not None
    return last


class _Total:
    """The sum of chunks in Headgate's own form."""

    def __init__(self) -> None:
        self._top: Object = {}
        self._choices: dict[int, _Sum] = {}

    def add(self, chunk: Object) -> None:
        for choice in codec.as_objects(chunk.pop("choices")) or []:
            index = codec.as_integer(choice.pop("index")) or 0
            self._choices.setdefault(index, _Sum()).add(choice)
        self._top.update({key: value for key, value in chunk.items() if value != NULL})

    def body(self) -> bytes:
        choices = [{"index": index, **self._choices[index].members()} for index in sorted(self._choices)]
        return codec.encode({**self._top, "choices": choices})


_TEXT, _LIST, _OBJECT = b'"[{'  # how a value begins
_PIECES = frozenset((*TEXT_KEYS, "name", "arguments", "input", "transcript", "data"))
_LISTS = frozenset(("content", "refusal", "annotations", "images", "reasoning_details"))  # the first two of logprobs


class _Pieces:
    """The members of an object that comes in pieces.  Texts, lists and objects are joined; of other members the last
    value counts.
    """

    def __init__(self) -> None:
        self._last: Object = {}
        self._texts: dict[str, list[str]] = {}
        self._lists: dict[str, list[Object]] = {}
        self._objects: dict[str, _Pieces] = {}

    def add(self, members: Object) -> None:
        for key, value in members.items():
            if value == NULL:
                continue
            kind = memoryview(value)[0]
            if kind == _TEXT and key in _PIECES:
                self._texts.setdefault(key, []).append(codec.as_text(value) or "")
            elif kind == _LIST and key in _LISTS and (items := codec.as_objects(value)) is not None:
                self._lists.setdefault(key, []).extend(items)
            elif kind == _OBJECT and (inner := codec.as_object(value)) is not None:
                self._objects.setdefault(key, _Pieces()).add(inner)
            elif value != EMPTY_TEXT or key not in self._last:
                self._last[key] = value

    def members(self) -> dict[str, object]:
        return {
            **self._last,
            **{key: "".join(pieces) for key, pieces in self._texts.items()},
            **self._lists,
            **{key: inner.members() for key, inner in self._objects.items()},
        }


class _Sum:
    """The deltas of one choice."""

    def __init__(self) -> None:
        self._rest = _Pieces()
        self._message = _Pieces()
        self._calls: dict[int, _Pieces] = {}

    def add(self, choice: Object) -> None:
        delta = codec.as_object(choice.pop("delta")) or {}
        for call in codec.as_objects(delta.pop("tool_calls", None)) or []:
            at = codec.as_integer(call.pop("index", None)) or 0
            self._calls.setdefault(at, _Pieces()).add(call)
        self._message.add(delta)
        self._rest.add(choice)

    def members(self) -> dict[str, object]:
        message = self._message.members()
        if self._calls:
            message["tool_calls"] = [self._calls[at].members() for at in sorted(self._calls)]
            message["content"] = message.get("content") or None
        return {"message": message, **self._rest.members()}
