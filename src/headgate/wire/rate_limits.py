"""Header fields with the rest of an account's limits.  Pure.

``x-ratelimit-*`` of OpenAI and compatible servers (platform.openai.com, Rate limits), Anthropic's
``anthropic-ratelimit-*`` (docs.anthropic.com, Rate limits).
"""

from __future__ import annotations

from collections.abc import Mapping

_LIMITS = tuple(
    (b"x-ratelimit-limit" + kind, b"x-ratelimit-remaining" + kind) for kind in (b"-requests", b"-tokens", b"")
) + tuple(
    (b"anthropic-ratelimit-%b-limit" % kind, b"anthropic-ratelimit-%b-remaining" % kind)
    for kind in (b"requests", b"tokens", b"input-tokens", b"output-tokens")
)


def share_left(headers: Mapping[bytes, bytes]) -> float | None:
    """Return the smallest share of a limit that is left, 0.0 to 1.0; None without such fields."""
    return min((share for limit in _LIMITS if (share := _share(headers, *limit)) is not None), default=None)


def _share(headers: Mapping[bytes, bytes], limit_name: bytes, left_name: bytes) -> float | None:
    limit, left = headers.get(limit_name, b"").strip(), headers.get(left_name, b"").strip()
    if not (limit.isdigit() and left.isdigit() and len(limit) < 19 and len(left) < 19) or int(limit) == 0:
        return None
    return min(1.0, int(left) / int(limit))
