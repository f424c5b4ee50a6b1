"""Answers to a client's own questions: one request of theirs, and what their token has used.

Owns the JSON of GET /requests/{id} and GET /usage.  Every query is bounded to the asker's grant: another tenant's
request does not exist.  Both wait until the journal has been read up to the moment of asking.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import RowMapping, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.channel import Ask
from headgate.control.recorder import Recorder
from headgate.control.store import requests
from headgate.errors import INVALID_VALUE, REQUEST_NOT_FOUND, Kind
from headgate.model import AttemptRecord

NANO = 1_000_000_000
_attempts = msgspec.json.Decoder(tuple[AttemptRecord, ...])


class Answers:
    """What the link calls for an Ask."""

    def __init__(self, engine: AsyncEngine, recorder: Recorder) -> None:
        self._engine = engine
        self._recorder = recorder

    async def __call__(self, ask: Ask) -> tuple[int, bytes]:
        """Status and JSON body.  Raises what the store raises."""
        if ask.kind not in ("request", "usage"):
            return _error(INVALID_VALUE, f"Control cannot answer {ask.kind!r}.")
        await self._recorder.catch_up()
        if ask.kind == "usage":
            return 200, msgspec.json.encode(await usage(self._engine, ask.grant))
        ident = ask.params.get("id", "")
        found = await request(self._engine, ask.grant, ident)
        if found is None:
            return _error(REQUEST_NOT_FOUND, f"No request {ident!r} of this token is known.")
        return 200, msgspec.json.encode(found)


def _error(kind: Kind, message: str) -> tuple[int, bytes]:
    body = {"error": {"message": message, "type": kind.type, "param": None, "code": kind.code}}
    return kind.status, msgspec.json.encode(body)


async def request(engine: AsyncEngine, grant: str, ident: str) -> dict[str, Any] | None:
    """One request of ``grant`` by its ``chatcmpl-`` id, or the latest under the client's own label.  None: not
    theirs, or nobody's.
    """
    query = select(requests).where(requests.c.grant_id == grant)
    if ident.startswith("chatcmpl-"):
        query = query.where(requests.c.id == ident)
    else:
        query = query.where(requests.c.label == ident).order_by(requests.c.id.desc()).limit(1)
    async with engine.connect() as connection:
        row = (await connection.execute(query)).mappings().first()
    return None if row is None else receipt(row)


def receipt(row: RowMapping | Mapping[str, Any]) -> dict[str, Any]:
    """A row as clients see it: the operator's account names stay out.  ``outcome`` and ``status`` are null while it
    runs.
    """
    return {
        "id": row["id"],
        "object": "headgate.request",
        "created": row["created_at"] // NANO,
        "label": row["label"],
        "model": row["model"],
        "requested_model": row["requested"],
        "provider": row["provider"],
        "stream": bool(row["stream"]),
        "status": row["status"],
        "code": row["code"] or None,
        "outcome": row["outcome"],
        "usage": {
            "prompt_tokens": row["prompt_tokens"],
            "completion_tokens": row["completion_tokens"],
            "total_tokens": row["prompt_tokens"] + row["completion_tokens"],
            "cached_tokens": row["cached_tokens"] or 0,
            "reasoning_tokens": row["reasoning_tokens"] or 0,
            "basis": row["basis"],
        },
        "cost_usd": _usd(row["cost"]),
        "timings_ms": {
            "total": _ms(row["duration_us"]),
            **{phase: _ms(row[f"{phase}_us"]) for phase in ("queue", "connect", "ttfb", "ttft")},
        },
        "attempts": [
            {
                "provider": attempt.provider,
                "model": attempt.model,
                "status": attempt.status,
                "code": attempt.code or None,
                "started_ms": _ms(attempt.started_us),
                "ended_ms": _ms(attempt.ended_us),
            }
            for attempt in _attempts.decode(row["attempts"] or "[]")
        ],
    }


async def usage(engine: AsyncEngine, grant: str) -> dict[str, Any]:
    """Totals over the ended calls of ``grant``.  ``cost_usd`` sums what is known, null where nothing is; calls that
    used tokens at an unknown price are counted in ``unpriced_requests``, never as 0.  ``since``: Unix seconds of the
    first call, null without one.
    """
    row = requests.c
    tokens = row.prompt_tokens + row.completion_tokens
    query = select(
        func.count(),
        func.coalesce(func.sum(row.prompt_tokens), 0),
        func.coalesce(func.sum(row.completion_tokens), 0),
        func.sum(row.cost),
        func.count().filter(row.cost.is_(None), tokens > 0),
        func.min(row.created_at),
    ).where(row.grant_id == grant, row.outcome.is_not(None))
    async with engine.connect() as connection:
        count, prompt, completion, cost, unpriced, since = (await connection.execute(query)).one()
    return {
        "object": "headgate.usage",
        "requests": count,
        "prompt_tokens": int(prompt),
        "completion_tokens": int(completion),
        "total_tokens": int(prompt) + int(completion),
        "cost_usd": _usd(0 if cost is None and not unpriced else cost),
        "unpriced_requests": unpriced,
        "since": None if since is None else since // NANO,
    }


def _usd(nano: int | None) -> float | None:
    return None if nano is None else int(nano) / NANO


def _ms(us: int | None) -> float | None:
    return None if us is None else us / 1000
