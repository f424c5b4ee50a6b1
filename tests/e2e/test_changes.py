"""What is changed while it runs: tokens, the configuration file, and the order to end."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from headgate.testing.provider import lorem
from tests.e2e.gateway import FILE_TOKEN, Gateway, Make, Report, Streamed, stream
from tests.waiting import eventually


def test_tokens_work_when_made_and_end_when_revoked(gateway: Make, report: Report) -> None:
    one = gateway().start()
    _status, answer = one.admin("POST", "/tokens", {"name": "laptop"})
    made = time.monotonic()
    assert answer["effective"] and one.chat("builtin/echo", answer["token"])[0] == 200
    usable = time.monotonic() - made

    made_by_cli = one.cli("token", "create", "phone", "--models", "builtin/echo")
    assert made_by_cli.returncode == 0 and made_by_cli.stderr == ""
    phone = made_by_cli.stdout.strip()
    assert one.chat("builtin/echo", phone)[0] == 200
    status, body = one.chat("builtin/lorem", phone)
    assert (status, body["error"]["code"]) == (403, "model_not_allowed")

    async def revoke_while_it_streams() -> Streamed:
        seen = Streamed()
        running = asyncio.create_task(stream(one.port, "builtin/lorem?rate=60&tokens=120", answer["token"], seen=seen))
        await eventually(lambda: seen.text)
        status, revoked = await asyncio.to_thread(one.admin, "DELETE", f"/tokens/{answer['id']}")
        assert status == 200 and revoked["effective"]
        return await running

    assert asyncio.run(revoke_while_it_streams()).text == lorem.text(120)  # what runs goes on
    status, body = one.chat("builtin/echo", answer["token"])
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    ended = time.monotonic()
    assert one.cli("token", "revoke", phone.split("_")[2]).returncode == 0
    assert one.chat("builtin/echo", phone)[0] == 401
    report(f"token create → 200: {usable * 1000:.0f} ms; revoke by the CLI, with its own start → 401: "
           f"{(time.monotonic() - ended) * 1000:.0f} ms")  # fmt: skip

    listed = {row["name"]: row for row in one.admin("GET", "/tokens")[1]["data"]}
    assert listed["ci"]["origin"] == "file" and "laptop" not in listed
    status, body = one.admin("DELETE", f"/tokens/{listed['ci']['id']}")
    assert (status, body["error"]["code"]) == (409, "managed_by_file")
    assert one.cli("token", "revoke", listed["ci"]["id"]).returncode == 2
    assert one.chat("builtin/echo")[0] == 200


def test_a_token_expires(gateway: Make) -> None:
    one = gateway().start()
    soon = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    token = one.admin("POST", "/tokens", {"name": "short", "expires": soon})[1]["token"]
    assert one.chat("builtin/echo", token)[0] == 200
    one.until(lambda: one.chat("builtin/echo", token)[0] != 200)
    status, body = one.chat("builtin/echo", token)
    assert (status, body["error"]["code"]) == (401, "expired_api_key")


# ------------------------------------------------------------------------------------------------ the file

CHAT = "aliases: {chat: {targets: [builtin/echo]}}\n"
CODE = "aliases: {chat: {targets: [builtin/echo]}, code: {targets: [builtin/echo]}}\n"


def reloading(one: Gateway, change: Callable[[], None]) -> Streamed:
    """``change`` while a stream runs, which must not notice."""

    async def main() -> Streamed:
        seen = Streamed()
        running = asyncio.create_task(stream(one.port, "builtin/lorem?rate=50&tokens=200", seen=seen))
        await eventually(lambda: seen.text)
        await asyncio.to_thread(change)
        return await running

    return asyncio.run(main())


def test_a_changed_file_is_taken_and_no_stream_notices(gateway: Make, report: Report) -> None:
    one = gateway().start()
    assert one.chat("chat")[0] == 404
    took: list[float] = []

    def change() -> None:
        for content, model, signalled in ((CHAT, "chat", False), (CODE, "code", True)):
            one.configure(content)
            changed = time.monotonic()
            if signalled:
                one.process.send_signal(signal.SIGHUP)
            one.until(lambda name=model: one.chat(name)[0] == 200)
            took.append(time.monotonic() - changed)

    streamed = reloading(one, change)
    assert (streamed.text, streamed.done) == (lorem.text(200), True)
    report(f"a new alias answers {took[0]:.2f} s after the file changed, {took[1]:.2f} s after SIGHUP")


def test_bad_file_keeps_the_last_good_one(gateway: Make) -> None:
    one = gateway(CHAT).start()
    one.configure(CODE)  # good, and newer than what the supervisor began with
    one.until(lambda: one.chat("code")[0] == 200)
    one.configure("aliases: {chat: {target: [builtin/echo]}}\n")
    one.until(lambda: one.health()["config"]["reload_error"])
    assert "did you mean targets?" in one.health()["config"]["reload_error"]
    assert "the last good one stays" in one.log and "aliases.chat.target" in one.log
    status, body = one.admin("POST", "/reload")
    assert (status, body["error"]["code"]) == (400, "invalid_config")

    for role in ("data", "control", "data"):
        first = one.kill(role)
        one.until(lambda was=first, name=role: one.pids().get(name, was) != was)
        assert one.chat("code")[0] == 200
        one.until(lambda: one.get("/health")[1]["control"] == "connected")
        one.until(lambda: one.health()["config"]["reload_error"])  # it begins anew, and on a busy machine
        assert one.chat("code")[0] == 200 and one.chat("chat", FILE_TOKEN)[0] == 200

    one.configure(CHAT)
    one.until(lambda: one.health()["config"]["reload_error"] is None)
    one.until(lambda: one.chat("code")[0] == 404)


def test_keys_that_need_a_restart_are_named_once(gateway: Make) -> None:
    one = gateway().start()
    one.drain_s = 7
    one.configure("")
    one.until(lambda: "need a restart" in one.log)
    answer = one.admin("POST", "/reload")[1]
    assert answer["needs_restart"] == ["server.drain_s"] and not answer["changed"]
    assert one.health()["config"]["needs_restart"] == ["server.drain_s"]
    one.kill("control")  # a new control process compares with what the gateway was started with
    one.until(lambda: "the control process answers again" in one.log)
    one.until(lambda: one.health()["config"]["needs_restart"] == ["server.drain_s"])
    assert one.log.count("need a restart") == 2  # once in each life of control


# ------------------------------------------------------------------------------------------------ the end


def ending(one: Gateway, signals: int, *models: str) -> tuple[list[Streamed], float]:
    """Streams of ``models``, and so many SIGTERM; seconds until the exit."""

    async def main() -> tuple[list[Streamed], float]:
        seen = [Streamed() for _ in models]
        running = [
            asyncio.create_task(stream(one.port, model, seen=each)) for model, each in zip(models, seen, strict=True)
        ]
        await eventually(lambda: all(each.text for each in seen))
        told = time.monotonic()
        for _each in range(signals):
            one.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", one.port)):
            pass
        assert await asyncio.to_thread(one.process.wait, 60) == 0
        return await asyncio.gather(*running), time.monotonic() - told

    return asyncio.run(main())


def test_running_streams_finish_before_the_end(gateway: Make) -> None:
    one = gateway().start()
    streams, took = ending(one, 1, *["builtin/lorem?rate=50&tokens=100"] * 20)
    assert {(each.text, each.done) for each in streams} == {(lorem.text(100), True)}
    assert took > 1.0
    one.start()
    rows = one.rows()
    assert {rows[each.id]["outcome"] for each in streams} == {"delivered"} and len(rows) == 20


def test_a_stream_that_does_not_end_is_cut_when_the_time_is_up(gateway: Make, report: Report) -> None:
    one = gateway(drain_s=1).start()
    (stuck,), took = ending(one, 1, "builtin/lorem?rate=5&tokens=1000")
    report(f"drain_s 1 with a stuck stream: the gateway ended after {took:.2f} s")
    assert took > 0.9 and not stuck.done
    one.start()
    assert one.rows()[stuck.id]["outcome"] in ("truncated", "failed", "cancelled")


def test_a_second_signal_ends_at_once(gateway: Make, report: Report) -> None:
    drain_s = 120
    one = gateway(drain_s=drain_s).start()
    (stuck,), took = ending(one, 2, "builtin/lorem?rate=5&tokens=1000")
    report(f"second SIGTERM: the gateway ended {took - 0.3:.2f} s after it")
    assert took < drain_s and not stuck.done
    one.start()
    assert one.rows()[stuck.id]["outcome"] is not None
