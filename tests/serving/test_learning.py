"""An upstream that refuses the field we add to every stream is asked again without it, once, and remembered."""

from __future__ import annotations

import json

from tests.dataplane import DataPlane
from tests.serving.calls import ask, closed_by_id

MODEL = "up/fault/rejects-stream-options?key=learning"


def test_a_refused_stream_options_is_left_out_from_then_on(gate: DataPlane) -> None:
    first, second = ask(gate, MODEL), ask(gate, MODEL)
    for answer in (first, second):
        assert answer.status == 200 and answer.events[-1] == "[DONE]"
    attempts = [[a.code for a in closed_by_id(gate, answer.chunks[0]["id"]).attempts] for answer in (first, second)]
    assert attempts == [["upstream_rejected_request", ""], [""]]


def test_usage_is_estimated_where_the_client_asked_for_it(gate: DataPlane) -> None:
    answer = ask(gate, MODEL, stream_options={"include_usage": True})
    usage = answer.chunks[-1]["usage"]
    assert (
        usage["completion_tokens"] > 0 and usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    )
    assert answer.chunks[-1]["headgate"]["provider"] == "up"
    assert closed_by_id(gate, answer.chunks[0]["id"]).basis == "estimated"


def test_another_refusal_is_the_clients(gate: DataPlane) -> None:
    answer = ask(gate, "up/fault/context-length?key=learning")
    assert answer.status == 400 and json.loads(answer.raw)["error"]["code"] == "context_length_exceeded"
