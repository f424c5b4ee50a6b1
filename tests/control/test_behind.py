"""A change that is in the store and could not be told is told as soon as the store takes a generation again."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from headgate.cli.reach.offline import Nobody
from headgate.control.snapshot import upkeep
from headgate.control.snapshot.setup import set_up
from headgate.control.store.database import open_store
from headgate.model import Grant
from tests.control.child import SECRET, compiled

REFUSE = "CREATE TRIGGER full BEFORE UPDATE ON meta BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"


def test_a_token_that_was_revoked_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "MINUTE_S", 0.05)
    config = tmp_path / "headgate.json"
    config.write_text(f'{{"aliases": [], "tokens": {{}}, "key": "{SECRET}"}}')

    async def main() -> None:
        engine = await open_store(f"sqlite:///{tmp_path}/headgate.db")
        publishing = await set_up(tmp_path, engine, lambda: compiled(config))
        made = publishing.publication
        made.link = Nobody()
        await made.begin(compiled(config))
        minted, _ = await publishing.tokens.create(Grant("", "brief"))
        async with engine.begin() as connection:
            await connection.execute(text(REFUSE))
        with pytest.raises(SQLAlchemyError):
            await publishing.tokens.revoke(minted.grant.id)
        assert minted.digest in made.snapshot.tokens  # nobody has been told
        async with engine.begin() as connection:
            await connection.execute(text("DROP TRIGGER full"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await publishing.upkeep.each_minute()
        assert minted.digest not in made.snapshot.tokens
        await engine.dispose()

    asyncio.run(main())
