"""``providers check`` finds out ahead of time what a model does with the white space of a prefill."""

from __future__ import annotations

import asyncio

import pytest

from headgate.control.objects.discovery.prefills import find_trims
from headgate.model import ModelRow, Provider
from headgate.testing import serve


def row(name: str, settings: str, **more: str) -> ModelRow:
    return ModelRow(name, upstream_model=f"engine?{settings}", **{"prefill": "trailing", **more})  # type: ignore[arg-type]


ROWS = {
    "keeps": (row("keeps", "trims=0"), False),
    "trims": (row("trims", "trims=1"), True),
    "refuses": (row("refuses", "strict=1"), True),
    "takes none": (row("takes none", "prefill=refuse"), None),
    "no counts": (row("no counts", "usage=never"), None),
    "says so": (row("says so", "trims=1", prefill_trims="yes"), None),
    "declares none": (row("declares none", "trims=1", prefill="none"), None),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_a_check_finds_out(name: str) -> None:
    model, expected = ROWS[name]

    async def main() -> tuple[dict[str, bool], int]:
        async with serve() as engine:
            provider = Provider("p", engine.url, auth="none", models={name: model})
            return await find_trims(provider, {}, None), len(engine.requests)

    found, asked = asyncio.run(main())
    assert found == ({} if expected is None else {model.upstream_model: expected})
    assert asked == (0 if name in ("says so", "declares none") else 2)


def test_a_provider_that_cannot_be_reached_tells_nothing() -> None:
    provider = Provider("p", "http://127.0.0.1:9/v1", auth="none", models={"m": row("m", "")})
    assert asyncio.run(find_trims(provider, {}, None)) == {}
