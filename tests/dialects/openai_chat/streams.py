"""What the tests of chat streams share: bytes through a bridge, and what must hold of anything that comes out."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise
from typing import Any

from headgate.dialects.base import Reply
from headgate.dialects.openai_chat import ChatStream, request
from headgate.model import Call, ModelRow, Price, Provider, Target, Timeouts
from headgate.wire.sse import Decoder

IDENT = "chatcmpl-0123456789abcdef01234567"
CREATED = 1_800_000_000
MODEL = "target/model"


def run(pieces: list[bytes], *, usage: bool = True, **options: Any) -> tuple[bytes, ChatStream]:
    """The client's bytes and the bridge after them.  The error event is included even where nothing was visible."""
    stream = ChatStream(Reply(IDENT, CREATED, MODEL, usage, provider="up", prompt_tokens=7, **options))
    out = [stream.feed(piece) for piece in pieces]
    out.append(stream.close())
    return b"".join(out) + stream.tail(stream.used.billed), stream


def bytewise(body: bytes) -> list[bytes]:
    return [body[i : i + 1] for i in range(len(body))]


def split(body: bytes, seed: int) -> list[bytes]:
    dice = random.Random(seed)
    edges = [0, *sorted(dice.randrange(len(body) + 1) for _ in range(dice.randrange(1, 60))), len(body)]
    return [body[a:b] for a, b in pairwise(edges)]


def events(*payloads: Any) -> bytes:
    """An upstream's body: strings stand as they are, anything else as JSON."""
    texts = [payload if isinstance(payload, str) else json.dumps(payload) for payload in payloads]
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def chunk(delta: Any, finish: str | None = None, index: int = 0, **members: Any) -> dict[str, Any]:
    """A chunk as OpenAI would send it."""
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    head = {"id": "up-1", "object": "chat.completion.chunk", "created": 5, "model": "up-model"}
    return {**head, "choices": [choice], **members}


def parse(out: bytes) -> list[dict[str, Any]]:
    """The chunks that a client gets.  Checks on the way that every event is whole and that nothing follows [DONE]."""
    decoder = Decoder(max_event=1 << 30)
    payloads = [event.data for event in decoder.feed(out)]
    assert decoder.close() == []
    assert b"[DONE]" not in payloads[:-1]
    return [json.loads(payload) for payload in payloads if payload != b"[DONE]"]


def check_contract(out: bytes, stream: ChatStream, *, usage: bool) -> list[dict[str, Any]]:
    """The invariants of WIRE, "A stream", on one whole output."""
    chunks = parse(out)
    assert out.endswith(b"data: [DONE]\n\n") == (stream.error is None)
    roles: Counter[int] = Counter()
    finishes: Counter[int] = Counter()
    seen: set[int] = set()
    regular = [c for c in chunks if "error" not in c]
    assert len({(c["id"], c["object"], c["created"], c["model"]) for c in regular}) <= 1
    assert all(c["id"] == IDENT for c in regular)
    for number, one in enumerate(regular):
        last = number == len(regular) - 1 and stream.error is None
        if usage:
            assert (one["usage"] is None) != last
        else:
            assert "usage" not in one
        assert one["choices"] or (usage and last)
        for choice in one["choices"]:
            index = choice["index"]
            if index not in seen:
                assert choice["delta"]["role"] == "assistant"
                assert choice["delta"]["content"] in ("", None)
                assert choice["finish_reason"] is None
            seen.add(index)
            roles[index] += "role" in choice["delta"]
            finishes[index] += choice["finish_reason"] is not None
    assert set(roles.values()) <= {1}
    assert set(finishes.values()) <= ({1} if stream.error is None else {0, 1})
    if stream.error is not None:
        assert set(chunks[-1]) == {"error"} and chunks[-1]["error"]["request_id"] == IDENT
        assert set(chunks[-1]["error"]) == {"message", "type", "param", "code", "request_id"}
    return chunks


def rendered(
    call: Call, model: str, *, ask_usage: bool, row: ModelRow | None = None, quirks: tuple[str, ...] = ()
) -> bytes:
    """What an upstream with these facts is sent."""
    provider = Provider("up", "http://up", quirks=quirks)
    return request.render(call, Target(provider, model, model, Price(), Timeouts(), row), ask_usage).body
