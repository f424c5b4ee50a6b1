"""A real llama.cpp server is recognised for what it is, and for nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec.structs import replace

from headgate.catalog.presets import Row, rows
from headgate.control.objects.discovery.detection import engines


def test_a_real_engine_is_recognised(engine: Any) -> None:
    found: dict[str, Row] = {}
    for name, row in rows().items():
        if row.engine is not None and name != "jan":  # Jan does not name itself: on its port anything goes
            url = row.base_url.replace(str(row.engine.port), str(engine.port))
            found[name] = replace(row, base_url=url, engine=replace(row.engine, port=engine.port))
    detected = asyncio.run(engines(found, deadline=5))
    assert list(detected.providers) == ["llama-cpp"], detected.asked
    models = detected.providers["llama-cpp"].models
    assert models
