"""What a hook may cost, and what becomes of a call whose hook fails.

Has the clock, and writes the log.  A call of a hook cannot be interrupted: it is measured, and what comes too late is
an error or, with ``on_error: pass``, is passed over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from headgate.errors import HOOK_FAILED, HOOK_REFUSED, GatewayError
from headgate.hooks.api import HookRefusal

log = logging.getLogger("headgate.hooks")
PER_TEXT = 64 << 10  # characters: the allowance holds for each so many
BLOCKED_S = 1.0  # without using the CPU, as a hook does that waits for something
_LOG_S = 60.0
T = TypeVar("T")


class UnusableHook(Exception):
    """A hook of the configuration cannot be used; the text is a sentence."""


class HookPassedOver(Exception):
    """The hook has failed, and the call goes on without it."""


class HookGuard:
    """One hook of this process.  Mutable: how often it has failed or was slow, and when the log last said so."""

    def __init__(self, name: str, hook: Any, *, passes: bool, allowance: float) -> None:
        self.name = name
        self.hook = hook
        self.failures = 0
        self.overruns = 0
        self._passes = passes
        self._allowance = allowance  # seconds of CPU
        self._logged = -_LOG_S
        self._unlogged = 0

    def call(self, what: str, size: int, function: Callable[..., T], *arguments: Any) -> T:
        """Call a hook's function, which looks at ``size`` characters of a request or an answer (``what``).

        Raises GatewayError where the hook refuses or fails, and HookPassedOver.
        """
        wall, used = time.monotonic(), time.thread_time()
        try:
            result = function(*arguments)
        except HookRefusal as refusal:
            said = f"The hook {self.name} refused this {what}: it contains {refusal.found[:200]}."
            raise GatewayError(HOOK_REFUSED, said) from None
        except Exception as error:  # other people's code; its text may quote what it looked at
            self.failures += 1
            raise self._failed(what, f"raised {type(error).__name__}") from error
        used, wall = time.thread_time() - used, time.monotonic() - wall
        if used > self._allowance * (1 + size // PER_TEXT) or wall - used > BLOCKED_S:
            self.overruns += 1
            took = f"took {max(used, wall) * 1e3:.0f} ms; it has {self._allowance * 1e3:g} ms"
            raise self._failed(what, took)
        return result

    def _failed(self, what: str, said: str) -> Exception:
        self._unlogged += 1
        now = time.monotonic()
        if now - self._logged >= _LOG_S:
            log.warning("hook %s %s, looking at a %s (%d times since the last line)", self.name, said, what,
                        self._unlogged)  # fmt: skip
            self._logged, self._unlogged = now, 0
        if self._passes:
            return HookPassedOver()
        return GatewayError(
            HOOK_FAILED, f"The hook {self.name} failed to look at this {what}; the gateway's log has more."
        )
