"""How a later attempt may end: what it leaves to the one after it, and what it still owes the client."""

from __future__ import annotations

from headgate import errors
from headgate.dialects import registry
from headgate.dialects.base import Reply
from headgate.dialects.openai_chat import ChatStream, Seam
from headgate.dialects.openai_chat.dialect import BACKEND, CLIENT
from headgate.model import Usage
from tests.dialects.openai_chat.streams import CREATED, IDENT, MODEL, chunk, events, parse


def begun(*texts: str) -> ChatStream:
    stream = ChatStream(Reply(IDENT, CREATED, MODEL, False, provider="a", prompt_tokens=7, keep=True))
    stream.feed(events(*(chunk({"content": text}) for text in texts)))
    stream.close()
    return stream


def gone_on(before: ChatStream, seam: Seam) -> ChatStream:
    reply = Reply(IDENT, 0, MODEL, provider="b", before=before.used.delivered)
    joined = registry.join_stream(CLIENT, BACKEND, before, seam, reply)
    assert isinstance(joined, ChatStream)
    return joined


def content(out: bytes) -> str:
    return "".join(choice["delta"].get("content") or "" for one in parse(out) for choice in one.get("choices", ()))


def test_an_answer_that_diverges_leaves_no_finish_reason_behind() -> None:
    """Else the third attempt would be complete before it has said anything, and end without a finish."""
    before = begun("Hello ")
    other = gone_on(before, Seam("Hello ", afresh=True))
    assert other.feed(events(chunk({"content": "Nope"}, "stop"))) == b"" and other.error is not None
    third = gone_on(other, Seam("Hello ", afresh=True))
    third.feed(events(chunk({"content": "Hello "})))
    third.close()
    assert not third.done and third.error is not None and third.error.kind is errors.UPSTREAM_CUT


def test_done_without_a_word_is_hollow() -> None:
    for afresh in (True, False):
        joined = gone_on(begun("Hello "), Seam("Hello ", afresh=afresh))
        joined.feed(events(chunk({"role": "assistant", "content": ""}), "[DONE]"))
        assert not joined.done and joined.error is not None and joined.error.kind is errors.UPSTREAM_HOLLOW
        assert joined.used.billed.prompt == 0


def test_done_before_a_fresh_answer_has_caught_up_diverges() -> None:
    joined = gone_on(begun("Hello "), Seam("Hello ", afresh=True))
    joined.feed(events(chunk({"content": "Hel"}), "[DONE]"))
    assert not joined.done and joined.error is not None and joined.error.kind is errors.UPSTREAM_DIVERGED
    exact = gone_on(begun("Hello "), Seam("Hello ", afresh=True))
    exact.feed(events(chunk({"content": "Hello "}), "[DONE]"))
    assert exact.done and content(exact.tail(Usage())) == ""


def test_what_was_held_comes_though_no_finish_does() -> None:
    joined = gone_on(begun("one E"), Seam("one E", afresh=False, stops=("END",)))
    out = joined.feed(events(chunk({"content": "N"})))
    assert content(out) == ""
    assert content(joined.feed(events("[DONE]"))) == "N" and joined.done
    assert joined.used.delivered.completion == 1


def test_stream_is_whole_after_its_finish_reason() -> None:
    stream = begun("Hello ")
    assert stream.delivered is not None and not stream.delivered.finished
    stream = ChatStream(Reply(IDENT, CREATED, MODEL, False, keep=True))
    stream.feed(events(chunk({"content": "Hello"}), chunk({}, "stop"), {"error": {"message": "x"}}))
    assert stream.done and stream.error is None and stream.delivered is not None and stream.delivered.finished
    assert stream.complete("length") and stream.error is None
    assert [one["choices"][0]["finish_reason"] for one in parse(stream.tail(Usage()))] == ["stop"]
