"""A new user's first minutes: no configuration, no key, commands in a second terminal, a file that comes later."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headgate.testing import serve_in_thread
from tests.ports import free_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.cli.conftest import Gateway

    Start = Callable[..., Gateway]

BROKEN = [
    "providers: {x: {keys: ['${NO_SUCH_VARIABLE}']}}\n",
    "server: {prot: 1}\n",
    "not: [yaml\n",
    "state_dir: ${NO_SUCH_VARIABLE}/state\n",
]
COMMANDS = [
    ("status",),
    ("requests",),
    ("token", "list"),
    ("models",),
    ("providers",),
    ("aliases",),
    ("vault",),
    ("usage",),
    ("chat", "hi", "-m", "builtin/echo"),
    ("explain", "-m", "builtin/echo"),
    ("detect",),
]


def reload_error(gateway: Gateway) -> str:
    health = json.loads(gateway.run("status", "--json").stdout)
    return str(health["config"]["reload_error"] or "")


@pytest.fixture
def mended(gateway: Gateway) -> Iterator[Gateway]:
    """The gateway of these tests, whose file a test may break."""
    before = gateway.config.read_text()
    yield gateway
    gateway.config.write_text(before)
    wait_until(lambda: not reload_error(gateway), why="the file was not mended")


@pytest.mark.parametrize("text", BROKEN)
def test_commands_of_a_running_gateway_need_no_valid_file(mended: Gateway, text: str) -> None:
    mended.config.write_text(text)
    for command in COMMANDS if text is BROKEN[0] else COMMANDS[:2]:
        done = mended.run(*command)
        assert done.returncode == 0, (command, done.stderr)
    assert "✓ gateway: running" in mended.run("doctor").stdout
    told = json.loads(mended.run("config", "check", "--json").stdout)
    assert not told["ok"] and told["running"]["file"] == str(mended.config)


def test_what_config_check_says_of_the_running_gateway(mended: Gateway, tmp_path: Path) -> None:
    wait_until(
        lambda: "uses this file as it is now" in mended.good("config", "check"),
        why="the file was not taken in as it is",
    )
    assert ": good" in mended.good("config", "check")
    mended.config.write_text(mended.config.read_text() + "# more\nserver: {}\n")
    wait_until(lambda: reload_error(mended), why="the broken file was not seen")
    assert "goes on with what it took in" in mended.run("config", "check").stdout
    other = tmp_path / "other.yaml"
    other.write_text("unpriced: allow\n")
    said = mended.good("config", "check", "--config", str(other), "--state-dir", str(mended.state))
    assert f"{other}: good" in said and f"reads another file: {mended.config}" in said


def test_a_variable_that_only_this_terminal_lacks(tmp_path: Path, start: Start) -> None:
    (tmp_path / "headgate.yaml").write_text(
        f"server: {{port: {free_port()}}}\ncontrol: {{port: {free_port()}}}\ndetect: {{local_engines: false}}\n"
        "providers: {p: {base_url: 'http://127.0.0.1:9/v1', keys: ['${ONLY_THERE}']}}\n"
    )
    one = start(tmp_path, environ={"ONLY_THERE": "sk-1"})
    done = one.run("config", "check")
    assert done.returncode == 2 and "ONLY_THERE is not set" in done.stdout
    assert "the problems above exist in this shell only" in done.stdout
    one.good("providers")


def test_a_gateway_with_another_state_directory_is_found(tmp_path: Path, start: Start) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    (project / "headgate.yaml").write_text(
        f"server: {{port: {free_port()}}}\ncontrol: {{port: {free_port()}}}\nstate_dir: ./own\n"
        "detect: {local_engines: false}\n"
    )
    here = start(project, tmp_path)
    there = here.elsewhere(elsewhere)
    assert here.run("status").stderr == ""
    done = there.run("status")
    assert done.returncode == 0 and str(project / "own") in done.stderr
    (project / "headgate.yaml").write_text("state_dir: ${GONE}\n")
    assert "headgate" in here.run("status").stdout
    assert there.run("status", "--state-dir", str(elsewhere / "none")).returncode == 1
    assert there.run("drain", "--wait").returncode == 0
    assert here.process.wait(30) == 0
    assert there.run("status").returncode == 1  # its note is gone with it


def test_a_file_that_is_made_later_is_taken_in_and_watched(tmp_path: Path, start: Start) -> None:
    environ = {
        "HEADGATE_SERVER__PORT": str(free_port()),
        "HEADGATE_CONTROL__PORT": str(free_port()),
        "HEADGATE_DETECT__LOCAL_ENGINES": "false",
    }
    one = start(tmp_path, environ=environ, file=False)
    assert "reads no file" in one.run("config", "check", "--config", str(_other(tmp_path))).stdout
    one.config.write_text("aliases: [\n")
    wait_until(lambda: reload_error(one), why="the new file was not read")
    done = one.run("config", "check")
    assert done.returncode == 2 and "could not read this file, and goes on without one" in done.stdout
    assert "--config" not in done.stdout
    assert one.run("status").returncode == 1
    one.config.write_text("aliases: {my/first: {targets: [builtin/echo]}}\n")
    wait_until(lambda: "my/first" in one.good("aliases"), why="the new file was not taken in")
    one.config.write_text("aliases: {my/second: {targets: [builtin/echo]}}\n")
    wait_until(lambda: "my/second" in one.good("aliases"), why="the new file is not watched")
    one.config.unlink()
    wait_until(lambda: "is gone" in reload_error(one), why="the removed file was not missed")
    assert "my/second" in one.good("aliases")


def _other(home: Path) -> Path:
    other = home / "not-headgate.yaml"
    other.write_text("unpriced: allow\n")
    return other


ENGINE = """
title = "My engine"
base_url = "http://127.0.0.1:{port}/v1"
docs = "https://example.com/engine"
auth = "none"
local = true
[engine]
port = {port}
probe = "/v1/models"
has = ["data"]
"""


def _with_engine_row(home: Path, port: int) -> None:
    (home / "providers").mkdir()
    (home / "providers" / "mine.toml").write_text(ENGINE.format(port=port))
    (home / "headgate.yaml").write_text(f"server: {{port: {free_port()}}}\ncontrol: {{port: {free_port()}}}\n")


def test_an_engine_that_starts_later_is_found(tmp_path: Path, start: Start) -> None:
    port = free_port()
    _with_engine_row(tmp_path, port)
    one = start(tmp_path)
    assert '"model": "builtin/lorem"' in one.out.read_text()
    assert "no engine answers" in one.good("detect")
    with serve_in_thread(port=port):
        wait_until(lambda: "auto leads to mine/" in one.err.read_text(), why="the engine was not found")
        done = one.run("chat", "one two")
        assert done.returncode == 0 and "builtin" not in done.stderr
        assert "My engine answers" in one.good("detect")


@pytest.mark.alone  # engines are looked for within a moment of the start
def test_the_first_curl_names_an_engine_that_is_there(tmp_path: Path, start: Start) -> None:
    port = free_port()
    _with_engine_row(tmp_path, port)
    with serve_in_thread(port=port):
        assert re.search(r'"model": "mine/', start(tmp_path).out.read_text())
