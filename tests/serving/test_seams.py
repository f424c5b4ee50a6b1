"""What happens where a broken stream goes on: who is asked, for how much, at whose price, and where it shows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from headgate.model import Alias, Closed, Grant, ModelRow, Price, Provider, Snapshot, TargetRef
from headgate.policy.auth import digest
from headgate.testing.provider.scripted import Script, ScriptedUpstream
from tests.dataplane import TOKEN, DataPlane
from tests.serving.calls import (
    STREAM_HEAD,
    chunk_event,
    chunked,
    scripted_in_thread,
    transcript,
    whole_json,
    whole_stream,
)
from tests.serving.test_failed_attempts import (
    DONE,
    FINE,
    HELLO,
    KEY,
    ROLE,
    STOP,
    WORLD,
    answered,
    ask,
    broken,
    closed,
    refused,
)

CHEAP, DEAR = Price(1_000_000_000, 2_000_000_000), Price(10_000_000_000, 20_000_000_000)
SAID = "The river had been low all summer, and the old ferry lay on the mud"


@contextlib.contextmanager
def targets(
    state: Path, *upstreams: tuple[ModelRow, list[Script]], **alias: Any
) -> Iterator[tuple[DataPlane, list[ScriptedUpstream]]]:
    """An alias ``chain`` over providers p0, p1, …, each with a row of its own."""
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(scripted_in_thread(*scripts)) for _, scripts in upstreams]
        providers = {
            f"p{i}": Provider(f"p{i}", one.url, auth="none", models={"m": row})
            for i, (one, (row, _)) in enumerate(zip(running, upstreams, strict=True))
        }
        world = Snapshot(
            tokens={digest(KEY, TOKEN.encode()): Grant("t0", "test")},
            providers=providers,
            aliases={"chain": Alias("chain", tuple(TargetRef(f"{name}/m") for name in providers), **alias)},
        )
        state.mkdir(exist_ok=True)
        (state / "instance.key").write_bytes(KEY)
        yield stack.enter_context(DataPlane(state, snapshot=world)), running


def row(prefill: str = "trailing", trims: str | None = "no", price: Price = CHEAP) -> ModelRow:
    return ModelRow("m", prefill=prefill, prefill_trims=trims, price=price)


def pieces(*texts: str) -> list[bytes]:
    return [chunk_event({"content": text}) for text in texts]


def whys(record: Closed) -> list[tuple[str, str]]:
    return [(one.provider, one.why) for one in record.attempts]


def cut(*events: bytes) -> Script:
    """As ``broken``, and nothing that was sent is lost: a reset throws away what has not been read."""
    return [("expect_request",), ("send", STREAM_HEAD + b"".join(map(chunked, events))), ("close",)]


def once(data: bytes) -> Script:
    return [("expect_request",), ("send", whole_stream(data, b"connection: close")), ("close",)]


def bodies(upstream: ScriptedUpstream) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in upstream.requests]


# ------------------------------------------------------------------------------------- who is asked


@pytest.mark.parametrize("status", [b"429 Slow", b"503 Busy", b"500 Oops"])
def test_a_retry_after_holds_though_another_was_asked_since(tmp_path: Path, status: bytes) -> None:
    """The second target asks for a second, and the first one is gone for good: the second is waited for."""
    first = [broken(ROLE, HELLO), *([[("expect_request",), ("reset",)]] * 4)]
    second = [refused(status, "slow", b"retry-after: 1"), answered(FINE)]
    with targets(tmp_path / "s", (row(), first), (row(), second)) as (plane, _):
        ask(plane).check_stream("Hello world")
        record = closed(plane)
    assert record.attempts[-1].provider == "p1" and record.attempts[-1].code == ""
    refusal = next(one for one in record.attempts if one.provider == "p1")
    assert record.attempts[-1].started_us - refusal.ended_us >= 900_000


@pytest.mark.parametrize("status", [b"400 Bad", b"404 No", b"422 No", b"500 Oops", b"501 No"])
def test_a_target_that_fails_a_prefill_is_asked_afresh(tmp_path: Path, status: bytes) -> None:
    second = [refused(status), answered(transcript("Hello ", "world"))]
    with targets(tmp_path / "s", (row("none"), [broken(ROLE, HELLO)]), (row(), second)) as (plane, (_, other)):
        ask(plane).check_stream("Hello world")
        record = closed(plane)
    assert whys(record) == [("p0", "first"), ("p1", "continue"), ("p1", "restart")]
    assert [body["messages"][-1]["role"] for body in bodies(other)] == ["assistant", "user"]


def test_refused_continuation_tries_another_target(tmp_path: Path) -> None:
    no = [refused(b"400 Bad"), refused(b"400 Bad")]
    with targets(tmp_path / "s", (row("none"), [broken(ROLE, HELLO)]), (row(), no), (row(), [answered(FINE)])) as (
        plane, _,
    ):  # fmt: skip
        ask(plane).check_stream("Hello world")
        assert whys(closed(plane)) == [("p0", "first"), ("p1", "continue"), ("p1", "restart"), ("p2", "continue")]


def test_an_echo_is_spliced_and_remembered(tmp_path: Path) -> None:
    """The second target ignores the prefill; the next time, it is asked afresh."""
    whole = transcript(SAID, " like a sleeping", " animal.")
    first = [broken(ROLE, *pieces(SAID, " like"))] * 2
    with targets(tmp_path / "s", (row("none"), first), (row(), [once(whole), once(whole)])) as (plane, (_, other)):
        for _ in range(2):
            ask(plane).check_stream(SAID + " like a sleeping animal.")
    assert [body["messages"][-1]["role"] for body in bodies(other)] == ["assistant", "user"]


# ------------------------------------------------------------------------------------- white space


def counted(tokens: int) -> Script:
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "t"}, "finish_reason": "length"}]}
    usage = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
    return [
        ("expect_request",),
        ("send", whole_json(json.dumps({**body, "usage": usage}).encode(), b"connection: close")),
    ]


@pytest.mark.parametrize(
    ("probes", "given", "more"),
    [
        ((counted(12), counted(12)), "Para one.", "\n\nPara two."),
        ((counted(12), counted(14)), "Para one.\n", "\nPara two."),
        ((counted(12), refused(b"400 Bad", "cannot end with whitespace")), "Para one.", "\n\nPara two."),
        ((refused(b"500 Oops"), refused(b"500 Oops")), "Para one.\n", "Para two."),
    ],
    ids=["trims", "keeps", "refuses", "cannot be probed"],
)
def test_a_probe_finds_out_what_becomes_of_white_space(
    tmp_path: Path, probes: tuple[Script, Script], given: str, more: str
) -> None:
    second = [*probes, once(transcript(more))]
    with targets(tmp_path / "s", (row("none"), [broken(ROLE, *pieces("Para one.\n"))]), (row(trims=None), second)) as (
        plane, (_, other),
    ):  # fmt: skip
        answer = ask(plane, include_route_trace=True)
        record = closed(plane)
    assert answer.text == "Para one.\n" + more.removeprefix("\n" if given == "Para one." else "")
    asked = bodies(other)
    assert [body["max_tokens"] for body in asked[:2]] == [1, 1] and not any(body.get("stream") for body in asked[:2])
    contents = [body["messages"][-1]["content"] for body in asked[:2]]  # sent side by side, in any order
    first, spaced = sorted(contents, key=len)
    assert first == first.rstrip() == spaced.rstrip() != spaced
    assert asked[2]["messages"][-1] == {"role": "assistant", "content": given}
    assert [why for _, why in whys(record)] == ["first", "prefill_probe", "prefill_probe", "continue"]
    assert answer.headers["x-headgate-attempts"] == "1" and answer.chunks[-1]["route_trace"]["attempts"][1]


# ------------------------------------------------------------------------------------- how much is left


@pytest.mark.parametrize(
    ("texts", "limit", "least", "most"),
    [
        (list("The river had been low all summer, and the old ferry lay on the mud like an animal"), 100, 70, 85),
        (["The river had been low all summer. " * 12] * 2, 400, 150, 230),
        (["word "] * 40, 100, 60, 60),
        (list("春の海ひねもすのたりのたりかな古池や蛙飛びこむ水の音"), 100, 70, 82),
    ],
    ids=["characters", "paragraphs", "tokens", "characters of three bytes"],
)
def test_what_is_left_of_a_limit_is_not_counted_by_pieces(
    tmp_path: Path, texts: list[str], limit: int, least: int, most: int
) -> None:
    first = row("none"), [broken(ROLE, *pieces(*texts))]
    with targets(tmp_path / "s", first, (row(), [answered(FINE)])) as (plane, (_, other)):
        ask(plane, max_tokens=limit)
    assert least <= bodies(other)[0]["max_tokens"] <= most


def reported(text: str, tokens: int) -> bytes:
    usage = b'"usage":{"prompt_tokens":7,"completion_tokens":%d,"total_tokens":%d}' % (tokens, tokens + 7)
    return chunk_event({"content": text}).replace(b'"choices"', usage + b',"choices"')


def test_the_providers_own_count_is_taken(tmp_path: Path) -> None:
    events = [reported("a b c d e f", 3), reported(" and so on", 37)]
    with targets(tmp_path / "s", (row("none"), [broken(ROLE, *events)]), (row(), [answered(FINE)])) as (
        plane, (_, other),
    ):  # fmt: skip
        answer = ask(plane, max_tokens=100, stream_options={"include_usage": True})
    assert bodies(other)[0]["max_tokens"] == 63
    assert answer.chunks[-1]["usage"]["prompt_tokens"] == 7


@pytest.mark.parametrize("size", [90 << 10, 100 << 10])
@pytest.mark.parametrize("escaped", [False, True])
def test_the_limit_of_a_continuation_is_one_of_text(tmp_path: Path, size: int, escaped: bool) -> None:
    """However many bytes of JSON it takes."""
    part = "é" * 512
    event = chunk_event({"content": part})
    event = event.replace("é".encode(), b"\\u00e9") if escaped else event
    with targets(tmp_path / "s", (row("none"), [cut(ROLE, *[event] * (size >> 10))]), (row(), [answered(FINE)])) as (
        plane, _,
    ):  # fmt: skip
        answer = ask(plane)
    if size < 96 << 10:
        answer.check_stream(part * (size >> 10) + "world")
    else:
        assert "96 KiB" in answer.check_truncated("upstream_cut")["not_continued"]


# ------------------------------------------------------------------------------------- money


def used(prompt: int, completion: int) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return b"data: " + json.dumps({"choices": [], "usage": counts}).encode() + b"\n\n"


@pytest.mark.parametrize("prices", [(CHEAP, DEAR), (DEAR, CHEAP)], ids=["cheap first", "dear first"])
@pytest.mark.parametrize("reports", [True, False])
def test_each_part_is_priced_at_the_target_that_wrote_it(
    tmp_path: Path, prices: tuple[Price, Price], reports: bool
) -> None:
    end = ROLE + WORLD + STOP + (used(1006, 4) if reports else b"") + DONE
    first = (row("none", price=prices[0]), [broken(ROLE, *pieces("one ", "two ", "three ", "four ", "five "))])
    with targets(tmp_path / "s", first, (row(price=prices[1]), [answered(end)])) as (plane, _):
        answer = ask(plane, stream_options={"include_usage": True})
        record = closed(plane)
    usage = answer.chunks[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (record.prompt_tokens, record.completion_tokens)
    assert record.completion_tokens == 5 + (4 if reports else 1)
    if reports:
        assert record.prompt_tokens == 1001  # less the five tokens that it was given
    (a, b), later = prices, record.completion_tokens - 5
    assert a.input and a.output and b.output
    due = (record.prompt_tokens * a.input + 5 * a.output + later * b.output) // 1_000_000
    assert record.cost == due and answer.chunks[-1]["headgate"]["cost_usd"] == due / 1e9
    assert [(one.provider, one.prompt_tokens, one.completion_tokens) for one in record.shares] == [
        ("p0", record.prompt_tokens, 5), ("p1", 0, later),
    ]  # fmt: skip
    assert sum(one.cost for one in record.shares) == record.cost


def test_what_a_restart_repeats_is_in_the_trace(tmp_path: Path) -> None:
    texts = [f"word{index} " for index in range(20)]
    second = [answered(b"".join((ROLE, *pieces(*texts), STOP, DONE)))]
    with targets(tmp_path / "s", (row("none"), [broken(ROLE, *pieces(*texts[:15]))]), (row("none"), second)) as (
        plane,
        _,
    ):
        ask(plane).check_stream("".join(texts))
        record = closed(plane)
    assert record.completion_tokens == 20 and record.attempts[1].completion_tokens >= 19
    assert record.queue_us >= 0 and record.ttfb_us >= 0 and record.ttft_us <= record.attempts[0].ended_us


# ------------------------------------------------------------------------------------- where it shows


def test_a_seam_shows_in_the_stream_the_trace_and_the_receipt(tmp_path: Path) -> None:
    with targets(tmp_path / "s", (row("none"), [broken(ROLE, HELLO)]), (row(), [answered(FINE)])) as (plane, _):
        answer = ask(plane, stream_options={"include_usage": True}, include_route_trace=True)
        record = closed(plane)
    assert answer.raw.count(b": continued after 6 characters by p1/m\n\n") == 1
    seam = [{"after": 6, "from": "p0/m", "to": "p1/m", "why": "upstream_cut"}]
    assert answer.chunks[-1]["headgate"]["continued"] == answer.chunks[-1]["route_trace"]["continued"] == seam
    assert [(one.after, one.origin, one.target, one.why) for one in record.continued] == [
        (6, "p0/m", "p1/m", "upstream_cut")
    ]


@pytest.mark.parametrize("more", [{}, {"headgate": {"resumable_s": 5}}], ids=["plain", "with numbers"])
def test_openai_python_reads_over_a_seam(tmp_path: Path, more: dict[str, Any]) -> None:
    with (
        targets(tmp_path / "s", (row("none"), [broken(ROLE, HELLO)]), (row(), [answered(FINE)])) as (plane, _),
        openai.OpenAI(base_url=f"{plane.url}/v1", api_key=TOKEN, max_retries=0) as client,
    ):
        stream = client.chat.completions.create(
            model="chain", messages=[{"role": "user", "content": "hi"}], stream=True, extra_body=more
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello world"


@pytest.mark.parametrize(
    ("first", "more", "why"),
    [
        (broken(ROLE, HELLO), {"n": 1, "logprobs": True}, "more than one text"),
        (broken(ROLE, HELLO), {"headgate": {"on_midstream_failure": "error"}}, "on_midstream_failure"),
        (broken(ROLE, HELLO), {"response_format": {"type": "json_object"}}, "given structure"),
        (broken(ROLE, HELLO), {}, "broke off 3 times"),
    ],
    ids=["logprobs", "forbidden", "structured", "three breaks"],
)
def test_a_stream_that_cannot_go_on_says_why(tmp_path: Path, first: Script, more: dict[str, Any], why: str) -> None:
    again = [broken(ROLE, *pieces(text)) for text in ("wor", "ld")]
    with targets(tmp_path / "s", (row(), [first, again[1]]), (row(), [again[0]])) as (plane, _):
        error = ask(plane, **more).check_truncated("upstream_cut")
        record = closed(plane)
    assert why in error["not_continued"] and record.not_continued == error["not_continued"]
