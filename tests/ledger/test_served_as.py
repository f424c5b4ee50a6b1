"""Models by the names that receipts have."""

from __future__ import annotations

from headgate.control.ledger.spend import group_matches, served_as
from headgate.model import CallGroup, ModelRow, Provider, Snapshot

ROWS = {"big": ModelRow("big", upstream_model="big-0613"), "small": ModelRow("small")}


def test_model_is_found_by_its_upstream_name() -> None:
    """A budget of a model keeps what was spent when the gateway starts again, though its row sends another name."""
    snapshot = Snapshot(providers={"up": Provider("up", "http://127.0.0.1:9", models=ROWS)})
    assert served_as("up/big", snapshot) == served_as("big", snapshot) == {("up", "big-0613")}
    assert served_as("small", snapshot) == {("up", "small")} and served_as("", snapshot) == frozenset()
    row = {"provider": "up", "model": "big-0613", "session": None, "client_user": None}
    for model, counts in (("up/big", True), ("big", True), ("big-0613", True), ("small", False)):
        assert group_matches(CallGroup("g", model=model), row, {}, served_as(model, snapshot)) is counts
