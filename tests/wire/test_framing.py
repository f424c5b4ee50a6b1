"""What a body is, from its first bytes, however they are cut; and what is made of it."""

from __future__ import annotations

import gzip
import json

import pytest

from headgate.wire import sse
from headgate.wire.bodies.coding import CodingError, TooLargeError
from headgate.wire.bodies.framing import BodyForm, Items, Lines, Sniffer, as_events, document, form_of
from headgate.wire.bodies.intake import Intake

CHUNK = b'{"choices":[{"index":0,"delta":{"content":"a"}}]}'
PRETTY = json.dumps({"choices": [{"a": {}}, {"b": []}], "x": {"y": 1}}, indent=2).encode()
BROKEN_LINES = b'{"choices":[{"a":1},\n{"b":2}]}'  # one document, of which the second line begins like an object
BEFORE = (
    b"",
    b"\xef\xbb\xbf",
    b"\n\n",
    b" \r\n\t",
    b": OPENROUTER PROCESSING\n\n",
    b":\r\n:\n: {\n: data: x\n\n",
    b"\xef\xbb\xbf\n: x\n",
)

FORMS = [
    (b"data: {}\n\n", BodyForm.EVENTS),
    (b"data:{}", BodyForm.EVENTS),
    (b"event: message\ndata: {}\n\n", BodyForm.EVENTS),
    (b"id: 1\ndata: {}\n\n", BodyForm.EVENTS),
    (b"retry: 100\n\ndata: {}\n\n", BodyForm.EVENTS),
    (b"error: no\n\n", BodyForm.EVENTS),
    (CHUNK + b"\n" + CHUNK, BodyForm.LINES),
    (CHUNK + b" \r\n\r\n" + CHUNK + b"\n", BodyForm.LINES),
    (CHUNK, BodyForm.DOCUMENT),
    (CHUNK + b"\n", BodyForm.DOCUMENT),
    (CHUNK + b"\n\ndata: [DONE]\n\n", BodyForm.DOCUMENT),
    (PRETTY, BodyForm.DOCUMENT),
    (PRETTY.replace(b"\n", b"\r\n"), BodyForm.DOCUMENT),
    (BROKEN_LINES, BodyForm.DOCUMENT),
    (b"[\n" + CHUNK + b"\n]", BodyForm.ITEMS),
    (b"[" + CHUNK + b"," + CHUNK + b"]", BodyForm.ITEMS),
    (b"[" + PRETTY + b"\r\n,\r\n" + PRETTY + b"]\n", BodyForm.ITEMS),
    (b"[", BodyForm.DOCUMENT),
    (b"[]", BodyForm.DOCUMENT),
    (b"[ \n]", BodyForm.DOCUMENT),
    (b'["a"]', BodyForm.DOCUMENT),
    (b"[DONE]", BodyForm.DOCUMENT),
    (b"", BodyForm.OTHER),
    (b"<!doctype html>", BodyForm.OTHER),
    (b"upstream connect error", BodyForm.OTHER),
    (b"database is down: data: x", BodyForm.OTHER),
    (b"identity", BodyForm.OTHER),
    (b"datum: 1", BodyForm.OTHER),
]  # fmt: skip


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize(("body", "form"), FORMS)
def test_the_form_does_not_depend_on_how_the_bytes_come(before: bytes, body: bytes, form: BodyForm) -> None:
    body = before + body
    assert form_of(body) is form
    for size in (1, 2, 5):
        sniffer = Sniffer()
        for at in range(0, len(body), size):
            sniffer.feed(body[at : at + size])
        assert sniffer.finish() is form


def test_framing_is_detected_early() -> None:
    sniffer = Sniffer()
    assert [sniffer.feed(bytes((byte,))) for byte in b"data:"] == [None, None, None, None, BodyForm.EVENTS]
    sniffer = Sniffer()
    assert sniffer.feed(CHUNK + b"\n") is None and sniffer.feed(b"{") is BodyForm.LINES
    sniffer = Sniffer(lines=True)  # the media type has said so
    assert sniffer.feed(CHUNK) is None and sniffer.feed(b"\n") is BodyForm.LINES
    assert Sniffer(lines=True).feed(PRETTY) is BodyForm.DOCUMENT


def test_blanks_and_comments_without_end_are_given_up() -> None:
    for piece in (b" " * 4096, b": waiting\n" * 400, b":" + b"x" * 4096):
        sniffer = Sniffer()
        found = next(form for form in (sniffer.feed(piece) for _ in range(1000)) if form is not None)
        assert found is BodyForm.OTHER


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize(
    "behind", [b"", b"\n", b"\n\ndata: [DONE]\n\n", b"data:[DONE]", b" [DONE]\r\n", b"\nevent: done\ndata: [DONE]\n\n"]
)
@pytest.mark.parametrize("body", [CHUNK, PRETTY, b'{"a":"[DONE]"}', b'["data: [DONE]"]'])
def test_a_document_is_freed_of_what_stands_around_it(before: bytes, behind: bytes, body: bytes) -> None:
    assert document(before + body + behind) == body


def test_lines_become_events_however_they_are_cut() -> None:
    body = CHUNK + b"\n\r\n" + CHUNK + b"\r\n: ping\ndata: " + CHUNK + b"\n\x1e" + CHUNK + b"\n[DONE]"
    expected = (b"data: " + CHUNK + b"\n\n") * 4 + b"data: [DONE]\n\n"
    for size in (1, 3, len(body)):
        lines = Lines()
        out = b"".join(lines.feed(body[at : at + size]) for at in range(0, len(body), size))
        assert out + lines.close() == expected
    assert as_events(body, BodyForm.LINES) == expected


ODD = b'{"a":"}{][\\\\\\"}","b":[{"c":"\\\\"}]}'
ARRAYS = [
    (b"[%b]", [ODD]),
    (b"[%b,%b]", [ODD, CHUNK]),
    (b"[%b,\n%b\n,\r\n%b\n]\n", [CHUNK, PRETTY, ODD]),
    (b"[ %b %b,]", [CHUNK, CHUNK]),
    (b"[%b]\n[%b]\n", [CHUNK, CHUNK]),
    (b"[%b,%b]\n\ndata: [DONE]\n\n", [CHUNK, ODD]),
    (b'[%b,%b,"[DONE]"]', [CHUNK, ODD]),
]


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("size", [1, 3, 10_000])
@pytest.mark.parametrize(("frame", "items"), ARRAYS)
def test_items_of_an_array_become_events_however_they_are_cut(
    before: bytes, size: int, frame: bytes, items: list[bytes]
) -> None:
    body = before + frame % tuple(items)
    events = sse.Decoder().feed(read_all(Intake(b"", lines=False, most=1 << 20), body, size))
    assert [json.loads(event.data) for event in events[:-1]] == [json.loads(item) for item in items]
    assert events[-1].data == b"[DONE]"
    assert sse.Decoder().feed(as_events(body, BodyForm.ITEMS)) == events


def test_an_item_is_given_before_the_next_one_comes_and_a_cut_array_is_not_done() -> None:
    items = Items()
    assert items.feed(b"[" + CHUNK) == b"data: " + CHUNK + b"\n\n"
    assert items.feed(b"," + CHUNK[:20]) == b"" and items.size == 20
    assert b"DONE" not in items.close()
    items = Items()
    assert items.feed(b"[" + CHUNK) and items.close() == b""
    items = Items()
    assert (
        items.feed(b"[" + CHUNK) and items.feed(b",\nupstream's gone") + items.close() == b"data: upstream's gone\n\n"
    )


def test_whole_document_becomes_one_event() -> None:
    assert as_events(CHUNK, BodyForm.DOCUMENT) == b"data: " + CHUNK + b"\n\ndata: [DONE]\n\n"
    assert b"[DONE]" not in as_events(CHUNK[:-4], BodyForm.DOCUMENT)


def read_all(intake: Intake, body: bytes, size: int) -> bytes:
    out = []
    for at in range(0, len(body), size):
        intake.feed(body[at : at + size])
        while piece := intake.read():
            out.append(piece)
    intake.finish()
    while piece := intake.read():
        out.append(piece)
    assert not intake.pending
    return b"".join(out)


@pytest.mark.parametrize("size", [1, 5, 10_000])
@pytest.mark.parametrize("field", [b"", b"gzip"])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"data: {}\n\ndata: [DONE]\n\n", b"data: {}\n\ndata: [DONE]\n\n"),
        (CHUNK + b"\n" + CHUNK, (b"data: " + CHUNK + b"\n\n") * 2),
        (b"\n: wait\n\n" + CHUNK + b"\n", b"data: " + CHUNK + b"\n\ndata: [DONE]\n\n"),
        (b"<html>", b"<html>"),
        (b"", b""),
    ],
)
def test_an_intake_gives_events(size: int, field: bytes, body: bytes, expected: bytes) -> None:
    given = gzip.compress(body) if field else body
    assert read_all(Intake(field, lines=False, most=10_000), given, size) == expected


def test_an_intake_holds_no_more_than_it_may() -> None:
    for body in (b'{"a":"' + b"x" * 20_000, CHUNK + b"\n{" + b"x" * 20_000, b"[" + CHUNK + b",{" + b"x" * 20_000):
        with pytest.raises(TooLargeError):
            read_all(Intake(b"", lines=False, most=10_000), body, 1000)
    with pytest.raises(CodingError):
        read_all(Intake(b"gzip", lines=False, most=10_000), gzip.compress(CHUNK)[:-9], 7)
