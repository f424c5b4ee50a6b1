"""A hook's time is measured, its failures are counted, and the log names it once a minute."""

from __future__ import annotations

import logging
import time

import pytest

from headgate.errors import HOOK_FAILED, HOOK_REFUSED, GatewayError
from headgate.hooks.api import HookRefusal
from headgate.hooks.guard import HookGuard, HookPassedOver


def burn(seconds: float) -> None:
    begun = time.thread_time()
    while time.thread_time() - begun < seconds:
        pass


def fail() -> None:
    raise ValueError("the value that it looked at")


def refuse() -> None:
    raise HookRefusal("an API key")


def test_failures_are_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    guard = HookGuard("mine", object(), passes=False, allowance=0.02)
    assert guard.call("request", 0, lambda: 7) == 7
    with caplog.at_level(logging.WARNING, "headgate.hooks"):
        for _ in range(3):
            with pytest.raises(GatewayError) as failed:
                guard.call("request", 0, fail)
            assert failed.value.kind is HOOK_FAILED and "value that" not in failed.value.message
        with pytest.raises(GatewayError):
            guard.call("answer", 0, burn, 0.03)
    assert (guard.failures, guard.overruns) == (3, 1)
    (line,) = caplog.messages
    assert line.startswith("hook mine raised ValueError, looking at a request") and "value that" not in line


def test_allowance_grows_with_the_text() -> None:
    guard = HookGuard("mine", object(), passes=True, allowance=0.02)
    guard.call("request", 1 << 20, burn, 0.03)
    with pytest.raises(HookPassedOver):
        guard.call("request", 0, burn, 0.03)
    with pytest.raises(GatewayError) as refused:
        guard.call("request", 0, refuse)
    assert refused.value.kind is HOOK_REFUSED
    assert refused.value.message == "The hook mine refused this request: it contains an API key."
