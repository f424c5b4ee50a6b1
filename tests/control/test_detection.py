"""Engines on this machine: told apart by what they say, and never waited for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from headgate.catalog.presets import Row, rows
from headgate.catalog.prices import LOCAL
from headgate.control.objects.discovery.detection import Asked, Detected, engines, taken
from headgate.model import Provider

ROWS = {name: row for name, row in rows().items() if row.engine}
Answers = Callable[[str], bytes | None]


def answer(value: Any, status: int = 200, *, chunked: bool = False, length: bool = True) -> bytes:
    body = json.dumps(value).encode() if not isinstance(value, bytes) else value
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
    if chunked:
        parts = b"".join(b"%x\r\n%b\r\n" % (len(body[i : i + 7]), body[i : i + 7]) for i in range(0, len(body), 7))
        return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + parts + b"0\r\n\r\n"
    return f"{head}{f'Content-Length: {len(body)}' if length else 'connection: close'}\r\n\r\n".encode() + body


def listing(*models: str, **facts: Any) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": model, "object": "model", **facts} for model in models]}


@asynccontextmanager
async def engine(answers: Answers) -> AsyncIterator[int]:
    """A server on 127.0.0.1 that answers each path; None: it says nothing and keeps the connection."""
    held: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.add(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        said = answers(head.split()[1].decode())
        if said is not None:
            writer.write(said)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in held:
            writer.close()


def at_port(row: Row, port: int) -> Row:
    assert row.engine is not None
    url = row.base_url.replace(f":{row.engine.port}", f":{port}")
    return replace(row, base_url=url, engine=replace(row.engine, port=port))


def by_path(known: dict[str, bytes]) -> Answers:
    return lambda path: known.get(path, answer({"error": "no"}, 404))


ENGINES: dict[str, Answers] = {
    "ollama": by_path({"/api/version": answer({"version": "0.9"}), "/v1/models": answer(listing("llama3:latest"))}),
    "lm-studio": by_path(
        {
            "/api/v0/models": answer(
                {
                    "object": "list",
                    "data": [
                        {"id": "qwen", "compatibility_type": "gguf", "type": "llm", "max_context_length": 4096},
                        {"id": "nomic", "compatibility_type": "gguf", "type": "embeddings"},
                    ],
                }
            ),
            "/v1/models": answer(listing("qwen", "nomic")),
        }
    ),
    "vllm": by_path({"/v1/models": answer(listing("Qwen/Q", owned_by="vllm", max_model_len=8192), chunked=True)}),
    "llama-cpp": by_path({"/v1/models": answer(listing("gguf.gguf", owned_by="llamacpp"), length=False)}),
    "sglang": by_path({"/v1/models": answer(listing("a/b", owned_by="sglang"))}),
    "jan": by_path({"/v1/models": answer(listing("jan-nano"))}),
}


async def look(which: dict[str, Answers], expected: dict[str, str] | None = None) -> Detected:
    """Each engine's answers behind the row of ``expected`` (its own where it is not named)."""
    async with AsyncExitStack() as stack:
        found = {}
        for name, answers in which.items():
            port = await stack.enter_async_context(engine(answers))
            row = ROWS[(expected or {}).get(name, name)]
            found[name] = replace(at_port(row, port), name=name)
        return await engines(found)


def test_every_engine_is_found() -> None:
    detected = asyncio.run(look(ENGINES))
    assert set(detected.providers) == set(ENGINES) == set(ROWS)
    assert all(asked.found for asked in detected.asked)
    for name, provider in detected.providers.items():
        assert (provider.origin, provider.auth, provider.accounts, provider.preset) == ("detected", "none", (), name)
        assert (provider.price, provider.training, provider.title) == (LOCAL, "never", ROWS[name].title)
    models = {name: provider.models for name, provider in detected.providers.items()}
    assert models["vllm"] is not None and models["vllm"]["Qwen/Q"].context_window == 8192
    studio = models["lm-studio"]
    assert studio is not None
    assert (studio["qwen"].kind, studio["qwen"].context_window, studio["nomic"].kind) == ("chat", 4096, "embedding")
    assert studio["qwen"].price == LOCAL
    said = {asked.engine: asked.said for asked in detected.asked}
    assert said["ollama"].startswith("Ollama answers on port ") and said["ollama"].endswith("with 1 model")
    assert said["lm-studio"].endswith("with 2 models")


@pytest.mark.parametrize("name", sorted(set(ENGINES) - {"jan"}))
def test_an_engine_is_not_taken_for_another(name: str) -> None:
    others = {f"{other}-there": ENGINES[other] for other in ENGINES if other != name}
    detected = asyncio.run(look(others, dict.fromkeys(others, name)))
    assert detected.providers == {}
    assert not any(asked.found for asked in detected.asked)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (answer({"detail": "no key"}, 401), "wants a key: declare it under providers:"),
        (answer({"error": "x"}, 404), "answers /v1/models with status 404"),
        (answer({}, 302), "answers /v1/models with status 302"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n", "did not answer as vLLM does"),
        (answer(b"[" * 100_000), "did not answer as vLLM does"),
        (b"\x00" * 100_000, "did not answer as vLLM does"),
        (answer(b"<html>"), "did not answer as vLLM does"),
        (answer(b"[]"), "answers, but not as vLLM does"),
        (answer(b"null"), "answers, but not as vLLM does"),
        (answer({"data": []}), "answers, but not as vLLM does"),
        (answer({"data": "vllm"}), "answers, but not as vLLM does"),
        (answer(listing("gpt-4o", owned_by="openai")), "answers, but not as vLLM does"),
        (answer(b"x" * (2 << 20), length=False), "did not answer as vLLM does"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "did not answer as vLLM does"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffff\r\n", "did not answer as vLLM does"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nshort", "did not answer as vLLM does"),
    ],
)
def test_something_else_is_no_engine(said: bytes, sentence: str) -> None:
    detected = asyncio.run(look({"vllm": lambda _path: said}))
    assert detected.providers == {}
    [asked] = detected.asked
    assert sentence in asked.said and not asked.found


def test_odd_models_are_left_out() -> None:
    odd = {"data": [{"id": "good", "owned_by": "vllm"}, {"id": 5}, {"id": ""}, {"id": "a b"}, {"id": "x\n"}, 7, {}]}
    many = listing(*(f"m{i}" for i in range(900)), owned_by="sglang")
    detected = asyncio.run(look({"vllm": lambda _p: answer(odd), "sglang": lambda _p: answer(many)}))
    assert list(detected.providers["vllm"].models or ()) == ["good"]
    assert len(detected.providers["sglang"].models or ()) == 500


def test_silent_engines_are_waited_for_at_the_same_time() -> None:
    async def main() -> tuple[Detected, float]:
        async with AsyncExitStack() as stack:
            silent = {f"s{i}": await stack.enter_async_context(engine(lambda _path: None)) for i in range(6)}
            found = {name: replace(at_port(ROWS["ollama"], port), name=name) for name, port in silent.items()}
            quick = await stack.enter_async_context(engine(ENGINES["vllm"]))
            found["vllm"] = at_port(ROWS["vllm"], quick)
            began = time.monotonic()
            detected = await engines(found)
            return detected, time.monotonic() - began

    took = []
    for _ in range(3):
        detected, seconds = asyncio.run(main())
        took.append(seconds)
        assert list(detected.providers) == ["vllm"]
        assert sum("said nothing within 0.3 s" in asked.said for asked in detected.asked) == 6
    assert min(took) < 6 * 0.3, took


def test_ports_that_are_not_asked() -> None:
    async def main() -> Detected:
        async with engine(ENGINES["vllm"]) as port:
            return await engines({"vllm": at_port(ROWS["vllm"], port)}, skip={port})

    assert asyncio.run(main()) == Detected({}, ())


def test_nothing_listens() -> None:
    async def main() -> Detected:
        async with engine(ENGINES["vllm"]) as port:
            pass
        return await engines({"vllm": at_port(ROWS["vllm"], port)})

    [asked] = asyncio.run(main()).asked
    assert isinstance(asked, Asked) and asked.said == f"nothing listens on port {asked.port}"


def test_ports_that_are_configured_already() -> None:
    def at(url: str, origin: str = "file") -> Provider:
        return Provider(name="p", base_url=url, origin=origin)

    found = taken(
        {
            "a": at("http://127.0.0.1:11434/v1"), "b": at("http://localhost:8000/v1", "store"),
            "c": at("https://[::1]/v1"), "d": at("http://10.0.0.1:1234/v1"), "g": at("http://127.0.0.1/v1"),
            "e": at("http://127.0.0.1:1/v1", "builtin"), "f": at("http://127.0.0.1:1337/v1", "detected"),
        }
    )  # fmt: skip
    assert found == {11434, 8000, 443, 80}
