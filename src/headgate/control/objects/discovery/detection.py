"""Engines on this machine: looked for on the ports that their rows name, on 127.0.0.1, all at once.

It takes at most 0.35 s, with or without answers, and raises nothing.  Only an answer that names the engine counts as
one, because many programs listen on 8000 and 8080.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from headgate.catalog.presets import Engine, Row
from headgate.catalog.prices import LOCAL, kind_of
from headgate.model import ModelRow, Provider

DEADLINE = 0.3
MAX_ANSWER = 1 << 20
MAX_MODELS = 500
HOST = "127.0.0.1"

_LOOPBACK = frozenset((HOST, "localhost", "::1", "0.0.0.0"))
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_CONTEXT = ("max_model_len", "loaded_context_length", "max_context_length", "context_length")


@dataclass(frozen=True, slots=True)
class Asked:
    """One engine that was looked for.  ``found``: it is there; ``said``: a sentence for people in either case."""

    engine: str
    title: str
    port: int
    found: bool
    said: str


@dataclass(frozen=True, slots=True)
class Detected:
    """``providers`` have origin ``detected``, auth ``none`` and the models that the engine lists."""

    providers: Mapping[str, Provider]
    asked: tuple[Asked, ...]


class _NoEngine(Exception):
    """The answer, if any, is not this engine's; the message describes it."""


def taken(providers: Mapping[str, Provider]) -> frozenset[int]:
    """The ports of this machine that configured providers already name: those engines need not be found again."""
    urls = [urlsplit(row.base_url) for row in providers.values() if row.origin not in ("detected", "builtin")]
    return frozenset(url.port or (443 if url.scheme == "https" else 80) for url in urls if url.hostname in _LOOPBACK)


async def engines(rows: Mapping[str, Row], skip: Collection[int] = (), deadline: float = DEADLINE) -> Detected:
    """The engines that answer now.  ``skip``: ports that are not asked (our own, and ``taken``).  Never raises; takes
    ``deadline`` seconds and a little at most.
    """
    wanted = [row for row in rows.values() if row.engine is not None and row.engine.port not in skip]
    found = await asyncio.gather(*(_looked_for(row, deadline) for row in wanted))
    return Detected(
        providers={provider.name: provider for _asked, provider in found if provider is not None},
        asked=tuple(asked for asked, _provider in found),
    )


async def _looked_for(row: Row, deadline: float) -> tuple[Asked, Provider | None]:
    assert row.engine is not None
    port, provider = row.engine.port, None
    try:
        async with asyncio.timeout(deadline):
            models = await _models(row, row.engine)
        provider = _provider(row, models)
        said = f"{row.title} answers on port {port} with {len(models)} model{'' if len(models) == 1 else 's'}"
    except TimeoutError:
        said = f"something listens on port {port}, but said nothing within {deadline:g} s"
    except ConnectionRefusedError:
        said = f"nothing listens on port {port}"
    except _NoEngine as error:
        said = str(error)
    except (OSError, ValueError, EOFError, asyncio.LimitOverrunError, RecursionError):  # whatever JSON or bytes do
        said = f"port {port} did not answer as {row.title} does"
    return Asked(row.name, row.title, port, provider is not None, said), provider


async def _models(row: Row, engine: Engine) -> list[dict[str, Any]]:
    """Return the models that the engine lists.  Raises what ``_looked_for`` catches."""
    listing = urlsplit(row.base_url).path + "/models"
    answer = await _get(engine.port, engine.probe)
    if not all(_at(answer, path) is not None for path in engine.has):
        raise _NoEngine(f"port {engine.port} answers, but not as {row.title} does")
    if engine.equals is not None and _at(answer, engine.has[0]) != engine.equals:
        raise _NoEngine(f"port {engine.port} answers, but not as {row.title} does")
    if engine.probe != listing:
        known = {entry["id"]: entry for entry in _entries(answer)}
        return [{**known.get(entry["id"], {}), **entry} for entry in _entries(await _get(engine.port, listing))]
    return _entries(answer)


def _entries(answer: Any) -> list[dict[str, Any]]:
    entries = answer.get("data") if isinstance(answer, dict) else None
    return [
        entry
        for entry in (entries if isinstance(entries, list) else ())[:MAX_MODELS]
        if isinstance(entry, dict) and _is_id(entry.get("id"))
    ]


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable() and " " not in value


def _at(value: Any, path: str) -> Any:
    """``data.owned_by``: into objects by name, into lists by their first item; None where there is nothing."""
    for name in path.split("."):
        if isinstance(value, list):
            value = value[0] if value else None
        value = value.get(name) if isinstance(value, dict) else None
    return value


async def _get(port: int, path: str) -> Any:
    """The JSON of a 200.  HTTP/1.0, so that the body ends where the connection does."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {HOST}:{port}\r\nAccept: application/json\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        status = _STATUS.match(head)
        if status is None:
            raise _NoEngine(f"port {port} does not speak HTTP")
        if status[1] in (b"401", b"403"):
            raise _NoEngine(f"port {port} wants a key: declare it under providers: with base_url and keys")
        if status[1] != b"200":
            raise _NoEngine(f"port {port} answers {path} with status {int(status[1])}")
        return msgspec.json.decode(await _body(reader, head))
    finally:
        writer.close()


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """By its length, by chunks (servers that answer 1.0 with 1.1), or to the end.  Raises ValueError over the limit."""
    fields = head.lower()
    if b"\r\ntransfer-encoding: chunked" in fields:
        parts: list[bytes] = []
        while size := int(await reader.readline(), 16):
            if sum(map(len, parts)) + size > MAX_ANSWER:
                raise ValueError("too long")
            parts.append(await reader.readexactly(size))
            await reader.readline()
        return b"".join(parts)
    length = re.search(rb"\r\ncontent-length: *(\d{1,8})\r\n", fields)
    body = await (reader.readexactly(int(length[1])) if length and int(length[1]) <= MAX_ANSWER else _rest(reader))
    return body


async def _rest(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while chunk := await reader.read(64 << 10):
        body += chunk
        if len(body) > MAX_ANSWER:
            raise ValueError("too long")
    return body


def _provider(row: Row, entries: list[dict[str, Any]]) -> Provider:
    models = {}
    for entry in entries:
        context = next((entry[key] for key in _CONTEXT if isinstance(entry.get(key), int) and entry[key] > 0), None)
        kind = "embedding" if entry.get("type") == "embeddings" else kind_of(entry["id"])
        models[entry["id"]] = ModelRow(id=entry["id"], context_window=context, price=LOCAL, kind=kind)
    return Provider(
        name=row.name,
        base_url=row.base_url,
        dialect=row.dialect,
        auth="none",
        headers=row.headers,
        forward_headers=row.forward_headers,
        quirks=row.quirks,
        training=row.training,
        prefill=row.prefill,
        prefill_trims=row.prefill_trims,
        models=models,
        price=LOCAL,
        origin="detected",
        title=row.title,
        preset=row.name,
    )
