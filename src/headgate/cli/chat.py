"""``headgate chat``: one question through the data plane, shown as it streams.

Uses the same public API as everybody: nothing here is a short cut.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx2
import typer

from headgate.cli.gateway import START_IT, Gateway, Trouble, failure, open_gateway
from headgate.cli.options import Config, Json, StateDir

LOREM = "builtin/lorem"


@dataclass
class Transcript:
    """What came back.  Times are ``perf_counter`` seconds; None where nothing came."""

    started: float
    first: float | None = None
    last: float | None = None
    text: list[str] = field(default_factory=list)
    model: str = ""
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
            f"{tokens} tokens" if tokens is not None else "",
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


def ask(url: str, token: str, body: dict[str, Any], *, live: bool) -> Transcript:
    """Streams one answer; ``live`` writes its text to standard output as it comes.

    Raises Trouble on an error status, an error event and a stream that ends without ``[DONE]``.
    """
    transcript = Transcript(time.perf_counter())
    timeout = httpx2.Timeout(10, read=None)  # how long a model may think is the gateway's to decide
    try:
        with httpx2.stream(
            "POST",
            f"{url}/v1/chat/completions",
            json={**body, "stream": True, "stream_options": {"include_usage": True}},
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout,
        ) as answer:
            if not answer.is_success:
                raise refused(answer.status_code, answer.read())
            for chunk in _chunks(answer, transcript):
                _take(transcript, chunk, live)
    except httpx2.ConnectError as error:
        raise Trouble(f"no gateway answers at {url}", START_IT) from error
    except httpx2.TransportError as error:
        raise Trouble(f"the connection to {url} broke: {error or type(error).__name__}") from error
    except (UnicodeError, httpx2.InvalidURL) as error:  # a message that is no text, a token that no header may have
        raise Trouble(f"what was given cannot be sent ({error})", code=2) from error
    except ValueError as error:
        raise Trouble(f"what answers at {url} does not speak the API: {error}") from error
    finally:
        if live and transcript.text:
            print(flush=True)
    if not transcript.done:
        raise Trouble("the stream ended before the answer did")
    return transcript


def refused(status: int, body: bytes) -> Trouble:
    message, code = failure(body)
    step = ""
    if code == "no_provider_key":
        step = f'configure a provider, or try the built-in one: headgate chat --model {LOREM} "…"'
    return Trouble(message or f"the gateway answered {status}", step, api_code=code)


def _chunks(answer: httpx2.Response, transcript: Transcript) -> Iterator[dict[str, Any]]:
    for line in answer.iter_lines():
        if not line.startswith("data:"):
            continue
        text = line[5:].strip()
        if text == "[DONE]":
            transcript.done = True
            return
        yield json.loads(text)


def _take(transcript: Transcript, chunk: dict[str, Any], live: bool) -> None:
    if error := chunk.get("error"):
        raise Trouble(f"the answer broke off: {error.get('message', 'no reason given')}")
    transcript.model = chunk.get("model") or transcript.model
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
                sys.stdout.write(text)
                sys.stdout.flush()


def with_own_token(gateway: Gateway, body: dict[str, Any], *, live: bool) -> Transcript:
    """``ask`` with the CLI's own token; one that was revoked meanwhile is replaced once."""
    url = gateway.addresses()["data"]
    try:
        return ask(url, gateway.cli_token(), body, live=live)
    except Trouble as error:
        if error.api_code not in ("invalid_api_key", "expired_api_key"):
            raise
    return ask(url, gateway.cli_token(anew=True), body, live=live)


def _read() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise Trouble(f"standard input is no text ({error})", code=2) from error


def command(
    message: Annotated[str, typer.Argument(help="What to say; - reads standard input.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Alias or model.")] = "auto",
    system: Annotated[str | None, typer.Option("--system", "-s", help="System message.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="Another gateway's base URL (without /v1).")] = None,
    token: Annotated[str | None, typer.Option("--token", envvar="HEADGATE_TOKEN", help="Agent token.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Ask a model, and see the answer as it streams; speed and first-token time go to standard error."""
    if url and not token:
        raise Trouble("--url names another gateway, which needs its own token", "give --token or HEADGATE_TOKEN", 2)
    text = _read() if message == "-" else message
    messages = [{"role": "system", "content": system}] if system else []
    body: dict[str, Any] = {"model": model, "messages": [*messages, {"role": "user", "content": text}]}
    if url:
        transcript = ask(url.rstrip("/").removesuffix("/v1"), token or "", body, live=not as_json)
    else:
        with open_gateway(config, state_dir) as gateway:
            if token:
                transcript = ask(gateway.addresses()["data"], token, body, live=not as_json)
            else:
                transcript = with_own_token(gateway, body, live=not as_json)
    if as_json:
        print(transcript.as_json())
    else:
        print(transcript.summary(), file=sys.stderr)
