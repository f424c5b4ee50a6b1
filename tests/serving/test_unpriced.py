"""``unpriced: refuse``: what has no known price is not used, and nothing is spent on finding that out.  And what a
catalog's facts do for models of a provider that takes any id.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.dialects.openai_chat import read
from headgate.errors import GatewayError
from headgate.model import (
    FREE,
    Account,
    Alias,
    Call,
    Closed,
    Grant,
    ModelRow,
    Opened,
    Price,
    Provider,
    Snapshot,
    TargetRef,
    Timeouts,
)
from headgate.policy.auth import digest
from headgate.policy.routing.router import Router
from headgate.testing import Provider as Upstream
from tests.dataplane import TOKEN, DataPlane
from tests.ports import free_port
from tests.serving.calls import ask, body, closed_by_id

NANO = 10**9
PRICED = Price(2 * NANO, 4 * NANO, source="genai-prices 0.2.3")
GRANT = Grant("t0", "test")


def world(url: str, unpriced: str, key: bytes = b"") -> Snapshot:
    rows = (
        Provider("open", url, auth="none", catalog={"echo": ModelRow("echo", price=PRICED, timeouts={"total": 900.0})}),
        Provider("keyless", f"http://127.0.0.1:{free_port()}/v1", models={"p": ModelRow("p", price=PRICED)}),
        Provider(
            "half", url, auth="none", models={"echo-half": ModelRow("echo-half", "echo", price=Price(NANO, None))}
        ),
        Provider("pool-a", url, auth="none", models={"pooled": ModelRow("pooled", "lorem")}),
        Provider("pool-b", url, auth="none", models={"pooled": ModelRow("pooled", "echo", price=PRICED)}),
        Provider("builtin", url, auth="none", price=FREE, origin="builtin"),
    )
    chains = {
        "mixed": ("open/unheard-of", "half/echo-half", "open/echo"),
        "none": ("open/unheard-of", "keyless/p", "half/echo-half"),
        "long": tuple(f"open/m{n}" for n in range(30)),
        "dangling": ("gone/model",),
    }
    return Snapshot(
        0,
        {digest(key, TOKEN.encode()): GRANT},
        {row.name: row for row in rows},
        {name: Alias(name, tuple(map(TargetRef, chain))) for name, chain in chains.items()},
        timeouts=Timeouts(),
        unpriced=unpriced,
    )


@pytest.fixture(scope="module")
def plane(provider: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    state: Path = tmp_path_factory.mktemp("unpriced")
    (state / "instance.key").write_bytes(b"k" * 32)
    with DataPlane(state, snapshot=world(provider.url, "refuse", b"k" * 32)) as running:
        yield running


@pytest.mark.parametrize("name", ["open/unheard-of", "none", "echo-half", "half/echo-half"])
def test_what_has_no_price_is_refused_before_anything_is_spent(plane: DataPlane, provider: Upstream, name: str) -> None:
    before, opened = len(provider.requests), sum(isinstance(one, Opened) for one in plane.records())
    answer = ask(plane, name, stream=True)
    assert (answer.status, answer.error["code"], answer.error["type"]) == (
        422, "no_qualifying_model", "invalid_request_error",
    )  # fmt: skip
    assert answer.error["param"] == "model" and "its price is not known" in answer.error["message"]
    assert len(provider.requests) == before
    closes = [one for one in plane.records() if isinstance(one, Closed)]
    assert (closes[-1].outcome, closes[-1].code, closes[-1].cost) == ("refused", "no_qualifying_model", 0)
    assert sum(isinstance(one, Opened) for one in plane.records()) == opened + 1  # a refusal is on record too


def test_refusal_names_every_candidate_and_reason(plane: DataPlane) -> None:
    message = ask(plane, "none").error["message"]
    for part in (
        "open/unheard-of: its price is not known", "keyless/p: keyless has no key here",
        "half/echo-half: its price is not known", "unpriced: allow",
    ):  # fmt: skip
        assert part in message
    message = ask(plane, "long").error["message"]
    assert "open/m11: " in message and "open/m12" not in message and "and 18 more" in message


@pytest.mark.parametrize(
    ("name", "served"), [("mixed", "open"), ("open/echo", "open"), ("pooled", "pool-b"), ("builtin/echo", "builtin")]
)
def test_what_has_a_price_serves(plane: DataPlane, name: str, served: str) -> None:
    answer = ask(plane, name, stream=False)
    assert (answer.status, answer.headers["x-headgate-provider"]) == (200, served)


def test_catalog_facts_price_models_of_open_providers(plane: DataPlane) -> None:
    answer = ask(plane, "open/echo", stream=False)
    closed = closed_by_id(plane, answer.json["id"])
    assert closed.cost == closed.prompt_tokens * 2000 + closed.completion_tokens * 4000
    assert closed.price_source == "genai-prices 0.2.3"


def test_unknown_prices_serve_at_unknown_cost(provider: Upstream, tmp_path: Path) -> None:
    (tmp_path / "instance.key").write_bytes(b"k" * 32)
    with DataPlane(tmp_path, snapshot=world(provider.url, "allow", b"k" * 32)) as plane:
        answer = ask(plane, "echo-half", stream=False)
        assert answer.status == 200 and closed_by_id(plane, answer.json["id"]).cost == -1
        assert ask(plane, "keyless/p").error["code"] == "no_provider_key"
        assert ask(plane, "dangling").error["code"] == "no_provider_key"


def call(model: str) -> Call:
    return read(body(model, headgate=None))


def test_the_plan_with_facts() -> None:
    router = Router(world("http://127.0.0.1:1/v1", "refuse"))
    target = router.plan(call("open/echo"), GRANT).attempts[0].target
    assert (target.price, target.timeouts.total, target.upstream_model) == (PRICED, 900.0, "echo")
    assert router.plan(call("open/echo"), GRANT) is router.plan(call("open/echo"), GRANT)  # made once
    with pytest.raises(GatewayError) as refused:
        router.plan(call("keyless/p"), GRANT)
    assert refused.value.kind.code == "no_provider_key"
    fenced = Snapshot(
        providers={"p": Provider("p", "http://h", accounts=(Account("p/0"),), price=FREE)}, unpriced="refuse"
    )
    assert Router(fenced).plan(call("p/whatever"), GRANT).attempts[0].target.price == FREE
    later = Router(Snapshot(1, {b"x": GRANT}, fenced.providers), Router(fenced))
    assert later.offers.of("p/whatever")[0][0] is fenced.providers["p"]
