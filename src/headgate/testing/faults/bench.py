"""``make faults``: the sixteen provider faults, end to end, through a gateway that runs.

It starts ``headgate serve`` with a configuration of its own: each fault has an alias with a primary and a fallback of
its own.  It plays the providers itself, sends the requests, and judges the answers: see ``cases``.  The faults
run side by side, so that a run takes as long as the longest of them.

It tests a caller's experience of this gateway.  It is neither a load test nor a test of providers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import msgspec
from msgspec import Struct

from headgate.testing.faults.cases import (
    CASES,
    DEAR,
    PRICE,
    PROFILES,
    PROMPT,
    Case,
    CaseEvidence,
    Profile,
    TimingComplaint,
)
from headgate.testing.faults.client import Heard, ask
from headgate.testing.provider.provider import Provider, serve
from headgate.testing.provider.server import Seen

START_S = 30.0
USAGE = """\
usage: python -m headgate.testing.faults.bench [--profile fast|full] [--only N,N] [--no-fallback]

Runs sixteen provider faults through a gateway of its own and prints what became of them.
  --profile fast  seconds instead of tens of seconds (default: about 15 s)
  --profile full  20 s to a first token, 30 s of silence, 60 s of outage, …: two minutes
  --only N,N      these faults only
  --no-fallback   takes the fallback away: most faults must then fail, or this checks nothing
"""


class Outcome(Struct):
    """The result of one case; it passed if ``wrong`` is empty."""

    case: Case
    found: CaseEvidence
    wrong: list[str]

    @property
    def only_late(self) -> bool:
        return bool(self.wrong) and all(isinstance(one, TimingComplaint) for one in self.wrong)

    @property
    def row(self) -> tuple[str, ...]:
        heard = self.found.heard
        asked = f"{len(self.found.primary)} + {len(self.found.fallback)}"
        seen = heard[0].summary if len(heard) == 1 else f"{sum(bool(one.done) for one in heard)} of {len(heard)} whole"
        verdict = "pass" if not self.wrong else "FAIL: " + "; ".join(dict.fromkeys(self.wrong))
        return str(self.case.number), self.case.title, seen, asked, f"{heard[0].seconds:.1f} s", verdict


class GatewayAddress(Struct):
    """The URL of the tested gateway, and a token for it."""

    url: str
    token: str


# ------------------------------------------------------------------------------------- the gateway


def configuration(
    cases: Iterable[Case], profile: Profile, primary: str, fallback: str | None, port: int, token: str, state: Path
) -> dict[str, Any]:
    """A configuration file's content: the address of both providers has the case's number as a path in it."""
    providers: dict[str, Any] = {}
    aliases: dict[str, Any] = {}
    for case in cases:
        models = case.models(profile)
        targets = []
        for name, url, model, price, window in (
            ("primary", primary, models[0], DEAR, 8192),
            ("fallback", fallback, models[1], PRICE, 131072),
        ):
            if url is None:
                continue
            row = {"prefill": "trailing", "price": price, "context_window": window}
            providers[f"{name}-{case.number}"] = {
                "base_url": f"{url.removesuffix('/v1')}/{case.number}/v1",
                "keys": ["sk-not-a-secret"],
                "models": {model: row},
            }
            targets.append(f"{name}-{case.number}/{model}")
        aliases[f"faults/{case.number}"] = {"targets": targets, "timeouts": profile.timeouts}
    return {
        "server": {"port": port},
        "control": {"port": free_port()},
        "state_dir": str(state),
        "tokens": [{"name": "faults", "secret": token}],
        "providers": providers,
        "aliases": aliases,
    }


@contextlib.asynccontextmanager
async def gateway(config: dict[str, Any], home: Path) -> AsyncIterator[GatewayAddress]:
    """Yield a running ``headgate serve``.  Raises RuntimeError with its output if it does not start."""
    path = home / "headgate.yaml"
    path.write_bytes(msgspec.json.encode(config))  # JSON is YAML
    log = home / "log"
    environ = {"HOME": str(home), "PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"}
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headgate", "serve", "--config", str(path), cwd=home, env=environ, stdout=out,
            stderr=out,
        )  # fmt: skip
    try:
        async with asyncio.timeout(START_S):
            while not re.search(rb"^listening data=", log.read_bytes(), re.M):
                if process.returncode is not None:
                    raise RuntimeError(f"the gateway does not start:\n{log.read_text()[-2000:]}")
                await asyncio.sleep(0.05)
        yield GatewayAddress(f"http://127.0.0.1:{config['server']['port']}/v1", config["tokens"][0]["secret"])
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 10)
        if process.returncode is None:
            process.kill()
            await process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


# ------------------------------------------------------------------------------------- the run


async def run(profile: Profile, cases: Iterable[Case] = CASES, *, fallback: bool = True) -> list[Outcome]:
    """Play all cases at once and judge them.  Raises RuntimeError if the gateway does not start.

    Cases in which only single tokens came late are played again, twice at most: a pause of the machine does not
    happen each time.
    """
    outcomes = await _run(profile, list(cases), fallback)
    for _ in range(2):
        late = [outcome.case for outcome in outcomes if outcome.only_late]
        if late:
            again = {outcome.case.number: outcome for outcome in await _run(profile, late, fallback)}
            outcomes = [again.get(outcome.case.number, outcome) for outcome in outcomes]
    return outcomes


async def _run(profile: Profile, cases: list[Case], fallback: bool) -> list[Outcome]:
    async with serve(timed=True) as first, serve(timed=True) as second:
        with tempfile.TemporaryDirectory(prefix="headgate-faults-") as home:
            config = configuration(
                cases, profile, first.url, second.url if fallback else None, free_port(),
                f"hg_test_{secrets.token_hex(16)}", Path(home) / "state",
            )  # fmt: skip
            async with gateway(config, Path(home)) as at:
                return await judge(at, first, second, profile, cases)


async def judge(
    at: GatewayAddress, primary: Provider, fallback: Provider, profile: Profile, cases: Iterable[Case]
) -> list[Outcome]:
    """Play the cases against a gateway that is configured for them."""
    return list(await asyncio.gather(*(_play(at, primary, fallback, profile, case) for case in cases)))


async def _play(at: GatewayAddress, primary: Provider, fallback: Provider, profile: Profile, case: Case) -> Outcome:
    body = {
        "model": f"faults/{case.number}",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": PROMPT}],
    }
    heard: list[Heard] = []
    if case.every:
        async with asyncio.TaskGroup() as group:
            asked = []
            for _ in range(case.requests):
                asked.append(group.create_task(ask(at.url, at.token, body, profile.patience)))
                await asyncio.sleep(profile.every)
        heard = [task.result() for task in asked]
    else:
        for _ in range(case.requests):
            heard.append(await ask(at.url, at.token, body, profile.patience))
    cost = await asyncio.to_thread(_cost, at, heard[0])
    found = CaseEvidence(heard, _log(primary, case), _log(fallback, case), cost, profile, case.models(profile))
    wrong = list(case.judge(found)) if found.primary else ["the primary was never asked: " + heard[0].summary]
    return Outcome(case, found, wrong)


def _log(provider: Provider, case: Case) -> list[Seen]:
    return [seen for seen in provider.requests if seen.path.startswith(f"/{case.number}/")]


def _cost(at: GatewayAddress, heard: Heard) -> float | None:
    """Return the gateway's cost of the answer, in USD."""
    if not heard.ids:
        return None
    request = Request(f"{at.url}/requests/{next(iter(heard.ids))}", headers={"Authorization": f"Bearer {at.token}"})
    with contextlib.suppress(OSError), urlopen(request, timeout=10) as answer:
        cost = msgspec.json.decode(answer.read())["cost_usd"]
        return None if cost is None else float(cost)
    return None


def table(outcomes: Iterable[Outcome]) -> str:
    """The rows, in columns."""
    rows = [("#", "fault", "what the caller saw", "asked", "time", "verdict"), *(one.row for one in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )


def _chosen(numbers: str) -> list[Case]:
    return [case for case in CASES if str(case.number) in numbers.split(",")]


def main(argv: list[str]) -> int:
    """The process's exit code: 0 all passed, 1 not all, 2 nothing to check."""
    profile, cases, fallback = PROFILES["fast"], list(CASES), True
    rest = iter(argv)
    for flag in rest:
        match flag:
            case "--profile" if (name := next(rest, "")) in PROFILES:
                profile = PROFILES[name]
            case "--only" if chosen := _chosen(next(rest, "")):
                cases = chosen
            case "--no-fallback":
                fallback = False
            case _:
                print(USAGE, end="", file=sys.stderr)
                return 2
    print(f"{len(cases)} faults side by side, profile {profile.name} …", file=sys.stderr, flush=True)
    try:
        outcomes = asyncio.run(run(profile, cases, fallback=fallback))
    except (RuntimeError, TimeoutError) as error:
        print(f"nothing was checked: {error or 'the gateway did not start in time'}", file=sys.stderr)
        return 2
    passed = sum(not outcome.wrong for outcome in outcomes)
    print(table(outcomes))
    print(f"{passed} of {len(outcomes)}")
    return 0 if passed == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
