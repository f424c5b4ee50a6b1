"""Every command against a gateway that runs, and what each says where none does."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from headgate import __version__
from tests import forked

if TYPE_CHECKING:
    from tests.cli.conftest import Gateway


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("HEADGATE_", "XDG_"))}
    return forked.command(*arguments, cwd=home, environ={**environ, "HOME": str(home)})


# ------------------------------------------------------------------------------------- without a gateway


def test_version_needs_no_library(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout == f"headgate {__version__}\n"
    code = (
        "import sys; sys.argv = ['headgate', '--version']; from headgate.cli import main; main(); print(*sys.modules)"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"typer", "rich", "pydantic", "msgspec", "asyncio", "yaml"} & set(modules)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("--help",), "serve"),
        (("serve", "--help"), "--state-dir"),
        (("chat", "--help"), "--model"),
        (("token", "--help"), "revoke"),
    ],
)
def test_help(tmp_path: Path, arguments: tuple[str, ...], shown: str) -> None:
    answer = run(tmp_path, *arguments)
    assert answer.returncode == 0 and shown in answer.stdout


@pytest.mark.parametrize("arguments", [("chat", "hello"), ("status",), ("reload",), ("drain",)])
def test_without_a_gateway_the_next_step_is_named(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    answer = run(tmp_path, *arguments)
    assert answer.returncode == 1 and answer.stdout == ""
    assert "headgate serve" in answer.stderr and len(answer.stderr.splitlines()) == 2


def test_another_gateway_never_sees_our_token(tmp_path: Path) -> None:
    answer = run(tmp_path, "chat", "hi", "--url", "http://127.0.0.1:9")
    assert answer.returncode == 2 and "--token" in answer.stderr


def test_config_commands(tmp_path: Path) -> None:
    assert "the defaults hold" in run(tmp_path, "config", "check").stdout
    config = tmp_path / "headgate.yaml"
    config.write_text("server: {prot: 1}\n")
    bad = run(tmp_path, "config", "check")
    assert bad.returncode == 2 and "did you mean port?" in bad.stdout
    told = json.loads(run(tmp_path, "config", "check", "--json").stdout)
    assert (told["ok"], told["file"], len(told["problems"])) == (False, str(config), 1)
    assert run(tmp_path, "config", "show").returncode == 2
    assert run(tmp_path, "token", "list").returncode == 2  # the store is opened with what the file says
    config.write_text("admin_token: a-secret-admin-token\nproviders: {p: {base_url: 'http://x', keys: [sk-secret]}}\n")
    shown = run(tmp_path, "config", "show")
    assert "port: 4000" in shown.stdout and "http://x" in shown.stdout
    assert "sk-secret" not in shown.stdout and "a-secret-admin-token" not in shown.stdout
    assert json.loads(run(tmp_path, "config", "show", "--json").stdout)["server"]["host"] == "127.0.0.1"
    assert "providers" in json.loads(run(tmp_path, "config", "schema").stdout)["properties"]


# ------------------------------------------------------------------------------------- with one


def test_the_printed_curl_line_streams(gateway: Gateway) -> None:
    out = gateway.out.read_text()
    command = out[out.index("curl -N") :].strip()
    assert '"builtin/lorem"' in command
    if shutil.which("curl"):
        answer = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30, check=True).stdout
    else:  # the same words, read as a shell reads them
        _curl, _n, url, *options = shlex.split(command.replace("\\\n", " "))
        headers = dict(option.split(": ", 1) for option in options if ": " in option and not option.startswith("{"))
        answer = httpx2.post(url, content=options[-1], headers=headers, timeout=30, verify=False).text
    assert answer.startswith("data: {") and answer.endswith("data: [DONE]\n\n")
    assert sum(line.startswith("data: ") for line in answer.splitlines()) > 10


def test_chat_streams_and_says_how_fast(gateway: Gateway) -> None:
    answer = gateway.run("chat", "one two three", "--model", "builtin/echo")
    assert (answer.returncode, answer.stdout) == (0, "one two three\n")
    assert re.search(r"first token \d+ ms", answer.stderr) and "3 tokens" in answer.stderr
    assert (gateway.state / "cli.token").stat().st_mode & 0o777 == 0o600


def test_chat_shows_text_before_the_answer_is_complete(gateway: Gateway) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "headgate", "chat", "go", "--model", "builtin/lorem?rate=5&tokens=1000"],
        cwd=gateway.home,
        env=gateway.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A test run in the background of a shell inherits an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert os.read(process.stdout.fileno(), 5) == b"Lorem"
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=10)
    assert process.returncode == 130 and b"Traceback" not in err


def test_chat_json_stdin_and_a_given_token(gateway: Gateway) -> None:
    answer = gateway.run(
        "chat", "-", "-m", "builtin/echo", "--json", "--url", gateway.data_url + "/v1",
        "--token", "hg_test_0123456789abcdef", stdin="a b",
    )  # fmt: skip
    told: dict[str, Any] = json.loads(answer.stdout)
    assert (told["content"], told["finish_reason"], told["usage"]["completion_tokens"]) == ("a b", "stop", 2)
    assert told["ttft_s"] > 0 and answer.stderr == ""


@pytest.mark.parametrize("options", [(), ("--model", "headgate/chat"), ("-m", "headgate/fast", "-s", "be brief")])
def test_chat_without_a_provider_is_answered_by_the_built_in_one(gateway: Gateway, options: tuple[str, ...]) -> None:
    answer = gateway.run("chat", "hi", *options)
    assert answer.returncode == 0 and answer.stdout.startswith("Lorem ipsum")
    assert "builtin/lorem says its fixed text instead" in answer.stderr and "headgate vault add" in answer.stderr


def test_chat_for_a_program_is_not_answered_by_the_built_in_one(gateway: Gateway) -> None:
    answer = gateway.run("chat", "hi", "--json")
    assert (answer.returncode, answer.stdout) == (1, "") and "provider" in answer.stderr


def test_chat_errors_are_sentences(gateway: Gateway) -> None:
    answer = gateway.run("chat", "hi", "--model", "nothing/like-that")
    assert answer.returncode == 1 and "Traceback" not in answer.stderr and "nothing" in answer.stderr
    cut = gateway.run("chat", "hi", "--model", "builtin/fault/cut")
    assert cut.returncode == 1 and "broke off: builtin/" in cut.stderr and "Traceback" not in cut.stderr


def test_a_failed_chat_names_the_target_that_was_asked(gateway: Gateway) -> None:
    answer = gateway.run("chat", "hi", "--model", "builtin/fault/503-always")
    assert answer.returncode == 1 and answer.stderr.startswith("headgate: builtin/fault/503-always: ")
    assert "requests show chatcmpl-" in answer.stderr


def test_tokens_live_and_end_within_a_second(gateway: Gateway) -> None:
    made = json.loads(gateway.run("token", "create", "laptop", "--expires", "30d", "--json").stdout)
    assert made["effective"] is True and made["token"].startswith("hg_pat_")
    assert abs(made["expires"] - time.time() - 30 * 86_400) < 60
    assert gateway.run("chat", "x", "-m", "builtin/echo", "--token", made["token"]).stdout == "x\n"
    rows = json.loads(gateway.run("token", "list", "--json").stdout)
    assert {"ci", "laptop", "first"} <= {row["name"] for row in rows}
    table = gateway.run("token", "list").stdout
    assert made["id"] in table and made["token"] not in table
    assert gateway.run("token", "revoke", made["id"]).stdout == f"revoked {made['id']}\n"
    refused = gateway.run("chat", "x", "-m", "builtin/echo", "--token", made["token"])
    assert refused.returncode == 1 and refused.stdout == ""


def test_models_of_a_token_are_its_limit(gateway: Gateway) -> None:
    token = gateway.run("token", "create", "narrow", "--models", "builtin/echo").stdout.strip()
    assert gateway.run("chat", "x", "-m", "builtin/echo", "--token", token).returncode == 0
    assert gateway.run("chat", "x", "-m", "builtin/lorem", "--token", token).returncode == 1


def test_a_revoked_cli_token_is_replaced(gateway: Gateway) -> None:
    assert gateway.run("chat", "x", "-m", "builtin/echo").returncode == 0
    old = (gateway.state / "cli.token").read_text()
    public = old.split("_")[2]
    assert gateway.run("token", "revoke", public).returncode == 0
    assert gateway.run("chat", "x", "-m", "builtin/echo").stdout == "x\n"
    assert (gateway.state / "cli.token").read_text() != old


def test_what_the_file_declares_is_not_revoked_here(gateway: Gateway) -> None:
    answer = gateway.run("token", "revoke", "file-ci")
    assert answer.returncode == 2 and answer.stderr.startswith("headgate: ")
    assert gateway.run("token", "revoke", "deadbeef").returncode == 1
    assert gateway.run("token", "create", "x", "--expires", "whenever").returncode == 2


def test_a_second_serve_names_the_first(gateway: Gateway) -> None:
    answer = gateway.run("serve", "--port", "1")
    assert answer.returncode == 4 and str(gateway.process.pid) in answer.stderr
