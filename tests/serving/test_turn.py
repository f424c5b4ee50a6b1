"""The end of a turn: what leaves, in which order, in how many calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from headgate.serving.loop.turn import Turn

uvloop = pytest.importorskip("uvloop")


class Wire:
    """Takes bytes as a transport does; ``calls`` says how."""

    def __init__(self, calls: list[tuple[str, object]]) -> None:
        self._calls = calls

    def write(self, data: bytes) -> None:
        self._calls.append(("write", data))

    def writelines(self, pieces: list[bytes]) -> None:
        self._calls.append(("writelines", list(pieces)))


@pytest.mark.parametrize(
    ("loop_of", "told"),
    [
        (uvloop.new_event_loop, ("writelines", [b"head", b"event", b"end"])),
        (asyncio.new_event_loop, ("write", b"headeventend")),  # whose own writelines forgets to pause in 3.12
    ],
)
def test_what_one_client_gets_in_a_turn_leaves_in_one_call(
    loop_of: Callable[[], asyncio.AbstractEventLoop], told: tuple[str, object]
) -> None:
    async def main() -> None:
        calls: list[tuple[str, object]] = []
        turn = Turn(asyncio.get_running_loop())
        one, other = (cast(Any, Wire(calls)) for _ in range(2))
        for piece in (b"head", b"event", b"end"):
            turn.write(one, piece)
        turn.write(other, b"other")
        turn.write(one, b"next")
        turn.send(calls.append, ("hang up", one))
        turn.write(one, b"after")
        await asyncio.sleep(0.01)
        how = told[0]
        rest = [b"other", b"next"] if how == "write" else [[b"other"], [b"next"]]
        last = b"after" if how == "write" else [b"after"]
        assert calls == [told, *((how, piece) for piece in rest), ("hang up", one), (how, last)]
        calls.clear()
        turn.write(one, b"later")
        await asyncio.sleep(0.01)
        assert calls == [(how, b"later" if how == "write" else [b"later"])]

    with asyncio.Runner(loop_factory=loop_of) as runner:
        runner.run(main())
