"""Faults of meaning and of time: wrong or missing answers in well-formed HTTP.

First the sixteen of the public failover catalogue, then faults of streams.  Bytes that no HTTP server should send are
in ``oddities``.
"""

from __future__ import annotations

import time
from typing import Any

from headgate.testing.faults.scene import FOREVER, Scene, fault
from headgate.testing.provider import shapes

_LIMITED = ("Rate limit reached for requests. Please try again later.", "requests", "rate_limit_exceeded")
_FAILED = ("The server had an error while processing your request. Sorry about that!", "server_error")
_OVERLOADED = ("The engine is currently overloaded, please try again later", "server_error")


# ---- the sixteen


@fault("429-once", "429 with Retry-After, then fine", retry_after=2)
async def limited_once(scene: Scene) -> None:
    if scene.visit()[0] == 1:
        return scene.error(429, *_LIMITED, headers=[("retry-after", f"{scene.params['retry_after']:g}")])
    return scene.answer()


@fault("429-always", "429 without Retry-After, always")
async def limited(scene: Scene) -> None:
    scene.error(429, *_LIMITED)


@fault("500-once", "500, then fine")
async def failed_once(scene: Scene) -> None:
    if scene.visit()[0] == 1:
        return scene.error(500, *_FAILED)
    return scene.answer()


@fault("503-always", "503, always")
async def overloaded(scene: Scene) -> None:
    scene.error(503, *_OVERLOADED)


@fault("reset-once", "TCP reset before the head, then fine")
async def reset_once(scene: Scene) -> None:
    if scene.visit()[0] == 1:
        return scene.reply.reset()
    return scene.answer()


@fault("accept-silence", "accepts the request and never answers", for_=FOREVER)
async def silent(scene: Scene) -> None:
    await scene.sleep(scene.params["for"])
    scene.reply.close()


@fault("late-first-token", "head and role at once, the first token after 20 s", after=20)
async def late(scene: Scene) -> None:
    if not scene.streamed:
        await scene.sleep(scene.params["after"])
        return scene.answer()
    scene.begin()
    await scene.sleep(scene.params["after"])
    await scene.say()
    return scene.finish()


@fault("cut", "the connection ends after 40 of 60 tokens, no terminating chunk (reset=1: by RST)", after=40, reset=0)
async def cut(scene: Scene) -> None:
    if scene.streamed:
        scene.begin()
        await scene.say(scene.params["after"])
    else:
        _half_a_document(scene)
    if scene.params["reset"]:
        await scene.sleep(0.05)  # an RST throws away what the client's kernel has not handed over yet
        scene.reply.reset()
    else:
        scene.reply.close()


def _half_a_document(scene: Scene) -> None:
    document = scene.document()
    scene.reply.head(200, [("content-type", "application/json")], length=len(document))
    scene.reply.send(document[: len(document) // 2])


@fault("stall", "30 s of silence after 20 tokens, then the rest", after=20, for_=30)
async def stall(scene: Scene) -> None:
    if not scene.streamed:
        _half_a_document(scene)
        await scene.sleep(scene.params["for"])
        document = scene.document()
        scene.send(document[len(document) // 2 :])
        return scene.reply.end()
    scene.begin()
    await scene.say(scene.params["after"])
    await scene.sleep(scene.params["for"])
    await scene.say()
    return scene.finish()


@fault("bad-json-event", "one event in mid-stream is invalid JSON", survivable=True, after=20)
async def bad_json(scene: Scene) -> None:
    if not scene.streamed:
        return scene.reply.whole(200, b'{"id": "chatcmpl-1", "choices": [{]}')
    scene.begin()
    await scene.say(scene.params["after"])
    scene.send(b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"cont\n\n')
    await scene.say()
    return scene.finish()


@fault("no-done", "complete, with usage, but no [DONE]; the body stays open for so long", survivable=True, for_=0)
async def no_done(scene: Scene) -> None:
    if not scene.streamed:
        return scene.answer()
    scene.begin()
    await scene.say()
    scene.send(scene.shape.finish(scene.reason), scene.shape.usage(scene.chat.prompt_tokens, scene.at))
    await scene.sleep(scene.params["for"])
    return scene.reply.end()


@fault("context-length", "400 context_length_exceeded")
async def context_length(scene: Scene) -> None:
    message = (
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens. "
        "Please reduce the length of the messages."
    )
    scene.error(400, message, "invalid_request_error", "context_length_exceeded", "messages")


@fault("content-filter", "400 with a content filter's reason")
async def content_filter(scene: Scene) -> None:
    message = (
        "The response was filtered due to the prompt triggering the content management policy. "
        "Please modify your prompt and retry."
    )
    scene.error(400, message, "invalid_request_error", "content_filter", "prompt")


@fault("prefill-rejected", "400 where the last message is the assistant's; else fine")
async def prefill_rejected(scene: Scene) -> None:
    if scene.chat.messages[-1].role != "assistant":
        return scene.answer()
    message = "This model does not support assistant message prefill. The conversation must end with a user message."
    return scene.error(400, message, "invalid_request_error", None, "messages")


@fault("outage", "503 for 60 s from the first request on, then healthy", for_=60)
async def outage(scene: Scene) -> None:
    if scene.visit()[1] < scene.params["for"]:
        return scene.error(503, *_OVERLOADED)
    return scene.answer()


@fault("503-priced", "503 whose body claims usage: it costs nothing all the same")
async def priced(scene: Scene) -> None:
    body = {**shapes.error(*_OVERLOADED), "usage": shapes.usage(1000, 1000)}
    scene.reply.whole(503, shapes.dumps(body))


# ---- streams


@fault("close-without-finish", "content, then a proper end of the body: no finish reason, no [DONE]")
async def close_without_finish(scene: Scene) -> None:
    scene.begin()
    await scene.say()
    scene.reply.end()


_STATUS_KINDS = {
    400: ("invalid_request_error", "invalid_value"),
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "permission_denied"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    503: ("service_unavailable_error", "overloaded"),
}


def _error_value(scene: Scene) -> dict[str, Any]:
    kind, code = _STATUS_KINDS.get(int(scene.params["status"]), ("server_error", "internal_error"))
    return shapes.error("The provider failed in the middle of an answer.", kind, code)


@fault(
    "error-in-200",
    'data: {"error": …} after 10 tokens, then the end (status: the class of error)',
    after=10,
    status=500,
)
async def error_in_200(scene: Scene) -> None:
    if not scene.streamed:
        return scene.reply.whole(200, shapes.dumps(_error_value(scene)))
    scene.begin()
    await scene.say(scene.params["after"])
    scene.event(_error_value(scene))
    return scene.reply.end()


@fault("error-before-first-token", "200, the role chunk, then an error event", status=500)
async def error_first(scene: Scene) -> None:
    if not scene.streamed:
        return scene.reply.whole(200, shapes.dumps(_error_value(scene)))
    scene.begin()
    scene.event(_error_value(scene))
    return scene.reply.end()


@fault("heartbeats-only", "comments for ever (after: tokens before them)", after=0, every=1, for_=FOREVER)
async def heartbeats(scene: Scene) -> None:
    scene.begin()
    await scene.say(scene.params["after"])
    until = time.monotonic() + scene.params["for"]
    while time.monotonic() < until:
        scene.send(b": PROCESSING\n\n")
        await scene.sleep(max(0.001, scene.params["every"]))
    scene.reply.close()


@fault("black-hole", "after so many tokens neither sends nor reads: not even a FIN is noticed", after=1, for_=600)
async def black_hole(scene: Scene) -> None:
    scene.begin()
    await scene.say(scene.params["after"])
    scene.reply.deaf()
    await scene.sleep(scene.params["for"])
    scene.reply.close()


@fault(
    "usage-oddities",
    "usage, cumulative and with fractions, on every chunk, on the finish chunk and on an extra one, unasked",
    survivable=True,
)
async def usage_oddities(scene: Scene) -> None:
    if not scene.streamed:
        return scene.answer()

    def chunk(delta: dict[str, Any], count: int, finish: str | None = None) -> dict[str, Any]:
        spent = {**shapes.usage(scene.chat.prompt_tokens, count), "cost": 0.0012, "queue_time": 0.25}
        return {**scene.shape.chunk(delta, finish), "usage": spent}

    scene.begin()
    await scene.say(render=lambda token: shapes.event(chunk({"content": token}, scene.at + 1)))
    scene.event(chunk({}, scene.at, scene.reason))
    scene.event({**chunk({}, scene.at), "choices": []})
    scene.send(shapes.DONE)
    return scene.reply.end()


@fault("usage-every-chunk", "cumulative usage on every chunk, none extra", survivable=True)
async def usage_every_chunk(scene: Scene) -> None:
    if not scene.streamed:
        return scene.answer()

    def render(token: str) -> bytes:
        spent = shapes.usage(scene.chat.prompt_tokens, scene.at + 1)
        return shapes.event({**scene.shape.chunk({"content": token}), "usage": spent})

    scene.begin()
    await scene.say(render=render)
    scene.event({**scene.shape.chunk({}, scene.reason), "usage": shapes.usage(scene.chat.prompt_tokens, scene.at)})
    scene.send(shapes.DONE)
    return scene.reply.end()


@fault("two-finishes", "two chunks with a finish reason", survivable=True)
async def two_finishes(scene: Scene) -> None:
    if not scene.streamed:
        return scene.answer()
    scene.begin()
    await scene.say()
    scene.send(scene.shape.finish(scene.reason))
    return scene.finish()


@fault("content-filter-finish", "ends with finish_reason content_filter after 10 tokens", survivable=True, after=10)
async def content_filter_finish(scene: Scene) -> None:
    scene.answer_tokens, scene.reason = scene.answer_tokens[: int(scene.params["after"])], "content_filter"
    if not scene.streamed:
        return scene.reply.whole(200, scene.document())
    scene.begin()
    await scene.say()
    return scene.finish()


@fault("hollow", "200 with no content at all: role, finish, [DONE]")
async def hollow(scene: Scene) -> None:
    scene.answer_tokens = []
    if not scene.streamed:
        return scene.reply.whole(200, scene.document())
    scene.begin()
    return scene.finish()


def _http_date(at: float) -> str:
    """RFC 9110 §5.6.7.  By hand, as strftime follows the locale and email.utils costs 5 ms of start-up."""
    now = time.gmtime(at)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[now.tm_wday]
    month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][now.tm_mon - 1]
    return f"{day}, {now.tm_mday:02} {month} {now.tm_year} {now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02} GMT"


@fault("retry-after-date", "429 once with Retry-After as an HTTP date", retry_after=2)
async def retry_after_date(scene: Scene) -> None:
    if scene.visit()[0] == 1:
        when = _http_date(time.time() + scene.params["retry_after"])
        return scene.error(429, *_LIMITED, headers=[("retry-after", when)])
    return scene.answer()


@fault("401", "401, always")
async def unauthorized(scene: Scene) -> None:
    scene.error(401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key")


@fault("403", "403, always")
async def forbidden(scene: Scene) -> None:
    scene.error(403, "You are not allowed to sample from this model.", "invalid_request_error", "permission_denied")


@fault("secret-in-error", "an error text that quotes the key it was sent", status=400)
async def secret_in_error(scene: Scene) -> None:
    message = f"Incorrect API key provided: {scene.authorization}. Check your settings."
    scene.error(int(scene.params["status"]), message, "invalid_request_error", "invalid_value")


@fault("secret-in-event", "an error event in mid-stream that quotes the key it was sent", after=10)
async def secret_in_event(scene: Scene) -> None:
    value = shapes.error(f"The key {scene.authorization} ran out of quota.", "server_error", "quota")
    if not scene.streamed:
        return scene.reply.whole(200, shapes.dumps(value))
    scene.begin()
    await scene.say(scene.params["after"])
    scene.event(value)
    return scene.reply.end()


@fault("rejects-stream-options", "400 that names stream_options where it is present; else fine")
async def rejects_stream_options(scene: Scene) -> None:
    if scene.chat.stream_options is None:
        return scene.answer()
    message = "Unrecognized request argument supplied: stream_options"
    return scene.error(400, message, "invalid_request_error", None, "stream_options")
