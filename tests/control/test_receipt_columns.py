"""A column that is added to the table of receipts reaches the store, the API, JSON, CSV and the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from headgate.control.store.receipt_columns import RECEIPT

# In a process of its own: the modules that are made from the table are imported after the column is added
ADD_COLUMNS = """
import json, sys
from pathlib import Path
from sqlalchemy import BigInteger, Text
from headgate.control.store import receipt_columns as table

added = (
    table.ReceiptColumn("echo", Text, opened="label", write=("text", "blank"), early=True, shown="echoed_label",
                        view=str | None),
    table.ReceiptColumn("wide", BigInteger, closed="bytes_out", shown="usage.wire_bytes", view=int | None),
)
table.RECEIPT += added

from headgate.cli.display.terminal import draw, print_csv
from headgate.cli.nouns.requests import counted, picture
from headgate.control.api.nouns.requests import RequestView
from headgate.control.ingest.recorder import Recorder
from headgate.control.reports import requests
from headgate.control.store.database import open_store
from tests.control.journal_writer import Writer, closed, ident, opened, run

async def main(folder):
    engine = await open_store(f"sqlite+aiosqlite:///{folder / 'store.db'}")
    writer = Writer(folder / "journal")
    writer.write(opened(1, label="team/42"), closed(1, bytes_out=77))
    recorder = Recorder(engine, folder / "journal")
    await recorder.start()
    try:
        await recorder.catch_up()
        row = await requests.one(engine, ident(1))
    finally:
        await recorder.stop()
        await engine.dispose()
    RequestView.model_validate(row)
    members = RequestView.model_json_schema()
    assert "echoed_label" in members["properties"] and "wire_bytes" in members["$defs"]["UsageView"]["properties"]
    print(json.dumps(row))
    print_csv([counted(row)])
    draw(picture(row))

run(main(Path(sys.argv[1])))
"""


def test_added_column_reaches_store_api_json_csv_and_command_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ADD_COLUMNS, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    as_json, heading, cells, *drawn = done.stdout.splitlines()
    assert '"echoed_label": "team/42"' in as_json and '"wire_bytes": 77' in as_json
    members = dict(zip(heading.split(","), cells.split(","), strict=True))
    assert (members["echoed_label"], members["usage.wire_bytes"]) == ("team/42", "77")
    lines = [line.split() for line in drawn]
    assert ["echoed", "label", "team/42"] in lines and ["wire", "bytes", "77"] in lines


def test_each_shown_column_has_one_place() -> None:
    shown = [column.shown for column in RECEIPT if column.shown]
    assert len(shown) == len(set(shown)) and all(column.view is not None for column in RECEIPT if column.shown)
