"""A provider's key, the admin token and agents' tokens are searched for in everything that is written or answered."""

from __future__ import annotations

import json
import stat
import time

from headgate.testing import serve_in_thread
from tests.e2e.gateway import FILE_TOKEN, Make, ask
from tests.ports import free_port

KEY = "sk-canary-0123456789abcdefghij"
WRONG = "hg_pat_deadbeef_canarycanarycanarycanarycanarycanarycana"
HEADER = "hdr-canary-112233445566"
STORED = "stored-canary-112233445566"
KEEPERS = {"admin.token", "cli.token"}  # 0600: to hold a token is what they are for


def providers(url: str) -> str:
    """One that works, one whose key is refused, one that nobody answers for."""
    rows = {
        "up": {
            "base_url": url,
            "keys": [KEY],
            "models": {"good": {"upstream_model": "echo"}},
            "headers": {"X-Team-Secret": f"Bearer {HEADER}"},
        },
        "wrong": {"base_url": url, "keys": [f"{KEY}-wrong"], "models": {"refused": {"upstream_model": "echo"}}},
        "dead": {"base_url": f"http://127.0.0.1:{free_port()}/v1", "keys": [KEY], "models": {"dead": None}},
    }
    return f"providers: {json.dumps(rows)}\n"


def test_no_secret_is_written_or_answered(gateway: Make) -> None:
    with serve_in_thread(keys=[KEY]) as upstream:
        one = gateway(providers(upstream.url)).start()
        answered: list[object] = []
        made = one.admin("POST", "/tokens", {"name": "agent"})[1]["token"]
        stored = {"name": "stored", "base_url": upstream.url, "headers": {"X-Team-Secret": STORED}}
        answered += [one.admin("POST", "/providers", stored)]
        answered += [one.admin("POST", "/accounts", {"provider": "stored", "key": KEY, "label": "a"})]
        assert one.chat("stored/echo")[0] == 200
        assert upstream.requests[-1].headers["x-team-secret"] == STORED
        answered += [one.admin("POST", f"/providers/{name}/check") for name in ("up", "stored")]
        answered += [one.admin("GET", "/providers")]
        calls = len(answered)
        for token in (FILE_TOKEN, made):
            status, body = one.chat("good", token)
            assert status == 200
            answered.append(body)
            answered += [one.chat(model, token) for model in ("refused", "dead", "absent")]
            answered += [one.get(f"/v1/requests/{body['id']}", token), one.get("/v1/usage", token)]
        assert [status for status, _body in answered[calls + 1 : calls + 3]] == [502, 502]  # type: ignore[misc]
        answered += [one.chat("good", WRONG), one.chat("good", one.admin_token), one.get("/health", "")]
        answered += [ask("GET", f"http://127.0.0.1:{one.control_port}/admin/v1/tokens", WRONG)]
        answered += [one.admin("GET", path) for path in ("/health", "/tokens", "/nothing")]
        answered += [one.admin("POST", "/tokens", {"name": made, "budget": KEY})]
        one.configure(providers(upstream.url) + f"default_model: [{KEY}]\nadmin_token: x\n")
        answered += [one.admin("POST", "/reload")]
        shown = one.cli("config", "show", "--config", str(one.config))
        answered += [shown.stdout, shown.stderr, one.cli("token", "list").stdout]
        one.configure(providers(upstream.url))
        for role in ("data", "control"):
            one.kill(role)
            one.until(lambda name=role: f"the {name} process answers again" in one.log)
        assert one.chat("good", made)[0] == 200
        assert upstream.requests[-1].headers["x-team-secret"] == f"Bearer {HEADER}"
        assert one.chat("stored/echo", made)[0] == 200
        assert upstream.requests[-1].headers["x-team-secret"] == STORED
        time.sleep(1.1)  # refusals are written once a second
        admin = one.admin_token
        assert one.until(lambda: any(seen.path.endswith("/completions") for seen in upstream.requests))
        journals = {path: path.read_bytes() for path in (one.state / "journal").iterdir()}
        assert one.end() == 0

    secrets = [KEY, HEADER, STORED, made, admin, WRONG, FILE_TOKEN]
    texts = {"stderr": one.log, "answers": json.dumps(answered, default=str)}
    found = [(where, secret[:9]) for where, text in texts.items() for secret in secrets if secret in text]
    files = [path for path in one.state.rglob("*") if path.is_file() and path.name not in KEEPERS]
    assert {"headgate.db", "instance.key", "snapshot-w0.bin"} <= {path.name for path in files} and journals
    contents = journals | {path: path.read_bytes() for path in files}
    found += [
        (path.name, secret[:9]) for path, text in contents.items() for secret in secrets if secret.encode() in text
    ]
    assert found == []
    assert one.out.read_text().count(admin) == 1  # shown once, by the first start
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(one.state.stat().st_mode) == 0o700
