"""What is read to its end for nobody but the bill, and what is kept for whoever comes back: the odd cases."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.model import Alias, Closed, Grant, Limits, ModelRow, Opened, Snapshot, TargetRef
from headgate.policy.auth import digest
from headgate.testing import Provider
from tests.dataplane import TOKEN, DataPlane, upstream
from tests.serving.calls import (
    STREAM_HEAD,
    ask,
    chunk_event,
    chunked,
    closed_by_id,
    opened,
    request,
    scripted_in_thread,
    transcript,
)
from tests.serving.resuming import alias, plane
from tests.waiting import wait_until

KEY = b"k" * 32
LATE = "up/lorem?rate=400&ttft=0.5&tokens=30"


@pytest.fixture(scope="module")
def gate(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    aliases = (
        alias("drain", LATE, on_disconnect="drain"),
        alias("drain/kept", LATE, on_disconnect="drain", resumable_s=30.0),
        alias("cancel", LATE),
    )
    with plane(tmp_path_factory.mktemp("nobody") / "s", upstream(provider.url), *aliases) as running:
        yield running
        assert running.process.poll() is None, "the data process ended during the tests"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("drain", {}),
        ("drain", {"resumable_s": 5, "on_disconnect": "drain"}),
        ("drain/kept", {}),
        ("cancel", {"on_disconnect": "drain", "resumable_s": 5}),
    ],
)
def test_drain_before_the_head_drains(gate: DataPlane, provider: Provider, name: str, said: dict[str, object]) -> None:
    """Resumable or not: nobody can come back, but the provider's bill comes all the same."""
    before, closed = len(provider.requests), len([r for r in gate.records() if isinstance(r, Closed)])
    with opened(gate, request(name, headgate=said)) as stream:
        wait_until(lambda: len(provider.requests) > before)
        stream.leave()
    record = gate.wait_for(Closed, closed + 1)[-1]
    assert isinstance(record, Closed)
    assert (record.outcome, record.status, record.basis, record.completion_tokens) == ("cancelled", 499, "provider", 30)
    assert provider.requests[-1].how != "client_closed"


def test_comments_are_no_tokens(tmp_path: Path) -> None:
    """A provider that is silent for a while, to a client that has gone, is not stopped for our own keep-alives."""
    first, *others = transcript("one", "two", "three").split(b"\n\n")[:-1]
    later = b"\n\n".join(others) + b"\n\n"
    script = (
        ("expect_request",), ("send", STREAM_HEAD + chunked(first + b"\n\n" + chunk_event({"content": "zero "}))),
        ("wait", 1.5), ("send", chunked(later)), ("send", b"0\r\n\r\n"), ("expect_close",),
    )  # fmt: skip
    drained = alias("few", "up/m", on_disconnect="drain", drain_tokens=6)
    with (
        scripted_in_thread(script) as up,
        plane(tmp_path / "s", upstream(up.url), drained, limits=Limits(keep_alive=0.1)) as gate,
    ):
        with opened(gate, request("few")) as stream:
            stream.head().until(b"zero")
            stream.leave()
        record = closed_by_id(gate, stream.headers["x-headgate-stream-id"])
    assert (record.outcome, record.completion_tokens) == ("cancelled", 4), record


@pytest.mark.parametrize("key", ["", "Idempotency-Key: {}"])
@pytest.mark.parametrize("stream", [True, False])
def test_what_contradicts_itself_is_refused(gate: DataPlane, provider: Provider, stream: bool, key: str) -> None:
    fields = (key.format(stream),) if key else ()
    before = len(provider.requests)
    said = {"resumable_s": 60, "on_disconnect": "cancel"}
    answer = ask(gate, "cancel", *fields, stream=stream, headgate=said)
    assert (answer.status, answer.error["code"]) == (400, "invalid_value")
    assert answer.error["param"] == "headgate.resumable_s" and "on_disconnect" in answer.error["message"]
    assert len(provider.requests) == before
    assert ask(gate, "cancel", *fields, stream=stream, headgate={"resumable_s": 60}).status == 200
    for fine in ({"resumable_s": 0, "on_disconnect": "cancel"}, {"on_disconnect": "cancel"}):
        assert ask(gate, "drain/kept", stream=stream, headgate=fine).status == 200
    opens = {record.id for record in gate.records() if isinstance(record, Opened)}
    closes = [record for record in gate.wait_for(Closed, len(opens)) if isinstance(record, Closed)]
    assert opens == {record.id for record in closes}
    assert {record.outcome for record in closes if record.code == "invalid_value"} == {"refused"}


def test_a_link_is_good_for_as_long_as_any_target_may_take(provider: Provider, tmp_path: Path) -> None:
    """Which of them serves is not known when the link is made; another may be asked for longer than the first."""
    failing, fine = "fault/500", "lorem?rate=400&ttft=0&tokens=3"
    quick = upstream(provider.url, models={failing: ModelRow(failing, timeouts={"total": 5.0})})
    patient = upstream(provider.url, "other", models={fine: ModelRow(fine, timeouts={"total": 2000.0})})
    targets = (TargetRef(f"up/{failing}"), TargetRef(f"other/{fine}"))
    chain = Alias("chain", targets, resumable_s=60.0)
    tokens = {digest(KEY, TOKEN.encode()): Grant("t0", "test")}
    world = Snapshot(0, tokens, {"up": quick, "other": patient}, {"chain": chain})
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "instance.key").write_bytes(KEY)
    with DataPlane(tmp_path / "s", snapshot=world, limits=Limits(replay_ttl=7)) as gate:
        answer = ask(gate, "chain", headgate={})
    assert answer.headers["x-headgate-provider"] == "other"
    found = re.search(r"expires=(\d+)", answer.headers["x-headgate-stream-url"])
    assert found is not None and 2000 <= int(found[1]) - time.time() <= 2000 + 8
