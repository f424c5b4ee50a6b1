"""Answers to a client's own questions: one of its requests, and the usage of its token.

Owns who may ask what.  Every query is bounded to the asker's grant: another tenant's
request does not exist.  Both wait until the journal has been read up to the moment of asking.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.ingest.recorder import Recorder
from headgate.control.reports.receipts import receipt
from headgate.control.reports.requests import find
from headgate.control.reports.usage import of_grant
from headgate.dialects.registry import DEFAULT
from headgate.errors import INVALID_VALUE, REQUEST_NOT_FOUND, GatewayError, Kind
from headgate.process.channel import Ask


class Answers:
    """The answering function for an Ask of the link."""

    def __init__(self, engine: AsyncEngine, recorder: Recorder) -> None:
        self._engine = engine
        self._recorder = recorder

    async def __call__(self, ask: Ask) -> tuple[int, bytes]:
        """Status and JSON body.  Raises what the store raises."""
        question = QUESTIONS.get(ask.kind)
        if question is None:
            return _error(INVALID_VALUE, f"Control cannot answer {ask.kind!r}.")
        await self._recorder.catch_up()
        return await question(self._engine, ask)


async def _usage(engine: AsyncEngine, ask: Ask) -> tuple[int, bytes]:
    return 200, msgspec.json.encode(await of_grant(engine, ask.grant))


async def _request(engine: AsyncEngine, ask: Ask) -> tuple[int, bytes]:
    ident = ask.params.get("id", "")
    row = await find(engine, ident, ask.grant)
    if row is None:
        return _error(REQUEST_NOT_FOUND, f"No request {ident!r} of this token is known.")
    # With the prefix that the asker uses, which is that of its API
    shown = ident if ident.endswith(row["id"]) and ident != row["id"] else DEFAULT.prefix + row["id"]
    return 200, msgspec.json.encode({**receipt(row), "id": shown})


QUESTIONS: Mapping[str, Callable[[AsyncEngine, Ask], Awaitable[tuple[int, bytes]]]] = {
    "request": _request,
    "usage": _usage,
}


def _error(kind: Kind, message: str) -> tuple[int, bytes]:
    return kind.status, DEFAULT.error_body(GatewayError(kind, message))
