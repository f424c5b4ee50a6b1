"""The configuration file while somebody writes it: half of it, or nothing, is never taken for what is meant."""

from __future__ import annotations

import time

from tests.e2e.gateway import Gateway, Make


def allowed(one: Gateway) -> bool:
    return one.get("/v1/models")[0] == 200


def test_a_file_that_is_emptied_takes_nothing_back(gateway: Make) -> None:
    one = gateway().start()
    for content in (b"", b"# nothing\n\n---\n", b"~\n", bytes(200)):
        one.config.write_bytes(content)
        one.until(lambda: one.health()["config"]["reload_error"])
        assert allowed(one), content
        one.configure("")
        one.until(lambda: not one.health()["config"]["reload_error"])
    one.config.write_bytes(b"")
    one.until(lambda: one.health()["config"]["reload_error"])
    for role in ("control", "data"):  # whatever starts meanwhile begins with the last good content
        one.kill(role)
        one.until(lambda role=role: f"the {role} process answers again" in one.log)  # type: ignore[misc]
        assert allowed(one)
    one.config.write_text("{}\n")  # said in as many words
    one.until(lambda: not allowed(one))


def test_file_written_in_place_is_read_whole(gateway: Make) -> None:
    one = gateway().start()
    whole = one.config.read_text() + "aliases: {mine: {targets: [builtin/lorem]}}\n"
    head, tail = whole.split("tokens:")  # at a line's end: the first half is a sound file without tokens
    with one.config.open("w") as file:
        file.write(head)
        file.flush()
        for _ in range(15):
            assert allowed(one)
            time.sleep(0.1)
        file.write("tokens:" + tail)
    one.until(lambda: one.get("/v1/models/mine")[0] == 200)
