"""``headgate status | reload | drain``: the running gateway itself."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from headgate.cli.display.terminal import count, facts, milliseconds, number, say, show, waiting
from headgate.cli.parsing.options import Config, Json, StateDir
from headgate.cli.reach.gateway import START_IT, Gateway, Trouble, open_gateway
from headgate.process import statedir

DRAIN_S = 3600.0


def status(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Show how the gateway is.

    Exit code 1 where something is wrong.
    """
    with _running(config, state_dir) as gateway:
        health = gateway.call("GET", "/health")
        ends = statedir.draining(gateway.state_dir)
    show(health, as_json, lambda: _picture(health, ends))
    wrong = not health["workers"] or health["recorder"]["error"] or health["config"]["reload_error"]
    raise typer.Exit(1 if wrong else 0)


def reload(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Read the configuration file again.  Running streams are not touched."""
    with _running(config, state_dir) as gateway:
        answer = gateway.call("POST", "/reload")
    show(answer, as_json, lambda: "reloaded" if answer["changed"] else "nothing has changed")
    if answer["needs_restart"] and not as_json:
        say(f"needs a restart: {', '.join(answer['needs_restart'])}")


def drain(
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended.")] = False,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Stop the gateway when its running calls have ended.

    It takes no new calls meanwhile.  `stop` is the same command.
    """
    with _running(config, state_dir) as gateway:
        answer = gateway.call("POST", "/drain", {})
        if wait:
            with waiting("running calls come to their end"):
                end = time.monotonic() + DRAIN_S
                while gateway.running and time.monotonic() < end:
                    time.sleep(0.1)
    show(answer, as_json, lambda: "it has ended" if wait else "it ends when its running calls have")


def detect(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Look for engines on this machine (Ollama, LM Studio, vLLM, …) and use what is found."""
    with _running(config, state_dir) as gateway, waiting("looking for engines on this machine"):
        answer = gateway.call("POST", "/detect")
    show(answer, as_json, lambda: _engines(answer))


def _engines(answer: dict[str, Any]) -> str:
    found = [one["said"] for one in answer["asked"] if one["found"]]
    if not found:
        ports = ", ".join(f"{one['title']} ({one['port']})" for one in answer["asked"])
        return f"no engine answers on this machine; looked for: {ports}"
    unused = "" if answer["enabled"] else "\nnot used: detect.local_engines is false in the configuration"
    return "\n".join(found) + unused


def _running(config: str | None, state_dir: str | None) -> Gateway:
    gateway = open_gateway(config, state_dir)
    if not gateway.running:
        raise Trouble(f"no gateway runs with the state directory {gateway.state_dir}", START_IT)
    return gateway


def _picture(health: dict[str, Any], ends: float | None) -> Any:
    recorder, configuration = health["recorder"], health["config"]
    workers = health["workers"]
    refused = health["refusals"]["codes"]
    return facts(
        f"headgate {health['version']}",
        [
            ("draining", None if ends is None else f"{_running_calls(workers)}, up to {ends:.0f} s"),
            ("data plane", f"{health['data_url']}{'' if workers else ' – not connected'}"),
            ("up for", _span(health["uptime_s"])),
            *((f"worker {one['worker']}", _worker(one, health["generation"])) for one in workers),
            ("journal", _journal(recorder)),
            ("store", f"cannot be written: {recorder['error']}" if recorder["error"] else "good"),
            ("configuration", configuration["reload_error"] or "good"),
            ("needs restart", ", ".join(configuration["needs_restart"]) or None),
            ("refused, 1 h", ", ".join(f"{code} {count}" for code, count in refused.items()) or None),
        ],
    )


def _running_calls(workers: list[dict[str, Any]]) -> str:
    return count(sum(int(one["gauges"].get("calls", 0)) for one in workers), "call")


def _waiting(gauges: dict[str, Any]) -> str:
    """Of the calls, how many wait in the queues of aliases."""
    waiting = gauges.get("queued", 0)
    return f" ({number(waiting)} waiting)" if waiting else ""


def _worker(worker: dict[str, Any], generation: int) -> str:
    gauges = worker["gauges"]
    parts = [f"pid {worker['pid']}"]
    if gauges:
        parts += [
            count(gauges["calls"], "call") + _waiting(gauges),
            count(gauges["connections"], "connection"),
            f"{number(gauges['upstream_connections'])} to upstreams ({number(gauges['upstream_idle'])} idle)",
            f"late by {milliseconds(gauges['loop_lag_s'] * 1000)}",
        ]
    if worker["generation"] != generation:
        parts.append("not yet at the latest configuration")
    return ", ".join(parts)


def _journal(recorder: dict[str, Any]) -> str:
    running = f"{count(recorder['running_calls'], 'call')} running"
    if not recorder["records_behind"]:
        return f"read to its end, {running}"
    return f"{count(recorder['records_behind'], 'record')} to read, {running}"


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
