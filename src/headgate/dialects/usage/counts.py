"""Counts of tokens in foreign JSON, however it spells their names; and the kinds that few calls have.

Names are compared without underscores, in lower case, so that ``promptTokenCount`` and ``prompt_token_count`` are one.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.model import TokenDetails

# No answer reaches this many tokens: a larger count is not one.
MOST_TOKENS = 1 << 32

PROMPT = ("prompttokens", "inputtokens", "prompttokencount", "inputtokencount", "promptevalcount")
PROMPT_DETAILS = ("prompttokensdetails", "inputtokensdetails", "inputtokendetails", "prompttokendetails")
COMPLETION_DETAILS = (
    "completiontokensdetails",
    "outputtokensdetails",
    "outputtokendetails",
    "completiontokendetails",
)
CREATION = ("cachecreation",)  # Anthropic's: by how long it is kept
AUDIO = ("audiotokens",)
_IMAGE = ("imagetokens",)
_MODALITIES = ("prompttokensdetails", "candidatestokensdetails", "cachetokensdetails")  # Gemini's, as lists
_CACHE_DETAILS = ("cachedetails",)  # Bedrock's: a list of what is written, by how long it is kept

Members = Mapping[str, object]


def squeeze(members: object) -> dict[str, object]:
    if not isinstance(members, dict):
        return {}
    return {str(key).replace("_", "").lower(): value for key, value in members.items()}


def as_count(value: object) -> int | None:
    """A count; None for anything that is none.  Some servers write counts as strings or as floats."""
    if isinstance(value, str) and len(value) <= 24:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_TOKENS:
        return None
    return int(value)


def first(members: Members, names: tuple[str, ...]) -> int:
    """The first count above zero under one of ``names``; zero where there is none."""
    for name in names:
        if name in members:
            found = as_count(members[name])
            if found:
                return found
    return 0


def inner(members: Members, names: tuple[str, ...]) -> dict[str, object]:
    for name in names:
        found = members.get(name)
        if isinstance(found, dict) and found:
            return squeeze(found)
    return {}


def details_of(members: Members) -> TokenDetails | None:
    """What is said of an hour's cache, of sounds and of images; None where that is nothing."""
    asked, answered = inner(members, PROMPT_DETAILS), inner(members, COMPLETION_DETAILS)
    creation = inner(asked, CREATION) or inner(members, CREATION)
    hour = sum(as_count(value) or 0 for name, value in creation.items() if "1h" in name)
    hour = hour or sum(first(one, PROMPT) for one in _listed(members, _CACHE_DETAILS[0]) if one.get("ttl") == "1h")
    heard, seen = first(asked, AUDIO), first(asked, _IMAGE)
    said, drawn = first(answered, AUDIO), first(answered, _IMAGE)
    prompt, candidates, cached = (_listed(members, name) for name in _MODALITIES)
    if prompt or candidates:
        heard, seen = (max(0, _of(prompt, one) - _of(cached, one)) for one in ("AUDIO", "IMAGE"))
        said, drawn = _of(candidates, "AUDIO"), _of(candidates, "IMAGE")
    return TokenDetails(hour, heard, seen, said, drawn) if hour or heard or seen or said or drawn else None


def _listed(members: Members, name: str) -> list[dict[str, object]]:
    found = members.get(name)
    return [squeeze(one) for one in found] if isinstance(found, list) else []


def _of(parts: list[dict[str, object]], modality: str) -> int:
    return sum(as_count(one.get("tokencount")) or 0 for one in parts if one.get("modality") == modality)
