"""Streams and whole answers into each other, for upstreams that send the one when asked for the other."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Raw

from headgate.dialects.openai_chat import failures
from headgate.dialects.openai_chat.answers import Answer, answer
from headgate.dialects.openai_chat.stream import ChatStream
from headgate.model import Usage
from headgate.ports import StreamBridge
from headgate.wire import codec, sse
from headgate.wire.codec import NULL, Object


def stream_from_answer(body: bytes, stream: StreamBridge, *, provider: str = "The upstream") -> bytes:
    """Feeds a whole JSON completion to ``stream``, as the stream that it would have been.

    What is returned is for the client, as from ``stream.feed``; ``stream`` then has its verdict, ``tail()`` its end.
    """
    mended = codec.repair(body.removeprefix(b"\xef\xbb\xbf")).strip()
    choices = codec.as_objects((codec.as_object(mended) or {}).get("choices"))
    if not choices and b"error" not in mended and b"message" not in mended and b"detail" not in mended:
        stream.error = failures.garbage(body, provider=provider)
        return b""
    out = stream.feed(sse.encode(mended))
    if stream.error is None:
        out += stream.feed(sse.encode(b"[DONE]"))
    return out


def answer_from_stream(
    data: bytes,
    *,
    id: str,
    created: int,
    model: str,
    extra: Callable[[Usage], bytes] | None = None,
    trace: Callable[[Usage], bytes] | None = None,
    provider: str = "The upstream",
    secrets: tuple[str, ...] = (),
    max_event: int = 8 << 20,
    prompt_tokens: int = 0,
) -> Answer:
    """The completion that a whole stream adds up to.  A stream that was cut is an error: half an answer is none."""
    stream = ChatStream(
        id,
        created,
        model,
        True,
        provider=provider,
        secrets=secrets,
        max_event=max_event,
        prompt_tokens=prompt_tokens,
    )
    out = stream.feed(data) + stream.close()
    if stream.error is not None:
        return Answer(error=stream.error)
    decoder = sse.Decoder(max_event=len(out) + (64 << 10))
    total = _Total()
    for event in decoder.feed(out + stream.tail()):
        if event.data != b"[DONE]":
            total.add(codec.decode_object(event.data, "A chunk"))
    result = answer(
        total.body(),
        id=id,
        created=created,
        model=stream.model,
        extra=None if extra is None else lambda _: extra(stream.usage),
        trace=None if trace is None else lambda _: trace(stream.usage),
        provider=provider,
        secrets=secrets,
        prompt_tokens=prompt_tokens,
    )
    if result.usage is not None:
        result.usage = stream.usage
    return result


class _Total:
    """Chunks in our own form, added up."""

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


class _Sum:
    """The deltas of one choice."""

    def __init__(self) -> None:
        self._rest: Object = {}
        self._texts: dict[str, list[str]] = {}
        self._others: Object = {}
        self._calls: dict[int, _CallSum] = {}

    def add(self, choice: Object) -> None:
        for key, value in (codec.as_object(choice.pop("delta")) or {}).items():
            text = codec.as_text(value)
            if key == "tool_calls":
                for call in codec.as_objects(value) or []:
                    at = codec.as_integer(call.pop("index", None)) or 0
                    self._calls.setdefault(at, _CallSum()).add(call)
            elif text is not None and key != "role":
                self._texts.setdefault(key, []).append(text)
            elif value != NULL:
                self._others[key] = value
        self._rest.update({key: value for key, value in choice.items() if value != NULL})

    def members(self) -> dict[str, object]:
        message: dict[str, object] = {**self._others}
        message |= {key: "".join(pieces) for key, pieces in self._texts.items()}
        if self._calls:
            message["tool_calls"] = [self._calls[at].members() for at in sorted(self._calls)]
            message["content"] = message.get("content") or None
        return {"message": message, **self._rest}


class _CallSum:
    """The deltas of one tool call."""

    def __init__(self) -> None:
        self._members: Object = {}
        self._function: Object = {}
        self._name: list[str] = []
        self._arguments: list[str] = []

    def add(self, call: Object) -> None:
        function = codec.as_object(call.pop("function", None)) or {}
        self._name.append(codec.as_text(function.pop("name", None)) or "")
        self._arguments.append(codec.as_text(function.pop("arguments", None)) or "")
        self._function.update(function)
        self._members.update(call)

    def members(self) -> dict[str, object]:
        function: dict[str, Raw | str] = {"name": "".join(self._name), "arguments": "".join(self._arguments)}
        return {**self._members, "function": {**self._function, **function}}
