"""Every noun's verbs, end to end, against one running gateway and one upstream that wants a key."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx2

from tests.cli.conftest import KEY, MODEL
from tests.waiting import wait_until

if TYPE_CHECKING:
    from headgate.testing import Provider
    from tests.cli.conftest import Gateway, Shell


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


# ------------------------------------------------------------------------------------- providers and keys


def test_a_provider_from_nothing_to_an_answer(gateway: Gateway, upstream: Provider) -> None:
    added = gateway.good("providers", "add", "other", "--base-url", upstream.url, "--model", "echo")
    assert "headgate vault add other" in added
    assert "no key" in gateway.good("providers")
    assert gateway.run("providers", "check", "other").returncode == 1
    stored = gateway.good("vault", "add", "other", stdin=KEY + "\n")
    assert KEY not in stored and "it works: it lists" in stored
    checked = gateway.run("providers", "check", "other")
    assert checked.returncode == 0 and "✓" in checked.stdout, checked
    assert gateway.good("chat", "-m", "other/echo", "one two") == "one two\n"
    (account,) = gateway.told("vault", "list", "--provider", "other")
    assert KEY not in json.dumps(account)
    shown = gateway.good("providers", "show", "other")
    assert upstream.url in shown and account["id"] in shown and KEY not in shown
    assert "removed" in gateway.good("vault", "remove", account["id"])
    assert "removed" in gateway.good("provider", "remove", "other")
    assert gateway.run("chat", "-m", "other/echo", "x").returncode == 1
    assert gateway.run("providers", "show", "other").returncode == 1


def test_a_wrong_key_is_found_by_the_check(gateway: Gateway, upstream: Provider) -> None:
    wrong = "sk-test-0123456789abcdef-bad!"
    gateway.good("providers", "add", "wrong", "--base-url", upstream.url, "--model", "echo")
    refused = gateway.run("vault", "add", "wrong", stdin=wrong)
    assert refused.returncode != 0 and "--force" in refused.stderr and wrong not in refused.stdout + refused.stderr
    gateway.good("vault", "add", "wrong", "--force", stdin=wrong)
    checked = gateway.run("providers", "check", "wrong", "--json")
    (answer,) = json.loads(checked.stdout)
    assert checked.returncode == 1 and answer["results"][0]["status"] == 401 and wrong not in checked.stdout
    gateway.good("providers", "remove", "wrong")


def test_a_key_is_never_taken_from_the_command_line(gateway: Gateway) -> None:
    assert gateway.run("vault", "add", "openai", KEY).returncode == 2
    assert gateway.run("vault", "add", "openai", "--key", KEY).returncode == 2
    empty = gateway.run("vault", "add", "openai", stdin="")
    assert empty.returncode == 2 and "no key" in empty.stderr


def test_presets(gateway: Gateway) -> None:
    rows = gateway.told("providers", "presets")
    assert len(rows) >= 30
    table = gateway.good("providers", "presets", "--search", "groq")
    assert "GROQ_API_KEY" in table and "openai" not in table


def test_keys_of_the_environment(gateway: Gateway) -> None:
    environ = {"GROQ_API_KEY": "gsk_0123456789abcdefghijkl", "MISTRAL_API_KEY": "short"}
    plan = gateway.good("vault", "import-env", "--dry-run", environ=environ)
    assert "gsk…ijkl" in plan and "short" not in plan and "5 characters" in plan
    assert gateway.told("vault", "list", "--provider", "groq") == []
    asked = gateway.run("vault", "import-env", environ={"GROQ_API_KEY": "gsk_0123456789abcdefghijkl"})
    assert asked.returncode == 2 and "--yes" in asked.stderr  # nobody can be asked here
    only = {"GROQ_API_KEY": "gsk_0123456789abcdefghijkl", "OPENAI_API_KEY": "no key"}
    states = {row["provider"]: row["state"] for row in gateway.told("vault", "import-env", "--yes", environ=only)}
    assert states == {"groq": "stored", "openai": "cannot be a key"}
    again = {row["provider"]: row["state"] for row in gateway.told("vault", "import-env", "--yes", environ=only)}
    assert again == {"groq": "already there", "openai": "cannot be a key"}
    (account,) = gateway.told("vault", "list", "--provider", "groq")
    assert gateway.told("aliases", "show", "auto")["targets"][0]["model"].startswith("groq/")
    gateway.good("vault", "remove", account["id"])
    gateway.good("providers", "remove", "groq")


def test_a_key_without_an_address_stops_no_other(gateway: Gateway) -> None:
    environ = {
        "CLOUDFLARE_API_TOKEN": "cf-0123456789abcdefghijkl",
        "GROQ_API_KEY": "gsk_0123456789abcdefghijkl",
        "HF_TOKEN": "no key",
        "HUGGINGFACE_API_KEY": "hf_0123456789abcdefghijkl",
    }
    plan = {row["provider"]: row for row in gateway.told("vault", "import-env", "--dry-run", environ=environ)}
    assert plan["cloudflare-workers-ai"]["state"] == "has no address: set CLOUDFLARE_ACCOUNT_ID"
    assert plan["huggingface"]["variable"] == "HUGGINGFACE_API_KEY"
    assert gateway.run("vault", "import-env", "--yes", environ=environ).returncode == 0
    stored = {row["id"] for row in gateway.told("vault", "list")}
    assert {"groq/groq-api-key", "huggingface/huggingface-api-key"} <= stored
    # Here the terminal knows the address and the gateway does not: the gateway's word counts, for this one key
    for ident in ("groq/groq-api-key", "huggingface/huggingface-api-key"):
        gateway.good("vault", "remove", ident)
    refused = gateway.run("vault", "import-env", "--yes", environ=environ | {"CLOUDFLARE_ACCOUNT_ID": "a1"})
    assert (
        refused.returncode == 1
        and "cloudflare-workers-ai: " in refused.stderr
        and "CLOUDFLARE_ACCOUNT_ID" in refused.stderr
    )
    assert "stored 2" in refused.stderr
    for name in ("groq", "huggingface"):
        gateway.good("providers", "remove", name)


def test_a_provider_that_is_there_already(mock: Gateway, upstream: Provider) -> None:
    again = mock.run("providers", "add", "mock", "--base-url", upstream.url)
    assert again.returncode == 1 and "headgate providers remove mock" in again.stderr and "PATCH" not in again.stderr


# ------------------------------------------------------------------------------------- models and aliases


def test_models(mock: Gateway) -> None:
    rows = mock.told("models", "--provider", "mock")
    assert {"echo", "lorem"} <= {row["id"].rpartition("/")[2] for row in rows}
    table = mock.good("models", "list", "--search", "echo")
    assert "echo" in table and "builtin" in table
    shown = mock.good("models", "show", MODEL)
    assert "$2.0000 per million" in shown or "$2.00" in shown
    mock.good("models", "set", "mock/lorem", "--context", "32000", "--title", "Lorem Ipsum")
    assert mock.told("model", "show", "mock/lorem")["headgate"]["context_window"] == 32_000
    mock.good("models", "unset", "mock/lorem")
    assert mock.told("models", "show", "mock/lorem")["headgate"]["context_window"] is None
    assert mock.run("models", "set", "mock/lorem").returncode == 2
    assert mock.run("models", "show", "nobody/nothing").returncode == 1
    assert mock.run("models", "--sort", "colour").returncode == 2


def test_aliases(mock: Gateway) -> None:
    mock.good("aliases", "set", "team/chat", MODEL, "builtin/echo", "--use-case", "small talk", "--first-token", "7")
    shown = mock.good("alias", "show", "team/chat")
    assert MODEL in shown and "small talk" in shown and "first_token 7 s" in shown
    assert mock.good("chat", "-m", "team/chat", "x y") == "x y\n"
    assert "team/chat" in mock.good("aliases")
    mock.good("aliases", "unset", "team/chat")
    assert mock.run("chat", "-m", "team/chat", "x").returncode == 1
    assert mock.run("aliases", "unset", "team/chat").returncode == 1


def test_what_an_alias_does_when_something_fails(mock: Gateway) -> None:
    mock.good(
        "aliases", "set", "team/spread", MODEL, "builtin/echo", "--strategy", "weighted", "--weight", "1",
        "--weight", "9", "--on-midstream-failure", "error", "--resumable-s", "30",
    )  # fmt: skip
    told = mock.told("aliases", "show", "team/spread")
    assert told["strategy"] == "weighted" and [target["weight"] for target in told["targets"]] == [1, 9]
    assert (told["on_midstream_failure"], told["resumable_s"], told["on_disconnect"]) == ("error", 30, "cancel")
    assert "on_midstream_failure error, resumable_s 30" in mock.good("aliases", "show", "team/spread")
    for wrong in (("--strategy", "best"), ("--retries", "3"), ("--weight", "1")):
        assert mock.run("aliases", "set", "team/spread", MODEL, "builtin/echo", *wrong).returncode != 0
    mock.good("aliases", "unset", "team/spread")


def test_a_shipped_alias_is_replaced_and_comes_back(mock: Gateway) -> None:
    before = mock.told("aliases", "show", "headgate/fast")
    assert before["origin"] == "shipped"
    mock.good("aliases", "set", "headgate/fast", MODEL)
    assert mock.told("aliases", "show", "headgate/fast")["origin"] == "store"
    mock.good("aliases", "unset", "headgate/fast")
    assert mock.told("aliases", "show", "headgate/fast")["origin"] == "shipped"


# ------------------------------------------------------------------------------------- tokens


def test_tokens_are_shown_changed_and_rotated(mock: Gateway) -> None:
    made = mock.told("token", "create", "laptop")
    assert "every model" in mock.good("token", "show", made["id"])
    mock.good("token", "edit", made["id"], "--name", "desktop", "--models", MODEL, "--expires", "30d")
    changed = mock.told("tokens", "show", made["id"])
    assert (changed["name"], changed["models"]) == ("desktop", [MODEL])
    assert abs(changed["expires"] - time.time() - 30 * 86_400) < 60
    assert mock.run("chat", "-m", "builtin/echo", "x", "--token", made["token"]).returncode == 1
    mock.good("token", "edit", made["id"], "--models", "all", "--expires", "never")
    assert mock.told("token", "show", made["id"])["expires"] is None
    fresh = mock.good("token", "rotate", made["id"], "--overlap", "1h").strip()
    assert fresh.startswith("hg_pat_") and fresh != made["token"]
    for token in (fresh, made["token"]):
        assert mock.good("chat", "-m", "builtin/echo", "x", "--token", token) == "x\n"
    last = mock.good("token", "rotate", made["id"]).strip()
    assert mock.run("chat", "-m", "builtin/echo", "x", "--token", fresh).returncode == 1
    assert mock.good("chat", "-m", "builtin/echo", "x", "--token", last) == "x\n"
    mock.good("token", "revoke", made["id"])
    assert made["id"] in mock.good("token", "list", "--revoked")
    assert made["id"] not in mock.good("token")
    assert mock.run("token", "edit", made["id"]).returncode == 2
    assert mock.run("token", "rotate", made["id"], "--overlap", "soon").returncode == 2


# ------------------------------------------------------------------------------------- requests and usage


def test_requests_and_what_one_looks_like(mock: Gateway) -> None:
    mock.good("chat", "-m", MODEL, "one two three")
    mock.run("chat", "-m", "builtin/fault/cut", "x")
    (row,) = wait_until(lambda: mock.told("requests", "--requested", MODEL, "--since", "10m", "-n", "1"))
    table = mock.good("requests", "-n", "5")
    assert row["id"] in table and "delivered" in table
    shown = mock.good("request", "show", row["id"])
    assert "█" in shown and "first token" in shown and "the provider's report" in shown
    assert re.search(r"cost +\$0\.0000", shown) and MODEL in shown
    failed = mock.told("requests", "--requested", "builtin/fault/cut", "-n", "1")
    assert failed[0]["outcome"] != "delivered"
    assert "ATTEMPT" in mock.good("requests", "show", failed[0]["id"])
    assert mock.told("requests", "--min-cost", "1000") == []
    heading, cells = mock.good("requests", "--csv", "--requested", MODEL, "-n", "1").splitlines()
    assert heading.startswith("id,created,") and "usage.prompt_tokens" in heading and MODEL in cells
    assert mock.run("requests", "--csv", "--follow").returncode == 2
    assert "no request matches" in mock.good("requests", "--provider", "nobody")
    assert mock.run("requests", "show", "chatcmpl-000000000000000000000000").returncode == 1
    assert mock.run("requests", "--since", "yesterday").returncode == 2


def test_more_requests_than_a_page_has(mock: Gateway) -> None:
    for _call in range(3):
        mock.good("chat", "-m", "builtin/echo", "x")
    wait_until(lambda: len(mock.told("requests", "--requested", "builtin/echo")) >= 3)
    assert len(mock.told("requests", "--limit", "2")) == 2


def test_follow_shows_each_new_request_once(mock: Gateway) -> None:
    mock.good("chat", "-m", "mock/lorem", "x")
    wait_until(lambda: bool(mock.told("requests", "--requested", "mock/lorem")))
    process = subprocess.Popen(
        [sys.executable, "-m", "headgate", "requests", "--follow", "--json", "-n", "1", "--requested", "mock/lorem"],
        cwd=mock.home, env=mock.environ, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        latest = json.loads(process.stdout.readline())
        mock.good("chat", "-m", "mock/lorem", "x")
        new = json.loads(process.stdout.readline())
        assert new["requested_model"] == "mock/lorem" and new["id"] != latest["id"]
        time.sleep(2.5)
    finally:
        process.send_signal(signal.SIGINT)
        rest, _err = process.communicate(timeout=10)
    assert process.returncode == 130 and rest == ""


def test_follow_begins_with_the_latest_and_no_older_ones(mock: Gateway) -> None:
    for _call in range(3):
        mock.good("chat", "-m", "builtin/echo", "x")
    wait_until(lambda: len(mock.told("requests", "--requested", "builtin/echo")) >= 3)
    process = subprocess.Popen(
        [sys.executable, "-m", "headgate", "requests", "--follow", "--json", "-n", "1"],
        cwd=mock.home, env=mock.environ, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline()
        time.sleep(3)
    finally:
        process.send_signal(signal.SIGINT)
        rest, _err = process.communicate(timeout=10)
    assert rest == ""


def test_a_label_with_a_slash_is_looked_up(mock: Gateway) -> None:
    answer = httpx2.post(
        f"{mock.data_url}/v1/chat/completions", verify=False, timeout=30,
        headers={"authorization": "Bearer hg_test_0123456789abcdef", "x-request-id": "team/42"},
        json={"model": "builtin/echo", "messages": [{"role": "user", "content": "x"}]},
    )  # fmt: skip
    assert answer.status_code == 200
    assert mock.told("requests", "show", "team/42")["label"] == "team/42"


# ------------------------------------------------------------------------------------- the gateway itself


def test_status_and_reload(mock: Gateway) -> None:
    assert "data plane" in mock.good("status") and "read to its end" in mock.good("status")
    assert mock.told("status")["workers"]
    assert mock.good("reload").strip() in ("reloaded", "nothing has changed")
    old = mock.config.read_text()
    try:
        mock.config.write_text("server: {prot: 1}\n")
        broken = mock.run("reload")
        assert broken.returncode == 2 and "did you mean port?" in broken.stderr
    finally:
        mock.config.write_text(old)
    mock.good("reload")


def test_doctor(mock: Gateway) -> None:
    done = mock.run("doctor")
    assert "✓ gateway: running" in done.stdout and "✓ mock/main: answers" in done.stdout, done
    assert "headgate.yaml, as it runs" in done.stdout  # the gateway's own word: the file is not parsed again
    told = json.loads(mock.run("doctor", "--json").stdout)
    assert {finding["mark"] for finding in told["findings"]} <= {"good", "warning"} and told["ok"] is True


def test_every_command_takes_the_same_options() -> None:
    from typer.main import get_command

    from headgate.cli.commands import app
    from headgate.cli.serve import parser

    def leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        for name, one in getattr(command, "commands", {}).items():
            one = one.loaded() if hasattr(one, "loaded") else one
            yield from leaves(one, f"{path} {name}")
        if not hasattr(command, "commands"):
            yield path, command

    found = dict(leaves(get_command(app), "headgate"))
    assert len(found) > 30
    for path, command in found.items():
        flags = {flag for param in command.params for flag in param.opts}
        assert command.help and (path in ("headgate serve", "headgate version") or "--json" in flags), path
        if path not in ("headgate serve", "headgate version", "headgate conform"):  # of no gateway, or of anybody's
            assert {"--config", "--state-dir"} <= flags, path
    # `serve` is parsed without Typer, and told to Typer for help and completion
    told = {flag for param in found["headgate serve"].params for flag in param.opts}
    assert told == {flag for action in parser()._actions for flag in action.option_strings}


def test_a_token_of_this_gateway_goes_nowhere_else(shell: Shell) -> None:
    """The address that a dead gateway wrote down may be anybody's now."""
    shell.state.mkdir(parents=True)
    (shell.state / "admin.token").write_text("hg_admin_of_a_gateway_that_is_dead")
    with Listener() as listener:
        address = f"http://127.0.0.1:{listener.port}"
        (shell.state / "listening.json").write_text(json.dumps({"data": address, "control": address}))
        assert shell.run("status").returncode == 1
        assert shell.run("chat", "x").returncode == 1
        shell.run("token", "list")
        assert listener.seen == b""


class Listener:
    """Somebody else who listens where a gateway once did."""

    def __enter__(self) -> Listener:
        import socket
        import threading

        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.seen = b""
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def _listen(self) -> None:
        while True:
            try:
                connection, _address = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(1)
                self.seen += connection.recv(4096) or b"(connected)"

    def __exit__(self, *_error: object) -> None:
        self.socket.close()
