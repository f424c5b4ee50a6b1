"""Probe how a provider's models treat the trailing white space of a prefill, before a stream breaks.

Two requests for one token each, for every model that declares a prefill without ``prefill_trims``.  A data process
makes the same when it first matters (``serving/probing.py``).  Owns these calls.  They cost a few tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx2

from headgate.control.objects.discovery.probe import DEADLINE_S, TooLarge, asking, read
from headgate.dialects import canonical, registry
from headgate.model import ModelRow, Provider, Target, Timeouts

MOST_MODELS = 8  # of one provider: a check is no load test


async def find_trims(provider: Provider, secrets: Mapping[str, str], account: str | None) -> dict[str, bool]:
    """By upstream model: whether it drops that white space.  Models that do not tell are not in it.  Never raises."""
    rows = [row for row in (provider.models or {}).values() if _is_open(provider, row)][:MOST_MODELS]
    if not rows:
        return {}
    try:
        async with asking(provider, secrets, account) as (client, headers, query):
            found = await asyncio.gather(*(_one(client, query, headers, provider, row) for row in rows))
    except (OSError, ValueError):
        return {}
    return {row.upstream_model or row.id: trims for row, trims in zip(rows, found, strict=True) if trims is not None}


def _is_open(provider: Provider, row: ModelRow) -> bool:
    said = row.prefill_trims or provider.prefill_trims
    return said is None and (provider.prefill if row.prefill is None else row.prefill) != "none"


async def _one(
    client: httpx2.AsyncClient, query: str, headers: Mapping[str, str], provider: Provider, row: ModelRow
) -> bool | None:
    spelling = provider.prefill if row.prefill is None else row.prefill
    backend = registry.BACKENDS[provider.dialect]
    target = Target(provider, row.id, row.upstream_model or row.id, row.price, Timeouts(), row)
    answers = []
    for call in canonical.probes(row.id, spelling):
        rendered = backend.render(call, target, False)
        url = f"{provider.base_url}{rendered.path}{query}"
        own = (line.split(": ", 1) for line in rendered.fields.decode("ascii").splitlines())
        fields = {**{name.lower(): value for name, value in own}, **headers, "content-type": "application/json"}
        try:
            async with asyncio.timeout(DEADLINE_S):
                answers.append(await read(client, "POST", url, fields, rendered.body))
        except (TooLarge, TimeoutError, httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError):
            return None
    plain, spaced = answers
    return canonical.trims(plain, spaced, backend.usage)
