"""The first start's token in the store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from headgate.control.identity import tokens
from headgate.control.store.database import open_store
from headgate.model import Grant

KEY = b"k" * 32


def test_the_first_token_is_stored_once_and_under_a_free_name(tmp_path: Path) -> None:
    assert asyncio.run(names_after_three_starts(tmp_path)) == ["first", "first-2", "first-3"]


async def names_after_three_starts(tmp_path: Path) -> list[str]:
    engine = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'headgate.db'}")
    try:
        await tokens.create(engine, KEY, Grant(id="", name="first", origin="store"))
        for digit in "112":  # the same start twice, as where control was restarted; then another one
            await tokens.adopt_first(engine, KEY, f"hg_pat_0000000{digit}_{'s' * 43}")
        return sorted(entry.grant.name for entry in await tokens.page(engine, 10))
    finally:
        await engine.dispose()
