"""``headgate prompt`` and the file's prompts, on a running gateway, from the first version to the usage by prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.cli.conftest import Gateway
from tests.ports import free_port
from tests.waiting import wait_until

TOKEN, ACME_TOKEN = "hg_test_0123456789abcdef_a", "hg_test_0123456789abcdef_b"
FILED = {"name": "filed", "versions": [{"version": 3, "messages": [{"role": "user", "content": "from the file"}]}]}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = tmp_path_factory.mktemp("prompts")
    (home / "headgate.yaml").write_text(
        json.dumps(
            {
                "server": {"port": free_port(), "drain_s": 1},
                "control": {"port": free_port()},
                "detect": {"local_engines": False},
                "tenants": {"acme": {}},
                "prompts": [FILED, {**FILED, "tenant": "acme"}],
                "tokens": [
                    {"name": "plain", "secret": TOKEN},
                    {"name": "of-acme", "secret": ACME_TOKEN, "tenant": "acme"},
                ],
            }
        )
    )
    one = Gateway(home)
    yield one
    assert one.end() == 0


def echoed(gate: Gateway, prompt: dict[str, Any], token: str = TOKEN, messages: Any = ()) -> str:
    """The echo of the last user message, or the refusal's code."""
    body = {"model": "builtin/echo", "messages": list(messages), "headgate": {"prompt": prompt}}
    headers = {"authorization": f"Bearer {token}"}
    url = f"{gate.data_url}/v1/chat/completions"
    answer = httpx2.post(url, json=body, headers=headers, trust_env=False, verify=False, timeout=30)
    found = answer.json()
    return str(found["choices"][0]["message"]["content"]) if answer.is_success else str(found["error"]["code"])


def test_the_file_s_prompts(gate: Gateway) -> None:
    assert echoed(gate, {"id": "filed"}) == echoed(gate, {"id": "filed", "version": 3}) == "from the file"
    assert echoed(gate, {"id": "filed", "version": 1}) == "prompt_not_found"
    for verb in (("set", "--user", "x"), ("remove",), ("label", "production")):
        refused = gate.run("prompt", verb[0], "filed", *verb[1:])
        assert refused.returncode == 2 and "declared in the configuration file" in refused.stderr, verb
    document = json.loads(gate.config.read_text())
    document["prompts"][0]["versions"].append({"version": 4, "messages": [{"role": "user", "content": "a new one"}]})
    gate.config.write_text(json.dumps(document))
    gate.good("reload")
    wait_until(lambda: echoed(gate, {"id": "filed"}) == "a new one")
    assert echoed(gate, {"id": "filed"}, ACME_TOKEN) == "from the file"


def test_a_prompt_from_the_first_version_to_the_usage(gate: Gateway, tmp_path: Path) -> None:
    made = gate.good("prompt", "set", "ask", "--user", "Tell {{who}} {{how}}", "--var", "who", "--var", "how=kindly")
    assert made == "prompt ask has version 1\n"
    assert echoed(gate, {"id": "ask", "variables": {"who": "Ada {{how}}"}}) == "Tell Ada {{how}} kindly"
    assert echoed(gate, {"id": "ask"}) == "invalid_value"
    text = tmp_path / "prompt.txt"
    text.write_text("Tell {{who}}.\n")
    options = ("--role", "user", "--var", "who", "--note", "shorter", "--label", "production")
    assert gate.told("prompt", "set", "ask", str(text), *options)["version"] == 2
    assert gate.good("prompt", "set", "ask", str(text), *options[:4]) == "version 2 of ask is the same\n"
    shown = gate.good("prompt", "show", "ask", "--version", "1", "--json")
    assert gate.told("prompt", "set", "ask", "-", stdin=shown)["version"] == 3
    gate.good("prompt", "label", "ask", "next")
    listed = gate.told("prompt", "versions", "ask")
    assert [(row["version"], row["labels"]) for row in listed] == [(3, ["next"]), (2, ["production"]), (1, [])]
    assert "production" in gate.good("prompt", "versions", "ask")
    assert echoed(gate, {"id": "ask", "version": "production", "variables": {"who": "Bo"}}) == "Tell Bo."
    gate.good("prompt", "label", "ask", "next", "--remove")
    found = gate.told("prompt", "diff", "ask", "2", "latest")
    assert {"-Tell {{who}}.", "+Tell {{who}} {{how}}"} <= set(found["diff"])
    assert "+variable how=kindly" in gate.good("prompt", "diff", "ask", "2")
    assert gate.good("prompt", "diff", "ask", "1", "3") == "they are the same\n"
    assert "Tell X well" in gate.good("prompt", "render", "ask", "--var", "who=X", "--var", "how=well")
    assert "acme" not in gate.good("prompt", "show", "ask")
    (row,) = [row for row in gate.told("prompt") if row["name"] == "ask"]
    assert (row["latest"], row["labels"], row["variables"]) == (3, {"production": 2}, {"who": None, "how": "kindly"})
    assert "who, how=kindly" in gate.good("prompt", "list")
    used = wait_until(lambda: gate.told("usage", "--by", "tag", "--tag", "prompt=ask"))
    assert [row["requests"] for row in used if row["group"] == "prompt_version=ask@2"] == [1]
    kept = gate.run("prompt", "remove", "ask", "--version", "2")
    assert kept.returncode == 1 and "The label production names version 2" in kept.stderr
    gate.good("prompt", "delete", "ask", "--version", "1")
    gate.good("prompt", "remove", "ask")
    assert echoed(gate, {"id": "ask", "variables": {"who": "x"}}) == "prompt_not_found"
    gone = gate.run("prompt", "show", "ask")
    assert gone.returncode == 1 and "headgate prompt list" in gone.stderr


def test_a_tenant_s_prompt(gate: Gateway) -> None:
    gate.good("prompt", "set", "ours", "--user", "hello acme", "--tenant", "acme")
    assert echoed(gate, {"id": "ours"}, ACME_TOKEN) == "hello acme"
    assert echoed(gate, {"id": "ours"}) == "prompt_not_found"
    assert {row["tenant"] for row in gate.told("prompt", "list", "--tenant", "acme")} == {"acme"}
    assert gate.run("prompt", "show", "ours").returncode == 1
    assert "tenant acme" in gate.good("prompt", "show", "ours", "--tenant", "acme")
    gate.good("prompt", "remove", "ours", "--tenant", "acme")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("set", "x"), "give either a file or --system and --user"),
        (("set", "x", "-", "--user", "y"), "give either a file or --system and --user"),
        (("set", "x", "nowhere.txt"), "nowhere.txt cannot be read"),
        (("set", "x", "--user", "{{a}}"), "{{a}} is not among its variables"),
        (("set", "a b", "--user", "y"), "name: has characters that are not allowed"),
        (("render", "x", "--var", "a"), "'a' has no value"),
    ],
)
def test_wishes_that_cannot_be_meant(gate: Gateway, words: tuple[str, ...], sentence: str) -> None:
    refused = gate.run("prompt", *words)
    assert refused.returncode == 2 and sentence in refused.stderr, refused
