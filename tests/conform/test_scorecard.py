"""`headgate conform`: all green on our own gateway, and every check red on the endpoint that breaks it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate import conform
from headgate.testing import serve_in_thread
from tests import forked
from tests.conform.endpoint import KEY, Endpoint
from tests.dataplane import TOKEN, DataPlane, upstream
from tests.ports import free_port

# flaw → the checks that must not pass, and no others; warnings are marked with "!"
RED: dict[str, str] = {
    # the chunks of a stream
    "role on every chunk": "stream.role stream.n",
    "no role": "stream.role",
    "second finish": "stream.finish stream.n",
    "text after the finish": "stream.finish stream.n",
    "no finish": "stream.finish stream.n stream.tools",
    "ids change": "stream.constant",
    "one id for all": "stream.ids http.at-once",
    "no finish_reason key": "stream.fields",
    "object of another name": "stream.fields",
    "torn characters": "stream.unicode",
    "says nothing": "stream.text answer.same-text http.at-once http.leaving",
    "an error inside": "stream.errors",
    "empty choices": "stream.choices",
    "usage unasked": "stream.usage-unasked",
    "usage never": "stream.usage",
    "usage on the finish": "stream.usage",
    "usage that does not add up": "stream.usage",
    "no usage: null": "!stream.usage-null",
    "second choice without end": "stream.n",
    "broken arguments": "stream.tools",
    "tool id again": "stream.tools",
    "stop after tools": "stream.tools",
    # its bytes
    "id-only block": "stream.blocks",
    "no last blank line": "stream.blocks stream.whole-events stream.done",
    "torn events": "stream.whole-events",
    "no JSON": "stream.json",
    "no done": "stream.done",
    "data after done": "stream.done stream.finish stream.usage stream.n stream.tools",
    "all at the end": "stream.unbuffered",
    "cut": "stream.ends http.after-stream http.at-once http.leaving",
    "stream as JSON": "stream.type",
    "compressed": "stream.uncompressed",
    "cacheable": "!headers.no-cache !headers.unbuffered",
    # whole answers
    "JSON as text": "answer.type",
    "no message": "answer.shape answer.same-text",
    "wrong total": "answer.usage",
    "whole answer is empty": "answer.same-text",
    # errors
    "403 without a token": "errors.no-token errors.wrong-token errors.challenge",
    "500 for a token": "errors.no-token errors.wrong-token errors.challenge",
    "no challenge": "errors.challenge",
    "repeats the token": "errors.token-hidden",
    "400 for the model": "errors.unknown-model",
    "errors as events": "errors.before-stream",
    "500 for bad JSON": "errors.invalid-json",
    "500 for deep JSON": "errors.deep-json",
    "no param": "errors.no-messages",
    "guesses": "errors.bad-value",
    "reads on": "!errors.oversize",
    "500 for a gigabyte": "errors.oversize",
    "no 405": "errors.method",
    "any path": "errors.unknown-path http.pipelining http.head",
    "three keys": "errors.shape errors.no-messages errors.bad-value",
    "another shape": "errors.shape errors.before-stream errors.no-messages errors.bad-value",
    # headers
    "no request id": "!headers.request-id",
    "no timing": "!headers.server-timing",
    "two lengths": "headers.single",
    # connections
    "one request per connection": "http.keep-alive http.after-stream http.after-error http.pipelining http.head",
    "closes after streams": "!http.after-stream",
    "closes unsaid after streams": "http.after-stream",
    "closes unsaid after errors": "http.after-error http.pipelining",
    "answers out of order": "http.pipelining",
    "ignores close": "http.close",
    "HEAD with a body": "http.head",
    "no options": "!http.options",
    "500 for options": "http.options",
    "ignores expect": "http.expect",
    "no chunked requests": "http.chunked-request",
    "takes length and chunked": "http.length-and-chunked",
    "takes the first length": "http.two-lengths",
    "no host needed": "http.no-host",
    "takes any head": "http.huge-head",
    "stalls when busy": "http.at-once",
    "dies of leavers": "http.leaving",
}


def checked(url: str, token: str | None, model: str | None = None) -> conform.Scorecard:
    return conform.run(conform.EndpointProbe(conform.Endpoint.parse(url), token, model, timeout=10))


def marked(card: conform.Scorecard, *states: str) -> dict[str, str]:
    return {r.check.id: r.verdict.evidence for r in card.results if r.verdict.state in states}


def test_an_endpoint_without_fault_is_green() -> None:
    with Endpoint() as endpoint:
        card = checked(endpoint.url, KEY)
    assert marked(card, "fail", "warn", "skip") == {}
    assert card.model == "m" and card.exit_code == 0


@pytest.mark.parametrize("flaw", RED)
def test_a_flaw_turns_exactly_its_checks_red(flaw: str) -> None:
    with Endpoint(flaw) as endpoint:
        card = checked(endpoint.url, KEY, "m")
    found = {*marked(card, "fail"), *(f"!{ident}" for ident in marked(card, "warn"))}
    assert found == set(RED[flaw].split()), marked(card, "fail", "warn")
    assert card.exit_code == int(any(not ident.startswith("!") for ident in found))


def test_each_check_is_able_to_fail() -> None:
    able = {ident.removeprefix("!") for row in RED.values() for ident in row.split()}
    assert able == set(conform.CHECKS)


def test_an_endpoint_that_asks_for_no_token_is_not_blamed_for_it() -> None:
    with Endpoint("open to all") as endpoint:
        card = checked(endpoint.url, None, "m")
    assert set(marked(card, "skip")) == {"errors.no-token", "errors.wrong-token", "errors.challenge"}
    assert marked(card, "fail", "warn") == {}


# ------------------------------------------------------------------------------- our own gateway


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    with (
        serve_in_thread() as provider,
        DataPlane(tmp_path_factory.mktemp("gate") / "s", upstream(provider.url)) as plane,
    ):
        yield plane


@pytest.mark.parametrize(
    ("model", "skipped"),
    [
        ("lorem?tokens=40&rate=80&ttft=0.05", {"stream.unicode", "stream.n", "stream.tools"}),
        ("echo", {"stream.unbuffered", "stream.n", "stream.tools"}),
        ("fault/parallel-tools", {"stream.unicode", "stream.unbuffered", "stream.n"}),
        ("fault/role-every-chunk", {"stream.unicode", "stream.unbuffered", "stream.n", "stream.tools"}),
        ("fault/bare-chunks", {"stream.unicode", "stream.unbuffered", "stream.n", "stream.tools"}),
        ("fault/usage-oddities", {"stream.unicode", "stream.unbuffered", "stream.n", "stream.tools"}),
    ],
)
def test_our_own_gateway_is_all_green(gate: DataPlane, model: str, skipped: set[str]) -> None:
    card = checked(gate.url, TOKEN, f"up/{model}")
    assert marked(card, "fail", "warn") == {}
    assert set(marked(card, "skip")) == skipped


def test_a_stream_that_fails_through_the_gateway_is_not_green(gate: DataPlane) -> None:
    card = checked(gate.url, TOKEN, "up/fault/error-in-200")
    assert {"stream.errors", "stream.finish", "stream.done"} <= marked(card, "fail").keys()
    assert card.exit_code == 1


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("role-every-chunk", "role"),
        ("id-changes", "constant ids"),
        ("bare-chunks", "fields constant"),
        ("two-finishes", "finish"),
        ("no-finish-done", "finish usage"),
        ("after-done", "done finish usage"),
        ("no-done", "done choices usage-unasked"),  # its usage comes unasked
        ("azure-first", "choices fields constant"),
        ("usage-oddities", "usage-unasked usage choices"),
        ("no-last-blank-line", "blocks whole-events done"),
        ("bad-json-event", "json"),
        ("hollow", "text"),
        ("cut", "ends finish done usage"),
        ("close-without-finish", "finish done usage"),
        ("event-error", "errors finish done usage"),
        ("multi-line-data", ""),  # odd, but whole
    ],
)
def test_the_fault_provider_itself_is_red(fault: str, expected: str) -> None:
    """What the gateway makes good of, seen without it: only the stream's own checks."""
    with serve_in_thread(keys=[KEY]) as provider:
        probe = conform.EndpointProbe(conform.Endpoint.parse(provider.url), KEY, f"fault/{fault}", timeout=10)
        streamed = [check for check in conform.CHECKS.values() if check.group == "stream" and not check.slow]
        red = {check.id for check in streamed if check.run(probe).state == "fail"}
    assert red == {f"stream.{name}" for name in expected.split()}


# ------------------------------------------------------------------------------- the command


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.command("conform", *arguments, cwd=home, environ={"HOME": str(home)})


def test_the_command_prints_a_scorecard(tmp_path: Path, gate: DataPlane) -> None:
    done = run(tmp_path, gate.url, "--token", TOKEN, "--model", "up/echo", "--quick")
    assert done.returncode == 0, done.stderr
    assert "✓ done" in done.stdout and "✗" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("55 passed · 0 failed")
    assert "at-once" not in done.stdout


def test_the_command_gives_json_and_fails_where_it_should(tmp_path: Path) -> None:
    with Endpoint("no done") as endpoint:
        done = run(tmp_path, endpoint.url + "/v1/", "--token", KEY, "--json")
    assert done.returncode == 1
    card = json.loads(done.stdout)
    assert card["model"] == "m" and card["counts"]["fail"] == 1
    (red,) = [row for row in card["checks"] if row["state"] == "fail"]
    assert red["id"] == "stream.done" and red["evidence"] == "0 times" and red["why"]


def test_what_cannot_be_checked_is_said_with_the_next_step(tmp_path: Path, gate: DataPlane) -> None:
    cases = (
        ((f"http://127.0.0.1:{free_port()}",), "nothing answers at", "check host and port"),
        (("ftp://x",), "no http(s) URL", "give the base URL"),
        ((gate.url, "--model", "up/echo"), "refuses the token", "--token"),
        ((gate.url, "--token", TOKEN, "--model", "nothing-like-it"), "does not have the model", "--model"),
        ((f"{gate.url}/elsewhere", "--token", TOKEN, "--model", "up/echo"), "no chat API below /elsewhere", "/v1"),
    )
    for arguments, sentence, step in cases:
        done = run(tmp_path, *arguments)
        assert done.returncode == 2 and done.stdout == ""
        said, advice = done.stderr.splitlines()
        assert sentence in said and step in advice
