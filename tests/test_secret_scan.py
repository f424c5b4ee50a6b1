"""The search for secrets in state directories finds them."""

from __future__ import annotations

from pathlib import Path

from tests.secret_scan import findings


def test_secrets_are_found_in_state_and_not_in_configuration(tmp_path: Path) -> None:
    folder = tmp_path.parent / f"{tmp_path.name}-searched"
    (folder / "state" / "journal").mkdir(parents=True)
    (folder / "headgate.yaml").write_bytes(b"keys: [sk-canary-1]")
    (folder / "state" / "headgate.db").write_bytes(b"nothing")
    assert findings(folder) == []
    (folder / "state" / "journal" / "w0-1").write_bytes(b"\0" * 5000 + b"sk-canary-1")
    (folder / "state" / "headgate.db-wal").write_bytes(b"x hg_test_0123456789abcdef0123 y")
    assert [one.rpartition(": ")[2] for one in sorted(findings(folder))] == ["hg_test_0123456789abcdef", "sk-canary"]
    for path in ("journal/w0-1", "headgate.db-wal"):
        (folder / "state" / path).unlink()
