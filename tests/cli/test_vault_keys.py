"""``headgate vault`` as a whole and ``headgate invite``, on a store without a gateway; no key is ever printed."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from tests.cli.conftest import Shell

KEY = "sk-canary-of-the-cli-0123456789"
PASSPHRASE = "correct horse battery"
LINE = "control: {public_url: https://gate.example.com/}\n"


def add(shell: Shell, provider: str, *more: str) -> str:
    return shell.good("vault", "add", provider, "--no-test", *more, stdin=KEY + "\n")


def test_keys_change_and_the_store_opens(shell: Shell) -> None:
    add(shell, "groq", "--label", "a", "--daily-limit", "9", "--spend-limit", "5/day", "--expires", "2099-01-31")
    (account,) = shell.told("vault", "list", "--provider", "groq")
    assert (account["daily_limit"], account["spend_limit"]) == (9, {"usd": 5.0, "period": "day", "action": "park"})
    shell.good("vault", "edit", "a", "--daily-limit", "0", "--spend-limit", "0", "--owner", "acme", "--share")
    edited = shell.told("vault", "show", "a")
    assert (edited["daily_limit"], edited["spend_limit"], edited["owner"], edited["share"]) == (
        None,
        None,
        "acme",
        True,
    )
    assert shell.run("vault", "edit", "a").returncode == 2
    assert shell.run("vault", "edit", "a", "--spend-limit", "much").returncode == 2

    before = shell.told("vault", "doctor")
    assert shell.told("vault", "rotate")["resealed"] == 1
    after = shell.told("vault", "doctor")
    assert after["ok"] and after["data_keys"] != before["data_keys"] and after["master_key"] == before["master_key"]
    new = shell.home / "new.key"
    new.write_bytes(base64.b64encode(bytes(range(32))))
    assert "vault.key" in shell.good("vault", "rotate", "--master-key-file", str(new))
    assert (shell.state / "vault.key").read_bytes() == bytes(range(32))
    assert shell.run("vault", "rotate", "--master-key-file", str(shell.home / "none")).returncode == 2

    (shell.state / "vault.key").rename(shell.home / "away.key")
    lost = shell.run("vault", "list")
    assert lost.returncode == 1 and "HEADGATE_MASTER_KEY" in lost.stderr and "Nothing was changed" in lost.stderr
    serve = shell.run("serve", "--port", "0")
    assert serve.returncode in (2, 4) and not (shell.state / "vault.key").exists()
    assert shell.told("vault", "doctor", environ={"HEADGATE_MASTER_KEY_FILE": str(new)})["ok"]
    assert shell.run("vault", "doctor", environ={"HEADGATE_MASTER_KEY": "secret"}).returncode == 2
    assert not [path for path in shell.state.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_export_and_import(shell: Shell, tmp_path: Path) -> None:
    add(shell, "groq", "--label", "a")
    file = shell.home / "keys.vault"
    assert shell.run("vault", "export", str(file), stdin="short\n").returncode == 2 and not file.exists()
    assert "1 key" in shell.good("vault", "export", str(file), stdin=PASSPHRASE + "\n")
    assert file.stat().st_mode & 0o777 == 0o600 and KEY.encode() not in file.read_bytes()
    assert shell.run("vault", "export", str(file), stdin=PASSPHRASE + "\n").returncode == 2, "it is there"
    home = tmp_path / "other"
    home.mkdir()
    other = Shell(home)
    assert other.run("vault", "import", str(file), stdin="another one, wrong\n").returncode == 2
    assert "stored 1 key" in other.good("vault", "import", str(file), stdin=PASSPHRASE + "\n")
    assert [row["id"] for row in other.told("vault", "list", "--provider", "groq")] == ["groq/a"]


def test_an_invite_needs_a_public_url(shell: Shell) -> None:
    refused = shell.run("invite", "create", "groq")
    assert refused.returncode != 0 and "control.public_url" in refused.stderr
    (shell.home / "headgate.yaml").write_text(LINE)
    link = shell.good("invite", "create", "groq", "--note", "for Ann").strip()
    assert link.startswith("https://gate.example.com/invite/hgi_")
    (row,) = shell.told("invite", "list")
    assert (row["state"], row["note"], row["provider"]) == ("open", "for Ann", "groq")
    assert "revoked" in shell.good("invite", "revoke", row["id"])
    assert shell.told("invites")[0]["state"] == "revoked"
    assert os.fsencode(link.rpartition("_")[2]) not in (shell.state / "headgate.db").read_bytes()
