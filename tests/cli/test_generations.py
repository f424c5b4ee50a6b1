"""Which models a list shows without being asked for all of them, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.cli.display.generations import generation, of_today


@pytest.mark.parametrize(
    ("ident", "family", "number"),
    [
        ("openai/gpt-5.4-mini", "gpt", 5.4),
        ("openai/gpt-4o-mini-2024-07-18", "gpt", 4),
        ("gpt-audio-mini-2025-12-15", "gpt", None),
        ("gpt-35-turbo-16k-0613", "gpt", None),
        ("o4-mini", "o", 4),
        ("anthropic/claude-opus-4-5", "claude", 4.5),
        ("claude-3-5-haiku-latest", "claude", 3.5),
        ("claude-sonnet-5-20260101", "claude", 5),
        ("groq/llama-3.3-70b-versatile", "llama", 3.3),
        ("llama3-8b-8192", "llama", 3),
        ("qwen/qwen3.8-27b:free", "qwen", 3.8),
        ("mixtral-8x7b-32768", "mixtral", None),
        ("kimi-k2-instruct", "kimi", 2),
        ("command-r-08-2024", "command", None),
        ("", "", None),
        ("---", "", None),
    ],
)
def test_generation_is_read_from_the_id(ident: str, family: str, number: float | None) -> None:
    assert generation(ident) == (family, number)


def row(ident: str, **block: Any) -> dict[str, Any]:
    provider = ident.partition("/")[0]
    return {"id": ident, "headgate": {"provider": provider, "kind": "chat", "retired": False, **block}}


def test_museum_pieces_snapshots_and_other_kinds_are_left_out() -> None:
    known = [
        row("openai/gpt-3.5-turbo"),
        row("openai/gpt-5.4"),
        row("openai/gpt-5.4-2026-01-01"),
        row("openai/gpt-6"),
        row("openai/gpt-6:batch"),
        row("openai/gpt-6-preview", retired=True),
        row("openai/gpt-4o", capabilities=["tools"]),  # its row names it
        row("openai/gpt-4.1", uses_30d=3),
        row("openai/text-embedding-9", kind="embedding"),
        row("mine/gpt-2", provider="other"),  # declared under its own id
        row("builtin/lorem"),
    ]
    assert [one["id"] for one in of_today(known)] == [
        "openai/gpt-6", "openai/gpt-5.4", "openai/gpt-4.1", "openai/gpt-4o", "mine/gpt-2", "builtin/lorem",
    ]  # fmt: skip


def test_the_newest_of_each_family_come_first() -> None:
    known = [row("a/llama-3.3-70b"), row("a/gpt-5"), row("a/oddity"), row("a/llama-4-scout"), row("a/gpt-5.5")]
    assert [one["id"] for one in of_today(known)] == [
        "a/llama-4-scout", "a/gpt-5.5", "a/gpt-5", "a/llama-3.3-70b", "a/oddity",
    ]  # fmt: skip
