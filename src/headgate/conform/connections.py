"""Checks of HTTP itself: the rules that clients and proxies in between rely on (RFC 9110, RFC 9112)."""

from __future__ import annotations

import threading

from headgate.conform.probe import EndpointProbe, StreamedAnswer
from headgate.conform.table import CheckVerdict, check, failed, judged, passed, skipped, warned
from headgate.conform.wire import Response, Unreachable

_AT_ONCE = 6
_JSON = "Content-Type: application/json"


def _answered(response: Response) -> bool:
    """Accept any proper answer of the application; other checks judge its content."""
    return bool(response.status) and response.status < 500 and response.complete


# ------------------------------------------------------------------------------- headers


@check("headers.request-id", "x-request-id on answers, streams and errors", "without it nobody finds the call in a log")
def request_id(probe: EndpointProbe) -> CheckVerdict:
    answers = {"stream": probe.plain.response, "answer": probe.whole, "error": probe.refused("unknown model")}
    missing = [name for name, response in answers.items() if not response.headers.get("x-request-id")]
    return warned(f"not on: {', '.join(missing)}") if missing else passed(probe.whole.headers["x-request-id"])


@check(
    "headers.no-cache", "a stream says Cache-Control: no-cache (or no-store)", "a cache gives one user another's answer"
)
def no_cache(probe: EndpointProbe) -> CheckVerdict:
    value = probe.plain.response.headers.get("cache-control", "")
    return passed(value) if "no-cache" in value or "no-store" in value else warned(value or "no Cache-Control")


@check(
    "headers.unbuffered", "a stream says X-Accel-Buffering: no", "nginx in between holds 4 to 64 KiB back without it"
)
def accel(probe: EndpointProbe) -> CheckVerdict:
    value = probe.plain.response.headers.get("x-accel-buffering")
    return passed("no") if value == "no" else warned(value or "absent")


@check(
    "headers.server-timing",
    "Server-Timing tells the gateway's share",
    "otherwise every slow answer is the gateway's fault",
)
def server_timing(probe: EndpointProbe) -> CheckVerdict:
    value = probe.whole.headers.get("server-timing")
    return passed(value) if value else warned("absent")


@check("headers.single", "no header that must be single comes twice", "two lengths are how answers are smuggled")
def single(probe: EndpointProbe) -> CheckVerdict:
    answers = (probe.plain.response, probe.whole, probe.refused("unknown model"))
    twice = {name for response in answers for name in response.repeated} - {"set-cookie", "server-timing", "vary"}
    both = any({"content-length", "transfer-encoding"} <= response.headers.keys() for response in answers)
    fault = ", ".join(sorted(twice)) or ("Content-Length and Transfer-Encoding" if both else None)
    return judged(fault, "none")


# ------------------------------------------------------------------------------- connections


@check(
    "http.keep-alive", "a second request on the same connection is answered", "a handshake per call doubles its latency"
)
def keep_alive(probe: EndpointProbe) -> CheckVerdict:
    request = probe.head("GET", "/models")
    with probe.connect() as connection:
        connection.send(request)
        first = connection.read("GET")
        connection.send(request)
        second = connection.read("GET")
    if not _answered(first):
        return failed(f"the first already: {first.summary}")
    return judged(None if _answered(second) else second.summary, f"{first.status}, then {second.status}")


@check("http.after-stream", "the connection lives on after a stream", "a pool that trusts it sends into a closed one")
def after_stream(probe: EndpointProbe) -> CheckVerdict:
    with probe.connect() as connection:
        connection.send(probe.post(probe.body(stream=True)))
        first = connection.read()
        if "close" in first.headers.get("connection", "").lower() or not first.framed:
            return warned("the endpoint closes it after each stream")
        connection.send(probe.head("GET", "/models"))
        second = connection.read("GET")
    return judged(None if _answered(first) and _answered(second) else second.summary, f"then {second.status}")


@check(
    "http.after-error", "an error leaves the connection usable, or says close", "the next call on it fails for nothing"
)
def after_error(probe: EndpointProbe) -> CheckVerdict:
    with probe.connect() as connection:
        connection.send(probe.post(b"{"))
        first = connection.read()
        if "close" in first.headers.get("connection", "").lower():
            return judged(None if connection.closed() else "says close and stays open", "says close, and closes")
        connection.send(probe.head("GET", "/models"))
        second = connection.read("GET")
    return judged(None if _answered(second) else second.summary, f"{first.status}, then {second.status}")


@check("http.pipelining", "two requests in one write are answered in order", "mixed-up answers go to the wrong user")
def pipelining(probe: EndpointProbe) -> CheckVerdict:
    with probe.connect() as connection:
        connection.send(probe.post(probe.body(messages=None)) + probe.head("GET", "/no/such/path"))
        first, second = connection.read(), connection.read("GET")
    if "close" in first.headers.get("connection", "").lower() and not second.status:
        return warned("closes after the first, as it may")
    statuses = (first.status, second.status)
    return judged(
        None if statuses in ((400, 404), (422, 404)) else f"{first.summary}, then {second.summary}", f"{statuses}"
    )


@check("http.close", "Connection: close is obeyed", "clients that wait for the end wait for ever")
def close(probe: EndpointProbe) -> CheckVerdict:
    with probe.connect() as connection:
        connection.send(probe.head("GET", "/models", "Connection: close"))
        response = connection.read("GET")
        shut = connection.closed()
    return judged(
        None if _answered(response) and shut else f"{response.summary}, and stays open", "answers, then closes"
    )


@check("http.head", "HEAD has no body, and the connection goes on", "a body there is read as the next answer")
def head(probe: EndpointProbe) -> CheckVerdict:
    with probe.connect() as connection:
        connection.send(probe.head("HEAD", "/models"))
        first = connection.read("HEAD")
        if "close" in first.headers.get("connection", "").lower():
            return judged(None if connection.closed() else "a body", f"{first.status}, and closes")
        connection.send(probe.head("GET", "/no/such/path"))
        second = connection.read("GET")
    fault = None if _answered(first) and second.status == 404 else f"{first.summary}, then {second.summary}"
    return judged(fault, f"{first.status}, then {second.status}")


@check("http.options", "OPTIONS is answered", "browsers ask it first (CORS)")
def options(probe: EndpointProbe) -> CheckVerdict:
    response = probe.ask(probe.head("OPTIONS", "/chat/completions", token=None), "OPTIONS", timeout=10)
    if not response.status or response.status >= 500 or not response.complete:
        return failed(response.summary)
    return (
        passed(str(response.status)) if response.status < 300 else warned(f"{response.status}: no browser can call it")
    )


@check("http.expect", "Expect: 100-continue is answered before the body", "curl waits a second for it, .NET for ever")
def expect(probe: EndpointProbe) -> CheckVerdict:
    body = probe.body()
    with probe.connect() as connection:
        connection.send(
            probe.head("POST", "/chat/completions", _JSON, f"Content-Length: {len(body)}", "Expect: 100-continue")
        )
        early = connection.read(interim=True, timeout=3)
        if early.interim == [100] and not early.status:
            connection.send(body)
            final = connection.read()
            return judged(None if _answered(final) else final.summary, f"100, then {final.status}")
    return judged(None if early.status in (417, 413) else early.summary, f"{early.status} at once")


@check(
    "http.chunked-request",
    "a chunked request body is understood",
    "clients that stream their body (Go, Java) send it so",
)
def chunked_request(probe: EndpointProbe) -> CheckVerdict:
    body = probe.body()
    half = len(body) // 2
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:half], body[half:], b""))
    response = probe.ask(probe.head("POST", "/chat/completions", _JSON, "Transfer-Encoding: chunked") + pieces)
    return judged(None if response.status == 200 else response.summary, "200")


def _refused(probe: EndpointProbe, *fields: str, host: bool = True) -> CheckVerdict:
    """Pass if an ambiguous request is refused and the connection is not used again (RFC 9112 §6.3)."""
    body = probe.body(messages=None)  # harmless if the endpoint accepts it
    request = probe.head("POST", "/chat/completions", _JSON, *(field.format(len(body)) for field in fields), host=host)
    with probe.connect() as connection:
        connection.send(request + body)
        response = connection.read(timeout=5)
        shut = connection.closed()
    told_so = response.status == 400 and "close" in response.headers.get("connection", "").lower()
    if not response.status and response.ended in ("eof", "reset"):
        return passed("closed without an answer")
    if response.status in (400, 501) and (shut or told_so):
        return passed(f"{response.status}, and closes")
    return failed(f"{response.summary}{'' if shut else ', and goes on reading'}")


@check(
    "http.length-and-chunked", "Content-Length beside Transfer-Encoding is refused", "request smuggling (RFC 9112 §6.1)"
)
def length_and_chunked(probe: EndpointProbe) -> CheckVerdict:
    return _refused(probe, "Content-Length: {}", "Transfer-Encoding: chunked")


@check("http.two-lengths", "two Content-Lengths that differ are refused", "request smuggling (RFC 9112 §6.3)")
def two_lengths(probe: EndpointProbe) -> CheckVerdict:
    return _refused(probe, "Content-Length: {}", "Content-Length: 5")


@check("http.no-host", "HTTP/1.1 without Host is refused", "RFC 9112 §3.2; virtual hosts answer for each other")
def no_host(probe: EndpointProbe) -> CheckVerdict:
    response = probe.ask(probe.head("GET", "/models", host=False), "GET", timeout=5)
    return judged(None if response.status == 400 or not response.status else response.summary, response.summary)


@check("http.huge-head", "a head of 200 KB is refused", "memory for the asking")
def huge_head(probe: EndpointProbe) -> CheckVerdict:
    response = probe.ask(probe.head("GET", "/models", f"X-Padding: {'x' * 200_000}"), "GET", timeout=10)
    fine = response.status in (400, 413, 431) or response.ended in ("reset", "eof")
    return judged(None if fine and response.status < 500 else response.summary, response.summary)


@check(
    "http.at-once",
    f"{_AT_ONCE} streams at once all arrive whole",
    "shared buffers mix them up, or one waits for another",
    slow=True,
)
def at_once(probe: EndpointProbe) -> CheckVerdict:
    streams: list[StreamedAnswer] = []

    def one() -> None:
        try:
            streams.append(probe.stream())
        except Unreachable:
            return  # counted below

    threads = [threading.Thread(target=one, name=f"stream {number}") for number in range(_AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = [stream for stream in streams if stream.response.complete and stream.visible]
    limited = sum(stream.response.status == 429 for stream in streams)
    if limited:
        return skipped(f"{limited} of {_AT_ONCE} were rate-limited")
    ids = [frozenset(str(chunk.get("id")) for chunk in stream.chunks) for stream in whole]
    if len(whole) < _AT_ONCE:
        return failed(f"{_AT_ONCE - len(whole)} of {_AT_ONCE} did not arrive whole")
    return judged(None if len(set(ids)) == _AT_ONCE else "some share an id", f"{_AT_ONCE} whole, each with its id")


@check(
    "http.leaving",
    "after clients that left in mid-stream it still answers",
    "each of them leaves a worker behind",
    slow=True,
)
def leaving(probe: EndpointProbe) -> CheckVerdict:
    for _ in range(_AT_ONCE):
        with probe.connect() as connection:
            connection.send(probe.post(probe.body(stream=True)))
            connection.read(upto=b"data:")
    after = probe.stream()
    return judged(
        None if after.response.complete and after.visible else after.response.summary,
        f"{_AT_ONCE} left, the next was served",
    )
