"""Deltas as a Gemini client reads them: chunks, and the whole answer.

A function call is whole in this API, so calls are sent when the answer ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

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
from headgate.dialects.gemini import errors
from headgate.dialects.gemini.request import NAME
from headgate.dialects.gemini.source import CALL, SIGNATURE, TEXT
from headgate.dialects.translation.arguments import object_from
from headgate.errors import GatewayError
from headgate.model import Usage
from headgate.wire import codec, sse

_Members = dict[str, object]
_REASONS = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}
# Finish reasons of this API that say more than ours (ai.google.dev/api/generate-content, FinishReason)
_OWN_WORDS = frozenset(("RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "OTHER"))


class GeminiFace:
    """Implements ``base.Face``."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._model = reply.model
        self._calls: dict[int, tuple[ToolStart, list[str]]] = {}
        self._signatures: dict[int, Raw] = {}  # of calls
        self._begun = False

    def put(self, deltas: Sequence[Delta], model: str) -> bytes:
        self._model = model
        parts = self._parts(deltas)
        if not (parts or self._begun):
            parts = [{"text": ""}]  # what comes is held back, and the stream begins now
        self._begun = True
        return self._chunk(parts) if parts else b""

    def tail(self, finish: Finish, usage: Usage, extra: bytes | None, trace: bytes | None) -> bytes:
        calls = self._made()
        out = self._chunk(calls) if calls else b""
        end: _Members = {"finishReason": _reason(finish)}
        return out + self._chunk([], end, {"usageMetadata": _counts(usage), **own_members(extra, trace)})

    def error(self, error: GatewayError) -> bytes:
        return errors.error_event(error, self._reply.ident)

    def screen(self, deltas: Sequence[Delta]) -> Sequence[Delta]:
        return deltas

    def whole(
        self, deltas: Sequence[Delta], model: str, usage: Usage, extra: bytes | None, trace: bytes | None
    ) -> bytes:
        self._model = model
        parts = self._parts(deltas) + self._made()
        end: _Members = {"finishReason": _reason(finish_of(deltas))}
        return codec.encode(self._response(parts, end, {"usageMetadata": _counts(usage), **own_members(extra, trace)}))

    # ------------------------------------------------------------------------------- chunks

    def _parts(self, deltas: Sequence[Delta]) -> list[_Members]:
        """Texts as parts, neighbours of one kind as one; calls are kept for the end."""
        found: list[_Members] = []
        said: list[tuple[bool, str]] = []
        for delta in deltas:
            match delta:
                case TextDelta() | RefusalDelta():
                    said.append((False, delta.text))
                case ReasoningDelta():
                    said.append((True, delta.text))
                case ToolStart():
                    self._calls[delta.index] = delta, []
                case ToolDelta():
                    if delta.index in self._calls:
                        self._calls[delta.index][1].append(delta.arguments)
                case RawDelta(key=key, value=value, api=api) if api == NAME:
                    if key == CALL:
                        self._signatures[next(reversed(self._calls))] = value
                    else:
                        found += _texts(said)
                        said.clear()
                        part: _Members = dict(codec.as_object(value) or {})
                        found.append({"text": "", SIGNATURE: value} if key == TEXT else part)
                case _:
                    pass
        return found + _texts(said)

    def _made(self) -> list[_Members]:
        found: list[_Members] = []
        for index, (start, pieces) in sorted(self._calls.items()):
            part: _Members = {
                "functionCall": {"id": start.id, "name": start.name, "args": object_from("".join(pieces))}
            }
            if index in self._signatures:
                part[SIGNATURE] = self._signatures[index]
            found.append(part)
        return found

    def _chunk(self, parts: list[_Members], end: _Members | None = None, more: _Members | None = None) -> bytes:
        return sse.encode(codec.encode(self._response(parts, end or {}, more or {})))

    def _response(self, parts: list[_Members], end: _Members, more: _Members) -> _Members:
        candidate = {"content": {"role": "model", "parts": parts}, "index": 0, **end}
        return {"candidates": [candidate], "modelVersion": self._model, "responseId": self._reply.ident, **more}


def _texts(said: list[tuple[bool, str]]) -> list[_Members]:
    """Return texts as parts: thoughts, where the first member is true, and the answer."""
    found: list[_Members] = []
    for thought, run in groupby(said, lambda one: one[0]):
        text = "".join(one[1] for one in run)
        if text:
            found.append({"text": text, "thought": True} if thought else {"text": text})
    return found


def _reason(finish: Finish) -> str:
    return finish.word if finish.word in _OWN_WORDS else _REASONS.get(finish.reason, "STOP")


def _counts(usage: Usage) -> _Members:
    """In this API, thoughts stand beside the tokens of the answer."""
    found: _Members = {
        "promptTokenCount": usage.prompt,
        "candidatesTokenCount": usage.completion - usage.reasoning,
        "totalTokenCount": usage.prompt + usage.completion,
    }
    if usage.reasoning:
        found["thoughtsTokenCount"] = usage.reasoning
    if usage.cached:
        found["cachedContentTokenCount"] = usage.cached
    return found
