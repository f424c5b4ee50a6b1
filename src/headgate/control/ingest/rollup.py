"""The tables derived from the rows of requests: usage per day, and the bounds of every stretch of time.

Pure but for ``recount``.  The recorder writes these changes in the transaction that writes the rows.  A call counts
once, when it has ended.  ``changes`` gets the store's former row of it.  So a record that is applied again changes
nothing, and a record that corrects another (a lost call that had ended after all) replaces it.  Names that a client
can invent are kept only if the router knew them and no provider denied the model.  So requests for unknown models
make no rows.  Such calls stand under empty names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import add
from typing import Any

import msgspec
from sqlalchemy import text
from sqlalchemy.engine import Connection

from headgate.control.store.database import ALL_NAMES, ALL_TOKENS, IN_FULL, ZONE_LENGTH
from headgate.errors import (
    BUDGET_EXCEEDED,
    MODEL_NOT_FOUND,
    NO_PROVIDER_KEY,
    NO_QUALIFYING_MODEL,
    TOO_MANY_AT_ONCE,
    TOO_MANY_REQUESTS,
    TOO_MANY_TODAY,
    TOO_MANY_TOKENS,
)
from headgate.model import Share
from headgate.policy.admission.periods import DAY_NS

Row = tuple[Any, ...]

KEYS = ("detail", "day", "grant_id", "provider", "model", "requested", "outcome")
SUMS = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "cost", "unpriced")
BOUNDS = ("streamed", "plain", "max_cost", "max_duration_us")
# Of an ended row, in this order, is all that counting it needs
COUNTED = (
    *("created_at", "grant_id", "provider", "model", "requested", "outcome"),
    *("code", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "cost", "shares"),
)
UNKNOWN = MODEL_NOT_FOUND.code
RESOLVED = tuple(  # refusals of names that lead somewhere
    kind.code
    for kind in (
        NO_PROVIDER_KEY, NO_QUALIFYING_MODEL, BUDGET_EXCEEDED, TOO_MANY_REQUESTS, TOO_MANY_TODAY, TOO_MANY_TOKENS,
        TOO_MANY_AT_ONCE,
    )
)  # fmt: skip
_shares = msgspec.json.Decoder(tuple[Share, ...])


def changes(before: Mapping[str, Row], ended: Iterable[tuple[str, Row]]) -> list[Row]:
    """The rows of ``usage_days`` (KEYS, SUMS, first_at) to be added to what stands there.

    ``before``: the store's rows of these calls, by id, if it has any (a running call's outcome is None).  ``ended``:
    the rows that are written now, in order.  Both as COUNTED.
    """
    held = dict(before)
    days: dict[Row, list[int]] = {}
    for ident, row in ended:
        known = held.get(ident)
        if known is not None:
            row = (*known[:2], *row[2:4], known[4], *row[5:])  # when, whose and under which name: a close keeps these
            if known[5] is not None:
                if known[5] != "lost" or row[5] == "lost":
                    continue  # the first end that is known stays
                _add(days, known, -1)
        held[ident] = row
        _add(days, row, 1)
    return [(*key, *sums) for key, sums in _in_three(days).items() if any(sums[:-1])]


def _in_three(days: Mapping[Row, list[int]]) -> dict[Row, list[int]]:
    found: dict[Row, list[int]] = {}
    for key, sums in days.items():
        day, grant, provider, model, requested, outcome = key
        found[(IN_FULL, *key)] = sums
        for margin in (
            (ALL_TOKENS, day, "", provider, model, requested, outcome),
            (ALL_NAMES, day, grant, "", "", "", outcome),
        ):
            there = found.get(margin)
            found[margin] = sums if there is None else [*map(add, there[:-1], sums), min(there[-1], sums[-1])]
    return found


def _add(days: dict[Row, list[int]], row: Row, sign: int) -> None:
    at, grant, provider, model, requested, outcome, code, prompt, completion, cached, reasoning, cost, shares = row
    is_known = code in RESOLVED if outcome == "refused" else code != UNKNOWN or completion > 0
    key = (at // DAY_NS, grant, provider, model if is_known else "", requested if is_known else "", outcome)
    day = days.get(key)
    if day is None:
        day = days[key] = [0, 0, 0, 0, 0, 0, 0, at]
    day[0] += sign
    day[1] += sign * prompt
    day[2] += sign * completion
    day[3] += sign * (cached or 0)
    day[4] += sign * (reasoning or 0)
    if cost is not None:
        day[5] += sign * cost
    elif prompt + completion > 0:
        day[6] += sign
    if at < day[7]:
        day[7] = at
    for share in _shares.decode(shares) if shares else ():
        other = (key[0], grant, share.provider, share.model, requested, outcome)
        _move(day, days.setdefault(other, [0, 0, 0, 0, 0, 0, 0, at]), share, sign)


def _move(served: list[int], wrote: list[int], share: Share, sign: int) -> None:
    """A target's part of an answer counts as its own.  The call itself stays with the one that ended it."""
    cost = max(0, share.cost)
    for index, amount in ((1, share.prompt_tokens), (2, share.completion_tokens), (5, cost)):
        served[index] -= sign * amount
        wrote[index] += sign * amount


def zones(rows: Iterable[tuple[str, bool, int | None, int | None]]) -> list[Row]:
    """The rows of ``request_zones`` that cover these: (id, streamed, cost, µs)."""
    found: dict[str, list[Any]] = {}
    for ident, stream, cost, duration in rows:
        name = ident[:ZONE_LENGTH]
        zone = found.get(name)
        if zone is None:
            zone = found[name] = [False, False, -1, 0]
        zone[0 if stream else 1] = True
        if cost is not None and cost > zone[2]:
            zone[2] = cost
        if duration is not None and duration > zone[3]:
            zone[3] = duration
    return [(name, *zone) for name, zone in found.items()]


# The same in SQL, over all rows that there are; a test holds both equal
_KNOWN = (
    f"CASE WHEN outcome = 'refused' THEN code IN {RESOLVED} "
    f"ELSE coalesce(code, '') <> '{UNKNOWN}' OR completion_tokens > 0 END"
)
_INTO_DAYS = f"INSERT INTO usage_days ({', '.join(KEYS)}, {', '.join(SUMS)}, first_at)"
_SUMMED = ", ".join(f"sum({name})" for name in SUMS)
_GROUPS = "GROUP BY 1, 2, 3, 4, 5, 6, 7"
_SHARES = {  # the members of an array of arrays, as rows
    "sqlite": ("json_each(shares) AS share", "share.value ->> {}"),
    "postgresql": ("json_array_elements(shares::json) AS share", "share.value ->> {}"),
}


def days_anew(dialect: str) -> tuple[str, ...]:
    """The statements that make ``usage_days`` out of ``requests``."""
    table, member = _SHARES[dialect]
    provider, model, prompt, completion, cost = (member.format(index) for index in range(5))
    moved = [f"CAST({text} AS BIGINT)" for text in (prompt, completion)]
    moved.append(f"CASE WHEN CAST({cost} AS BIGINT) > 0 THEN CAST({cost} AS BIGINT) ELSE 0 END")
    common = f"created_at / {DAY_NS} AS day, grant_id"
    known = f"CASE WHEN {_KNOWN} THEN {{}} ELSE '' END"

    def shares(who: str, sign: str) -> str:
        amounts = f"0, {sign}{moved[0]}, {sign}{moved[1]}, 0, 0, {sign}({moved[2]}), 0, created_at"
        return f"SELECT {common}, {who}, requested, outcome, {amounts} FROM requests, {table} WHERE shares IS NOT NULL"

    rows = " UNION ALL ".join(
        (
            f"SELECT {common}, provider, {known.format('model')} AS model, "
            f"{known.format('requested')} AS requested, outcome, 1 AS requests, prompt_tokens, completion_tokens, "
            "coalesce(cached_tokens, 0) AS cached_tokens, coalesce(reasoning_tokens, 0) AS reasoning_tokens, "
            "coalesce(cost, 0) AS cost, "
            "CASE WHEN cost IS NULL AND prompt_tokens + completion_tokens > 0 THEN 1 ELSE 0 END AS unpriced, "
            "created_at AS first_at FROM requests WHERE outcome IS NOT NULL",
            shares(f"{provider}, {model}", ""),
            shares("provider, model", "-"),
        )
    )
    margin = f"{_INTO_DAYS} SELECT {{}}, {_SUMMED}, min(first_at) FROM usage_days WHERE detail = {IN_FULL} {_GROUPS}"
    return (
        f"{_INTO_DAYS} SELECT {IN_FULL}, day, grant_id, provider, model, requested, outcome, {_SUMMED}, min(first_at) "
        f"FROM ({rows}) AS counted {_GROUPS}",
        margin.format(f"{ALL_TOKENS}, day, '', provider, model, requested, outcome"),
        margin.format(f"{ALL_NAMES}, day, grant_id, '', '', '', outcome"),
    )


ZONES_ANEW = (
    f"INSERT INTO request_zones (zone, {', '.join(BOUNDS)}) SELECT substr(id, 1, {ZONE_LENGTH}), "
    "max(CASE WHEN stream THEN 1 ELSE 0 END) = 1, max(CASE WHEN stream THEN 0 ELSE 1 END) = 1, "
    "max(coalesce(cost, -1)), max(coalesce(duration_us, 0)) FROM requests GROUP BY 1"
)


def recount(connection: Connection) -> None:
    """Rebuild both tables from the rows; the caller commits.  Seconds per million rows."""
    days = days_anew(connection.dialect.name)
    for statement in ("DELETE FROM usage_days", *days, "DELETE FROM request_zones", ZONES_ANEW):
        connection.execute(text(statement))


def columns_of(order: Sequence[str]) -> tuple[int, ...]:
    """Where COUNTED stands in rows whose columns are ``order``."""
    return tuple(order.index(name) for name in COUNTED)
