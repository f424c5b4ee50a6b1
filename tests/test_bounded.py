"""Bounded: what is learnt is not thrown away whole."""

from __future__ import annotations

from headgate.model.bounded import Bounded


def test_full_mapping_drops_its_oldest_entry() -> None:
    table: Bounded[int, str] = Bounded(3)
    for key in (1, 2, 3, 1, 4):
        table.put(key, str(key))
    assert table == {3: "3", 1: "1", 4: "4"}
