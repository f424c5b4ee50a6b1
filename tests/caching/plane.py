"""A data process with tenants and aliases that use the response cache, and requests that differ where they should."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headgate.model import (
    Alias,
    Budget,
    CallLimits,
    Grant,
    Limits,
    Opened,
    Price,
    Provider,
    Snapshot,
    TargetRef,
    Tenant,
)
from headgate.policy.auth import digest
from headgate.process.channel import Ask, AskReply, Patch, World, address, frame, up_frames
from headgate.testing import Provider as Upstream
from tests.dataplane import DataPlane, post, upstream
from tests.serving.calls import Answer, opened

KEY = b"k" * 32
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
FAST = "up/lorem?rate=0&ttft=0&tokens=24"
PRICE = Price(1_000_000_000, 10_000_000_000)  # 1 and 10 USD per million tokens
ACME, ACME_TOO, OTHER, ALONE, ALONE_TOO, LIMITED, SPENT, NARROW = (f"hg_test_{n:032x}" for n in range(8))

GRANTS = {
    ACME: Grant("t0", "one", tenant="acme"),
    ACME_TOO: Grant("t1", "two", tenant="acme"),
    OTHER: Grant("t2", "three", tenant="other"),
    ALONE: Grant("t3", "four"),
    ALONE_TOO: Grant("t4", "five"),
    LIMITED: Grant("t5", "six", limits=CallLimits(rpm=3, tpm=1_000_000)),
    SPENT: Grant("t6", "seven", budget=Budget(100_000_000, "total")),
    NARROW: Grant("t7", "eight", tenant="acme", models=("plain",)),
}


def alias(name: str, *targets: str, **fields: Any) -> Alias:
    return Alias(name, tuple(map(TargetRef, targets or (FAST,))), **fields)


ALIASES = (
    alias("plain"),
    alias("cached", cache_enabled=True),
    alias("paced", "up/lorem?rate=20&ttft=0&tokens=12", cache_enabled=True, cache_pace="recorded"),
    alias("resumable", cache_enabled=True, resumable_s=30.0),
)


def world(provider: Provider, *aliases: Alias) -> World:
    return World({provider.name: provider}, {one.name: one for one in aliases or ALIASES}, tenants=TENANTS)


TENANTS = {name: Tenant(name) for name in ("acme", "other")}


def plane(folder: Path, provider: Provider, *aliases: Alias, **more: Any) -> DataPlane:
    folder.mkdir(exist_ok=True)
    (folder / "instance.key").write_bytes(KEY)
    tokens = {digest(KEY, token.encode()): grant for token, grant in GRANTS.items()}
    known = {one.name: one for one in aliases or ALIASES}
    snapshot = Snapshot(0, tokens, {provider.name: provider}, known, tenants=TENANTS)
    return DataPlane(folder, snapshot=snapshot, **more)


def priced(provider: Upstream) -> Provider:
    return upstream(provider.url, price=PRICE)


def body(model: str, words: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": words}], **fields}


def ask(
    gate: DataPlane, model: str, words: str, *headers: str, token: str = ACME, path: str = CHAT, **fields: Any
) -> Answer:
    if path == MESSAGES:
        fields.setdefault("max_tokens", 100)
    return send(gate, json.dumps(body(model, words, **fields)).encode(), *headers, token=token, path=path)


def send(gate: DataPlane, data: bytes, *headers: str, token: str = ACME, path: str = CHAT) -> Answer:
    with opened(gate, post(path, data, *headers, token=token), timeout=30) as stream:
        return stream.rest()


def cache_of(answer: Answer) -> str | None:
    assert answer.status == 200 and answer.ended, answer.raw
    return answer.headers.get("x-headgate-cache")


def counts(gate: DataPlane, provider: Upstream) -> tuple[int, int]:
    """Calls admitted, upstream requests made."""
    admitted = [record for record in gate.records() if isinstance(record, Opened) and record.provider]
    return len(admitted), len(provider.requests)


@contextlib.contextmanager
def control(gate: DataPlane) -> Iterator[socket.socket]:
    """Control's end of the channel of a data process without one."""
    path = gate.state / "channel.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        with address(path) as reachable:
            listener.bind(reachable)
        listener.listen()
        listener.settimeout(60)
        connection, _ = listener.accept()
        path.unlink()
    with connection:
        connection.settimeout(60)
        yield connection


def question(gate: DataPlane, kind: str, **params: str) -> Any:
    """What the data process answers to control."""
    with control(gate) as connection:
        connection.sendall(frame(Ask(7, kind, "", 60.0, params)))
        frames = up_frames()
        while True:
            for message in frames.feed(connection.recv(65536)):
                if isinstance(message, AskReply):
                    assert message.status == 200, message.body
                    return json.loads(message.body)


def reload(gate: DataPlane, generation: int, changed: World) -> None:
    """Change the configuration of a data process that serves with the generation before."""
    gate.tell(Patch(generation - 1, generation, world=changed))


SMALL = Limits(cache_max=1 << 20)
