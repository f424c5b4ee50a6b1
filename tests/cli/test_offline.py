"""The same verbs where no gateway runs: on the store, under the lock, told once; and what a start makes of it."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from headgate.cli.reach.gateway import Gateway as Connection
from headgate.process import statedir
from tests.cli.conftest import KEY, Gateway, bare
from tests.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from headgate.testing import Provider
    from tests.cli.conftest import Shell

WORKING = "no gateway is running: working on the store in "


@pytest.mark.timeout(240)  # some fifteen commands, each a Python of its own
def test_what_is_stored_offline_holds_from_the_next_start(shell: Shell, upstream: Provider) -> None:
    (shell.home / "headgate.yaml").write_text(
        f"server: {{port: {free_port()}}}\ncontrol: {{port: {free_port()}}}\ndetect: {{local_engines: false}}\n"
    )
    added = shell.run("providers", "add", "mock", "--base-url", upstream.url, "--model", "echo")
    assert added.returncode == 0 and added.stderr.count(WORKING) == 1, added
    shell.good("vault", "add", "mock", stdin=KEY)
    shell.good("aliases", "set", "team/chat", "mock/echo")
    shell.good("models", "set", "mock/echo", "--input-price", "1", "--output-price", "2")
    token = shell.good("token", "create", "before").strip()
    checked = shell.run("providers", "check")
    assert checked.returncode == 0 and "✓" in checked.stdout, checked
    assert shell.told("requests") == [] and shell.told("usage") == []
    assert shell.told("aliases", "show", "team/chat")["targets"][0]["model"] == "mock/echo"
    assert {row["id"] for row in shell.told("models", "--provider", "mock")} >= {"echo"}
    serving = Gateway(shell.home)
    try:
        assert shell.good("chat", "-m", "team/chat", "one two", "--token", token) == "one two\n"
        assert WORKING not in shell.run("token", "list").stderr
    finally:
        assert serving.end() == 0, serving.err.read_text()
    (row,) = shell.told("requests", "--requested", "team/chat")  # read from the store again
    assert row["outcome"] == "delivered" and row["cost_usd"] > 0


def test_a_gateway_that_is_stuck_is_a_sentence(shell: Shell) -> None:
    """The lock is held, nothing was said about addresses: it is starting, or it hangs."""
    code = (
        "import sys, time; from pathlib import Path; from headgate.process import statedir;"
        "statedir.prepare(Path(sys.argv[1])); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(shell.state)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        begin = time.monotonic()
        answer = shell.run("token", "list")
        assert time.monotonic() - begin < 60  # the other one sleeps so long
        holder.kill()
    assert answer.returncode == 1 and f"(pid {holder.pid}) holds" in answer.stderr and "not ready" in answer.stderr


def test_a_command_waits_for_another(shell: Shell) -> None:
    with ThreadPoolExecutor() as side_by_side:
        list(side_by_side.map(lambda name: shell.good("token", "create", name), ("t0", "t1", "t2")))
    assert {row["name"] for row in shell.told("token", "list")} == {"t0", "t1", "t2"}


def test_a_gateway_that_starts_while_a_command_gets_ready(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the lock and the taking of it lie a second's imports."""
    for name, value in gateway.environ.items():
        monkeypatch.setenv(name, value)

    class Late(Connection):
        looks = 0

        @property
        def running(self) -> bool:
            self.looks += 1
            return self.looks > 1 and super().running

    with Late.find(str(gateway.config), {}) as late:
        assert "ci" in {row["name"] for row in late.items("/tokens")}
        assert late.looks > 1


def test_nobody_waits_for_who_only_looks_or_is_asked(shell: Shell) -> None:
    followed = shell.run("requests", "--follow")
    assert followed.returncode == 1 and "headgate serve" in followed.stderr
    ours, theirs = pty.openpty()
    environ = {**shell.environ, "GROQ_API_KEY": "gsk_0123456789abcdefghijkl"}
    with subprocess.Popen(
        [sys.executable, "-m", "headgate", "vault", "import-env"],
        cwd=shell.home, env=environ, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as asking:  # fmt: skip
        try:
            assert asking.stderr is not None
            said = ""
            while "[y/N]" not in said:
                said += (read := asking.stderr.read(1))
                assert read, said
            assert statedir.holder(shell.state) is None
            os.write(ours, b"y\n")
            said += asking.communicate(timeout=60)[1]
        finally:
            asking.kill()
    os.close(ours)
    os.close(theirs)
    assert asking.returncode == 0 and "stored 1" in said and said.count(WORKING) == 1, said
    assert [row["id"] for row in shell.told("vault", "list", "--provider", "groq")] == ["groq/groq-api-key"]


# ------------------------------------------------------------------------------------- doctor


def test_doctor_says_why_a_stored_provider_is_not_used(shell: Shell) -> None:
    row = shell.state / "providers" / "acme.toml"
    row.parent.mkdir(parents=True)
    row.write_text('title = "Acme"\nbase_url = "http://127.0.0.1:9/v1"\ndocs = "https://acme.example/keys"\n')
    (shell.home / "headgate.yaml").write_text(
        f"server: {{port: {free_port()}}}\ncontrol: {{port: {free_port()}}}\ndetect: {{local_engines: false}}\n"
    )
    shell.good("vault", "add", "acme", stdin=KEY)
    row.unlink()
    found = {one["subject"]: one for one in json.loads(shell.run("doctor", "--json").stdout)["findings"]}
    assert "is in the store but cannot be used: " in found["acme"]["sentence"] and "acme" in found["acme"]["sentence"]
    assert found["acme"]["step"].endswith("headgate providers remove acme")
    assert "headgate vault add acme" not in found["acme"]["step"]


def test_doctor_leaves_nothing_behind(shell: Shell) -> None:
    done = shell.run(
        "doctor", environ={"HEADGATE_SERVER__PORT": str(free_port()), "HEADGATE_CONTROL__PORT": str(free_port())}
    )
    assert done.returncode in (0, 1), done.stderr
    assert "no file: the defaults hold" in done.stdout and "! gateway: none is running" in done.stdout
    assert "only builtin/lorem answers" in done.stdout and "Traceback" not in done.stderr
    assert not shell.state.exists()


def test_doctor_finds_what_is_wrong(shell: Shell, upstream: Provider) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        shell.state.mkdir(parents=True, mode=0o755)
        (shell.state / "instance.key").write_bytes(bytes(32))
        (shell.state / "instance.key").chmod(0o644)
        (shell.state / "torn").mkdir(mode=0o700)
        (shell.state / "torn" / "w0-boot-000000@123").touch(mode=0o600)
        (shell.home / "headgate.yaml").write_text(
            f"server: {{port: {taken.getsockname()[1]}}}\ndetect: {{local_engines: false}}\nproviders:\n"
            f"  bad: {{base_url: '{upstream.url}', keys: [sk-wrong-0123456789abcdef], models: {{echo: }}}}\n"
            "  away: {base_url: 'http://127.0.0.1:9/v1', keys: [sk-away-0123456789abcdef], models: {m: }}\n"
        )
        done = shell.run("doctor", "--json")
        assert done.returncode == 1 and "sk-wrong" not in done.stdout
        found = {(one["mark"], one["subject"]): one for one in json.loads(done.stdout)["findings"]}
        assert "is in use" in found["bad", "port"]["sentence"]
        assert "1 damaged piece of it" in found["warning", "journal"]["sentence"]
        assert "others may read instance.key" in found["bad", "state directory"]["sentence"]
        bad = next(one for (mark, subject), one in found.items() if mark == "bad" and subject.startswith("bad/"))
        assert "vault add bad" in bad["step"] or "headgate.yaml" in bad["step"]
        assert any(mark == "warning" and subject.startswith("away/") for mark, subject in found)
    (shell.home / "headgate.yaml").write_text("server: {prot: 1}\n")
    broken = shell.run("doctor")
    assert broken.returncode == 1 and "✗ configuration: " in broken.stdout and "did you mean port?" in broken.stdout


# ------------------------------------------------------------------------------------- the shell's side


def test_origins_of_the_configuration(shell: Shell) -> None:
    (shell.home / "headgate.yaml").write_text("server:\n  port: 4100\n")
    rows = shell.told("config", "show", "--origin", environ={"HEADGATE_DEFAULT_MODEL": "builtin/echo"})
    whence = {row["key"]: row["whence"] for row in rows}
    assert whence["server.port"] == "headgate.yaml, line 2" and whence["server.host"] == "default"
    assert whence["default_model"] == "environment variable HEADGATE_DEFAULT_MODEL"
    assert "headgate.yaml, line 2" in shell.good("config", "show", "--origin")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("headgate re", {"reload", "requests"}),
        ("headgate serve --", {"--port", "--config", "--state-dir"}),
        ("headgate serve --po", {"--port"}),
        ("headgate token ", {"create", "list", "revoke", "rotate"}),
        ("headgate models --", {"--search", "--provider"}),
        ("headgate usage --by ", {"model", "day", "outcome"}),
    ],
)
def test_completion(shell: Shell, words: str, expected: set[str]) -> None:
    environ = {
        "_HEADGATE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "_TYPER_COMPLETE_ARGS": words,
    }
    done = shell.run(environ=environ)
    assert expected <= set(done.stdout.split()), (done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("name", "mark"), [("bash", "complete -o"), ("zsh", "#compdef headgate"), ("fish", "complete --command headgate")]
)
def test_completion_is_printed_for_the_named_shell(shell: Shell, name: str, mark: str) -> None:
    """Whatever shell runs the test: CI's is none that has completions."""
    printed = shell.good("--show-completion", name)
    assert mark in printed
    assert "_HEADGATE_COMPLETE" in printed


def test_completion_names_the_shells_it_knows(shell: Shell) -> None:
    refused = shell.run("--show-completion", "tcsh")
    assert refused.returncode == 2
    assert "tcsh" in refused.stderr
    assert "bash, zsh, fish" in refused.stderr


@pytest.mark.alone
def test_version_is_quick(tmp_path: Path) -> None:
    """Measured beside Python doing nothing, so that a busy machine changes both; without Typer and Rich at all."""

    def seconds(*arguments: str) -> float:
        taken = []
        for _run in range(7):
            begin = time.perf_counter()
            subprocess.run(
                [sys.executable, *arguments], cwd=tmp_path, env=bare(tmp_path), check=True, capture_output=True
            )
            taken.append(time.perf_counter() - begin)
        return min(taken)

    nothing = seconds("-c", "pass")
    assert seconds("-m", "headgate", "--version") < nothing * 5


def test_nothing_is_folded_or_coloured_when_piped(shell: Shell) -> None:
    name = "a-provider-with-a-rather-long-name-of-sixty-characters-exactly"
    shell.good(
        "providers", "add", name, "--base-url", "https://api.example.com/a/rather/long/path/v1", "--auth", "none"
    )
    table = shell.good("providers", "list")
    assert re.search(rf"{name} .*https://api\.example\.com/a/rather/long/path/v1", table) and "\x1b" not in table
    assert statedir.holder(shell.state) is None
