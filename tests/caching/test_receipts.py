"""How a call used the response cache, from its record in the journal to the row of its receipt."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.control.ingest.receipts import Receipts
from headgate.control.store.receipt_columns import RECEIPT
from headgate.model import AttemptRecord, Closed, Opened
from headgate.wire import records

IDENT = "0" * 24


def row_of(**fields: Any) -> dict[str, Any]:
    opened = Opened(IDENT, 1_000, "t0", "m", False, 10)
    given = {"provider": "up", "model": "m", "cost": 20, **fields}
    closed = Closed(
        IDENT, 2_000, "delivered", 200, "", given.pop("provider"), given.pop("model"), 10, 5, 0, 0, "provider",
        given.pop("cost"), 1, **given,
    )  # fmt: skip
    receipts = Receipts()
    receipts.ingest("w0-b", b"".join(map(records.encode, (opened, closed))))
    (row,) = receipts.drain().closed
    return dict(zip((column.name for column in RECEIPT), row, strict=True))


@pytest.mark.parametrize(
    ("record", "stored"),
    [
        ({}, (None, None)),
        ({"cache": "miss"}, ("miss", None)),
        ({"cache": "bypass"}, ("bypass", None)),
        ({"cache": "hit", "saved": 7, "cost": 0, "provider": "", "model": ""}, ("hit", 7)),
        ({"cache": "hit", "saved": -1, "cost": 0, "provider": "", "model": ""}, ("hit", None)),
    ],
)
def test_the_columns_of_the_cache(record: dict[str, Any], stored: tuple[str | None, int | None]) -> None:
    row = row_of(**record)
    assert (row["cache"], row["saved"]) == stored
    assert (row["operator_cost"], row["billed"]) == (None, None)


def test_what_providers_charge_stands_in_its_own_columns() -> None:
    failed = AttemptRecord("other", "m", "", 500, "x", cost=3, prompt_tokens=1)
    served = AttemptRecord("up", "m", "", 200, "", cost=20)
    row = row_of(cache="miss", attempts=(failed, served))
    assert (row["operator_cost"], row["billed"], row["cache"], row["saved"]) == (
        23,
        '{"other":3,"up":20}',
        "miss",
        None,
    )


def test_a_running_call_has_no_columns_of_the_cache() -> None:
    receipts = Receipts()
    receipts.ingest("w0-b", records.encode(Opened(IDENT, 1_000, "t0", "m", False, 10)))
    (row,) = receipts.drain().opened
    assert len(row) == len([column for column in RECEIPT if column.early])
