"""What an answer says of itself (its ``headgate`` object) is what its receipt says."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.model import Closed, Price
from tests.dataplane import DataPlane, upstream
from tests.serving.calls import ProviderProcess, ask

PRICE = Price(input=2_000_000_000, output=8_000_000_000)  # 2 and 8 USD per million tokens


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("price", [PRICE, None])
def test_cost_and_basis(provider_process: ProviderProcess, tmp_path: Path, stream: bool, price: Price | None) -> None:
    row = upstream(provider_process.url, price=price) if price is not None else upstream(provider_process.url)
    with DataPlane(tmp_path / "s", row) as plane:
        answer = ask(plane, "up/echo", stream=stream, **({"stream_options": {"include_usage": True}} if stream else {}))
        (closed,) = plane.wait_for(Closed)
    assert isinstance(closed, Closed)
    told = answer.chunks[-1]["headgate"] if stream else answer.json["headgate"]
    assert (told["provider"], told["cost_basis"], told["attempts"]) == ("up", closed.basis, 1)
    if price is None:
        assert told["cost_usd"] is None and closed.cost == -1
    else:
        assert told["cost_usd"] == closed.cost / 1e9 > 0
        assert closed.cost == 2000 * closed.prompt_tokens + 8000 * closed.completion_tokens
