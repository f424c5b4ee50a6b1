"""Streams that break where they are told to, through a real data process, and what one client saw of them.

Two providers, ``a`` and ``b``, are one fixture engine in a process of its own.  What the engine does is in the request
itself (``"engine": {…}``, which passes through the gateway); how a target spells a prefill is in its model row.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headgate.model import Alias, Grant, ModelRow, Provider, Snapshot, TargetRef, Timeouts
from headgate.policy.auth import digest
from tests.dataplane import TOKEN, DataPlane, post

PROMPT = "Tell me what the river did."
_keys = itertools.count()


@contextmanager
def engine_process() -> Iterator[str]:
    """The base URL of a fixture engine."""
    argv = [sys.executable, "-m", "headgate.testing", "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[1]
        finally:
            process.terminate()


def row(id: str, prefill: str, upstream: str, **more: Any) -> ModelRow:
    return ModelRow(id, upstream_model=f"engine?{upstream}", prefill=prefill, **more)


def rows(kinds: Iterable[str]) -> dict[str, ModelRow]:
    """A model for each kind: a spelling, perhaps with ``+trims``; ``none`` and ``refuse`` take no prefill, and only
    the former says so.
    """
    made = {}
    for kind in kinds:
        spelling, _, trims = kind.partition("+")
        declared = {"refuse": "trailing"}.get(spelling, spelling)
        engine = {"none": "turn"}.get(spelling, spelling)
        made[kind] = row(kind, declared, f"prefill={engine}&trims={int(bool(trims))}")
    return made


def pair(url: str, name: str, a: ModelRow, b: ModelRow, **alias: Any) -> tuple[list[Provider], Alias]:
    """Two providers of one alias that nothing else uses: what is learnt of them stays between them."""
    providers = [
        Provider(f"{name}-{side}", url, auth="none", models={model.id: model}) for side, model in (("a", a), ("b", b))
    ]
    targets = tuple(TargetRef(f"{one.name}/{model.id}") for one, model in zip(providers, (a, b), strict=True))
    return providers, Alias(f"cut/{name}", targets=targets, **alias)


@contextmanager
def plane(
    state: Path, providers: Iterable[Provider], aliases: Iterable[Alias], timeouts: Timeouts | None = None
) -> Iterator[DataPlane]:
    state.mkdir(exist_ok=True)
    key = b"k" * 32
    (state / "instance.key").write_bytes(key)
    snapshot = Snapshot(
        tokens={digest(key, TOKEN.encode()): Grant("t0", "test")},
        providers={provider.name: provider for provider in providers},
        aliases={alias.name: alias for alias in aliases},
        timeouts=timeouts or Timeouts(),
    )
    with DataPlane(state, snapshot=snapshot) as running:
        yield running


# ------------------------------------------------------------------------------------- one stream


@dataclass
class Stream:
    """What the client saw.  ``choices`` holds the text of each choice; ``done`` counts ``[DONE]``."""

    status: int = 0
    texts: dict[int, str] = field(default_factory=dict)
    reasoning: str = ""
    arguments: str = ""
    finishes: list[str] = field(default_factory=list)
    roles: int = 0
    done: int = 0
    after_done: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    faces: set[tuple[str, int, str]] = field(default_factory=set)
    usage: dict[str, Any] | None = None
    events: int = 0
    asked: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def text(self) -> str:
        return self.texts.get(0, "")

    def take(self, data: bytes) -> None:
        self.after_done += bool(self.done)
        if data == b"[DONE]":
            self.done += 1
            return
        chunk = json.loads(data)
        if "error" in chunk:
            self.faces.clear()
            self.errors.append(chunk["error"])
            return
        self.faces.add((chunk["id"], chunk.get("created", 0), chunk.get("model", "")))
        if chunk.get("usage"):
            self.usage = chunk["usage"]
        for choice in chunk["choices"]:
            delta = choice["delta"]
            self.roles += "role" in delta
            shown = delta.get("content") or ""
            self.texts[choice["index"]] = self.texts.get(choice["index"], "") + shown
            self.reasoning += delta.get("reasoning_content") or ""
            self.arguments += "".join(call["function"].get("arguments", "") for call in delta.get("tool_calls") or ())
            self.events += bool(shown)
            if choice["finish_reason"]:
                self.finishes.append(choice["finish_reason"])

    def assert_sound(self, choices: int = 1) -> None:
        """One whole answer, told once."""
        where = f"{self.asked}\n{self}"
        assert self.status == 200 and not self.errors, where
        assert len(self.finishes) == choices and self.done == 1 and not self.after_done, where
        assert self.roles == choices and len(self.faces) == 1, where

    def assert_broken(self) -> None:
        """A failure that no client can take for a success."""
        where = f"{self.asked}\n{self}"
        assert self.status == 200 and len(self.errors) == 1, where
        assert not self.done and not self.finishes, where
        assert set(self.errors[0]) == {"message", "type", "param", "code", "not_continued", "request_id"}, where
        assert self.errors[0]["not_continued"], where


def asked(model: str, engine: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The body of one request; a list of kills gets a key of its own."""
    if "kill" in engine:
        engine = {"key": f"k{next(_keys)}", **engine}
    return {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": PROMPT}],
        "engine": engine,
        **more,
    }


async def _one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: dict[str, Any]) -> Stream:
    seen = Stream(asked={"model": body["model"], **body["engine"]})
    writer.write(post("/v1/chat/completions", json.dumps(body).encode()))
    head = await reader.readuntil(b"\r\n\r\n")
    seen.status = int(head.split(b" ", 2)[1])
    if b"chunked" not in head.lower():
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        seen.errors.append(json.loads(await reader.readexactly(length))["error"])
        return seen
    rest = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        rest += (await reader.readexactly(size + 2))[:-2]
        *blocks, rest = rest.split(b"\n\n")
        for block in blocks:
            if block.startswith(b"data:"):
                seen.take(block[5:].strip())
    await reader.readline()
    assert not rest, rest
    return seen


async def _all(port: int, bodies: list[dict[str, Any]], width: int) -> list[Stream]:
    found: list[Stream | None] = [None] * len(bodies)
    todo = iter(enumerate(bodies))

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for at, body in todo:
            async with asyncio.timeout(60):
                found[at] = await _one(reader, writer, body)
        writer.close()

    await asyncio.gather(*(work() for _ in range(min(width, len(bodies)))))
    return [one for one in found if one is not None]


def run(plane: DataPlane, bodies: list[dict[str, Any]], width: int = 12) -> list[Stream]:
    """All of them, over so many connections, in the order in which they were given."""
    return asyncio.run(_all(plane.port, bodies, width))
