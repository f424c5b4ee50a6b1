"""Thousands of streams that break anywhere, through a running gateway: whole and exact, or a truthful error.

::

    python -m headgate.testing.faults.fuzz --streams 10000 --seed 7

Every stream goes through the sockets of one ``headgate serve``.  Its two targets are fixture engines: models of its
own (knowledge about one does not concern another), or shared by many (knowledge counts).  Chance decides what they do
with a prefill and its white space, how their bytes are cut into writes, and after which byte they break.  The whole
answer is computed here.  A stream is a pure function of the seed and its number.

*exact*: the whole text, once, with its finish and ``[DONE]``.  *truthful*: an error event after a beginning of the
text, without ``[DONE]``.  Anything else is *wrong*: most of all a success whose text is not the answer.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from msgspec import Struct

from headgate.testing.engine.walk import Walk, rest
from headgate.testing.faults.bench import GatewayAddress, free_port, gateway
from headgate.testing.faults.client import Heard, ask
from headgate.testing.provider.provider import serve

PROMPT = "Tell me what the river did."
PATIENCE_S = 30.0
AT_ONCE = 64
SHOWN = 10  # failures that are described
SPELLINGS = ("trailing", "continue_final_message", "prefix")
UNABLE = (400, 404, 500, 501)
HOWS = ("close", "close", "reset", "end", "error")
TRIMS = {"": None, "-trims": "yes", "-keeps": "no"}
USAGE = """\
usage: python -m headgate.testing.faults.fuzz [--streams N] [--seed N] [--only N,N] [--minutes N]

  --streams N  how many streams (10000)
  --seed N     of all that chance decides (default: the clock's; it is printed)
  --only N,N   only the streams with these numbers
  --minutes N  end, and fail, after so long (10)
"""


class FuzzTarget(Struct, frozen=True):
    """One engine: its provider in the gateway, and its behaviour."""

    provider: str
    settings: dict[str, Any]

    def model(self, own: str) -> str:
        """Return the model id to request; ``own`` makes it unique."""
        pairs = [*self.settings.items(), *((("seed", own),) if own else ())]
        return f"{self.provider}/engine?" + "&".join(f"{name}={value}" for name, value in pairs)


class FuzzStream(Struct, frozen=True):
    """One stream: its request, its targets, and its whole answer."""

    number: int
    body: dict[str, Any]
    text: str
    finish: str

    def judge(self, heard: Heard) -> str:
        """Return ``exact``, ``truthful``, or the fault."""
        if heard.broken:
            return f"no proper end: {heard.broken}"
        if heard.error is not None:
            if heard.done or heard.finishes:
                return "an error, and the signs of success as well"
            if heard.status == 200 and not heard.error.get("not_continued"):
                return "an error that does not say why the stream was not continued"
            return "truthful" if self.text.startswith(heard.text) else "an error behind text that is not the answer's"
        if heard.text != self.text:
            return f"a success whose text is not the answer: {_difference(heard.text, self.text)}"
        if heard.finishes != [self.finish] or heard.done != 1:
            return f"finish reasons {heard.finishes}, [DONE] {heard.done} times, not once {self.finish}"
        if heard.roles != 1 or len(heard.ids) != 1 or len(heard.models) != 1:
            return f"{heard.roles} role chunks, {len(heard.ids)} ids, {len(heard.models)} models"
        figures = heard.usage or {}
        if not figures.get("prompt_tokens") or (self.text and not figures.get("completion_tokens")):
            return f"usage is {heard.usage}"
        return "exact"


def _difference(found: str, wanted: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), min(len(found), len(wanted)))
    return f"at {at}, {found[max(0, at - 12) : at + 24]!r} for {wanted[max(0, at - 12) : at + 24]!r}"


# ------------------------------------------------------------------------------------- what is played


def stream(seed: int, number: int) -> FuzzStream:
    """Return the stream with this number, which does not depend on the other ones."""
    chance = Random(f"{seed}/{number}")
    engine = _engine_settings(chance)
    limit = chance.randrange(1, engine["tokens"] + 10) if chance.random() < 0.2 else None
    if engine["mode"] == "multibyte":
        limit = None  # a token may be a part of a character: it counts before it is sent
    if limit is not None:
        # Delivered and remaining tokens are then known exactly
        engine |= {"usage": "each", "space": "lead"}
    own = str(chance.randrange(1 << 20)) if chance.random() < 0.6 else ""
    targets = [_target(chance, engine["usage"] == "never", limited=limit is not None) for _ in range(2)]
    models = [target.model(own) for target in targets]
    text = b"".join(_tokens(engine)[:limit]).decode(errors="ignore")
    body: dict[str, Any] = {
        "model": models[0],
        "headgate": {"fallback_models": models[1:]},
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": PROMPT}],
        "engine": {**engine, "key": f"{seed}/{number}"},
    }
    if limit is not None:
        body[chance.choice(("max_tokens", "max_completion_tokens"))] = limit
    finish = "length" if limit is not None and limit <= len(_tokens(engine)) else "stop"
    return FuzzStream(number, body, text, finish)


def _engine_settings(chance: Random) -> dict[str, Any]:
    """Choose the engines' text, the writes of its bytes, and the places of the breaks."""
    cuts = [round(chance.random(), 6) for _ in range(chance.choice((1, 1, 1, 2, 2, 3)))]
    return {
        "seed": chance.randrange(1 << 16),
        "mode": chance.choice(("prose", "code", "multibyte", "loop", "spaces", "spaces")),
        "tokens": chance.choice((4, 12, 30, 60)),
        "chunk": chance.choice((1, 3, 0)),
        "space": chance.choice(("lead", "tail")),
        "usage": chance.choice(("asked", "asked", "never", "each", "finish")),
        "eol": chance.choice(("lf", "crlf")),
        "ascii": chance.random() < 0.3,
        "split": chance.randrange(1, 1 << 16),
        "cut": cuts,
        "how": chance.choice(HOWS),
    }


def _tokens(engine: dict[str, Any]) -> list[bytes]:
    return rest(Walk(engine["seed"], engine["mode"], f"<|user|>{PROMPT}\n", engine["tokens"]), "")[0]


def _target(chance: Random, silent: bool, limited: bool) -> FuzzTarget:
    """Choose an engine's treatment of a prefill, and the provider with an operator's declaration of it.

    ``silent``: its answers have no usage.  Whether it trims cannot be found out then, and an operator has to say it.
    ``limited``: it keeps white space.  The spent part of a limit cannot be known if the text is repeated.
    """
    spelling = chance.choice((*SPELLINGS, "none"))
    way = chance.choice(("takes", "takes", "takes", "ignores", "refuses"))
    settings: dict[str, Any] = {"prefill": {"takes": spelling, "ignores": "ignore", "refuses": "refuse"}[way]}
    if spelling == "none":
        settings["prefill"] = "turn"
    elif spelling == "prefix" and way == "takes" and chance.random() < 0.3:
        settings["prefill"] = "repeat"
    elif way == "refuses":
        settings["status"] = chance.choice(UNABLE)
    trims = not limited and chance.random() < 0.4
    strict = not limited and not trims and chance.random() < 0.3
    settings |= {"trims": int(trims), "strict": int(strict)}
    declares = silent or chance.random() < 0.3
    suffix = ("-trims" if trims or strict else "-keeps") if declares else ""
    return FuzzTarget(f"{spelling.replace('_', '-')}{suffix}", settings)


def configuration(url: str, token: str, state: Path) -> dict[str, Any]:
    """Return the configuration: a provider for each spelling of a prefill and each declaration of white space."""
    providers = {
        f"{spelling.replace('_', '-')}{suffix}": {
            "base_url": url,
            "keys": ["sk-not-a-secret"],
            "prefill": spelling,
            **({"prefill_trims": trims} if trims else {}),
        }
        for spelling in (*SPELLINGS, "none")
        for suffix, trims in TRIMS.items()
    }
    return {
        "server": {"port": free_port()},
        "control": {"port": free_port()},
        "state_dir": str(state),
        "tokens": [{"name": "fuzz", "secret": token}],
        "detect": {"local_engines": False, "environment": False},
        "providers": providers,
    }


# ------------------------------------------------------------------------------------- the run


class Score:
    """The results of the streams so far, with a progress line on a terminal."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.verdicts: Counter[str] = Counter()
        self.wrong: list[tuple[FuzzStream, str]] = []
        self._reported_at = self._began = time.monotonic()

    @property
    def played(self) -> int:
        return sum(self.verdicts.values())

    def add(self, one: FuzzStream, verdict: str) -> None:
        if verdict not in ("exact", "truthful"):
            self.wrong.append((one, verdict))
            verdict = "wrong"
        self.verdicts[verdict] += 1
        now = time.monotonic()
        if now - self._reported_at >= (1 if sys.stderr.isatty() else 20):
            self._reported_at = now
            end = "\r" if sys.stderr.isatty() else "\n"
            print(f"{self} after {now - self._began:.0f} s", end=end, file=sys.stderr, flush=True)

    def __str__(self) -> str:
        figures = ", ".join(f"{self.verdicts[name]} {name}" for name in ("exact", "truthful", "wrong"))
        return f"{self.played} of {self.count} streams: {figures}"


async def run(seed: int, numbers: list[int], minutes: float) -> Score:
    """Play the streams through one gateway.  Raises RuntimeError if it does not start."""
    score = Score(len(numbers))
    token = f"hg_test_{secrets.token_hex(16)}"
    async with serve(keep=0) as engine:
        with tempfile.TemporaryDirectory(prefix="headgate-fuzz-") as home:
            config = configuration(engine.url, token, Path(home) / "state")
            async with gateway(config, Path(home)) as at:
                todo = iter(numbers)
                try:
                    async with asyncio.timeout(minutes * 60), asyncio.TaskGroup() as group:
                        for _ in range(min(AT_ONCE, len(numbers))):
                            group.create_task(_work(at, seed, todo, score))
                except TimeoutError:
                    pass  # the score says how many are missing
    return score


async def _work(at: GatewayAddress, seed: int, todo: Iterator[int], score: Score) -> None:
    for number in todo:
        one = stream(seed, number)
        score.add(one, one.judge(await ask(at.url, at.token, one.body, PATIENCE_S)))


def main(argv: list[str]) -> int:
    """The process's exit code: 0 all exact or truthful, 1 not all, 2 nothing was played."""
    values: dict[str, str] = {"--streams": "10000", "--seed": str(time.time_ns() % 1_000_000), "--minutes": "10"}
    rest_ = iter(argv)
    for flag in rest_:
        value = next(rest_, None)
        if value is None or flag not in (*values, "--only"):
            print(USAGE, end="", file=sys.stderr)
            return 2
        values[flag] = value
    try:
        seed, count, minutes = int(values["--seed"]), int(values["--streams"]), float(values["--minutes"])
        numbers = [int(one) for one in values["--only"].split(",")] if "--only" in values else list(range(count))
    except ValueError:
        print(USAGE, end="", file=sys.stderr)
        return 2
    print(f"{len(numbers)} streams, seed {seed} …", file=sys.stderr, flush=True)
    try:
        score = asyncio.run(run(seed, numbers, minutes))
    except (RuntimeError, TimeoutError) as error:
        print(f"nothing was played: {str(error) or 'the gateway did not start in time'}", file=sys.stderr)
        return 2
    for one, verdict in score.wrong[:SHOWN]:
        print(f"--seed {seed} --only {one.number}: {verdict}\n    {one.body}")
    print(score)
    return 0 if not score.wrong and score.played == score.count else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
