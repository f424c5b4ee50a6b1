"""The columns of a receipt, one row each: what is stored of a call, where it comes from, and how the API shows it.

The table ``requests`` (``database``), its writer (``ingest.receipts``), its reader (``reports.receipts``) and the API's
view are made of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Boolean, Integer, Text
from sqlalchemy.types import TypeEngine

from headgate.catalog.money import NANO, usd

Value = Callable[[Any], Any]

# What is made of a record's value before it is stored (``ingest.receipts``)
TEXT = "text"  # without NUL
CAPPED = "capped"  # a count that no sum can overflow by
KNOWN = "known"  # NULL where it is -1: not known
JSON = "json"
BLANK = "blank"  # NULL where it is empty


def _second(ns: int) -> int:
    return ns // NANO


def _ms(us: int | None) -> float | None:
    return None if us is None else us / 1000


def _object(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _or_none(value: Any) -> Any:
    return value or None


def _or_zero(value: int | None) -> int:
    return value or 0


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class ReceiptColumn:
    """``opened``, ``closed``: the field of that record which it is taken from; ``write``: what is made of it.

    ``early``: it is written when the call opens; ``until_closed``: and is NULL when it has ended.  ``required``: never
    NULL.  ``shown``: its name in the API's JSON, in an object where there is a dot; ``read`` makes the shown value, of
    the type ``view``.  ``private``: for the operator alone.
    """

    name: str
    kind: type[TypeEngine[Any]]
    opened: str = ""
    closed: str = ""
    write: tuple[str, ...] = ()
    early: bool = False
    until_closed: bool = False
    required: bool = False
    shown: str = ""
    view: Any = None
    read: Value = _same
    private: bool = False


def _of_opened(name: str, kind: type[TypeEngine[Any]], field: str, **more: Any) -> ReceiptColumn:
    return ReceiptColumn(name, kind, opened=field, early=True, **more)


def _phase(name: str) -> ReceiptColumn:
    """A duration in µs; NULL where the call never got there."""
    field = f"{name}_us"
    return ReceiptColumn(
        field, BigInteger, closed=field, write=(KNOWN,), shown=f"timings_ms.{name}", view=float | None, read=_ms
    )


# In the order of the table: a migration adds columns at the end.
RECEIPT = (
    # Bare, see model.receipt_ids
    _of_opened("id", Text, "id", required=True, shown="id", view=str),
    # Which data process: `<worker>-<boot id>`; no record has it
    ReceiptColumn("boot", Text, early=True, required=True, shown="process", view=str, private=True),
    _of_opened("created_at", BigInteger, "at", required=True, shown="created", view=int, read=_second),
    _of_opened("grant_id", Text, "grant", required=True, shown="token", view=str, private=True),
    _of_opened("requested", Text, "requested", write=(TEXT,), required=True, shown="requested_model", view=str),
    _of_opened("stream", Boolean, "stream", required=True, shown="stream", view=bool, read=bool),
    _of_opened("label", Text, "label", write=(TEXT, BLANK), shown="label", view=str | None),
    # Of a running call: what it is priced with if it is lost
    _of_opened("price_input", BigInteger, "price_input", write=(KNOWN,), until_closed=True),
    _of_opened("price_output", BigInteger, "price_output", write=(KNOWN,), until_closed=True),
    ReceiptColumn("provider", Text, closed="provider", early=True, required=True, shown="provider", view=str),
    ReceiptColumn("model", Text, closed="model", write=(TEXT,), early=True, required=True, shown="model", view=str),
    ReceiptColumn("prompt_tokens", BigInteger, closed="prompt_tokens", write=(CAPPED,), early=True, required=True,
                  shown="usage.prompt_tokens", view=int),
    ReceiptColumn("completion_tokens", BigInteger, closed="completion_tokens", write=(CAPPED,), early=True,
                  required=True, shown="usage.completion_tokens", view=int),
    ReceiptColumn("basis", Text, closed="basis", early=True, required=True, shown="usage.basis", view=str),
    ReceiptColumn("closed_at", BigInteger, closed="at"),
    ReceiptColumn("outcome", Text, closed="outcome", shown="outcome", view=str | None),
    ReceiptColumn("status", Integer, closed="status", shown="status", view=int | None),
    ReceiptColumn("code", Text, closed="code", write=(TEXT,), shown="code", view=str | None, read=_or_none),
    ReceiptColumn("cached_tokens", BigInteger, closed="cached_tokens", write=(CAPPED,),
                  shown="usage.cached_tokens", view=int, read=_or_zero),
    ReceiptColumn("reasoning_tokens", BigInteger, closed="reasoning_tokens", write=(CAPPED,),
                  shown="usage.reasoning_tokens", view=int, read=_or_zero),
    ReceiptColumn("cache_write_tokens", BigInteger, closed="cache_write_tokens", write=(CAPPED,)),
    ReceiptColumn("cost", BigInteger, closed="cost", write=(KNOWN,), shown="cost_usd", view=float | None, read=usd),
    ReceiptColumn("duration_us", BigInteger, closed="duration_us", early=True,
                  shown="timings_ms.total", view=float | None, read=_ms),
    _phase("queue"),
    _phase("connect"),
    _phase("ttfb"),
    _phase("ttft"),
    ReceiptColumn("bytes_out", BigInteger, closed="bytes_out", shown="bytes_out", view=int | None, private=True),
    ReceiptColumn("attempts", Text, closed="attempts", write=(JSON,)),  # an array of model.AttemptRecord
    # model.Price.source; NULL where nothing was priced
    ReceiptColumn("price_source", Text, closed="price_source", write=(BLANK,), shown="price_snapshot", view=str | None),
    # Of a stream that broke: arrays of model.Seam and model.Share, and why it could not go on; NULL of all others
    ReceiptColumn("continued", Text, closed="continued", write=(BLANK, JSON)),
    ReceiptColumn("not_continued", Text, closed="not_continued", write=(BLANK,),
                  shown="not_continued", view=str | None),
    ReceiptColumn("shares", Text, closed="shares", write=(BLANK, JSON)),
    _of_opened("tenant", Text, "tenant", write=(TEXT, BLANK), shown="tenant", view=str | None, private=True),
    _of_opened("session", Text, "session", write=(TEXT, BLANK), shown="session", view=str | None),
    _of_opened("client_user", Text, "user", write=(TEXT, BLANK), shown="user", view=str | None),
    _of_opened("tags", Text, "tags", write=(BLANK, JSON), shown="metadata", view=dict[str, str] | None, read=_object),
    # nano-USD that are set aside for a running call
    _of_opened("held", BigInteger, "hold", write=(KNOWN,), until_closed=True),
    ReceiptColumn("price_id", Text, closed="price_id", write=(BLANK,)),  # the key into `prices`
    ReceiptColumn("token_details", Text, closed="token_details", write=(BLANK, JSON)),  # an array: model.TokenDetails
    # nano-USD that its providers charge, where that is not the cost at the one that served: in all, and each's as an
    # object by name
    ReceiptColumn("operator_cost", BigInteger),
    ReceiptColumn("billed", Text),
    # The response cache: hit | miss | bypass, NULL where it was not asked; nano-USD that a hit did not cost
    ReceiptColumn("cache", Text, closed="cache", write=(BLANK,), shown="cache", view=str | None),
    ReceiptColumn("saved", BigInteger, closed="saved", write=(KNOWN,), shown="saved_usd", view=float | None, read=usd),
)  # fmt: skip
