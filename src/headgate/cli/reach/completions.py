"""Chat completions of the data plane: one request, its stream, and the transcript of what came.

Uses the same public API as everybody: nothing here is a short cut.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from headgate.cli.display.layout import visible
from headgate.cli.display.terminal import count, say
from headgate.cli.reach.gateway import START_IT, Gateway, failure
from headgate.cli.trouble import Trouble
from headgate.process import statedir

Send = Callable[..., "Transcript"]  # (body, live, transcript) → what came
LOREM, AUTO = "builtin/lorem", "auto"
_CONTINUED = b": continued after "  # the comment where another target goes on


@dataclass
class Transcript:
    """The result of one request.  Times are ``perf_counter`` seconds; None where nothing came."""

    started: float = field(default_factory=time.perf_counter)
    first: float | None = None
    last: float | None = None
    text: list[str] = field(default_factory=list)
    model: str = ""
    target: str = ""  # provider/model that the answer comes from
    ident: str | None = None
    finish: str | None = None
    usage: dict[str, Any] | None = None
    done: bool = False

    @property
    def ttft_s(self) -> float | None:
        return None if self.first is None else self.first - self.started

    @property
    def tokens_per_s(self) -> float | None:
        """Output tokens after the first, by the time that they took; None where that is too short to mean a speed."""
        tokens = (self.usage or {}).get("completion_tokens")
        if not tokens or tokens < 2 or self.first is None or self.last is None:
            return None
        if self.last - self.first < 0.05:
            return None
        return float((tokens - 1) / (self.last - self.first))

    def summary(self) -> str:
        tokens = (self.usage or {}).get("completion_tokens")
        parts = [
            self.model,
            count(tokens, "token") if tokens is not None else "",
            f"{self.tokens_per_s:.1f} tokens/s" if self.tokens_per_s else "",
            f"first token {self.ttft_s * 1000:.0f} ms" if self.ttft_s is not None else "",
        ]
        return " · ".join(part for part in parts if part)

    def as_json(self) -> str:
        return json.dumps(
            {
                "content": "".join(self.text),
                "model": self.model,
                "finish_reason": self.finish,
                "usage": self.usage,
                "ttft_s": self.ttft_s,
                "tokens_per_s": self.tokens_per_s,
            },
            ensure_ascii=False,
        )


def ask(
    url: str,
    token: str,
    body: dict[str, Any],
    *,
    live: bool,
    proxies: bool = False,
    transcript: Transcript | None = None,
) -> Transcript:
    """Streams one answer; ``live`` writes its text to standard output as it comes, ``transcript`` takes it up.

    ``proxies``: by way of the environment's, for a gateway that is not this machine's.  Raises Trouble on an error
    status, an error event and a stream that ends without ``[DONE]``.
    """
    import http.client  # noqa: PLC0415 - late: see line.py

    transcript = transcript or Transcript()
    try:
        with waiting_for(str(body["model"])) as answered, _opened(url, token, body, proxies) as (provider, answer):
            for chunk in _chunks(answer, transcript):
                answered()
                _take(transcript, chunk, live, provider)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ConnectionRefusedError):
            raise Trouble(f"no gateway answers at {url}", START_IT) from error
        if isinstance(error, http.client.InvalidURL):
            raise Trouble(f"the input cannot be sent ({error})", code=2) from error
        raise Trouble(f"the connection to {url} broke: {reason or type(error).__name__}") from error
    except UnicodeError as error:  # a message that is no text
        raise Trouble(f"the input cannot be sent ({error})", code=2) from error
    except ValueError as error:
        raise Trouble(f"the server at {url} does not speak the API: {error}") from error
    finally:
        if live and transcript.text:
            print(flush=True)
    if not transcript.done:
        raise Trouble(_from(transcript.target, "the stream ended before the answer did"), _look(transcript.ident))
    return transcript


@contextmanager
def _opened(url: str, token: str, body: dict[str, Any], proxies: bool) -> Iterator[tuple[str, IO[bytes]]]:
    """The provider and the body of a good answer, to be read line by line.

    How long a model may think is the gateway's to decide.
    """
    import urllib.error  # noqa: PLC0415 - late: see line.py
    import urllib.request  # noqa: PLC0415

    if not (token.isascii() and token.isprintable()):
        raise Trouble("the token cannot be sent: it is not printable ASCII", code=2)
    streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
    try:
        request = urllib.request.Request(
            f"{url}/v1/chat/completions",
            json.dumps(streamed, ensure_ascii=False, allow_nan=False).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        way = urllib.request.build_opener(*([] if proxies else [urllib.request.ProxyHandler({})]))
        answer = way.open(request)
    except urllib.error.HTTPError as error:
        with error:
            raise refused(
                error.code, error.read(), {name.lower(): value for name, value in error.headers.items()}
            ) from None
    except ValueError as error:  # no URL, a token that no header may have, a message that is no text
        raise Trouble(f"the input cannot be sent ({error})", code=2) from error
    with answer:
        yield answer.headers.get("x-headgate-provider", ""), answer


@contextmanager
def waiting_for(model: str) -> Iterator[Callable[[], None]]:
    """Says on a terminal what is waited for, until what it gives is called."""
    shown = sys.stderr.isatty()
    if shown:
        print(f"waiting for {printable(model)} …", end="", file=sys.stderr, flush=True)

    def answered() -> None:
        nonlocal shown
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            shown = False

    try:
        yield answered
    finally:
        answered()


def printable(name: str) -> str:
    """A name that may hold control characters, for a terminal."""
    return name if name.isprintable() else repr(name)


def refused(status: int, body: bytes, headers: Mapping[str, str]) -> Trouble:
    """An error answer as Trouble.  Where a provider failed it is named, and the next step is to look at the call."""
    message, code = failure(body)
    step = _look(headers.get("x-request-id")) if status >= 500 else ""
    target = "/".join(name for key in ("provider", "model") if (name := headers.get(f"x-headgate-{key}")))
    return Trouble(_from(target, message or f"the gateway answered {status}"), step, api_code=code)


def _from(target: str, message: str) -> str:
    """``message`` with the ``provider/model`` that it is about; one that names several providers keeps them."""
    provider = target.partition("/")[0]
    message = message.removeprefix(f"{provider}: ")
    return message if not provider or message.startswith(provider) else f"{printable(target)}: {message}"


def _look(ident: str | None) -> str:
    return f"headgate requests show {printable(ident)}" if ident else ""


def _chunks(answer: IO[bytes], transcript: Transcript) -> Iterator[dict[str, Any]]:
    for line in answer:
        if not line.startswith(b"data:"):
            if line.startswith(_CONTINUED):
                transcript.target = line.rpartition(b" by ")[2].decode().strip()
            continue
        text = line[5:].strip()
        if text == b"[DONE]":
            transcript.done = True
            return
        yield json.loads(text)


def _take(transcript: Transcript, chunk: dict[str, Any], live: bool, provider: str) -> None:
    if error := chunk.get("error"):
        why = _from(transcript.target, error.get("message") or "no reason given")
        raise Trouble(f"the answer broke off: {why}", _look(transcript.ident))
    transcript.model = chunk.get("model") or transcript.model
    if provider and transcript.model and not transcript.target:
        transcript.target = f"{provider}/{transcript.model}"
    transcript.ident = chunk.get("id") or transcript.ident
    transcript.usage = chunk.get("usage") or transcript.usage
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta") or {}
        transcript.finish = choice.get("finish_reason") or transcript.finish
        text = delta.get("content") or delta.get("refusal") or ""
        if text or delta.get("reasoning_content") or delta.get("tool_calls"):
            transcript.last = time.perf_counter()
            transcript.first = transcript.first or transcript.last
        if text:
            transcript.text.append(text)
            if live:
                # A terminal would act upon a model's control characters
                sys.stdout.write(visible(text, "\t") if sys.stdout.isatty() else text)
                sys.stdout.flush()


def with_own_token(
    gateway: Gateway, body: dict[str, Any], *, live: bool, transcript: Transcript | None = None
) -> Transcript:
    """``ask`` with the CLI's own token; one that was revoked meanwhile is replaced once.

    If no provider can serve a shipped alias, the built-in model answers, with the next step.
    """
    url = gateway.addresses()["data"]
    try:
        return ask(url, gateway.cli_token(), body, live=live, transcript=transcript)
    except Trouble as error:
        if error.step == START_IT and (ends := statedir.draining(gateway.state_dir)) is not None:
            sentence = f"the gateway is draining: it takes no new calls, and ends within {ends:.0f} s"
            raise Trouble(sentence, "wait for its end, then headgate serve") from error
        if error.api_code in ("invalid_api_key", "expired_api_key"):
            gateway.cli_token(anew=True)
        elif live and error.api_code == "no_provider_key" and _is_shipped(str(body["model"])):
            say(f"no model answers yet; {LOREM} says its fixed text instead")
            say("  → headgate vault add openai (or groq, …), start with OPENAI_API_KEY set, or start Ollama")
            body = {**body, "model": LOREM}
        else:
            raise
    return ask(url, gateway.cli_token(), body, live=live, transcript=transcript)


def _is_shipped(model: str) -> bool:
    return model in ("", AUTO) or model.startswith("headgate/")
