"""Fifty calls at the same time against a budget for three: three are served, whatever they are and by whichever API."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from headgate.model import Alias, Closed, TargetRef
from headgate.testing import Provider as Upstream
from tests.dataplane import DataPlane, post, upstream
from tests.serving.apis import APIS, GEMINI
from tests.serving.calls import Answer, ask, opened, request
from tests.serving.test_limits import PRICE, budget, gateway, spent

CROWD = 50
LOREM = "up/lorem?rate=100&ttft=0.6&tokens=40"
LONG = [{"role": "user", "content": "all work and no play makes a dull boy " * 1000}]


def crowd(plane: DataPlane, sent: bytes) -> list[Answer]:
    """Fifty calls at the same time."""
    found: list[Answer] = []
    ready = threading.Barrier(CROWD)

    def one() -> None:
        with opened(plane, b"", timeout=60) as stream:
            ready.wait(30)
            stream.sock.sendall(sent)
            found.append(stream.rest())

    threads = [threading.Thread(target=one) for _ in range(CROWD)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == CROWD
    return found


@pytest.mark.parametrize(
    ("model", "fields", "price"),
    [
        (LOREM, {"stream": True, "max_tokens": 100}, 1000),
        (LOREM, {"stream": False, "max_tokens": 100}, 1000),
        (LOREM, {"stream": True}, 10_240),
        (LOREM, {"stream": False}, 10_240),
        (LOREM, {"stream": True, "max_tokens": 100, "messages": LONG}, 10_600),
        ("pair", {"stream": True, "max_tokens": 100, "headgate": {}}, 1000),
        ("torn", {"stream": True, "max_tokens": 100, "headgate": {}}, 1000),
    ],
    ids=["stream", "whole", "stream, no length", "whole, no length", "long prompts", "failover", "continued"],
)  # fmt: skip
def test_a_budget_for_three_admits_three_of_fifty(
    tmp_path: Path, provider: Upstream, model: str, fields: dict[str, Any], price: int
) -> None:
    """``price``: µUSD of one call's hold, without some tokens of its prompt."""
    aliases = {
        "pair": Alias("pair", (TargetRef("up/fault/503-always"), TargetRef(LOREM))),
        "torn": Alias("torn", (TargetRef("up/fault/cut?after=20&rate=100"), TargetRef("next/" + LOREM[3:]))),
    }
    row = upstream(provider.url, "next", price=PRICE, prefill="trailing")
    most = int(price * 1000 * 3.6)
    with gateway(tmp_path / "s", provider, budget(most), row, aliases=aliases) as plane:
        answers = crowd(plane, request(model, **fields))
        assert Counter(answer.status for answer in answers) == {200: 3, 402: 47}
        for answer in answers:
            if answer.status == 402:
                error = answer.error
                assert (error["type"], error["code"]) == ("billing_error", "budget_exceeded")
                assert "retry-after" not in answer.headers and answer.headers["x-should-retry"] == "false"
                assert "'ci'" in error["message"] and "it resets at" in error["message"]
        plane.wait_for(Closed, CROWD)
        assert 0 < spent(plane) <= most
        # What was held and not used is there again
        assert ask(plane, LOREM, stream=False, max_tokens=50).status == 200


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("api", APIS)
def test_a_budget_for_three_holds_on_every_endpoint(tmp_path: Path, provider: Upstream, api: str, stream: bool) -> None:
    spoken = APIS[api]
    body = spoken.request(stream)  # 50 tokens at most
    if api != GEMINI:
        body |= {"model": "lorem", "stream": stream}
    aliases = {"lorem": Alias("lorem", (TargetRef(LOREM),))}  # a URL has no room for the model's own name
    most = int(500 * 1000 * 3.6)
    with gateway(tmp_path / "s", provider, budget(most), aliases=aliases) as plane:
        fields = [f"{name}: {value}" for name, value in spoken.fields.items()]
        answers = crowd(plane, post(spoken.path("lorem", stream), json.dumps(body).encode(), *fields))
        assert Counter(answer.status for answer in answers) == {200: 3, 402: 47}
        plane.wait_for(Closed, CROWD)
        assert 0 < spent(plane) <= most
