"""OpenAI's chat shapes as this provider reads and writes them.  Values and bytes only; nothing here touches a socket.

The request keeps what the provider acts on; other fields are accepted and ignored, as most providers do.
https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.Encoder().encode
_KEY = re.compile(r"[A-Za-z0-9_.:-]{1,100}\Z")


class Invalid(ValueError):
    """A request that this provider answers with 400 (or ``status``); ``param`` names the field."""

    def __init__(
        self, message: str, param: str | None = None, *, status: int = 400, code: str = "invalid_value"
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.status, self.code = message, param, status, code


class Part(Struct):
    """One part of a message's content; only text is looked at."""

    type: str = "text"
    text: str | None = None


class Message(Struct):
    """One turn of the conversation."""

    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content)
        return self.content or ""


class StreamOptions(Struct):
    """``stream_options`` of the request."""

    include_usage: bool | None = None


class ChatRequest(Struct):
    """A chat completion request, as far as this provider looks into it."""

    model: str
    messages: list[Message]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    lorem: dict[str, float] | None = None

    @property
    def cap(self) -> int | None:
        """The most tokens that the client wants.  As llama.cpp reads it: 0 is none at all, -1 no limit."""
        cap = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        return None if cap == -1 else cap

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def prefill(self) -> str | None:
        """Return the text of a trailing assistant message, which the answer continues."""
        last = self.messages[-1] if self.messages else None
        return last.text if last and last.role == "assistant" else None

    @property
    def prompt_tokens(self) -> int:
        return sum(len(message.text.split()) for message in self.messages)


Chat = TypeVar("Chat", bound=ChatRequest)


def read_chat(body: bytes, decoder: msgspec.json.Decoder[Chat]) -> Chat:
    """The request in ``body``.  Raises Invalid, with OpenAI's codes, on what cannot be meant."""
    try:
        chat = decoder.decode(body)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise Invalid(what, where.rstrip("`").partition("[")[0] or None) from None
    except (msgspec.DecodeError, RecursionError):
        raise Invalid("The body of your request is not valid JSON.", code="invalid_json") from None
    if not chat.messages:
        raise Invalid("[] is too short - 'messages'", "messages")
    if chat.cap is not None and chat.cap < 0:
        raise Invalid("max_tokens is below the minimum of 0", "max_tokens")
    return chat


def read_model(model: str) -> tuple[str, dict[str, float], str]:
    """``name?a=1&key=k`` → the name, its numeric parameters, and the key.  Raises Invalid."""
    name, mark, suffix = model.partition("?")
    params: dict[str, float] = {}
    key = ""
    for pair in suffix.split("&") if mark else ():
        label, equals, value = pair.partition("=")
        if not label or not equals:
            raise Invalid(f"'{pair}' in the model's suffix is not of the form name=value", "model")
        if label != "key":
            params[label] = number(label, value, "model")
        elif _KEY.match(value):
            key = value
        else:
            raise Invalid("key in the model's suffix must be 1 to 100 letters, digits or any of _.:-", "model")
    return name, params, key


def number(label: str, value: str | float, param: str) -> float:
    """A parameter's value: finite and not negative.  Raises Invalid."""
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not math.isfinite(found) or found < 0:
        raise Invalid(f"{label} must be a number ≥ 0, not '{value}'", param)
    return found


def with_defaults(given: Mapping[str, float], defaults: Mapping[str, float], param: str) -> dict[str, float]:
    """Defaults overridden by what was given.  Raises Invalid on a name that the defaults do not have."""
    for label in given:
        if label not in defaults:
            known = ", ".join(defaults) or "none"
            raise Invalid(f"unknown parameter '{label}'; known here: {known}", param)
    return {**defaults, **given}


def error(message: str, kind: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def dumps(value: object) -> bytes:
    return _encode(value)


def event(value: object, *, ascii: bool = False) -> bytes:
    """One SSE event with a JSON payload; with ``ascii`` every other character is escaped."""
    payload = json.dumps(value, separators=(",", ":")).encode() if ascii else _encode(value)
    return b"data: " + payload + b"\n\n"


class Shape:
    """The chunks of one answer.  ``include_usage`` puts ``usage: null`` on every chunk but the one that has it."""

    def __init__(self, id: str, created: int, model: str, include_usage: bool = False) -> None:
        self.id, self.created, self.model, self.include_usage = id, created, model, include_usage
        whole = event(self.chunk({"content": "\0"}))
        self._before, self._after = whole.split(_encode("\0"))

    def chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        """One chunk as a dict, for those who bend it before it goes out."""
        return self._envelope([{"index": 0, "delta": delta, "finish_reason": finish}], None)

    def _envelope(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
        envelope: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        if self.include_usage or usage is not None:
            envelope["usage"] = usage
        return envelope

    def first(self) -> bytes:
        return event(self.chunk({"role": "assistant", "content": ""}))

    def content(self, token: str) -> bytes:
        """One token's event: three concatenations, because a thousand streams make fifty thousand of them a second."""
        return self._before + _encode(token) + self._after

    def delta(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        return event(self.chunk(delta, finish))

    def finish(self, reason: str = "stop") -> bytes:
        return event(self.chunk({}, reason))

    def usage(self, prompt: int, completion: int) -> bytes:
        """The extra chunk, ``choices: []``."""
        return event(self._envelope([], usage(prompt, completion)))

    def ending(self, reason: str, prompt: int, completion: int) -> bytes:
        """Finish, the usage chunk where it was asked for, and ``[DONE]``."""
        extra = self.usage(prompt, completion) if self.include_usage else b""
        return self.finish(reason) + extra + DONE

    def answer(self, text: str, reason: str, prompt: int, completion: int) -> bytes:
        """The same as one JSON document."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return _encode(
            {
                "id": self.id,
                "object": "chat.completion",
                "created": self.created,
                "model": self.model,
                "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
                "usage": usage(prompt, completion),
            }
        )


def usage(prompt: int, completion: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
