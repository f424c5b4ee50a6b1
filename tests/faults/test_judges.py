"""The judges: they pass a gateway that behaves, and see through one that does not."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.testing.faults.bench import Outcome
from headgate.testing.faults.cases import CASES, FAST, PROMPT_TOKENS, TEXT, TOKENS, Case, CaseEvidence
from headgate.testing.faults.client import Heard
from headgate.testing.provider import lorem
from headgate.testing.provider.server import Seen

BY_NUMBER = {case.number: case for case in CASES}
BEGAN = 100.0


def whole(**changes: Any) -> Heard:
    heard = Heard(
        began=BEGAN, ended=BEGAN + 1, status=200, text=TEXT, at=[BEGAN + 0.011 + at / 100 for at in range(TOKENS)],
        ids={"chatcmpl-1"}, models={"lorem"}, roles=1, finishes=["stop"], done=1,
        usage={"prompt_tokens": PROMPT_TOKENS, "completion_tokens": TOKENS},
    )  # fmt: skip
    for name, value in changes.items():
        setattr(heard, name, value)
    return heard


def refused() -> Heard:
    message = "The prompt triggers the content management policy."
    return Heard(BEGAN, BEGAN + 0.1, 400, error={"code": "content_filter", "message": message})


def seen(after: float = 0.0, tokens: int = TOKENS) -> Seen:
    at = BEGAN + after
    sent = [at, *(at + 0.01 + token / 100 for token in range(tokens))]
    return Seen("POST", "/8/v1/chat/completions", {}, b"", at, sent[-1] + 0.01, "complete", tokens, sent=sent)


# What each case looks like when all is well: (what was heard, the primary's log, the fallback's)
WELL: dict[int, tuple[list[Heard], list[Seen], list[Seen]]] = {
    1: ([whole()], [seen(tokens=0), seen(2.1)], []),
    2: ([whole()], [seen(tokens=0)], [seen()]),
    3: ([whole()], [seen(tokens=0), seen()], []),
    4: ([whole()], [seen(tokens=0)], [seen()]),
    5: ([whole()], [seen(tokens=0), seen()], []),
    6: ([whole()], [seen(tokens=0)], [seen()]),
    7: ([whole()], [seen(tokens=0)], [seen()]),
    8: ([whole()], [seen(tokens=40)], [seen(tokens=20)]),
    9: ([whole(), whole()], [seen(tokens=20)], [seen(tokens=40)]),
    10: ([whole()], [seen()], []),
    11: ([whole()], [seen()], []),
    12: ([whole()], [seen(tokens=0)], [seen()]),
    13: ([refused()], [seen(tokens=0)], []),
    14: ([whole()], [seen(tokens=40)], [seen(tokens=0), seen()]),
    15: ([whole()] * 20, [seen(at, tokens=0) for at in (0, 0.5, 1, 4)] + [seen(7)], [seen()] * 4),
    16: ([whole()], [seen(tokens=0)], [seen()]),
}


def wrong(number: int, heard: list[Heard], primary: list[Seen], fallback: list[Seen], **more: Any) -> list[str]:
    case: Case = BY_NUMBER[number]
    cost = more.get("cost", (PROMPT_TOKENS * 1.0 + TOKENS * 2.0) / 1e6)
    return list(case.judge(CaseEvidence(heard, primary, fallback, cost, FAST, case.models(FAST))))


def test_there_are_sixteen() -> None:
    assert sorted(BY_NUMBER) == sorted(WELL) == list(range(1, 17))


@pytest.mark.parametrize("number", WELL)
def test_a_gateway_that_behaves_passes(number: int) -> None:
    assert wrong(number, *WELL[number]) == []


SHORT = lorem.text(40)


@pytest.mark.parametrize("number", [number for number in WELL if number != 13])
@pytest.mark.parametrize(
    "changes",
    [
        {"text": SHORT},  # a truncated success
        {"text": SHORT + TEXT},  # the beginning twice
        {"text": TEXT.replace(" ", "  ", 1)},
        {"done": 0},
        {"done": 2},
        {"finishes": ["stop", "stop"]},
        {"finishes": ["length"]},
        {"roles": 2},
        {"ids": {"a", "b"}},
        {"models": {"lorem", "fault/cut"}},
        {"usage": None},
        {"usage": {"prompt_tokens": PROMPT_TOKENS + 40, "completion_tokens": 20}},
        {"broken": "no end within 20 s"},
        {"error": {"code": "upstream_cut", "message": "cut"}},
        {"status": 503},
    ],
    ids=lambda changes: "-".join(changes),  # a set's order differs between processes
)
def test_a_lie_is_seen_whatever_the_fault(number: int, changes: dict[str, Any]) -> None:
    heard, primary, fallback = WELL[number]
    assert wrong(number, [*heard[:-1], whole(**changes)], primary, fallback)


@pytest.mark.parametrize("number", [8, 9, 10, 14])
def test_a_gateway_that_buffers_is_seen(number: int) -> None:
    _, primary, fallback = WELL[number]
    late = whole(at=[BEGAN + 0.9] * TOKENS)
    assert any("before the failure" in said for said in wrong(number, [late, late], primary, fallback))
    slow = whole(at=[BEGAN + 0.08 + at / 100 for at in range(TOKENS)])
    assert any("ms after" in said for said in wrong(number, [slow, slow], primary, fallback))
    one = whole()
    one.at[5] += 0.06
    one.at[6:] = [max(at, one.at[5]) for at in one.at[6:]]
    assert wrong(number, [one, one], primary, fallback)


def test_only_what_came_late_is_played_again() -> None:
    def outcome(heard: Heard) -> Outcome:
        found = CaseEvidence([heard], [seen(tokens=40)], [seen(tokens=20)], None, FAST, ("a", "b"))
        return Outcome(BY_NUMBER[8], found, wrong(8, [heard], found.primary, found.fallback))

    late = [BEGAN + 0.08 + at / 100 for at in range(TOKENS)]
    assert outcome(whole(at=late)).only_late
    assert not outcome(whole(at=late, done=0)).only_late
    assert not outcome(whole()).only_late


@pytest.mark.parametrize(
    ("number", "primary", "fallback"),
    [
        (1, [seen(), seen(0.5)], []),  # before Retry-After
        (1, [seen(), seen(0.3), seen(0.9)], []),
        (1, [seen()], [seen()]),
        (2, [seen(at / 2) for at in range(5)], [seen()]),
        (2, [seen(at * 4) for at in range(7)], [seen()]),
        (3, [seen()], [seen()]),
        (4, [seen(at) for at in range(7)], [seen()]),
        (6, [seen(), seen(1)], [seen()]),
        (7, [seen()], []),
        (10, [seen()], [seen()]),
        (12, [seen(), seen()], [seen()]),
        (13, [seen(), seen()], []),
        (13, [seen()], [seen()]),
        (15, [seen(0.2 * at) for at in range(20)] + [seen(6)], [seen()]),
        (15, [seen()], [seen()]),
    ],
)
def test_conduct_is_judged_by_the_providers_logs(number: int, primary: list[Seen], fallback: list[Seen]) -> None:
    assert wrong(number, WELL[number][0], primary, fallback)


def test_time_is_bounded_and_cost_is_the_fallbacks() -> None:
    for number in (6, 7, 9):
        _, primary, fallback = WELL[number]
        assert any("more than" in said for said in wrong(number, [whole(ended=BEGAN + 5)], primary, fallback))
    assert wrong(11, [whole(ended=BEGAN + 3)], *WELL[11][1:])
    assert wrong(16, *WELL[16], cost=None)
    assert wrong(16, *WELL[16], cost=0.2)
    assert wrong(16, [whole(models={"fault/503-priced"})], *WELL[16][1:])
    assert wrong(13, [whole()], *WELL[13][1:])
