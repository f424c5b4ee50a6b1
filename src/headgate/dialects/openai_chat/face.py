"""Deltas as a chat client reads them: chunks, and the whole completion."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw

from headgate.dialects.base import (
    Delta,
    Finish,
    RawDelta,
    ReasoningDelta,
    RefusalDelta,
    Reply,
    TextDelta,
    ToolDelta,
    ToolStart,
    finish_of,
    own_members,
)
from headgate.dialects.openai_chat.errors import failures
from headgate.dialects.openai_chat.request import NAME
from headgate.dialects.openai_chat.stream.chunks import Members
from headgate.dialects.openai_chat.stream.envelope import Envelope
from headgate.dialects.openai_chat.stream.stream import ChatStream
from headgate.dialects.usage import reading as usages
from headgate.errors import GatewayError
from headgate.model import Usage
from headgate.ports import StreamBridge
from headgate.wire import codec

_DONE = b"data: [DONE]\n\n"
_NO_CHOICES = Raw(b"[]")


class ChatFace:
    """Implements ``base.Face``."""

    def __init__(self, reply: Reply, before: StreamBridge | None = None) -> None:
        self._reply = reply
        if isinstance(before, ChatStream):
            self._envelope, self._begun = before.envelope, True
        else:
            self._envelope = Envelope(reply.ident, reply.created, reply.model, reply.include_usage)
            self._begun = False

    def put(self, deltas: Sequence[Delta], model: str) -> bytes:
        parts: list[bytes] = []
        if not self._begun:
            self._begun = True
            self._envelope.model = codec.raw(model)
            says = not deltas or isinstance(deltas[0], TextDelta | RefusalDelta)
            parts.append(self._chunk({"role": "assistant", "content": "" if says else None}))
        parts += [self._chunk(members) for delta in deltas if (members := _members(delta))]
        return b"".join(parts)

    def tail(self, finish: Finish, usage: Usage, extra: bytes | None, trace: bytes | None) -> bytes:
        choice: Members = {"index": 0, "delta": {}, "finish_reason": finish.reason}
        if finish.word:
            choice["native_finish_reason"] = finish.word
        parts = [self._envelope.chunk({"choices": [choice]})]
        if self._reply.include_usage or trace is not None:
            last: Members = {"choices": _NO_CHOICES, **own_members(extra, trace)}
            if self._reply.include_usage:
                last["usage"] = usages.write(usage, None)
            parts.append(self._envelope.chunk(last))
        parts.append(_DONE)
        return b"".join(parts)

    def error(self, error: GatewayError) -> bytes:
        return failures.error_event(error, self._reply.ident)

    def screen(self, deltas: Sequence[Delta]) -> Sequence[Delta]:
        return deltas

    def whole(
        self, deltas: Sequence[Delta], model: str, usage: Usage, extra: bytes | None, trace: bytes | None
    ) -> bytes:
        finish = finish_of(deltas)
        message = {"refusal": None, **_message(deltas)}
        choice: Members = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish.reason}
        if finish.word:
            choice["native_finish_reason"] = finish.word
        return codec.encode(
            {
                "id": self._reply.ident,
                "object": "chat.completion",
                "created": self._reply.created,
                "model": model,
                "choices": [choice],
                "usage": usages.write(usage, None),
                **own_members(extra, trace),
            }
        )

    def _chunk(self, delta: Members) -> bytes:
        return self._envelope.chunk({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def _members(delta: Delta) -> Members:
    """A delta as the ``delta`` of a chunk."""
    match delta:
        case TextDelta():
            return {"content": delta.text}
        case ReasoningDelta():
            return {"reasoning_content": delta.text} if delta.text else {}  # this API has no form for a signature alone
        case RefusalDelta():
            return {"refusal": delta.text}
        case ToolStart():
            function = {"name": delta.name, "arguments": ""}
            return {"tool_calls": [{"index": delta.index, "id": delta.id, "type": "function", "function": function}]}
        case ToolDelta():
            return {"tool_calls": [{"index": delta.index, "function": {"arguments": delta.arguments}}]}
        case RawDelta() if delta.api == NAME:
            return {delta.key: delta.value}
        case _:
            return {}


def _message(deltas: Sequence[Delta]) -> Members:
    texts: dict[str, list[str]] = {}
    calls: dict[int, list[str]] = {}
    starts: dict[int, ToolStart] = {}
    lists: dict[str, list[Raw]] = {}
    for delta in deltas:
        match delta:
            case TextDelta():
                texts.setdefault("content", []).append(delta.text)
            case ReasoningDelta():
                texts.setdefault("reasoning_content", []).append(delta.text)
            case RefusalDelta():
                texts.setdefault("refusal", []).append(delta.text)
            case ToolStart():
                starts[delta.index] = delta
            case ToolDelta():
                calls.setdefault(delta.index, []).append(delta.arguments)
            case RawDelta() if delta.api == NAME:
                lists.setdefault(delta.key, []).extend(codec.as_list(delta.value) or ())
            case _:
                pass
    message: Members = {"role": "assistant", "content": None, **{key: "".join(all) for key, all in texts.items()}}
    message |= lists
    if starts:
        message["tool_calls"] = [
            {
                "id": start.id,
                "type": "function",
                "function": {"name": start.name, "arguments": "".join(calls.get(index, ()))},
            }
            for index, start in sorted(starts.items())
        ]
    return message
