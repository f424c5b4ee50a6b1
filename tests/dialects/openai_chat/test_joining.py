"""One answer out of several attempts, as a property: whatever the text, wherever it breaks, however it goes on, a
client sees every character once, one role, one finish, and ``[DONE]`` only behind a whole answer.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.dialects import registry
from headgate.dialects.base import Reply
from headgate.dialects.openai_chat import ChatStream, Seam
from headgate.dialects.openai_chat.dialect import BACKEND, CLIENT
from headgate.model import Usage
from tests.dialects.openai_chat.streams import CREATED, IDENT, MODEL, check_contract, chunk, events, parse, split

TEXT = st.text(st.sampled_from(' \n\t"\\aäé漢😀{}:,.x'), min_size=1, max_size=60)
HOWS = st.sampled_from(["continue", "trimmed", "afresh"])


def pieces(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(edges) if a != b]


def content(out: bytes) -> str:
    return "".join(
        choice["delta"].get("content") or "" for one in parse(out) for choice in one.get("choices", ())
    )  # fmt: skip


def attempt(parts: list[str], broken: bool) -> bytes:
    """What an upstream sends: broken, or with its finish, usage and [DONE]."""
    head = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": part}) for part in parts)]
    if broken:
        return events(*head)
    usage = {"prompt_tokens": 7, "completion_tokens": len(parts), "total_tokens": 7 + len(parts)}
    end = {**chunk({}), "choices": [], "usage": usage}
    return events(*head, chunk({}, "stop"), end, "[DONE]")


def fed(stream: ChatStream, body: bytes, seed: int) -> bytes:
    return b"".join([*(stream.feed(piece) for piece in split(body, seed)), stream.close()])


def begun(body: bytes, seed: int) -> tuple[bytes, ChatStream]:
    stream = ChatStream(Reply(IDENT, CREATED, MODEL, True, provider="a", prompt_tokens=7, keep=True))
    return fed(stream, body, seed), stream


def gone_on(before: ChatStream, seam: Seam, body: bytes, seed: int) -> tuple[bytes, ChatStream]:
    joined = registry.join_stream(CLIENT, BACKEND, before, seam, Reply(IDENT, 0, MODEL, True, provider="b"))
    assert isinstance(joined, ChatStream)
    return fed(joined, body, seed), joined


@settings(max_examples=400, deadline=None)
@given(
    text=TEXT,
    cuts=st.lists(st.integers(0, 60), max_size=20),
    breaks=st.lists(st.integers(0, 60), min_size=1, max_size=2),
    hows=st.lists(HOWS, min_size=2, max_size=2),
    seed=st.integers(0, 1 << 16),
)
def test_every_character_once(text: str, cuts: list[int], breaks: list[int], hows: list[str], seed: int) -> None:
    parts = pieces(text, cuts)
    kept = parts[: 1 + breaks[0] % len(parts)]
    out, stream = begun(attempt(kept, broken=True), seed)
    assert stream.error is not None and not stream.done
    for number, how in enumerate(hows[: len(breaks)]):
        have = stream.delivered
        assert have is not None and have.text is not None and text.startswith(have.text) and content(out) == have.text
        given_up = have.text.rstrip() if how == "trimmed" else have.text
        rest = text if how == "afresh" else text[len(given_up) :]
        seam = Seam(have.text, afresh=how == "afresh", trims=how == "trimmed")
        following = pieces(rest, cuts)
        broken = number + 1 < len(breaks)
        if broken:
            following = following[: breaks[1] % (len(following) + 1)]
        more, joined = gone_on(stream, seam, attempt(following, broken), seed + number)
        if joined.error is not None and seam.unclear:  # a text that says its beginning again: asked afresh, it is clear
            assert not more
            again = pieces(text, cuts)
            seam = Seam(have.text, afresh=True)
            more, joined = gone_on(stream, seam, attempt(again, broken=False), seed + number)
            broken = False
        stream = joined
        out += more
        if not broken:
            break
    assert stream.error is None and stream.done
    out += stream.tail(Usage())
    check_contract(out, stream, usage=True)
    assert content(out) == text


@settings(max_examples=200, deadline=None)
@given(said=TEXT, other=TEXT, cuts=st.lists(st.integers(0, 60), max_size=20), seed=st.integers(0, 1 << 16))
def test_another_answer_is_never_spliced(said: str, other: str, cuts: list[int], seed: int) -> None:
    out, stream = begun(attempt(pieces(said, cuts), broken=True), seed)
    more, joined = gone_on(stream, Seam(said, afresh=True), attempt(pieces(other, cuts), broken=False), seed)
    out += more + joined.tail(Usage())
    check_contract(out, joined, usage=True)
    if other.startswith(said):
        assert content(out) == other and joined.error is None
    else:
        assert content(out) == said and joined.error is not None
        assert b"[DONE]" not in out and b'"finish_reason":"' not in out


@pytest.mark.parametrize(("said", "stop"), [("xa", "ab"), ("xa", "ab c"), ("xab", "ab c"), ("xab ", "ab c")])
def test_a_stop_string_across_the_seam_ends_the_answer(said: str, stop: str) -> None:
    """What the client has of it already cannot be taken back; nothing behind it comes."""
    rest = ("x" + stop + " and more")[len(said) :]
    out, stream = begun(attempt([said], broken=True), 1)
    more, joined = gone_on(stream, Seam(said, afresh=False, stops=(stop,)), attempt(list(rest), broken=False), 2)
    out += more + joined.tail(Usage())
    check_contract(out, joined, usage=True)
    assert content(out) == said and joined.done
