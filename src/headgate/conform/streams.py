"""Checks of a stream, from its first event to its last."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import Any

from headgate.conform.probe import TOOL, UNICODE, VISIBLE, EndpointProbe, StreamedAnswer, delta_of
from headgate.conform.table import CheckVerdict, check, failed, judged, passed, skipped, warned

REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_TOO_QUICK_S = 0.3
_FEW_EVENTS = 8


@check("stream.type", "200 with Content-Type text/event-stream", "EventSource and several SDKs refuse anything else")
def content_type(probe: EndpointProbe) -> CheckVerdict:
    response = probe.plain.response
    kind = response.headers.get("content-type", "none")
    if response.status != 200:
        return failed(f"{response.summary}: {response.body[:120].decode(errors='replace')}")
    return judged(None if kind.lower().startswith("text/event-stream") else kind, kind)


@check("stream.ends", "the body ends as its framing says", "a cut looks to the official clients like a finished answer")
def ends(probe: EndpointProbe) -> CheckVerdict:
    response = probe.plain.response
    return judged(
        None if response.complete else response.summary, f"{len(probe.plain.events)} events, then its proper end"
    )


@check(
    "stream.blocks",
    "every block has data or is a comment, and the last is complete",
    "openai-python loses the stream on a block of only id:, event: or retry:",
)
def blocks(probe: EndpointProbe) -> CheckVerdict:
    stream = probe.plain
    bare = next((event.block for event in stream.events if event.data is None and not event.comment), None)
    if bare is not None:
        return failed(f"a block without data: {bare[:60]!r}")
    if stream.rest.strip():
        return failed(f"the last event lacks its blank line: {stream.rest[:60]!r}")
    return judged(None if stream.events else "not one event", f"{len(stream.events)} blocks")


@check(
    "stream.whole-events", "each piece on the wire ends with an event's end", "naive clients parse what one read gave"
)
def whole_events(probe: EndpointProbe) -> CheckVerdict:
    response = probe.plain.response
    if not response.chunked:
        return skipped("the body is not chunked, so that nothing shows where a write ended")
    torn = [data for _, data in response.pieces if not data.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))]
    fault = f"{len(torn)} of {len(response.pieces)} pieces end within an event: …{torn[0][-30:]!r}" if torn else None
    return judged(fault, f"{len(response.pieces)} pieces, all whole")


@check(
    "stream.json",
    "every event's data is one JSON object, but for [DONE]",
    "both official clients raise on the first other one",
)
def is_json(probe: EndpointProbe) -> CheckVerdict:
    events = [event for event in probe.plain.events if event.data is not None and event.data != b"[DONE]"]
    odd = next((event.data for event in events if event.chunk is None), None)
    fault = f"no object: {(odd or b'')[:60]!r}" if odd is not None else None if events else "no data at all"
    return judged(fault, f"{len(events)} objects")


@check("stream.errors", "the stream holds no error", "what follows is judged on a stream that went well")
def no_error(probe: EndpointProbe) -> CheckVerdict:
    found = next((chunk["error"] for chunk in probe.plain.chunks if chunk.get("error")), None)
    return judged(None if found is None else json.dumps(found)[:120], "none")


@check(
    "stream.fields",
    "every chunk has id, object, created, model, choices[].index, delta, finish_reason",
    "typed clients (Go, Java, the AI SDK) fail on a chunk that lacks one",
)
def fields(probe: EndpointProbe) -> CheckVerdict:
    for number, chunk in enumerate(probe.plain.chunks):
        fault = _fault_of_fields(chunk) if "error" not in chunk else None
        if fault:
            return failed(f"chunk {number}: {fault}")
    return judged(None if probe.plain.chunks else "no chunks", f"{len(probe.plain.chunks)} chunks")


def _fault_of_fields(chunk: dict[str, Any]) -> str | None:
    types = {"id": str, "object": str, "created": int, "model": str, "choices": list}
    wrong = [key for key, kind in types.items() if not isinstance(chunk.get(key), kind)]
    if wrong:
        return f"{', '.join(wrong)} missing or of another type"
    if chunk["object"] != "chat.completion.chunk" or not chunk["id"] or not chunk["model"]:
        return f"object {chunk['object']!r}, id {chunk['id']!r}, model {chunk['model']!r}"
    for choice in chunk["choices"]:
        if type(choice.get("index")) is not int or type(choice.get("delta")) is not dict:
            return "a choice without index or delta"
        if "finish_reason" not in choice:
            return "a choice without finish_reason (null where there is none yet)"
    return None


@check(
    "stream.constant",
    "id, created and model stay the same",
    "clients group chunks by id, and show a new message for a new one",
)
def constant(probe: EndpointProbe) -> CheckVerdict:
    stream = probe.plain.chunks
    for key in ("id", "created", "model"):
        observed = {json.dumps(chunk.get(key)) for chunk in stream if "error" not in chunk}
        if len(observed) > 1:
            return failed(f"{len(observed)} different values of {key}")
    return passed(f"id {stream[0].get('id')}" if stream else "nothing to compare")


@check(
    "stream.role", "the role comes once, on the first chunk", "accumulators join repeated strings: assistantassistant"
)
def role(probe: EndpointProbe) -> CheckVerdict:
    choices = probe.plain.choices
    roles = [number for number, choice in enumerate(choices) if delta_of(choice).get("role") is not None]
    if not choices or not roles:
        return failed("no role at all")
    return judged(
        None if roles == [0] else f"in {len(roles)} chunks, first in number {roles[0]}", "on the first chunk only"
    )


@check(
    "stream.finish", "exactly one finish_reason, and nothing visible after it", "a second finish ends a message twice"
)
def finish(probe: EndpointProbe) -> CheckVerdict:
    return _finish_of(probe.plain, 0)


def _finish_of(stream: StreamedAnswer, index: int) -> CheckVerdict:
    choices = [choice for choice in stream.choices if choice.get("index", 0) == index]
    ends = [number for number, choice in enumerate(choices) if choice.get("finish_reason") is not None]
    if len(ends) != 1:
        return failed(f"{len(ends)} finish reasons")
    reason = choices[ends[0]]["finish_reason"]
    if reason not in REASONS:
        return failed(f"finish_reason {reason!r} is none of {', '.join(REASONS[:4])}")
    later = [choice for choice in choices[ends[0] + 1 :] if any(delta_of(choice).get(key) for key in VISIBLE)]
    return judged("text after the finish" if later else None, reason)


@check("stream.done", "data: [DONE] once, and nothing after it", "the AI SDK reads on after it, others wait for it")
def done(probe: EndpointProbe) -> CheckVerdict:
    data = [event.data for event in probe.plain.events if event.data is not None]
    if data.count(b"[DONE]") != 1:
        return failed(f"{data.count(b'[DONE]')} times")
    return judged(None if data[-1] == b"[DONE]" else "data follows it", "last")


@check("stream.text", "the stream says something", "an empty answer is a failure that looks like a success")
def text(probe: EndpointProbe) -> CheckVerdict:
    stream = probe.plain
    found = stream.visible
    return judged(
        None if found else "no text, no tool call, no refusal", f"{found} pieces, {len(stream.text)} characters"
    )


@check("stream.choices", "no chunk has empty choices unless usage was asked for", "clients index choices[0]")
def empty_choices(probe: EndpointProbe) -> CheckVerdict:
    empty = sum(not chunk.get("choices") and "error" not in chunk for chunk in probe.plain.chunks)
    return judged(f"{empty} chunks" if empty else None, "none")


@check("stream.usage-unasked", "no usage unless it was asked for", "clients that add usage up count it twice")
def usage_unasked(probe: EndpointProbe) -> CheckVerdict:
    unasked = sum(chunk.get("usage") is not None for chunk in probe.plain.chunks)
    return judged(f"usage on {unasked} chunks" if unasked else None, "none")


@check(
    "stream.usage",
    "stream_options.include_usage gives one last chunk: choices [], three counts",
    "bills and budgets read it",
)
def usage(probe: EndpointProbe) -> CheckVerdict:
    chunks = probe.counted.chunks
    given = [number for number, chunk in enumerate(chunks) if isinstance(chunk.get("usage"), dict)]
    if not given:
        return failed(f"none ({probe.counted.response.summary})")
    if len(given) > 1 or given[0] != len(chunks) - 1:
        return failed(f"on {len(given)} chunks, the last of them number {given[-1]} of {len(chunks) - 1}")
    if chunks[-1].get("choices") != []:
        return failed("its choices are not []")
    fault = fault_of_usage(chunks[-1]["usage"])
    return judged(fault, json.dumps({key: chunks[-1]["usage"].get(key) for key in COUNTS}))


def fault_of_usage(given: Any) -> str | None:
    """Return the fault of a usage object, empty if it has none."""
    counts: list[Any] = [given.get(key) for key in COUNTS] if isinstance(given, dict) else []
    if len(counts) != 3 or any(type(count) is not int or count < 0 for count in counts):
        return f"prompt, completion and total are {counts}"
    return None if counts[0] + counts[1] == counts[2] else f"{counts[0]} + {counts[1]} is not {counts[2]}"


@check(
    "stream.usage-null",
    "with usage asked for, the other chunks say usage: null",
    "OpenAI's do; typed clients expect the key",
)
def usage_null(probe: EndpointProbe) -> CheckVerdict:
    others = [chunk for chunk in probe.counted.chunks if chunk.get("choices")]
    absent = sum("usage" not in chunk for chunk in others)
    return (
        warned(f"absent on {absent} of {len(others)}") if absent or not others else passed(f"on {len(others)} chunks")
    )


@check("stream.unicode", "characters beyond ASCII arrive whole", "decoding piece by piece tears emoji into U+FFFD")
def unicode(probe: EndpointProbe) -> CheckVerdict:
    body = probe.plain.response.body
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return failed(f"not UTF-8 at byte {error.start}")
    found = probe.plain.text
    if "�" in found:
        return failed(f"U+FFFD in …{found[max(0, found.index('�') - 10) :][:30]!r}")
    if UNICODE in found:
        return passed("the line came back as it was sent")
    return skipped("the model did not repeat the line") if found.isascii() else passed("UTF-8 throughout")


@check(
    "stream.uncompressed",
    "a stream is not compressed, even where the client would accept it",
    "compressors hold tokens back",
)
def uncompressed(probe: EndpointProbe) -> CheckVerdict:
    coding = probe.plain.response.headers.get("content-encoding", "identity")
    return judged(None if coding == "identity" else coding, "no Content-Encoding")


@check("stream.unbuffered", "events leave as they come", "a proxy that buffers turns a stream into one late answer")
def unbuffered(probe: EndpointProbe) -> CheckVerdict:
    response = probe.plain.response
    events = len(probe.plain.events)
    at = [seconds for seconds, _ in response.pieces]
    if events < _FEW_EVENTS or response.seconds < _TOO_QUICK_S:
        return skipped(f"{events} events in {response.seconds * 1000:.0f} ms: too few or too quick to tell")
    reads = 1 + sum(later - earlier > 0.001 for earlier, later in pairwise(at))
    observed = f"{events} events at {reads} instants, the first after {at[0]:.2f} s of {response.seconds:.2f} s"
    if reads <= 2:
        return failed(observed)
    return warned(observed) if events > 8 * reads else passed(observed)


@check("stream.ids", "two streams have two ids", "logs and resumption find the wrong answer")
def ids(probe: EndpointProbe) -> CheckVerdict:
    first, second = (
        {chunk["id"] for chunk in stream.chunks if chunk.get("id")} for stream in (probe.plain, probe.counted)
    )
    if not first:
        return skipped("there are no ids")
    return judged(f"both have {min(first & second)}" if first & second else None, "different")


@check(
    "stream.n",
    "n=2 gives each choice its own role and its own finish",
    "choices mixed up, or one of them never ended",
    slow=True,
)
def several(probe: EndpointProbe) -> CheckVerdict:
    stream = probe.stream(n=2)
    if stream.response.status != 200:
        return skipped(f"n is not supported here ({stream.response.summary})")
    roles: Counter[Any] = Counter(choice.get("index") for choice in stream.choices if delta_of(choice).get("role"))
    if len(roles) < 2:
        return skipped("the model gave one choice")
    if set(roles.values()) != {1}:
        return failed(f"roles by choice: {dict(roles)}")
    return next((v for v in (_finish_of(stream, index) for index in sorted(roles)) if v.state != "pass"), passed("two"))


@check(
    "stream.tools",
    "a tool call has index, id and name first, then arguments, then tool_calls",
    "agents run the wrong tool",
    slow=True,
)
def tools(probe: EndpointProbe) -> CheckVerdict:
    stream = probe.stream(tools=[TOOL], tool_choice="required")
    deltas = [(delta_of(choice).get("tool_calls") or []) for choice in stream.choices]
    calls = [call for delta in deltas for call in delta]
    if not calls:
        return skipped(f"the model called no tool ({stream.response.summary})")
    observed: dict[Any, str] = {}
    for call in calls:
        index, function = call.get("index"), call.get("function") or {}
        if type(index) is not int:
            return failed("a tool call without index")
        if index not in observed and not (call.get("id") and function.get("name")):
            return failed("a tool call that begins without id or name")
        if index in observed and call.get("id"):
            return failed("the id is repeated: accumulators join it")
        observed[index] = observed.get(index, "") + (function.get("arguments") or "")
    return _judge_calls(stream, observed)


def _judge_calls(stream: StreamedAnswer, arguments: dict[Any, str]) -> CheckVerdict:
    reasons = {choice["finish_reason"] for choice in stream.choices if choice.get("finish_reason")}
    if reasons != {"tool_calls"}:
        return failed(f"finish_reason is {', '.join(map(str, reasons)) or 'missing'}")
    try:
        for text in arguments.values():
            json.loads(text)
    except ValueError:
        return failed("the arguments do not join to JSON")
    return passed(f"{len(arguments)} calls")
