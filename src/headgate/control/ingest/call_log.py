"""A line per call in the log, and a line per upstream failure, as they are recorded.

Reads the rows that the recorder has committed: streams pay nothing for it.  Of one reading at most ``MOST`` lines are
written, failures first, the rest is counted.  One failure of one account is explained once in ``QUIET_S``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import structlog

from headgate.control.ingest.feed import Listener
from headgate.control.ingest.receipts import Batch
from headgate.control.store.receipt_columns import RECEIPT
from headgate.model import AttemptRecord, Snapshot
from headgate.model.bounded import Bounded
from headgate.process.log import LineForm, LogLine, drawn, safe

MOST = 100
QUIET_S = 30.0
KEPT = 1000  # failures that are remembered as explained
COLUMNS = tuple(column.name for column in RECEIPT)
FINE = frozenset({"delivered", "cancelled"})
_ATTEMPTS = msgspec.json.Decoder(tuple[AttemptRecord, ...])
_STEPS = {
    "upstream_auth_failed": "headgate vault add {provider}, then headgate providers check {provider}",
    "rate_limit_exceeded": "add a second key or target, or ask for a higher limit",
    "insufficient_credits": "add credit at {provider}, or a second target",
    "model_not_found": "headgate models --provider {provider}",
    "upstream_unreachable": "check the address and the network: headgate providers check {provider}",
    "upstream_timeout": "raise the timeouts of the alias or model, or add a second target",
    "upstream_pool_full": "raise providers.{provider}.max_connections",
    "no_provider_key": "headgate vault add {provider}",
}
_STEP = "headgate explain {id}"

log = structlog.get_logger("headgate.calls")


class Names(msgspec.Struct, frozen=True):
    """The present meaning of ids: tokens' names by grant id, providers' addresses by name."""

    tokens: Mapping[str, str]
    addresses: Mapping[str, str]


def current_names(snapshot: Callable[[], Snapshot]) -> Callable[[], Names]:
    """Return a function that gives the names of the present Snapshot, made once for each."""
    made_of: Snapshot | None = None
    kept = Names({}, {})

    def current() -> Names:
        nonlocal made_of, kept
        if made_of is not (now := snapshot()):  # there may be a hundred thousand tokens
            made_of = now
            addresses = {name: provider.base_url for name, provider in now.providers.items()}
            kept = Names({grant.id: grant.name for grant in now.tokens.values()}, addresses)
        return kept

    return current


class CallLog:
    """``write`` takes whole lines.  Mutable: the failures that were explained, and the time."""

    def __init__(
        self,
        write: Callable[[str], object],
        form: LineForm,
        names: Callable[[], Names],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._form = form
        self._names = names
        self._clock = clock
        self._explained: Bounded[tuple[str, str, str], float] = Bounded(KEPT)

    def listener(self, *, everything: bool) -> Listener:
        """Return the listener for the recorder's feed; without ``everything`` it shows warnings only."""

        async def listen(batch: Batch) -> None:
            self._take(batch, everything=everything)

        return listen

    def __call__(self, batch: Batch) -> None:
        """Log a committed batch: a line per closed call, and the refusals before a token was known."""
        self._take(batch, everything=True)

    def _take(self, batch: Batch, *, everything: bool) -> None:
        try:
            lines = self._lines(batch, everything)
            if lines:
                self._write("".join(f"{drawn(line, self._form)}\n" for line in lines))
        except Exception as error:  # noqa: BLE001  (whatever it is: the receipts are in the store)
            log.error("calls could not be shown", error=repr(error))

    def _lines(self, batch: Batch, everything: bool) -> list[LogLine]:
        calls = [dict(zip(COLUMNS, row, strict=True)) for row in batch.closed]
        wanted = calls if everything else [call for call in calls if call["outcome"] not in FINE]
        shown = wanted
        if len(wanted) > MOST:
            shown = sorted(wanted, key=lambda call: call["outcome"] in FINE)[:MOST]
            shown.sort(key=lambda call: call["closed_at"])
        names = self._names() if shown else None
        lines = [line for call in shown if names for line in self._of(call, names)]
        if len(shown) < len(wanted):
            lines.append(_counted(wanted, len(shown)))
        lines += [_refused(second, code, count) for second, code, count in batch.refused]
        return lines

    def _of(self, call: dict[str, Any], names: Names) -> Iterable[LogLine]:
        for attempt in _ATTEMPTS.decode(call["attempts"] or "[]"):
            if attempt.code and self._is_news(attempt):
                yield _failure(attempt, call, names)
        yield _call(call, names, json=self._form.json)

    def _is_news(self, attempt: AttemptRecord) -> bool:
        key, now = (attempt.account or attempt.provider, attempt.model, attempt.code), self._clock()
        if now - self._explained.get(key, -QUIET_S) < QUIET_S:
            return False
        self._explained.put(key, now)
        return True


def _call(call: dict[str, Any], names: Names, *, json: bool) -> LogLine:
    at, level = call["closed_at"] / 1e9, "info" if call["outcome"] in FINE else "warning"
    target = f"{call['provider']}/{call['model']}" if call["provider"] else ""
    token = names.tokens.get(call["grant_id"], call["grant_id"])
    prompt, completion, cost = call["prompt_tokens"], call["completion_tokens"], call["cost"]
    if json:
        fields = {
            "id": call["id"],
            "token": token,
            "requested": call["requested"],
            "target": target or None,
            "outcome": call["outcome"],
            "code": call["code"] or None,
            "status": call["status"],
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "basis": call["basis"],
            "cost_usd": None if cost is None else cost / 1e9,
            "duration_ms": round(call["duration_us"] / 1000),
            "ttft_ms": None if call["ttft_us"] is None else round(call["ttft_us"] / 1000),
        }
        return LogLine(at, level, "call", "call", fields)
    is_hit = call["basis"] == "cached"
    way = safe(call["requested"]) + (f" → {target}" if target and target != call["requested"] else "")
    way += " → cache" if is_hit else ""
    outcome = call["outcome"] + (f" {call['code']}" if call["code"] else "")
    about = "~" if call["basis"] == "estimated" else ""
    used = (f"{about}{prompt}+{completion} tokens", _money(cost)) if target or is_hit else ()  # else nobody was asked
    parts = (way, outcome, *used, _seconds(call["duration_us"]), safe(token), call["id"])
    return LogLine(at, level, "call", "  ".join(part for part in parts if part))


def _failure(attempt: AttemptRecord, call: dict[str, Any], names: Names) -> LogLine:
    at = (call["created_at"] + attempt.ended_us * 1000) / 1e9
    step = _STEPS.get(attempt.code, _STEP).format(provider=attempt.provider, id=call["id"])
    known = {
        "provider": attempt.provider,
        "address": names.addresses.get(attempt.provider, ""),
        "account": attempt.account,
        "model": attempt.model,
        "status": attempt.status or "",
        "code": attempt.code,
        "next": step,
    }
    return LogLine(
        at, "warning", "upstream", "an attempt failed", {name: value for name, value in known.items() if value}
    )


def _refused(second: int, code: str, count: int) -> LogLine:
    fields = {"count": count} if count > 1 else {}
    return LogLine(float(second), "warning", "call", f"refused before its token was known: {code}", fields)


def _counted(calls: list[dict[str, Any]], shown: int) -> LogLine:
    delivered = sum(call["outcome"] == "delivered" for call in calls)
    return LogLine(
        calls[-1]["closed_at"] / 1e9,
        "info",
        "call",
        f"{len(calls) - shown} more calls, too many for a line each",
        {"delivered": delivered, "others": len(calls) - delivered},
    )


def _money(nano: int | None) -> str:
    return "cost unknown" if nano is None else "$0" if nano == 0 else f"${nano / 1e9:.6f}".rstrip("0").rstrip(".")


def _seconds(micro: int) -> str:
    return f"{micro / 1e6:.2f} s" if micro >= 1_000_000 else f"{micro / 1000:.0f} ms"
