"""A row of the table of requests as JSON: for the operator, and for the client whose call it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import RowMapping

from headgate.catalog.money import usd
from headgate.control.store.receipt_columns import RECEIPT, ReceiptColumn
from headgate.model import AttemptRecord, SeamRecord, Share
from headgate.policy.routing.explain import attempt_view, seam_view

_PUBLIC = tuple(column for column in RECEIPT if column.shown and not column.private)
_PRIVATE = tuple(column for column in RECEIPT if column.private)
_attempts = msgspec.json.Decoder(tuple[AttemptRecord, ...])
_seams = msgspec.json.Decoder(tuple[SeamRecord, ...])
_shares = msgspec.json.Decoder(tuple[Share, ...])


class ShownShare(Struct, frozen=True):
    """One target's part of an answer that several targets wrote."""

    provider: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


def view(row: Mapping[str, Any] | RowMapping) -> dict[str, Any]:
    """A row as the operator sees it: as its client does, and whose it is, and which accounts were used."""
    found = receipt(row)
    attempts = _with_usage(_attempts.decode(row["attempts"] or "[]"), row)
    found["attempts"] = [{"account": one.account or None, **msgspec.to_builtins(attempt_view(one))} for one in attempts]
    found["upstream_cost_usd"] = usd(_upstream_cost(attempts))
    return found | _shown(row, _PRIVATE)


def receipt(row: Mapping[str, Any] | RowMapping) -> dict[str, Any]:
    """A row as clients see it: the operator's account names stay out.  ``outcome`` and ``status`` are null while it
    runs.
    """
    found = {"id": row["id"], "object": "headgate.request", **_shown(row, _PUBLIC)}
    usage = found["usage"]
    usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
    attempts = _attempts.decode(row["attempts"] or "[]")
    return found | {
        "continued": [msgspec.to_builtins(seam_view(seam)) for seam in _seams.decode(row["continued"] or "[]")],
        "shares": [msgspec.to_builtins(shared(share)) for share in _shares.decode(row["shares"] or "[]")],
        "skipped_events": sum(one.skipped for one in attempts),
        "attempts": [msgspec.to_builtins(attempt_view(attempt)) for attempt in _with_usage(attempts, row)],
    }


def _shown(row: Mapping[str, Any] | RowMapping, columns: Sequence[ReceiptColumn]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column in columns:
        group, _, name = column.shown.rpartition(".")
        place = found.setdefault(group, {}) if group else found
        place[name] = column.read(row[column.name])
    return found


def _with_usage(attempts: Sequence[AttemptRecord], row: Mapping[str, Any] | RowMapping) -> Sequence[AttemptRecord]:
    """The usage of an only attempt is the call's, and is stored once."""
    if len(attempts) != 1 or attempts[0].completion_tokens or not row["completion_tokens"]:
        return attempts
    cost = -1 if row["cost"] is None else int(row["cost"])
    used = {"prompt_tokens": row["prompt_tokens"], "completion_tokens": row["completion_tokens"], "cost": cost}
    return [msgspec.structs.replace(attempts[0], **used)]


def shared(share: Share) -> ShownShare:
    """Return a share as people and clients see it."""
    cost = usd(share.cost) if share.cost >= 0 else None
    return ShownShare(share.provider, share.model, share.prompt_tokens, share.completion_tokens, cost)


def _upstream_cost(attempts: Sequence[AttemptRecord]) -> int | None:
    """Return the operator's cost of all attempts, failed ones included; None if a price is unknown."""
    used = [one for one in attempts if one.prompt_tokens or one.completion_tokens]
    return None if any(one.cost < 0 for one in used) else sum(one.cost for one in used)
