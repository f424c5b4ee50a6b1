"""Control's questions to a data process: the route that a call would take now, the accounts that rest, and what the
holders of limits and budgets have used.  Rooms above this one answer questions of their own (``Answers``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import msgspec

from headgate.dialects.registry import DEFAULT
from headgate.errors import INVALID_VALUE, GatewayError
from headgate.model import Grant
from headgate.policy import saved_prompts
from headgate.policy.admission import standings
from headgate.policy.routing.explain import account_states
from headgate.process.channel import Ask, AskReply
from headgate.serving.uplink.directory import SnapshotDirectory

Answers = Mapping[str, Callable[[Mapping[str, str]], object]]
"""By the kind of a question: its answer, from its parameters."""


def answer(ask: Ask, directory: SnapshotDirectory, now: float, answers: Answers) -> AskReply:
    """Answer a question.  ``now`` is monotonic seconds.  Raises nothing: a failure gives an error body."""
    try:
        question = QUESTIONS.get(ask.kind)
        if question is not None:
            found = question(ask, directory, now)
        elif ask.kind in answers:
            found = answers[ask.kind](ask.params)
        else:
            raise GatewayError(INVALID_VALUE, f"a data process cannot answer {ask.kind!r}")
    except GatewayError as error:
        return AskReply(ask.id, error.kind.status, DEFAULT.error_body(error))
    except msgspec.MsgspecError as error:  # parameters that no control of this build sends
        refused = GatewayError(INVALID_VALUE, f"the question {ask.kind!r} cannot be read: {error}")
        return AskReply(ask.id, refused.kind.status, DEFAULT.error_body(refused))
    return AskReply(ask.id, 200, msgspec.json.encode(found))


def _standings(_ask: Ask, directory: SnapshotDirectory, now: float) -> object:
    return account_states(directory.health.accounts, now)


def _explain(ask: Ask, directory: SnapshotDirectory, now: float) -> object:
    asker = _asker(ask.grant, directory)
    call = DEFAULT.read(ask.params.get("body", "").encode())
    call = saved_prompts.put_before(call, asker.tenant, directory.snapshot.prompts, DEFAULT.with_prompt)
    return directory.router.explain(call, asker, directory.health, now)


def _quotas(ask: Ask, directory: SnapshotDirectory, _now: float) -> object:
    """What holders have used, by the keys of their counters."""
    keys = msgspec.json.decode(ask.params.get("keys", "[]"), type=list[str])
    return standings.of_keys(directory.router.quotas, directory.counters, keys, time.time())


QUESTIONS: Mapping[str, Callable[[Ask, SnapshotDirectory, float], object]] = {
    "standings": _standings,
    "explain": _explain,
    "quotas": _quotas,
}


def _asker(ident: str, directory: SnapshotDirectory) -> Grant:
    """Return a token's grant.  The operator's grant allows every model."""
    if not ident:
        return Grant("", "the operator")
    for grant in directory.snapshot.tokens.values():
        if grant.id == ident:
            return grant
    raise GatewayError(INVALID_VALUE, f"there is no token {ident!r} that is in use", param="token")
