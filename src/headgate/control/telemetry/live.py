"""What the data processes know at this moment, asked of them: resting accounts, and what budgets have used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from headgate.policy.admission.standings import HolderStanding
from headgate.policy.routing.explain import AccountStateView
from headgate.process.channel import AskReply

_MOST_KEYS = 500  # of one question
_standings = msgspec.json.Decoder(dict[str, HolderStanding])
_states = msgspec.json.Decoder(list[AccountStateView])


class DataProcesses(Protocol):
    """The link, as far as it is asked."""

    async def ask(self, kind: str, grant: str, params: Mapping[str, str]) -> AskReply | None: ...

    async def ask_each(self, kind: str, params: Mapping[str, str]) -> list[AskReply]: ...


async def holder_standings(link: DataProcesses, keys: Sequence[str]) -> dict[str, HolderStanding] | None:
    """What holders have used, by the keys of their counters; None where no data process answers."""
    found: dict[str, HolderStanding] = {}
    for start in range(0, len(keys), _MOST_KEYS):
        answer = await link.ask("quotas", "", {"keys": json.dumps(list(keys[start : start + _MOST_KEYS]))})
        if answer is None or answer.status != 200:
            return None
        found |= _standings.decode(answer.body)
    return found


async def account_states(link: DataProcesses) -> list[AccountStateView] | None:
    """Every account that is not active, as each data process sees it; None where none answers."""
    answers = [one for one in await link.ask_each("standings", {}) if one.status == 200]
    return [state for one in answers for state in _states.decode(one.body)] if answers else None
