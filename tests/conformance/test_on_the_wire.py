"""What no client library shows: whole events, the schema of every chunk, and when an event arrives."""

from __future__ import annotations

import copy
import json
import re
import time
from typing import Any

import jsonschema
import pytest

from headgate.conform.wire import Endpoint, RawConnection, Response
from tests.conformance import recordings
from tests.conformance.bench import Bench
from tests.dataplane import TOKEN

NAMES = recordings.chats()
GAP_S = 0.3
ROOT = "CreateChatCompletionStreamResponse"
MADE = ("id", "object", "created", "model", "choices", "usage")
ANYTHING: dict[str, Any] = {}


def ask(bench: Bench, model: str, **members: Any) -> Response:
    """One stream, in the pieces that it came in."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "x"}], "stream": True, **members})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    with RawConnection(Endpoint.parse(bench.gateway), 30) as connection:
        connection.send(f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode())
        return connection.read()


class Schemas:
    """OpenAI's own schema: ``strict`` for what we make, ``relaxed`` for what we pass on.

    Relaxed as the recordings need it: null where servers send null, in system_fingerprint, service_tier and the
    strings of a tool call (OpenAI's own streams have the first).
    """

    def __init__(self) -> None:
        schema = json.loads(recordings.SCHEMAS.read_text())
        schema["$ref"] = f"#/$defs/{ROOT}"
        self.strict = jsonschema.Draft202012Validator(schema)
        loose = copy.deepcopy(schema)
        for name, keys in (
            (ROOT, ("system_fingerprint", "service_tier")),
            ("ChatCompletionMessageToolCallChunk", ("id", "type")),
        ):
            loose["$defs"][name]["properties"].update(dict.fromkeys(keys, ANYTHING))
        self.relaxed = jsonschema.Draft202012Validator(loose)


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    return Schemas()


@recordings.ABSENT
@pytest.mark.parametrize("name", NAMES)
def test_events_are_whole_and_chunks_fit_the_schema(bench: Bench, schemas: Schemas, name: str) -> None:
    """Per byte where the recording is short, else in tiny pieces: no upstream's write is an event of its own."""
    response = ask(bench, f"up/stream:tiny:{name}", stream_options={"include_usage": True})
    assert response.status == 200 and response.ended == "complete" and response.chunked
    for _, piece in response.pieces:
        assert piece.endswith(b"\n\n") and re.fullmatch(rb"(?:data: [^\n]+\n\n|: [^\n]*\n\n)+", piece)
    payloads = [line[6:] for line in response.body.split(b"\n\n") if line.startswith(b"data: ")]
    failed = payloads[-1] != b"[DONE]"
    chunks = [json.loads(payload) for payload in payloads if payload != b"[DONE]"]
    if failed:
        error = chunks.pop()
        assert set(error) == {"error"}
        assert set(error["error"]) - {"not_continued"} == {"message", "type", "param", "code", "request_id"}
    # The role's chunk and the usage's are ours, but for what they carry of chunks that were not sent.
    first, *others = chunks
    for chunk in [first] if failed else [first, others.pop()]:
        schemas.strict.validate({key: chunk[key] for key in MADE})
        schemas.relaxed.validate(chunk)
    for chunk in others[-1:]:  # a finish that we made looks like this; so do some that came
        if set(chunk) == set(MADE) and chunk["choices"][0]["delta"] == {}:
            schemas.strict.validate(chunk)
    step = max(1, len(others) // 40)
    for chunk in [*others[::step], *others[-2:]]:
        schemas.relaxed.validate(chunk)


@recordings.ABSENT
def test_the_schema_tells_ours_from_theirs(schemas: Schemas) -> None:
    choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": None}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    assert schemas.strict.is_valid(chunk)
    assert not schemas.strict.is_valid({**chunk, "system_fingerprint": None})
    assert schemas.relaxed.is_valid({**chunk, "system_fingerprint": None})
    assert not schemas.relaxed.is_valid({**chunk, "object": "chunk"})


@recordings.ABSENT
def test_no_event_waits_for_another(bench: Bench) -> None:
    """The upstream writes one event with the instant in it, and then waits: each must be here before the next."""
    sent_and_seen: list[float] = []
    request = {"model": f"up/clock:10:{GAP_S}", "messages": [{"role": "user", "content": "x"}], "stream": True}
    body = json.dumps(request).encode()
    with RawConnection(Endpoint.parse(bench.gateway), 30) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        connection.send(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        received = b""
        while b"[DONE]" not in received:
            data = connection.sock.recv(1 << 16)
            now = time.monotonic_ns()
            assert data
            received += data
            for said in re.findall(rb'"content":\s?"(\d+)"', data):
                sent_and_seen.append((now - int(said)) / 1e9)
    assert len(sent_and_seen) == 10
    assert max(sent_and_seen) < GAP_S, sent_and_seen
