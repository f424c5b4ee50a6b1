"""Real coding agents do a task of two tool calls through Headgate, over an upstream of each API."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.dialects.registry import BACKENDS
from headgate.model import Alias, Closed, Grant, Provider, Snapshot, TargetRef
from headgate.policy.auth import digest
from tests.agents.agents import AFTER, AGENTS, ALIAS, BEFORE, Agent, install, run
from tests.agents.upstream import AgentUpstream, agent_upstream
from tests.dataplane import TOKEN, DataPlane
from tests.serving.test_failed_attempts import KEY

CELLS = [(agent, dialect) for agent in AGENTS for dialect in BACKENDS]
NAMES = [f"{agent.name} over {dialect}" for agent, dialect in CELLS]


@pytest.fixture(scope="session", autouse=True)
def packages() -> None:
    install()


def gateway(state: Path, *upstreams: AgentUpstream, dialect: str, tool_calls: str = "stream") -> DataPlane:
    state.mkdir()
    (state / "instance.key").write_bytes(KEY)
    providers = {f"p{i}": Provider(f"p{i}", one.url, dialect=dialect, auth="none") for i, one in enumerate(upstreams)}
    snapshot = Snapshot(
        tokens={digest(KEY, TOKEN.encode()): Grant("t0", "test")},
        providers=providers,
        aliases={
            ALIAS: Alias(ALIAS, tuple(TargetRef(f"{name}/m") for name in providers), tool_calls=tool_calls),
        },
    )
    return DataPlane(state, snapshot=snapshot)


def do_task(agent: Agent, dialect: str, folder: Path, cut: tuple[int, ...] = ()) -> tuple[list[Closed], str]:
    """Let the agent edit the file; return the calls' records, and what the agent printed."""
    file = folder / "work" / "fox.txt"
    file.parent.mkdir()
    file.write_text(BEFORE)
    with (
        agent_upstream(agent.turns(file), cut) as upstream,
        gateway(folder / "state", upstream, upstream, dialect=dialect, tool_calls=agent.tool_calls) as plane,
    ):
        ran = run(agent, f"Make the fox in {file} red.", folder, plane.url, TOKEN)
        records = plane.records()
    closed = [record for record in records if isinstance(record, Closed)]
    assert ran.returncode == 0, f"{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}\n{closed}"
    assert file.read_text() == AFTER, ran.stdout[-2000:]
    assert "The fox is red now" in ran.stdout
    return closed, ran.stdout


@pytest.mark.parametrize(("agent", "dialect"), CELLS, ids=NAMES)
def test_task_of_two_tool_calls(tmp_path: Path, agent: Agent, dialect: str) -> None:
    closed, _ = do_task(agent, dialect, tmp_path)
    assert {record.outcome for record in closed} == {"delivered"}
    assert all(len(record.attempts) == 1 for record in closed)


@pytest.mark.parametrize(("agent", "dialect"), CELLS, ids=NAMES)
def test_upstream_that_breaks_off_in_the_second_turn(tmp_path: Path, agent: Agent, dialect: str) -> None:
    closed, _ = do_task(agent, dialect, tmp_path, cut=(1,))
    assert sum(len(record.attempts) > 1 or record.outcome != "delivered" for record in closed) == 1
