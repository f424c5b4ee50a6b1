"""Faults of the wire: bytes that break HTTP or SSE, or are as odd as those of real providers.

If an oddity is legal, or common enough, the fault is marked survivable: it contains the whole answer.
"""

from __future__ import annotations

import re
from typing import Any

from headgate.testing.faults.scene import FOREVER, Scene, fault
from headgate.testing.provider import shapes
from headgate.testing.provider.playing import EVENT_STREAM

_JSON = [("content-type", "application/json")]
_HTML = b"<!doctype html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>\n"
_PAYLOAD = re.compile(rb"^data: ?", re.MULTILINE)
UTF8 = "Grüße aus Zürich — こんにちは世界 🎉🚀 naïve façade"


def _stream(scene: Scene, body: bytes) -> None:
    """Send a stream's whole body in one piece, or the JSON document for a request without a stream."""
    if not scene.streamed:
        return scene.answer()
    scene.open()
    scene.reply.seen.tokens = len(scene.answer_tokens)
    scene.send(body)
    return scene.reply.end()


# ---- not what was asked for


@fault("json-for-stream", "a JSON document where a stream was asked for", survivable=True)
async def json_for_stream(scene: Scene) -> None:
    scene.reply.whole(200, scene.document())


@fault("stream-for-json", "a stream where a JSON document was asked for", survivable=True)
async def stream_for_json(scene: Scene) -> None:
    scene.open()
    scene.send(scene.transcript())
    scene.reply.end()


@fault("html", "an HTML page (status: 200)", status=200)
async def html(scene: Scene) -> None:
    scene.reply.whole(int(scene.params["status"]), _HTML, "text/html")


@fault("empty-200", "200 with an empty body")
async def empty(scene: Scene) -> None:
    scene.reply.whole(200, b"")


@fault("empty-stream", "200, text/event-stream, and not one event")
async def empty_stream(scene: Scene) -> None:
    scene.open()
    scene.reply.end()


@fault("204", "204 No Content")
async def no_content(scene: Scene) -> None:
    scene.reply.raw(b"HTTP/1.1 204 No Content\r\n\r\n")
    scene.reply.end()


@fault("redirect", "a redirect (status: 307)", status=307)
async def redirect(scene: Scene) -> None:
    scene.reply.whole(int(scene.params["status"]), b"", headers=[("location", "http://127.0.0.1:9/elsewhere")])


@fault(
    "truncated-json",
    "JSON that ends too early inside a body that is complete (in a stream: the last event, no blank line)",
)
async def truncated_json(scene: Scene) -> None:
    if not scene.streamed:
        document = scene.document()
        return scene.reply.whole(200, document[: len(document) // 2])
    scene.begin()
    await scene.say()
    scene.send(scene.shape.content("never seen")[:-20])
    return scene.reply.end()


# ---- framing of HTTP


@fault("garbage-status-line", "a status line that is none")
async def garbage(scene: Scene) -> None:
    scene.reply.raw(b"HTP/1.1 2OO whatever\r\n\r\n")
    scene.reply.close()


@fault("mid-header-stall", "half a head, then silence", for_=FOREVER)
async def mid_header_stall(scene: Scene) -> None:
    scene.reply.raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-st")
    await scene.sleep(scene.params["for"])
    scene.reply.close()


@fault("huge-head", "a head with a field of 64 KiB (kib)", kib=64)
async def huge_head(scene: Scene) -> None:
    scene.open([("x-huge", "x" * (int(scene.params["kib"]) << 10))])
    scene.send(scene.transcript())
    scene.reply.end()


@fault("conflicting-length", "two content-lengths that disagree")
async def conflicting_length(scene: Scene) -> None:
    document = scene.document()
    scene.reply.raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\ncontent-length: 5\r\n\r\n%s"
        % (len(document), document)
    )
    scene.reply.close()


@fault("bad-chunk", "a chunk size that is no number, in mid-stream")
async def bad_chunk(scene: Scene) -> None:
    scene.begin()
    await scene.say(len(scene.answer_tokens) / 2)
    scene.reply.raw(b"zz\r\nno chunk\r\n")
    await scene.sleep(0.05)
    scene.reply.close()


@fault("close-delimited", "HTTP/1.0: the body ends with the connection", survivable=True)
async def close_delimited(scene: Scene) -> None:
    kind = EVENT_STREAM if scene.streamed else _JSON
    scene.reply.keep_alive = False
    scene.reply.head(200, kind, version="1.0")
    scene.reply.send(scene.transcript() if scene.streamed else scene.document())
    scene.reply.end()


@fault("half-close", "FIN in mid-stream, while the other direction stays open for 30 s", after=20, for_=30)
async def half_close(scene: Scene) -> None:
    scene.begin()
    await scene.say(scene.params["after"])
    scene.reply.half_close()
    await scene.sleep(scene.params["for"])
    scene.reply.close()


@fault(
    "stale-connection",
    "a whole answer, then the kept-alive connection is closed unannounced after so long",
    survivable=True,
    after=0,
)
async def stale_connection(scene: Scene) -> None:
    scene.reply.whole(200, scene.document() if not scene.streamed else scene.transcript(), _kind(scene))
    await scene.sleep(scene.params["after"])
    scene.reply.close()


def _kind(scene: Scene) -> str:
    return EVENT_STREAM[0][1] if scene.streamed else _JSON[0][1]


@fault("early-hints", "103 Early Hints before the answer", survivable=True)
async def early_hints(scene: Scene) -> None:
    scene.reply.raw(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n")
    scene.answer()


@fault("100-continue", "100 Continue, unasked, before the answer", survivable=True)
async def unasked_continue(scene: Scene) -> None:
    scene.reply.raw(b"HTTP/1.1 100 Continue\r\n\r\n")
    scene.answer()


@fault("trailers", "trailer fields after the last chunk", survivable=True)
async def trailers(scene: Scene) -> None:
    scene.reply.head(200, [*(EVENT_STREAM if scene.streamed else _JSON), ("trailer", "x-checksum, x-cost")])
    scene.reply.send(scene.transcript() if scene.streamed else scene.document())
    scene.reply.end([("x-checksum", "0"), ("x-cost", "0.1")])


@fault("chunk-extensions", "chunks with extensions", survivable=True)
async def chunk_extensions(scene: Scene) -> None:
    body = scene.transcript() if scene.streamed else scene.document()
    scene.reply.head(200, EVENT_STREAM if scene.streamed else _JSON)
    scene.reply.raw(b'%x;seen="yes";n=1\r\n%s\r\n' % (len(body), body))
    scene.reply.end()


@fault("slow-body", "the body in dribbles over 2 s", survivable=True, for_=2, pieces=20)
async def slow_body(scene: Scene) -> None:
    body = scene.transcript() if scene.streamed else scene.document()
    pieces = max(1, int(scene.params["pieces"]))
    size = -(-len(body) // pieces)
    scene.reply.head(200, EVENT_STREAM if scene.streamed else _JSON)
    for start in range(0, len(body), size):
        scene.reply.send(body[start : start + size])
        await scene.sleep(scene.params["for"] / pieces)
    scene.reply.end()


@fault("byte-at-a-time", "each byte of the body in a chunk and a write of its own", survivable=True, tokens=8)
async def byte_at_a_time(scene: Scene) -> None:
    body = scene.transcript() if scene.streamed else scene.document()
    scene.reply.head(200, EVENT_STREAM if scene.streamed else _JSON)
    for start in range(len(body)):
        scene.reply.send(body[start : start + 1])
        await scene.sleep(0)
    scene.reply.end()


# ---- framing of SSE


@fault("crlf", "lines end with CR LF", survivable=True)
async def crlf(scene: Scene) -> None:
    _stream(scene, scene.transcript().replace(b"\n", b"\r\n"))


@fault("cr", "lines end with a bare CR", survivable=True)
async def cr(scene: Scene) -> None:
    _stream(scene, scene.transcript().replace(b"\n", b"\r"))


@fault("bom", "the stream begins with a byte order mark", survivable=True)
async def bom(scene: Scene) -> None:
    _stream(scene, b"\xef\xbb\xbf" + scene.transcript())


@fault("no-space", "no space after data:", survivable=True)
async def no_space(scene: Scene) -> None:
    _stream(scene, _PAYLOAD.sub(b"data:", scene.transcript()))


@fault("comments", "comments between the events, as some routers send them", survivable=True)
async def comments(scene: Scene) -> None:
    body = scene.transcript().replace(b"\n\n", b"\n\n: PROCESSING\n\n")
    _stream(scene, b": PROCESSING\n\n" + body)


@fault("multi-line-data", "each event's JSON over two data: lines", survivable=True)
async def multi_line(scene: Scene) -> None:
    _stream(scene, scene.transcript().replace(b',"choices"', b',\ndata: "choices"'))


@fault("no-last-blank-line", "[DONE] without the blank line that would dispatch it", survivable=True)
async def no_last_blank_line(scene: Scene) -> None:
    _stream(scene, scene.transcript().removesuffix(b"\n\n"))


@fault("split-utf8", "text beyond ASCII, unescaped, each write ending inside a character", survivable=True, pause=0.002)
async def split_utf8(scene: Scene) -> None:
    scene.answer_tokens = re.findall(r"\s*\S+", UTF8)
    body = scene.transcript() if scene.streamed else scene.document()
    scene.reply.head(200, EVENT_STREAM if scene.streamed else _JSON)
    start = 0
    for cut in [at for at in range(1, len(body)) if body[at] & 0xC0 == 0x80]:
        scene.reply.send(body[start:cut])
        start = cut
        await scene.sleep(scene.params["pause"])
    scene.reply.send(body[start:])
    scene.reply.end()


def _sized_event(scene: Scene, size: float) -> bytes:
    """One content event whose JSON payload is exactly ``size`` bytes."""
    empty = len(scene.shape.content("")) - len(b"data: \n\n")
    return scene.shape.content("x" * (int(size) - empty))


async def _huge(scene: Scene) -> None:
    if not scene.streamed:
        return scene.answer()
    scene.begin()
    scene.send(_sized_event(scene, scene.params["bytes"]))
    await scene.reply.room()
    await scene.say()
    return scene.finish()


@fault(
    "huge-event", "one event whose payload is 8 MiB, the most that is allowed", survivable=True, bytes=8 << 20, tokens=2
)
async def huge_event(scene: Scene) -> None:
    await _huge(scene)


@fault("over-huge-event", "one event whose payload is one byte over 8 MiB", bytes=(8 << 20) + 1, tokens=2)
async def over_huge_event(scene: Scene) -> None:
    await _huge(scene)


# ---- errors inside a stream, in every spelling seen


async def _fail(scene: Scene, last: bytes) -> None:
    if not scene.streamed:
        return scene.reply.whole(200, shapes.dumps(shapes.error("The provider failed.", "server_error")))
    scene.begin()
    await scene.say(scene.params["after"])
    scene.send(last)
    return scene.reply.end()


@fault("event-error", "event: error with an error object, then the end", after=10)
async def event_error(scene: Scene) -> None:
    value = shapes.error("Failed to call a function.", "invalid_request_error", "tool_use_failed")
    await _fail(scene, b"event: error\n" + shapes.event(value))


@fault("error-field", "the error in a field named error:, then the end", after=10)
async def error_field(scene: Scene) -> None:
    value = {"message": "The engine's worker has died.", "code": 500}
    await _fail(scene, b"error: " + shapes.dumps(value) + b"\n\n")


@fault("error-string", 'data: {"error": "a string"}, then the end', after=10)
async def error_string(scene: Scene) -> None:
    await _fail(scene, shapes.event({"error": "an internal error occurred"}))


@fault("error-in-chunk", "an error inside a normal chunk with a finish reason, then [DONE]", after=10)
async def error_in_chunk(scene: Scene) -> None:
    value = {
        **scene.shape.chunk({"content": ""}, "error"),
        **shapes.error("Provider disconnected", "server_error", "502"),
    }
    await _fail(scene, shapes.event(value) + shapes.DONE)


# ---- chunks


@fault("no-finish-done", "content, then [DONE], and no finish reason", survivable=True)
async def no_finish_done(scene: Scene) -> None:
    content = b"".join(scene.shape.content(token) for token in scene.answer_tokens)
    _stream(scene, scene.shape.first() + content + shapes.DONE)


@fault("after-done", "a content chunk after [DONE]", survivable=True)
async def after_done(scene: Scene) -> None:
    _stream(scene, scene.transcript() + scene.shape.content(" never to be seen") + shapes.DONE)


@fault("azure-first", "the first chunk has no choices and an empty id, as Azure's", survivable=True)
async def azure_first(scene: Scene) -> None:
    verdict = {"hate": {"filtered": False, "severity": "safe"}}
    first = {
        "choices": [],
        "created": 0,
        "id": "",
        "model": "",
        "object": "",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": verdict}],
    }
    _stream(scene, shapes.event(first) + scene.transcript())


def _rewritten(scene: Scene, bend: Any) -> bytes:
    """The stream with ``bend(number, token)`` in place of each content event."""
    events = [shapes.event(bend(number, token)) for number, token in enumerate(scene.answer_tokens)]
    return scene.shape.first() + b"".join(events) + scene.ending()


@fault("role-every-chunk", "the role on every chunk", survivable=True)
async def role_every_chunk(scene: Scene) -> None:
    def bend(number: int, token: str) -> dict[str, Any]:
        return scene.shape.chunk({"role": "assistant", "content": token})

    _stream(scene, _rewritten(scene, bend))


@fault("id-changes", "id, created and model change from chunk to chunk", survivable=True)
async def id_changes(scene: Scene) -> None:
    def bend(number: int, token: str) -> dict[str, Any]:
        chunk = scene.shape.chunk({"content": token})
        return {**chunk, "id": f"gen-{number}", "created": scene.shape.created + number, "model": f"shard-{number % 2}"}

    _stream(scene, _rewritten(scene, bend))


@fault("bare-chunks", "chunks without id, object, created, model, index and finish_reason", survivable=True)
async def bare_chunks(scene: Scene) -> None:
    def bend(number: int, token: str) -> dict[str, Any]:
        return {"choices": [{"delta": {"content": token}}]}

    _stream(scene, _rewritten(scene, bend))
