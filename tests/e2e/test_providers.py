"""A provider is a row: one dropped file, one key in the environment, and a call goes through."""

from __future__ import annotations

import json

from headgate.testing import serve_in_thread
from tests.e2e.gateway import FILE_TOKEN, Make, ask

KEY = "sk-row-0123456789abcdef"
ROW = """
title = "Dropped"
base_url = "{url}"
docs = "https://example.com/keys"
key_env = ["DROPPED_API_KEY"]
quirks = ["max_tokens", "developer_as_system"]

[tasks]
chat = "echo"

[models.echo]
price = {{input = 1, output = 2.5}}
"""


def test_a_provider_is_added_by_dropping_one_file(gateway: Make) -> None:
    with serve_in_thread(keys=[KEY]) as upstream:
        gate = gateway()
        folder = gate.home / "providers"
        folder.mkdir()
        (folder / "dropped.toml").write_text(ROW.format(url=upstream.url))
        gate.environ["DROPPED_API_KEY"] = KEY
        gate.start()
        for model in ("dropped/echo", "headgate/chat"):
            status, body = gate.chat(model)
            assert (status, body["choices"][0]["message"]["content"]) == (200, "one two three"), body
            assert body["headgate"]["provider"] == "dropped"
        assert upstream.requests[-1].headers["authorization"] == f"Bearer {KEY}"
        assert KEY not in gate.log + gate.out.read_text()


def test_quirks_of_the_row_and_of_the_file(gateway: Make) -> None:
    with serve_in_thread(keys=[KEY]) as upstream:
        gate = gateway(f"providers: {{mine: {{preset: mistral, base_url: '{upstream.url}', keys: [{KEY}]}}}}\n").start()
        asked = {
            "model": "mine/echo",
            "messages": [{"role": "developer", "content": "x"}, {"role": "user", "content": "one"}],
            "max_completion_tokens": 9,
            "seed": 4,
            "user": "somebody",
        }
        status, body = ask("POST", f"{gate.url}/v1/chat/completions", FILE_TOKEN, asked)
        assert status == 200, body
        sent = json.loads(upstream.requests[-1].body)
        assert (sent["messages"][0]["role"], sent["max_tokens"], sent["random_seed"]) == ("system", 9, 4)
        assert not {"user", "seed", "max_completion_tokens"} & sent.keys()
