"""What is left of a limit, as header fields."""

from __future__ import annotations

import pytest

from headgate.model import LimitsLeft, Quota
from headgate.wire.rate_limits import fields_at_once, fields_of, share_left


def fields(lines: bytes) -> dict[bytes, bytes]:
    return dict(line.split(b": ") for line in lines.split(b"\r\n") if line)


def test_without_a_limit_there_is_no_field() -> None:
    assert fields_of(LimitsLeft()) == b""


def test_both_limits_and_the_short_form_of_requests() -> None:
    found = fields(fields_of(LimitsLeft(60, 59, 7, 1000, -5, 60)))
    assert found == {
        b"x-ratelimit-limit-requests": b"60", b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"7s", b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"0", b"x-ratelimit-reset-tokens": b"1m0s",
        b"x-ratelimit-limit": b"60", b"x-ratelimit-remaining": b"59", b"x-ratelimit-reset": b"7",
    }  # fmt: skip
    assert share_left(found) == 0.0  # as a gateway behind this one reads it


def test_one_limit() -> None:
    found = fields(fields_of(LimitsLeft(tokens=10, tokens_left=4, tokens_reset=3)))
    assert found[b"x-ratelimit-remaining"] == found[b"x-ratelimit-remaining-tokens"] == b"4"
    assert b"x-ratelimit-limit-requests" not in found


@pytest.mark.parametrize(("seconds", "written"), [(0, b"0s"), (60, b"1m0s"), (90, b"1m30s"), (86_399, b"23h59m59s")])
def test_durations_are_written_as_openai_does(seconds: int, written: bytes) -> None:
    assert fields(fields_of(LimitsLeft(5, 1, seconds)))[b"x-ratelimit-reset-requests"] == written


@pytest.mark.parametrize("limits", [(5, 1 << 62), (1 << 62, 900), (5, 900)])
def test_a_call_just_admitted_has_the_same_fields(limits: tuple[int, int]) -> None:
    quota = Quota("k", "h", *limits, timed=True)
    requests, tokens = limits[0] - 1, limits[1] - 40
    assert fields_at_once(quota, requests, tokens) == fields_of(
        LimitsLeft(limits[0], requests, 60, limits[1], tokens, 60)
    )
