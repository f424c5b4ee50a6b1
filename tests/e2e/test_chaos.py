"""kill −9 at random instants under load: whichever process it hits, no receipt is lost and none is doubled, no hold
stays, the ledger is whole, and no budget is overrun.

Six kills in the suite; ``make chaos`` makes it a hundred (CHAOS_KILLS, CHAOS_SEED).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from typing import Any

from headgate.testing import serve_in_thread
from headgate.testing.provider import lorem
from tests.e2e.gateway import FILE_TOKEN, ROLES, Gateway, Make, Report, Streamed, stream

KILLS = int(os.environ.get("CHAOS_KILLS", "6"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.randrange(1 << 32)
MOST_S = 60 + 8 * KILLS  # a hundred take five to ten minutes
CLIENTS = 12
TOKENS = (10, 40, 120)
# The supervisor is killed with all that it started, or alone: then its planes end by themselves
# ``up/…`` costs 10 USD per million tokens of output, and is not killed
ROWS = """
detect: {{local_engines: false, environment: false}}
providers: {{up: {{base_url: '{url}', auth: none, models: {{{models}}}}}}}
"""
PRICED = "'{0}': {{upstream_model: 'lorem?rate=200&ttft=0.01&tokens={0}', price: {{input: 1, output: 10}}}}"
TENANT = {"limits": {"rpm": 1_000_000}, "budget": {"usd": 0.02, "period": "total", "mode": "soft"}}
GROUP = {"match": {"model": "up/40"}, "usd": 100, "period": "total"}
# The first is never spent, the second soon: each of its calls holds 0.01 USD at first
BUDGETS = {"roomy": 100.0, "tight": 0.04}
VICTIMS = ("data", "data", "data", "control", "control", "builtin", "supervisor", "everything")


def kill(one: Gateway, victim: str) -> None:
    pids = one.pids() if one.process.poll() is None else {}
    if victim in ROLES:
        if victim in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[victim], signal.SIGKILL)
        return
    one.process.kill()
    one.process.wait()
    if victim == "everything":
        for pid in pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    one.spawn()


def serves(one: Gateway) -> bool:
    try:
        return one.process.poll() is None and bool(one.get("/health")[1]["control"] == "connected")
    except OSError:  # its supervisor was killed a moment ago
        return False


def with_budgets(one: Gateway) -> dict[str, str]:
    """The secrets of tokens by name; each has a budget and limits, and so have their tenant and a group."""
    assert one.admin("PUT", "/tenants/acme", TENANT)[0] == 200
    assert one.admin("PUT", "/budgets/forty", GROUP)[0] == 200
    found = {}
    for name, usd in BUDGETS.items():
        limits = {"rpm": 1_000_000, "tpm": 100_000_000, "parallel": 100}
        wish = {"name": name, "tenant": "acme", "limits": limits, "budget": {"usd": usd, "period": "total"}}
        found[name] = one.admin("POST", "/tokens", wish)[1]["token"]
    return found


Asking = tuple[str, str]  # a model without its number of tokens, and a token


async def client(
    one: Gateway, chance: random.Random, ways: list[Asking], seen: list[Streamed], stop: asyncio.Event
) -> None:
    while not stop.is_set():
        tokens, (model, token) = chance.choice(TOKENS), chance.choice(ways)
        answer = await stream(one.port, f"{model}{tokens}", token)
        whole = lorem.text(tokens)
        if answer.done and answer.text != whole and not (answer.finish == "length" and whole.startswith(answer.text)):
            answer.error = f"done with {len(answer.text)} of {len(lorem.text(tokens))} characters"
        seen.append(answer)
        if answer.error or answer.status != 200:
            await asyncio.sleep(0.05)


async def chaos(one: Gateway, chance: random.Random, ways: list[Asking]) -> tuple[list[Streamed], Counter[str]]:
    seen: list[Streamed] = []
    done: Counter[str] = Counter()
    stop = asyncio.Event()
    each = [random.Random(chance.random()) for _ in range(CLIENTS)]
    clients = [asyncio.create_task(client(one, own, ways, seen, stop)) for own in each]
    end = time.monotonic() + MOST_S
    while done.total() < KILLS and time.monotonic() < end:
        if chance.random() < 0.7:  # mostly into a gateway that serves, sometimes into one that starts
            with contextlib.suppress(AssertionError):
                await asyncio.to_thread(one.until, lambda: serves(one), 20)
        await asyncio.sleep(chance.uniform(0.05, 2.5))
        victim = chance.choice(VICTIMS)
        await asyncio.to_thread(kill, one, victim)
        done[victim] += 1
    stop.set()
    await asyncio.gather(*clients)
    return seen, done


def check_money(one: Gateway, rows: dict[str, dict[str, Any]]) -> None:
    """The ledger is whole, nothing is held, and the counters have what the receipts say."""
    verified = one.cli("usage", "verify")
    assert verified.returncode == 0, verified.stdout
    with closing(sqlite3.connect(one.state / "headgate.db")) as store:
        held = store.execute("SELECT sum(amount) FROM ledger_balances WHERE account LIKE 'held:%'").fetchone()
        assert held[0] in (0, None)
    listed = {row["name"]: row["id"] for row in one.admin("GET", "/tokens")[1]["data"]}
    for name, usd in BUDGETS.items():
        path = f"/tokens/{name}"
        found = one.until(lambda path=path: one.admin("GET", path)[1]["standings"])  # null: no data process answers yet
        standing = next(entry for entry in found if entry["holder"] == "token")
        spent = sum(row["cost"] or 0 for row in rows.values() if row["grant_id"] == listed[name])
        budget = standing["budget"]
        assert (budget["held_usd"], standing["parallel"]["used"]) == (0, 0), (name, standing)
        assert abs(budget["spent_usd"] - spent / 1e9) < 1e-9, (name, budget, spent)
        assert 0 < spent / 1e9 <= usd, (name, spent)
    (group,) = one.admin("GET", "/budgets")[1]["data"]
    forty = [row for row in rows.values() if row["provider"] == "up" and row["model"].endswith("tokens=40")]
    of_group = sum(row["cost"] or 0 for row in forty)
    assert of_group > 0
    assert abs(group["standing"]["budget"]["spent_usd"] - of_group / 1e9) < 1e-9, (group, of_group)


def test_nothing_is_lost_whatever_is_killed(gateway: Make, report: Report) -> None:
    with serve_in_thread() as upstream:
        models = ", ".join(PRICED.format(tokens) for tokens in TOKENS)
        one = gateway(ROWS.format(url=upstream.url, models=models)).start()
        secrets = with_budgets(one)
        ways = [("builtin/lorem?rate=200&ttft=0.01&tokens=", FILE_TOKEN), ("up/", FILE_TOKEN)]
        ways += [("up/", secret) for secret in secrets.values()]
        print(f"CHAOS_SEED={SEED}")
        seen, done = asyncio.run(chaos(one, random.Random(SEED), ways))
        one.until(lambda: serves(one))
        one.until(one._recorded)
        rows = one.rows()

        assert done.total() == KILLS, f"only {done} within {MOST_S} s"
        wrong = [answer.error for answer in seen if answer.done and answer.error]
        assert not wrong
        whole = [answer for answer in seen if answer.done]
        assert whole and len({answer.id for answer in whole}) == len(whole)
        missing = [answer.id for answer in seen if answer.id and answer.id not in rows]
        assert not missing, f"{len(missing)} calls that clients have seen are in no row"
        assert {rows[answer.id]["outcome"] for answer in whole} <= {"delivered", "budget_exceeded"}
        assert None not in {row["outcome"] for row in rows.values()}
        sums = one.admin("GET", "/usage")[1]
        assert sums["total"]["requests"] == len(rows), "the days' sums count each call once"
        refused = {answer.status for answer in seen} - {0, 200}
        assert refused <= {402, 502, 503}, refused
        check_money(one, rows)
        outcomes = Counter(row["outcome"] for row in rows.values())
        report(f"{KILLS} kills ({dict(done)}): {len(whole)} streams whole, {dict(outcomes)}, none lost or doubled")
