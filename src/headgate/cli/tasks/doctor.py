"""``headgate doctor``: everything that can be wrong, looked at in one go.

Works without a gateway, without a network and with a broken configuration.  Where nothing was ever started it asks in
a directory that it throws away: looking leaves nothing behind.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import typer

from headgate.cli.display.layout import Hanging, Text
from headgate.cli.display.terminal import count, draw, print_json, waiting
from headgate.cli.nouns.providers import checked, configured
from headgate.cli.parsing.options import Config, Json, StateDir
from headgate.cli.reach.gateway import Gateway
from headgate.cli.tasks import checks
from headgate.cli.tasks.checks import Finding
from headgate.cli.trouble import StoreTrouble, Trouble
from headgate.process import credentials, statedir

_MARKS = {"good": Text("✓", "green"), "warning": Text("!", "yellow"), "bad": Text("✗", "red")}
REFUSED = frozenset({401, 403})
BEHIND = 10_000  # records: control reads more than that in a second


def command(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Look at everything that can be wrong.

    Exit code 1 where something is.
    """
    found = []
    for finding in examine(config, {"state_dir": state_dir} if state_dir else {}):
        found.append(finding)
        if not as_json:
            _print(finding)
    bad = sum(finding.mark == "bad" for finding in found)
    if as_json:
        print_json({"ok": not bad, "findings": [asdict(finding) for finding in found]})
    raise typer.Exit(1 if bad else 0)


def examine(config: str | None, overrides: dict[str, str]) -> Iterator[Finding]:
    """All findings, in an order in which they explain each other."""
    yield from checks.python()
    try:
        gateway = Gateway.find(config, overrides, announce=False)
        running = gateway.running
    except Trouble as trouble:
        yield from checks.configuration(config, os.environ, overrides)[1]
        yield Finding("bad", "gateway", trouble.sentence, trouble.step)
        return
    settings = None
    if config is not None or not running:  # a running gateway says itself what it has read: see _health
        settings, findings = checks.configuration(config, os.environ, overrides)
        if settings is None and running:  # it serves with what it read before, or with variables that this shell lacks
            findings = [replace(one, mark="warning", subject="configuration here") for one in findings]
        yield from findings
        if settings is None and not running:
            return  # what else there is to look at, only a configuration says
    state = gateway.state_dir
    yield from checks.clock(state)
    yield from checks.state_directory(state)
    yield from checks.journal(state)
    try:
        holder = statedir.holder(state)
    except statedir.StateError as error:
        yield Finding("bad", "state directory", str(error), "run this as the user who runs the gateway")
        return
    yield from checks.lock(holder)
    if settings is not None:
        if holder is None:
            yield from checks.free_ports(settings)
        yield from checks.descriptors(settings)
    with ExitStack() as stack:
        if holder is None and not (state / credentials.INSTANCE_KEY).exists():
            overrides = {**overrides, "state_dir": stack.enter_context(tempfile.TemporaryDirectory(prefix="headgate-"))}
            gateway = Gateway.find(config, overrides, announce=False)
        try:
            yield from _asked(stack.enter_context(gateway))
        except StoreTrouble as trouble:
            yield Finding("bad", "store", trouble.sentence)
        except Trouble as trouble:
            yield Finding("bad", "gateway", trouble.sentence, trouble.step)


def _asked(gateway: Gateway) -> Iterator[Finding]:
    """The checks that need the admin API; the same with and without a running gateway."""
    health = gateway.call("GET", "/health")
    yield from _health(health, gateway.running)
    yield from _keys(gateway)
    yield from _webhooks(gateway)
    with waiting("looking for engines on this machine"):
        detection = gateway.call("POST", "/detect")
    engines = [engine for engine in detection["asked"] if engine["found"]]
    for engine in engines:
        yield Finding("good", "engine", f"{engine['title']} on port {engine['port']}")
    if not engines:
        yield Finding("good", "engine", f"none of the {len(detection['asked'])} known ones answers on this machine")


def _health(health: dict[str, Any], running: bool) -> Iterator[Finding]:
    recorder, configuration = health["recorder"], health["config"]
    if running:
        workers = health["workers"]
        plane = f"{health['data_url']}, {len(workers)} data process{'es' if len(workers) != 1 else ''}"
        yield Finding("good" if workers else "bad", "data plane", plane, "" if workers else "look at the log")
    if recorder["error"]:
        yield Finding("bad", "store", str(recorder["error"]), "make room on the disk, or look at the log")
    elif recorder["records_behind"] > BEHIND:
        yield Finding("warning", "journal", f"{_behind(recorder)} not yet in the store", "wait")
    else:
        whole = not recorder["records_behind"]
        sentence = "every record is in the store" if whole else f"{_behind(recorder)} not yet in the store"
        yield Finding("good", "journal", sentence)
    if running and not configuration["reload_error"]:
        yield Finding("good", "configuration", f"{configuration['file'] or 'no file: the defaults hold'}, as it runs")
    if configuration["reload_error"]:
        yield Finding("bad", "configuration", str(configuration["reload_error"]), "headgate config check")
    if configuration["needs_restart"]:
        changed = ", ".join(configuration["needs_restart"])
        yield Finding(
            "warning", "configuration", f"changed, but only a restart applies it: {changed}", "headgate drain"
        )


def _behind(recorder: dict[str, Any]) -> str:
    return f"{count(recorder['records_behind'], 'record')} {'is' if recorder['records_behind'] == 1 else 'are'}"


def _keys(gateway: Gateway) -> Iterator[Finding]:
    """Every account by a real call.  A provider that cannot be reached is a warning: it may be the network."""
    providers = configured(gateway)
    for row in providers:
        if row["status"] == "unusable":
            step = "" if row["shadowed"] else f"mend that, or: headgate providers remove {row['name']}"
            yield Finding("warning", row["name"], f"is in the store but cannot be used: {row['problem']}", step)
        elif row["status"] == "no_key":
            yield Finding("warning", row["name"], "has no key", f"headgate vault add {row['name']}")
    ready = [row["name"] for row in providers if row["status"] == "ready"]
    for answer in checked(gateway, ready):
        for result in answer["results"]:
            yield _key(answer["provider"], result)
    if not providers:
        yield Finding(
            "warning", "providers", "none is configured: only builtin/lorem answers", "headgate vault add openai"
        )


def _webhooks(gateway: Gateway) -> Iterator[Finding]:
    for row in gateway.items("/webhooks"):
        last, subject = row["last"], f"webhook {row['name']}"
        if last is not None and not last["ok"]:
            step = f"mend its url under webhooks:, then: headgate webhook test {row['name']}"
            yield Finding("warning", subject, f"its alerts are not taken: {last['message']}", step)
        elif row["given_up"] or row["dropped"]:
            yield Finding("warning", subject, f"{count(row['given_up'] + row['dropped'], 'alert')} did not reach it")
        else:
            untried = "no alert was sent since the start" if gateway.running else "no gateway runs"
            yield Finding("good", subject, untried if last is None else last["message"])


def _key(provider: str, result: dict[str, Any]) -> Finding:
    subject = result["account"] or provider
    if result["ok"]:
        models = "" if result["models"] is None else f", {count(result['models'], 'model')}"
        return Finding("good", subject, f"answers in {result['latency_ms']:.0f} ms{models}")
    refused = result["status"] in REFUSED
    step = f"headgate vault add {provider}" if refused else "check the network and the address"
    return Finding("bad" if refused else "warning", subject, result["message"], step)


def _print(finding: Finding) -> None:
    draw(Hanging(Text.assemble(_MARKS[finding.mark], " ", (f"{finding.subject}: ", "bold"), finding.sentence)))
    if finding.step:
        draw(Text(f"    → {finding.step}", "dim"))
