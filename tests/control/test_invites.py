"""Contributors' links against a real control process and a real provider: good once, for 72 hours; who sees what."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from headgate.process.boot import AccessSettings
from tests.control.child import ADMIN, Child

KEY = "sk-canary-contributed-0123456789"
WRONG = "sk-canary-wrong-0123456789abcd"
PUBLIC = "https://gate.example.com"


class _Upstream(BaseHTTPRequestHandler):
    """A provider that knows one key, and repeats a wrong one in its error."""

    def do_GET(self) -> None:
        good = self.headers.get("authorization") == f"Bearer {KEY}"
        body = {"data": [{"id": "m"}]} if good else {"error": {"message": f"bad key {self.headers['authorization']}"}}
        payload = json.dumps(body).encode()
        self.send_response(200 if good else 401)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


@pytest.fixture(scope="module")
def child(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    state = tmp_path_factory.mktemp("state")
    with Child(state, access=AccessSettings(("gate.example.com",), PUBLIC)) as running:
        done = running.call(
            "POST", "/admin/v1/providers", json={"name": "mine", "title": "Mine & <Co>", "base_url": upstream}
        )
        assert done.status_code == 201, done.text
        yield running


def invite(child: Child, **wish: Any) -> dict[str, Any]:
    made = child.call("POST", "/admin/v1/invites", json={"provider": "mine", **wish})
    assert made.status_code == 201, made.text
    return dict(made.json())


def visit(child: Child, link: str, key: str | None = None, *, post: bool = False) -> httpx2.Response:
    """As a browser does: with the public name as Host, without a token; a POST has the Origin null."""
    headers = {"host": "gate.example.com"} | ({"origin": "null"} if key is not None or post else {})
    url = child.url + link.removeprefix(PUBLIC)
    if key is None and not post:
        return httpx2.get(url, headers=headers, trust_env=False, verify=False, timeout=60)
    return httpx2.post(url, headers=headers, data={"key": key or ""}, trust_env=False, verify=False, timeout=60)


def withdrawal(page: httpx2.Response) -> str:
    return page.text.partition('href="')[2].partition('"')[0]


def accounts(child: Child) -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in child.call("GET", "/admin/v1/accounts?provider=mine").json()["data"]}


def test_a_contributor_stores_a_key_and_removes_it_again(child: Child) -> None:
    made = invite(child, label="ann", note="Hello <b>Ann</b>")
    assert made["link"].startswith(f"{PUBLIC}/invite/hgi_") and made["expires"] - made["created"] == 72 * 3600
    page = visit(child, made["link"])
    assert page.status_code == 200
    assert "Hello &lt;b&gt;Ann&lt;/b&gt;" in page.text and "Mine &amp; &lt;Co&gt;" in page.text
    assert page.headers["cache-control"] == "no-store" and page.headers["referrer-policy"] == "no-referrer"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "form-action 'self'" in policy and "<script" not in page.text

    refused = visit(child, made["link"], WRONG)
    assert refused.status_code == 400 and "refuses this key" in refused.text and WRONG not in refused.text
    assert visit(child, made["link"], "two words").status_code == 400
    assert "No key was given" in visit(child, made["link"], "  ").text
    assert "mine/ann" not in accounts(child)

    done = visit(child, made["link"], f" {KEY}\n")
    assert done.status_code == 200 and KEY not in done.text
    assert accounts(child)["mine/ann"]["state"] == "active"
    for key in (None, KEY):
        again = visit(child, made["link"], key)
        assert again.status_code == 410 and "used already" in again.text
    (listed,) = [one for one in child.call("GET", "/admin/v1/invites").json()["data"] if one["id"] == made["id"]]
    assert (listed["state"], listed["account"], "link" in listed) == ("used", "mine/ann", False)
    over = child.call("DELETE", f"/admin/v1/invites/{made['id']}")
    assert (over.status_code, over.json()["error"]["code"]) == (409, "invite_over")

    link = withdrawal(done)
    assert link.startswith(f"{PUBLIC}/invite/withdraw/hgw_")
    assert "Remove your key?" in visit(child, link).text and "mine/ann" in accounts(child), "looking removes nothing"
    gone = visit(child, link, post=True)
    assert gone.status_code == 200 and "was removed" in gone.text and "mine/ann" not in accounts(child)
    assert visit(child, link, post=True).status_code == 410
    assert visit(child, made["link"]).status_code == 410


def test_concurrent_use_of_an_invite_stores_one_key(child: Child) -> None:
    made = invite(child)
    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(lambda _one: visit(child, made["link"], KEY), range(8)))
    assert sorted(page.status_code for page in pages) == [200, *[410] * 7]
    assert [ident for ident in accounts(child) if ident.startswith("mine/invite-")] == [f"mine/invite-{made['id']}"]


def test_invalid_invite_links_answer_404(child: Child) -> None:
    made = invite(child, label="bob")
    other = invite(child, label="eve")["link"].rpartition("_")[2]
    token = made["link"].rpartition("/")[2]
    for wrong in (
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        f"hgi_{made['id']}_{other}",
        token.replace("hgi_", "hgw_"),
        f"hgi_00000000_{other}",
        "x",
        "%00",
        "hgi_" + "a" * 500,
    ):
        for path in (f"/invite/{wrong}", f"/invite/withdraw/{wrong}"):
            assert visit(child, PUBLIC + path).status_code == 404, path
            assert visit(child, PUBLIC + path, KEY).status_code == 404, path
    assert child.call("DELETE", f"/admin/v1/invites/{made['id']}").json()["state"] == "revoked"
    assert "revoked" in visit(child, made["link"]).text and visit(child, made["link"], KEY).status_code == 410

    late = invite(child, label="late")
    with sqlite3.connect(child.state / "headgate.db", timeout=30) as store:
        store.execute("UPDATE invites SET expires_at = created_at WHERE id = ?", (late["id"],))
    store.close()
    assert "72 hours" in visit(child, late["link"], KEY).text and "mine/late" not in accounts(child)


def test_a_withdrawal_spares_another_key_of_that_name(child: Child) -> None:
    done = visit(child, invite(child, label="again")["link"], KEY)
    assert child.call("DELETE", "/admin/v1/accounts/mine/again").status_code == 200
    wish = {"provider": "mine", "label": "again", "key": "sk-of-the-operator-0123456789", "test": False}
    assert child.call("POST", "/admin/v1/accounts", json=wish).status_code == 201
    assert visit(child, withdrawal(done), post=True).status_code == 200
    assert "mine/again" in accounts(child)


def test_a_link_is_asked_ten_times_a_minute(child: Child) -> None:
    link = invite(child, label="often")["link"]
    answers = [visit(child, link) for _one in range(12)]
    assert [one.status_code for one in answers] == [200] * 10 + [429] * 2
    assert answers[-1].headers["retry-after"] == "60" and "Wait a minute" in answers[-1].text


def test_invite_errors_have_their_codes(child: Child, tmp_path: Path) -> None:
    for wish, code in (
        ({"provider": "nobody"}, "provider_not_found"),
        ({"provider": "ollama"}, "invalid_value"),
        ({"provider": "mine", "label": "a b"}, "invalid_value"),
    ):
        assert child.call("POST", "/admin/v1/invites", json=wish).json()["error"]["code"] == code
    assert child.call("POST", "/admin/v1/invites", token=None, json={"provider": "mine"}).status_code == 401
    assert child.call("DELETE", "/admin/v1/invites/00000000").json()["error"]["code"] == "invite_not_found"
    elsewhere = httpx2.get(f"{child.url}/invite/x", headers={"host": "evil.example"}, trust_env=False, verify=False)
    assert elsewhere.status_code == 403
    with Child(tmp_path) as without:
        refused = without.call("POST", "/admin/v1/invites", json={"provider": "groq"}).json()["error"]
        assert refused["code"] == "no_public_url" and "control.public_url" in refused["message"]


def test_no_key_and_no_link_is_kept_anywhere(child: Child) -> None:
    done = visit(child, invite(child, label="last")["link"], KEY)
    link = withdrawal(done)
    shown = "".join(
        child.call("GET", f"/admin/v1/{path}").text for path in ("accounts", "invites", "providers", "vault")
    )
    assert child.end() == 0
    for content in (shown.encode(), *(path.read_bytes() for path in child.state.rglob("*") if path.is_file())):
        for secret in (KEY, WRONG, ADMIN, link.rpartition("_")[2]):
            if secret.encode() in content:
                raise AssertionError(f"{secret[:8]} is in it")
