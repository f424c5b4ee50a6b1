"""Whether a provider answers, and takes its keys: GET base_url/models, once with each account.

Owns these calls; they cost nothing and follow no redirect, so that a key goes nowhere else.  The provider's error is
shown as one sentence, with the key removed; its body is read up to a bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2
import msgspec
from msgspec.structs import replace

from headgate.dialects.openai_chat.errors import complaint
from headgate.dialects.openai_chat.errors.failures import failure
from headgate.dialects.openai_chat.normalise import one_line
from headgate.errors import UPSTREAM_AUTH, UPSTREAM_MODEL_DENIED
from headgate.model import Account, Provider
from headgate.process import trust
from headgate.wire.proxies import Proxies
from headgate.wire.redaction import scrub
from headgate.wire.signing import credential, header_values, hidden_values

DEADLINE_S = 5.0
MAX_ANSWER = 4 << 20
AT_ONCE = 8  # of one provider: a check must not look like an attack
NOT_LISTED = (404, 405)


@dataclass(frozen=True, slots=True)
class Result:
    """``ok``: it answered and took the key.  ``account``: None where it needs no key; ``models``: how many it lists."""

    account: str | None
    ok: bool
    status: int | None
    latency_ms: float | None
    models: int | None
    message: str
    refused: bool = False  # the provider says that the key is not good
    words: str = ""  # the provider's own, of a refusal


class TooLarge(Exception):
    """The body has more than MAX_ANSWER bytes."""


async def try_key(provider: Provider, account: str, key: str, secrets: Mapping[str, str]) -> Result:
    """The result of one key that is not among the provider's accounts yet.  It goes to the provider's own address only.

    Never raises.
    """
    alone = replace(provider, accounts=(Account(account),))
    (result,) = await check(alone, {**secrets, account: key})
    return result


async def check(provider: Provider, secrets: Mapping[str, str]) -> list[Result]:
    """One result for each account, in order; one without an account where none is needed.  Never raises; takes
    DEADLINE_S and a little for up to AT_ONCE accounts.
    """
    accounts = [None] if provider.auth == "none" else [account.id for account in provider.accounts]
    if not accounts:
        sentence = f"{provider.name} has no key; add one with POST /admin/v1/accounts"
        return [Result(None, False, None, None, None, sentence)]
    try:
        verify = await asyncio.to_thread(trust.context, provider.ca_file)  # reads a large file
    except OSError as error:
        why = (provider.ca_file and trust.problem(provider.ca_file)) or f"cannot be read: {error.strerror or error}"
        sentence = f"the CA file {provider.ca_file} {why}"
        return [Result(account, False, None, None, None, sentence) for account in accounts]
    places = asyncio.Semaphore(AT_ONCE)
    proxy = proxy_for(provider.base_url)
    async with httpx2.AsyncClient(verify=verify, trust_env=False, proxy=proxy) as client:
        return await asyncio.gather(*(_one(client, places, provider, account, secrets) for account in accounts))


@contextlib.asynccontextmanager
async def asking(
    provider: Provider, secrets: Mapping[str, str], account: str | None
) -> AsyncIterator[tuple[httpx2.AsyncClient, dict[str, str], str]]:
    """A client on traffic's way to the provider, with one account's header fields and query.  Raises ValueError where
    its key is not known here, OSError.
    """
    key = secrets.get(account or "", "")
    extra = header_values(provider.name, provider.headers, secrets)
    if extra is None or (account is not None and not key):
        raise ValueError(f"the key of {account or provider.name} is not known here")
    lines, query = credential(provider.auth, key)
    name, _, value = lines.decode().strip().partition(": ")
    headers = {**extra, "accept": "application/json", **({name: value} if name else {})}
    verify = await asyncio.to_thread(trust.context, provider.ca_file)  # reads a large file
    proxy = proxy_for(provider.base_url)
    async with httpx2.AsyncClient(verify=verify, trust_env=False, proxy=proxy) as client:
        yield client, headers, f"?{query}" if query else ""


async def _one(
    client: httpx2.AsyncClient,
    places: asyncio.Semaphore,
    provider: Provider,
    account: str | None,
    secrets: Mapping[str, str],
) -> Result:
    key = secrets.get(account or "", "")
    if account is not None and not key:
        return Result(account, False, None, None, None, f"the key of {account} is not known here")
    lines, query = credential(provider.auth, key)
    name, _, value = lines.decode().strip().partition(": ")
    extra = header_values(provider.name, provider.headers, secrets)
    if extra is None:
        return Result(account, False, None, None, None, f"the headers of {provider.name} are not known here")
    headers = {**extra, "accept": "application/json", **({name: value} if name else {})}
    hidden = ((key,) if key else ()) + hidden_values(provider.name, provider.headers, secrets)
    url = f"{provider.base_url}/models" + (f"?{query}" if query else "")
    async with places:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(DEADLINE_S):
                status, body = await read(client, "GET", url, headers)
        except (TimeoutError, httpx2.TimeoutException):
            return Result(account, False, None, None, None, f"no answer within {DEADLINE_S:g} s")
        except TooLarge:
            return Result(account, False, None, None, None, f"its list of models is over {MAX_ANSWER >> 20} MiB")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            sentence = _scrubbed(f"it cannot be reached: {error or type(error).__name__}", hidden)
            return Result(account, False, None, None, None, sentence)
        latency = round((time.perf_counter() - began) * 1000, 1)
    return _judged(provider, account, hidden, status, body, latency)


async def read(
    client: httpx2.AsyncClient, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None
) -> tuple[int, bytes]:
    """Status and body of one answer, which has MAX_ANSWER bytes at most.  Raises TooLarge, httpx2's errors."""
    async with client.stream(method, url, headers=dict(headers), content=content, timeout=DEADLINE_S) as answer:
        body = bytearray()
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > MAX_ANSWER:
                raise TooLarge
        return answer.status_code, bytes(body)


def _judged(
    provider: Provider, account: str | None, hidden: tuple[str, ...], status: int, body: bytes, latency: float
) -> Result:
    if status == 200:
        count = _count(body)
        sentence = (
            "it answers, but not with a list of models"
            if count is None
            else f"it lists {count} {'model' if count == 1 else 'models'}"
        )
        return Result(account, count is not None, status, latency, count, sentence)
    if status in NOT_LISTED and provider.preset is not None:
        sentence = "it answers, and lists no models: whether the key is good shows with the first call"
        return Result(account, True, status, latency, None, sentence)
    if status in NOT_LISTED:
        sentence = f"it answers {status}: base_url may be wrong (most end in /v1), or it lists no models"
        return Result(account, False, status, latency, None, sentence)
    if 300 <= status < 400:
        sentence = (
            f"it answers {status}, a redirect, which is not followed: put the address that it leads to in base_url"
        )
        return Result(account, False, status, latency, None, sentence)
    said = failure(status, {}, body, provider=provider.name, secrets=hidden)
    refused = said.kind in (UPSTREAM_AUTH, UPSTREAM_MODEL_DENIED)
    words = one_line(scrub(_scrubbed(complaint.read(body).message or "", hidden), hidden)) if refused else ""
    return Result(account, False, status, latency, None, _scrubbed(said.message, hidden), refused, words)


def _count(body: bytes) -> int | None:
    """How many models a list has: OpenAI's ``data``, or a bare array, as some answer."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    entries = found.get("data", found.get("models")) if isinstance(found, dict) else found
    return len(entries) if isinstance(entries, list) else None


def _scrubbed(text: str, hidden: tuple[str, ...]) -> str:
    for secret in hidden:
        text = text.replace(secret, "[key]")
    return text[:500]


def proxy_for(url: str) -> httpx2.Proxy | None:
    """The way that traffic takes.  The gateway does not start where the variables cannot be followed."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    found = Proxies(os.environ).of(tls, parts.hostname or "", parts.port or (443 if tls else 80))
    if found is None:
        return None
    name, _, value = found.authorization.decode("ascii").strip().partition(": ")
    host = f"[{found.host}]" if ":" in found.host else found.host
    return httpx2.Proxy(f"http://{host}:{found.port}", headers={name: value} if name else None)
