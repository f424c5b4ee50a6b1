"""Header fields that say what is left of a limit: how providers tell it of an account, how we tell our clients.  Pure.

``x-ratelimit-*`` of OpenAI and compatible servers (platform.openai.com, Rate limits), Anthropic's
``anthropic-ratelimit-*`` (docs.anthropic.com, Rate limits).
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.model import UNLIMITED, LimitsLeft, Quota

_LIMITS = tuple(
    (b"x-ratelimit-limit" + kind, b"x-ratelimit-remaining" + kind) for kind in (b"-requests", b"-tokens", b"")
) + tuple(
    (b"anthropic-ratelimit-%b-limit" % kind, b"anthropic-ratelimit-%b-remaining" % kind)
    for kind in (b"requests", b"tokens", b"input-tokens", b"output-tokens")
)


def share_left(headers: Mapping[bytes, bytes]) -> float | None:
    """Return the smallest share of a limit that is left, 0.0 to 1.0; None without such fields."""
    return min((share for limit in _LIMITS if (share := _share(headers, *limit)) is not None), default=None)


_OF_REQUESTS = (
    b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
)
_OF_TOKENS = b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %d\r\nx-ratelimit-reset-tokens: %b\r\n"
_SHORT = b"x-ratelimit-limit: %d\r\nx-ratelimit-remaining: %d\r\nx-ratelimit-reset: %d\r\n"
_BOTH = _OF_REQUESTS + _OF_TOKENS + _SHORT
_JUST_BOTH = _BOTH.replace(b": %b", b": 1m0s").replace(b"reset: %d", b"reset: 60")


def fields_of(standing: LimitsLeft) -> bytes:
    """Header lines as OpenAI has them, and the short ones in whole seconds; none where there is no limit."""
    limit, left, seconds = standing.requests, standing.requests_left, standing.requests_reset
    most, rest, until = standing.tokens, standing.tokens_left, standing.tokens_reset
    if left < 0:
        left = 0
    if rest < 0:
        rest = 0
    reset = _MINUTE[seconds] if seconds <= 60 else _duration(seconds)
    if limit < UNLIMITED and most < UNLIMITED:
        return _BOTH % (limit, left, reset, most, rest, _MINUTE[until], limit, left, seconds)
    if limit < UNLIMITED:
        return (_OF_REQUESTS + _SHORT) % (limit, left, reset, limit, left, seconds)
    if most < UNLIMITED:
        return (_OF_TOKENS + _SHORT) % (most, rest, _MINUTE[until], most, rest, until)
    return b""


def fields_at_once(quota: Quota, requests: int, tokens: int) -> bytes:
    """As ``fields_of``, of one quota per minute that has just been counted: all is there again in a minute."""
    if quota.rpm < UNLIMITED and quota.tpm < UNLIMITED:
        return _JUST_BOTH % (quota.rpm, requests, quota.tpm, tokens, quota.rpm, requests)
    return fields_of(LimitsLeft(quota.rpm, requests, 60, quota.tpm, tokens, 60))


def _duration(seconds: int) -> bytes:
    """As OpenAI writes it: 7s, 6m0s, 23h0m5s."""
    minutes, seconds = divmod(seconds, 60)
    return b"%dm%ds" % (minutes, seconds) if minutes < 60 else b"%dh%dm%ds" % (*divmod(minutes, 60), seconds)


_MINUTE = (*(b"%ds" % seconds for seconds in range(60)), b"1m0s")


def _share(headers: Mapping[bytes, bytes], limit_name: bytes, left_name: bytes) -> float | None:
    limit, left = headers.get(limit_name, b"").strip(), headers.get(left_name, b"").strip()
    if not (limit.isdigit() and left.isdigit() and len(limit) < 19 and len(left) < 19) or int(limit) == 0:
        return None
    return min(1.0, int(left) / int(limit))
