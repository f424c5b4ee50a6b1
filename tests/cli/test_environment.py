"""What `config check` says of the environment."""

from __future__ import annotations

import json

from tests.cli.conftest import Shell


def test_a_proxy_variable_that_cannot_be_followed_is_a_problem(shell: Shell) -> None:
    done = shell.run("config", "check", "--json", environ={"HTTPS_PROXY": "http://user:canary/x@proxy:3128"})
    assert done.returncode == 2 and "canary" not in done.stdout + done.stderr
    assert json.loads(done.stdout)["problems"][0].startswith("HTTPS_PROXY cannot be read")
