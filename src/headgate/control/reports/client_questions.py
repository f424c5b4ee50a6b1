"""Answers to a client's own questions: one of its requests, and the usage of its token.

Owns who may ask what.  Every query is bounded to the asker's grant: another tenant's
request does not exist.  Both wait until the journal has been read up to the moment of asking.
"""

from __future__ import annotations

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.ingest.recorder import Recorder
from headgate.control.reports.requests import find, receipt
from headgate.control.reports.usage import of_grant
from headgate.errors import INVALID_VALUE, REQUEST_NOT_FOUND, Kind
from headgate.process.channel import Ask


class Answers:
    """The answering function for an Ask of the link."""

    def __init__(self, engine: AsyncEngine, recorder: Recorder) -> None:
        self._engine = engine
        self._recorder = recorder

    async def __call__(self, ask: Ask) -> tuple[int, bytes]:
        """Status and JSON body.  Raises what the store raises."""
        if ask.kind not in ("request", "usage"):
            return _error(INVALID_VALUE, f"Control cannot answer {ask.kind!r}.")
        await self._recorder.catch_up()
        if ask.kind == "usage":
            return 200, msgspec.json.encode(await of_grant(self._engine, ask.grant))
        ident = ask.params.get("id", "")
        row = await find(self._engine, ident, ask.grant)
        if row is None:
            return _error(REQUEST_NOT_FOUND, f"No request {ident!r} of this token is known.")
        return 200, msgspec.json.encode(receipt(row))


def _error(kind: Kind, message: str) -> tuple[int, bytes]:
    body = {"error": {"message": message, "type": kind.type, "param": None, "code": kind.code}}
    return kind.status, msgspec.json.encode(body)
