"""Canaries as keys, tokens, passwords and secrets: after every endpoint and fault they are in nothing that is kept or
said, in no spelling.

The upstream quotes its key in every place of its errors; processes are aborted, so that a core file would be written.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import resource
import signal
import socket
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

from headgate.dialects.registry import BACKENDS
from tests.e2e.echoing import PLACES, echoing, forms
from tests.e2e.gateway import FILE_TOKEN as CI_TOKEN
from tests.e2e.gateway import Gateway, Make
from tests.ports import free_port
from tests.receiver import receiver
from tests.serving.apis import APIS, GEMINI, Api
from tests.spellings import leaks, spellings

KEY = "Canary/kQ7+pR9=wX3&vB5zL8"
STORED_KEY = "Canary/stored+mN4=hT6&jD2yF9"
HEADER = "Canary/header+cG8=sV1&uE5oA7"
STORED_HEADER = "Canary/stored-header+bN6=rW8&eK2"
FILE_TOKEN = "canary-token-bW2xK6nQ9rJ4"
PASSWORD = "Canary password/3tY7+qM5=dS9"
OIDC_SECRET = "Canary/oidc+fP6=kL3&aZ8eU4"
HOOK_KEY = bytes(range(40, 72))
HOOK_PATH = "Canary-hook-gR5vC9tN2"
MASTER_KEY = bytes(range(80, 112))
GUESSED = "hg_pat_deadbeef_CanaryGuessedTokenCanaryGuessedTokenCanary1"
KEEPERS = {"admin.token", "cli.token"}  # 0600: to hold a token is what they are for
# Places in which every spelling is tried; in the others a few
MAIN, FEW = ("message", "text", "head", "good head", "event", "torn event"), ("plain", "url", "base64 0")
SPEAKING = {dialect.replace("_", "-"): dialect for dialect in BACKENDS}  # a provider of each dialect
SPOKEN = tuple(APIS.values())
RESTING = (401, 429, 500)  # statuses after which an account rests


class Conversation:
    """Everything that was answered, as it came."""

    def __init__(self, gate: Gateway) -> None:
        self.gate = gate
        self.heard: list[bytes] = []

    def data(self, method: str, path: str, token: str, body: Any = None, field: str = "authorization") -> int:
        return self._ask(self.gate.port, method, path, {field: f"Bearer {token}" if field[0] == "a" else token}, body)[
            0
        ]

    def ask(self, api: Api, token: str, model: str, *, stream: bool = False) -> None:
        """A call of an API."""
        named = {} if api.name == GEMINI else {"model": model, "stream": stream}
        self.data("POST", api.path(model, stream), token, {**api.request(stream), **named})

    def admin(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        fields = {"authorization": f"Bearer {self.gate.admin_token}"}
        status, raw = self._ask(self.gate.control_port, method, f"/admin/v1{path}", fields, body)
        return status, json.loads(raw) if raw else None

    def _ask(self, port: int, method: str, path: str, fields: dict[str, str], body: Any) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"content-type": "application/json", **fields})
        answer = connection.getresponse()
        raw = answer.read()
        head = f"{answer.status} {answer.reason} {answer.getheaders()}".encode()
        connection.close()
        self.heard += [head, raw]
        return answer.status, raw

    def raw(self, port: int, sent: bytes) -> None:
        """Bytes that are no request; whatever comes back."""
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(65_536):
                self.heard.append(piece)


def configuration(gate: Gateway, url: str, hook: str) -> str:
    """The gateway's file: canaries wherever it takes a secret."""
    dead = f"http://127.0.0.1:{free_port()}"
    row = {"base_url": url, "keys": [KEY], "headers": {"X-Team-Secret": f"Bearer {HEADER}"}}
    oidc = {"issuer": dead, "client_id": "gate", "client_secret": OIDC_SECRET, "roles": {"ops": "admin"}}
    hooks = [{"name": "ops", "url": f"{hook}/{HOOK_PATH}", "secret": f"whsec_{base64.b64encode(HOOK_KEY).decode()}"}]
    hooks.append({"name": "dead", "url": f"{dead}/{HOOK_PATH}?sig={HOOK_PATH}"})
    tables: dict[str, Any] = {
        "server": {"port": gate.port, "drain_s": 5},
        "control": {"port": gate.control_port, "oidc": oidc},
        "state_dir": str(gate.state),
        "logging": {"level": "debug"},
        "detect": {"local_engines": False},
        "master_key": base64.b64encode(MASTER_KEY).decode(),
        "providers": {
            "echo": row,
            **{provider: {**row, "dialect": dialect} for provider, dialect in SPEAKING.items()},
            "dead": {"base_url": dead, "keys": [KEY]},
        },
        "webhooks": hooks,
        "tokens": [
            {"name": "canary", "secret": FILE_TOKEN, "budget": {"usd": 1, "mode": "soft"}},
            {"name": "ci", "secret": CI_TOKEN},
        ],
    }
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in tables.items())


def faults(said: Conversation) -> None:
    """Every place and spelling in which the provider can quote its key."""
    all_forms = list(forms(KEY))

    def call(status: int, place: str, form: int, provider: str = "echo") -> None:
        number = PLACES.index(place) + form
        model = f"{provider}/{status}.{place.replace(' ', '_')}.{form}"
        said.ask(SPOKEN[number % len(SPOKEN)], FILE_TOKEN, model, stream=number % 2 == 0)

    few = [all_forms.index(name) for name in FEW]
    tried = [*product(MAIN, range(len(all_forms))), *((place, form) for place in PLACES for form in few)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: call(400, *one), dict.fromkeys(tried)))
    for status, place, form in product(RESTING, MAIN, few):
        call(status, place, form)
        said.admin("POST", "/providers/echo/resume", {})
    for provider, place, form in product((*SPEAKING, "stored"), MAIN, range(len(SPOKEN))):
        call(400, place, form, provider)


def asked_again(said: Conversation) -> None:
    """A call of each provider that has a secret header."""
    for provider in ("echo", "stored"):
        said.ask(SPOKEN[0], FILE_TOKEN, f"{provider}/200.message.0")


def endpoints(said: Conversation, made: str) -> None:
    """Every path that reads, and mistakes with secrets in places where they do not belong."""
    for token in (FILE_TOKEN, made, GUESSED, KEY, PASSWORD.replace(" ", "")):
        for path in ("/v1/models", "/v1/usage", "/v1/tokens", "/health", "/v1/requests/none", f"/v1/{token[-9:]}/x"):
            said.data("GET", path, token)
        for api in SPOKEN:
            said.ask(api, token, "dead/m")
        said.data("POST", "/v1/messages", token, {"model": "dead/m"}, field="x-api-key")
    for head in (
        b"GET / HTTP/1.1\r\nAuthorization: Bearer %b\r\n bad\0line\r\n\r\n",
        b"GET /v1/%b\x01 HTTP/1.1\r\n\r\n",
    ):
        for port in (said.gate.port, said.gate.control_port):
            said.raw(port, head % FILE_TOKEN.encode())
    status, schema = said._ask(said.gate.control_port, "GET", "/openapi.json", {}, None)
    assert status == 200
    for path, operations in json.loads(schema)["paths"].items():
        if "get" in operations and path.startswith("/admin/v1"):
            named = path.removeprefix("/admin/v1").replace("{ident}", "none").replace("{wanted}", "echo/0")
            said.admin("GET", named.replace("{name}", "echo"))


def mistakes(said: Conversation) -> None:
    """Secrets given to the admin API, well and badly."""
    said.admin("POST", "/users", {"name": "ada", "role": "admin", "password": PASSWORD})
    for login in (("ada", PASSWORD), ("ada", PASSWORD + "x"), (PASSWORD, PASSWORD), (PASSWORD, "ada")):
        body = {"name": login[0], "password": login[1]}
        said._ask(said.gate.control_port, "POST", "/admin/v1/login", {}, body)
    said.admin("POST", "/users", {"name": PASSWORD, "role": "admin", "password": PASSWORD})
    account = {"provider": "echo", "key": STORED_KEY, "label": "spare", "test": False}
    assert said.admin("POST", "/accounts", account)[0] == 201
    said.admin("POST", "/accounts", {"provider": "echo", "key": STORED_KEY, "label": "tried"})
    said.admin("POST", "/accounts", {"provider": "echo", "key": f"{STORED_KEY} x", "label": "bad"})
    said.admin("POST", "/accounts", {"provider": "none", "key": STORED_KEY})
    for name in ("echo", *SPEAKING, "dead"):
        said.admin("POST", f"/providers/{name}/check")
    for name in ("ops", "dead"):
        said.admin("POST", f"/webhooks/{name}/test")
    said._ask(said.gate.control_port, "GET", "/admin/v1/oidc/login", {}, None)
    good = said.gate.config.read_text()
    said.gate.config.write_text(f"{good}default_model: [{KEY}]\nadmin_token: x\n")
    said.admin("POST", "/reload")
    said.gate.config.write_text(good)
    said.admin("POST", "/reload")


def abort(gate: Gateway, role: str) -> None:
    """End a process in the way that leaves a core file, where one is written."""
    killed = gate.kill(role, signal.SIGABRT)
    gate.until(lambda: gate.pids().get(role, killed) != killed)
    gate.until(gate._recorded)


def test_no_canary_is_kept_or_said(gateway: Make) -> None:
    with echoing() as upstream, receiver() as hook:
        gate = gateway()
        gate.config.write_text(configuration(gate, upstream.url, hook.url.partition("/hook")[0]))
        gate.start()
        said = Conversation(gate)
        _status, raw = said._ask(
            gate.control_port, "POST", "/admin/v1/tokens", {"authorization": f"Bearer {gate.admin_token}"},
            {"name": "made"},
        )  # fmt: skip
        said.heard.clear()  # the only answer that shows a token
        made = json.loads(raw)["token"]
        stored = {"name": "stored", "base_url": upstream.url, "headers": {"X-Team-Secret": STORED_HEADER}}
        assert said.admin("POST", "/providers", stored)[0] == 201
        assert said.admin("POST", "/accounts", {"provider": "stored", "key": STORED_KEY, "test": False})[0] == 201
        faults(said)
        assert {f"Bearer {HEADER}", STORED_HEADER} <= upstream.seen
        assert {"completions", "messages", "responses", "generateContent"} <= upstream.paths
        mistakes(said)
        endpoints(said, made)
        commands = (("config", "show"), ("requests", "-n", "500", "--json"), ("audit",), ("doctor",))
        printed = [gate.cli(*command) for command in commands]
        time.sleep(1.1)  # refusals are written once a second
        journals = {path.name: path.read_bytes() for path in (gate.state / "journal").iterdir()}
        for pid in (gate.process.pid, *gate.pids().values()):
            assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
        for role in ("data", "control"):
            abort(gate, role)
        upstream.seen.clear()
        asked_again(said)
        assert {f"Bearer {HEADER}", STORED_HEADER} <= upstream.seen  # they are still known
        admin = gate.admin_token
        written = gate.err.read_bytes()
        assert gate.end() in (0, -signal.SIGTERM)

    secrets = {
        "key": KEY, "stored key": STORED_KEY, "header": HEADER, "stored header": STORED_HEADER, "guess": GUESSED,
        "token": FILE_TOKEN, "made token": made, "admin token": admin, "password": PASSWORD, "oidc": OIDC_SECRET,
        "hook path": HOOK_PATH, "hook key": base64.b64encode(HOOK_KEY).decode(),
        "master key": base64.b64encode(MASTER_KEY).decode(),
    }  # fmt: skip
    files = {
        str(path.relative_to(gate.home)): path.read_bytes()
        for path in gate.home.rglob("*")
        if path.is_file() and path not in (gate.config, gate.out) and path.name not in KEEPERS
    }
    assert not [name for name in files if "core" in name.lower()], "a core file was written"
    assert {"state/headgate.db", "err"} <= files.keys() and journals
    assert len(said.heard) > 500 and any(b"so far" in one for one in said.heard)
    texts = {f"answer {number}": text for number, text in enumerate(said.heard)}
    texts |= {f"journal {name}": text for name, text in journals.items()}
    texts |= {f"printed by {' '.join(one.args[3:])}": (one.stdout + one.stderr).encode() for one in printed}
    found = leaks(secrets, files | texts | {"log": written})
    found += [(where, "key", "cut") for where, text in (files | texts).items() if KEY[:12].encode() in text]
    shown = {where: texts[where][:900] for where, _name, _form in found if where in texts}
    assert not found, f"{len(found)}: {found[:12]} … {list(shown.items())[:5]}"
    assert gate.out.read_text().count(admin) == 1  # shown once, by the first start
    kept = [path for path in gate.state.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert stat.S_IMODE(gate.state.stat().st_mode) == 0o700


def test_the_search_finds_each_spelling() -> None:
    said = forms(KEY)
    for name, text in said.items():
        if name != "cut":
            assert leaks({"key": KEY}, {"there": f"before {text} behind".encode()}), name
    for shift in range(3):
        whole = base64.b64encode(b"u:" * shift + KEY.encode() + b"!")
        assert leaks({"key": KEY}, {"there": whole})
    assert leaks({"key": KEY}, {"there": b"nothing of the kind"}) == []
    assert len(spellings(KEY)) > 15 and os.sep == "/"
