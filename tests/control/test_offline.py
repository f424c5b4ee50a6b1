"""The admin API while nothing runs: the same answers, on the store, under the state directory's lock."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from headgate.control.offline import offline
from headgate.process.statedir import StateError
from headgate.resources.compiled import Compiled
from tests.control.child import SECRET, Child, compiled
from tests.control.journal_writer import Writer, closed, ident, opened

KEY = "sk-canary-0123456789-abcd"


def test_it_works_on_the_store_and_the_gateway_finds_it(tmp_path: Path) -> None:
    config = tmp_path / "headgate.json"
    config.write_text(f'{{"aliases": ["chat"], "tokens": {{}}, "key": "{SECRET}"}}')
    writer = Writer(tmp_path / "journal")
    writer.write(opened(1), closed(1))
    writer.die()

    def load() -> Compiled:
        return compiled(config)

    async def main() -> str:
        async with offline(tmp_path, f"sqlite:///{tmp_path}/headgate.db", load) as client:
            made = await client.post("/tokens", json={"name": "laptop"})
            assert (made.status_code, made.json()["effective"]) == (201, True)
            account = await client.post("/accounts", json={"provider": "groq", "key": KEY, "test": False})
            assert account.json()["hint"] == "sk-…abcd"
            aliases = (await client.get("/aliases")).json()["data"]
            assert [view["name"] for view in aliases if view["managed_by_file"]] == ["chat"]
            rows = (await client.get("/requests")).json()["data"]
            assert [row["id"] for row in rows] == [ident(1)]  # what the journal still held
            drained = await client.post("/drain")
            assert (drained.status_code, drained.json()["error"]["code"]) == (409, "nothing_runs")
            with pytest.raises(StateError, match="already"):
                async with offline(tmp_path, f"sqlite:///{tmp_path}/headgate.db", load):
                    pass
            return str(made.json()["id"])

    ident_ = asyncio.run(main())
    with Child(tmp_path) as child:
        assert child.call("GET", f"/admin/v1/tokens/{ident_}").json()["name"] == "laptop"
        assert child.call("GET", "/admin/v1/providers/groq").json()["status"] == "ready"


def test_the_process_that_uses_it_imports_no_server(tmp_path: Path) -> None:
    code = "import sys, headgate.control.offline; print('uvicorn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "False"
