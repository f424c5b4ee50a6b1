"""Answers to a client's own questions: one of its requests, the usage of its token, and the tokens that it makes.

Owns who may ask what.  Every query is bounded to the asker's grant: another tenant's request, and another token's
child, does not exist.  What reads calls waits until the journal has been read up to the moment of asking.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.catalog.money import NANO, usd
from headgate.control.ingest.recorder import Recorder
from headgate.control.reports.receipts import receipt
from headgate.control.reports.requests import find
from headgate.control.reports.usage import of_grant
from headgate.dialects.registry import DEFAULT
from headgate.errors import INVALID_VALUE, REQUEST_NOT_FOUND, GatewayError
from headgate.model import Grant
from headgate.policy.admission.standings import HolderStanding, most_urgent
from headgate.process.channel import Ask
from headgate.resources import wording
from headgate.resources.callers.token import ChildWish

Status = tuple[int, Any]


class Child(Protocol):
    """A token that is kept."""

    @property
    def grant(self) -> Grant: ...

    @property
    def created_at(self) -> int: ...


class NewChild(Child, Protocol):
    @property
    def token(self) -> str: ...


class ChildTokens(Protocol):
    """Tokens within tokens: see ``snapshot.agent_tokens``."""

    async def create_child(self, parent: str, wish: ChildWish) -> tuple[NewChild, bool]: ...

    async def children(self, parent: str) -> Sequence[Child]: ...

    async def revoke_child(self, parent: str, ident: str) -> bool: ...


class Answers:
    """The answering function for an Ask of the link."""

    def __init__(self, engine: AsyncEngine, recorder: Recorder, agents: ChildTokens) -> None:
        self._engine = engine
        self._recorder = recorder
        self._agents = agents

    async def __call__(self, ask: Ask) -> tuple[int, bytes]:
        """Status and JSON body.  Raises what the store raises."""
        question = QUESTIONS.get(ask.kind)
        try:
            if question is None:
                raise GatewayError(INVALID_VALUE, f"Control cannot answer {ask.kind!r}.")
            status, answer = await question(self, ask)
        except GatewayError as error:
            return error.kind.status, DEFAULT.error_body(error)
        return status, msgspec.json.encode(answer)

    async def usage(self, ask: Ask) -> Status:
        """What the token has used, spent, and has left.  ``budgets``: all that its calls count against."""
        await self._recorder.catch_up()
        found = msgspec.json.decode(ask.params.get("standings", "[]"), type=list[HolderStanding])
        own = next((one for one in found if one.holder == "token"), HolderStanding("token", ""))
        limits = {name: getattr(own, name) for name in ("rpm", "tpm", "rpd", "parallel")}
        return 200, {
            **await of_grant(self._engine, ask.grant),
            "budget": own.budget,
            "limits": limits,
            "counts_against": found,
            "alert": most_urgent(found),
        }

    async def request(self, ask: Ask) -> Status:
        """One of the token's own requests."""
        await self._recorder.catch_up()
        ident = ask.params.get("id", "")
        row = await find(self._engine, ident, ask.grant)
        if row is None:
            raise GatewayError(REQUEST_NOT_FOUND, f"No request {ident!r} of this token is known.")
        # With the prefix that the asker uses, which is that of its API
        shown = ident if ident.endswith(row["id"]) and ident != row["id"] else DEFAULT.prefix + row["id"]
        return 200, {**receipt(row), "id": shown}

    async def mint(self, ask: Ask) -> Status:
        """A child of the token.  It is shown in this answer only."""
        try:
            wish = ChildWish.model_validate_json(ask.params.get("body") or "{}")
        except ValidationError as error:
            raise GatewayError(INVALID_VALUE, wording.sentence(error)) from None
        minted, effective = await self._agents.create_child(ask.grant, wish)
        return 201, {**_child(minted.grant, minted.created_at), "token": minted.token, "effective": effective}

    async def children(self, ask: Ask) -> Status:
        """The token's children that were not ended."""
        rows = await self._agents.children(ask.grant)
        return 200, {"object": "list", "data": [_child(row.grant, row.created_at) for row in rows]}

    async def end(self, ask: Ask) -> Status:
        """The end of one of the token's children."""
        ident = ask.params.get("id", "")
        effective = await self._agents.revoke_child(ask.grant, ident)
        return 200, {"object": "headgate.token.revoked", "id": ident, "effective": effective}


QUESTIONS: Mapping[str, Callable[[Answers, Ask], Awaitable[Status]]] = {
    "request": Answers.request,
    "usage": Answers.usage,
    "mint": Answers.mint,
    "children": Answers.children,
    "end": Answers.end,
}


def _child(grant: Grant, created_at: int) -> dict[str, Any]:
    return {
        "object": "headgate.token",
        "id": grant.id,
        "name": grant.name,
        "parent": grant.parent,
        "run": grant.run or None,
        "scopes": grant.scopes,
        "models": grant.models,
        "limits": {name: getattr(grant.limits, name) for name in ("rpm", "tpm", "rpd", "parallel")},
        "budget_usd": None if grant.budget is None else usd(grant.budget.amount),
        "expires": grant.expires,
        "created": created_at // NANO,
    }
