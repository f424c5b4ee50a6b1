"""A stream that is cut after any of its chunks, once or twice, is the stream that was not cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from headgate.testing.engine.walk import Walk, count, rest
from tests.continuation.broken_streams import PROMPT, Stream, asked, pair, plane, rows, run
from tests.dataplane import DataPlane

MODES = ("prose", "code", "multibyte")
CHUNKS = (1, 3, 0)
KINDS = (
    "trailing", "trailing+trims", "continue_final_message", "continue_final_message+trims", "prefix", "prefix+trims",
    "none", "refuse",
)  # fmt: skip
HOWS = ("close", "error", "half", "end", "close", "reset")
TOKENS = 30


@pytest.fixture(scope="module")
def gateway(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    made = [
        pair(engine, f"{kind.replace('_', '-').replace('+', '-')}-{mode}", model, model)
        for kind, model in rows(KINDS).items()
        for mode in MODES
    ]
    with plane(
        tmp_path_factory.mktemp("every"), [one for both, _ in made for one in both], [alias for _, alias in made]
    ) as running:
        yield running


def text_of(mode: str, seed: int) -> str:
    """What the engine says, computed here."""
    tokens, _ = rest(Walk(seed, mode, f"<|user|>{PROMPT}\n", TOKENS), "")
    return b"".join(tokens).decode()


def broken(at: int, **engine: Any) -> dict[str, Any]:
    how = HOWS[at % len(HOWS)]
    return {"how": how, "late": 2 * (how == "error"), "burst": at % 3 == 0, **engine}


def second(first: int, events: int) -> int:
    """Where the second attempt dies.  Both before their first token would leave nobody to ask."""
    return max(1 if first == 0 else 0, first * 7 % (events - first + 1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_cut_anywhere(gateway: DataPlane, kind: str, mode: str) -> None:
    model = f"cut/{kind.replace('_', '-').replace('+', '-')}-{mode}"
    for chunk in CHUNKS:
        engine = {"mode": mode, "chunk": chunk, "tokens": TOKENS, "seed": 3 + chunk}
        whole = run(gateway, [asked(model, engine)])[0]
        whole.assert_sound()
        assert whole.text == text_of(mode, 3 + chunk)
        once = [asked(model, broken(at, kill=[at], **engine)) for at in range(whole.events + 2)]
        twice = [asked(model, broken(at, kill=[at, second(at, whole.events)], **engine)) for at in range(whole.events)]
        for stream in run(gateway, once + twice):
            same(stream, whole)


def same(stream: Stream, whole: Stream) -> None:
    stream.assert_sound()
    assert stream.text == whole.text, stream.asked
    assert stream.finishes == whole.finishes, stream.asked
    assert stream.usage is not None and whole.usage is not None
    if stream.asked["kill"][0] > whole.events or (stream.asked["chunk"] == 0 and len(stream.asked["kill"]) > 1):
        return  # the finish may have come, and the figures not: they are estimated
    # Prompt once, and what was delivered: together exactly.  How much of it was the prompt is an estimate, and near
    # where an event is a token and its tokens have the usual length.
    assert stream.usage["total_tokens"] == whole.usage["total_tokens"], stream.asked
    assert stream.usage["prompt_tokens"] > 0, stream.asked
    if stream.asked["chunk"] == 1 and stream.asked["mode"] == "prose":
        assert abs(stream.usage["prompt_tokens"] - count(f"<|user|>{PROMPT}\n")) <= 2, stream.asked
