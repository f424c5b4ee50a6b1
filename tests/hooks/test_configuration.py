"""Hooks in the configuration file, and a hook of the documentation in a whole gateway."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
from pathlib import Path

import pytest

from headgate.model import HookSettings
from headgate.settings import ConfigError, data_settings, fixed, load, masked, needs_restart
from tests.e2e.gateway import FILE_TOKEN, Gateway
from tests.hooks.installed import install
from tests.paths import ROOT


def write(folder: Path, text: str) -> str:
    path = folder / "headgate.yaml"
    path.write_text(f"state_dir: {folder / 'state'}\n{text}")
    return str(path)


def test_hooks_of_the_file(tmp_path: Path) -> None:
    text = "hooks: [mask-secrets, {name: mask-personal, on_request: refuse, on_answer: off, on_error: pass}]"
    settings = load(write(tmp_path, text), {})
    assert data_settings(settings, "w0").hooks == (
        HookSettings("mask-secrets", {"on_request": "mask", "on_answer": "mask"}),
        HookSettings("mask-personal", {"on_request": "refuse", "on_answer": "off"}, "pass"),
    )
    plain = load(write(tmp_path, ""), {})
    assert data_settings(plain, "w0").hooks == ()
    assert needs_restart(fixed(plain), settings) == ("hooks",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hooks: [mask-secret]", "there is no hook 'mask-secret'"),
        ("hooks: [mask-secrets, {name: mask-secrets}]", "mask-secrets is there twice"),
        ("hooks: [{name: mask-secrets, options: {a: 1}}]", "hooks.0.options: are of hooks that are installed"),
        ("hooks: [{name: mask-secrets, on_request: maybe}]", "hooks.0.on_request: must be"),
        ("hooks: [{on_request: mask}]", "hooks.0.name"),
        ("hooks: mask-secrets", "hooks: must be a list"),
    ],
)
def test_mistakes_stop_the_start(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), {})
    assert sentence in str(caught.value)


def blocks(kind: str) -> list[str]:
    return [part.split("```")[0] for part in (ROOT / "docs/hooks.md").read_text().split(f"```{kind}\n")[1:]]


def test_documented_hook_in_a_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = blocks("python")
    folder = install(tmp_path / "installed", source, tickets="Tickets")
    shipped, own = blocks("yaml")
    load(write(tmp_path, shipped), {})
    monkeypatch.syspath_prepend(str(folder))
    assert masked(load(write(tmp_path, own), {}))["hooks"][0]["options"] == {"word": "**********"}
    one = Gateway(tmp_path / "home", own)
    one.environ["PYTHONPATH"] = str(folder)
    try:
        one.start()
        answers = [ask(one, text) for text in ("see HG-12 and HG-7.", "a top secret text")]
        one.until(lambda: "('tickets',)" in one.out.read_text())
    finally:
        one.clear()
    assert answers[0] == (200, "see [a ticket] and [a ticket].")
    assert answers[1] == (400, "The hook tickets refused this request: it contains a text marked top secret.")


def ask(one: Gateway, text: str) -> tuple[int, str]:
    body = json.dumps({"model": "builtin/echo", "messages": [{"role": "user", "content": text}]})
    connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=30)
    fields = {"Authorization": f"Bearer {FILE_TOKEN}", "Content-Type": "application/json"}
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", body, fields)
        answer = connection.getresponse()
        found = json.loads(answer.read())
    said = found["error"]["message"] if "error" in found else found["choices"][0]["message"]["content"]
    return answer.status, said


def test_hook_that_cannot_be_imported_stops_the_start(tmp_path: Path) -> None:
    folder = install(tmp_path / "installed", "raise RuntimeError('no such library')", broken="Broken")
    one = Gateway(tmp_path / "home", "hooks: [broken]\n")
    run = subprocess.run(
        [sys.executable, "-m", "headgate", "serve"], cwd=one.home, capture_output=True, text=True, timeout=60,
        env={**one.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert run.returncode == 2
    assert "headgate: hooks: broken cannot be imported: RuntimeError: no such library" in run.stderr
