"""A group of calls with a limit or a budget of its own, whichever token they have: an entry of ``budgets:``."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from headgate.catalog import words
from headgate.model import Budget, CallGroup
from headgate.resources.callers.allowance import BudgetTable, LimitsTable, Money, Zone, limits_nothing
from headgate.resources.fields import ModelName, Resource, printable, wrong

_Word = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(printable)]
GroupName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", examples=["search"])]


class Match(Resource):
    """The calls that count: those with all of these.  ``tag``: members of the request's ``headgate.metadata``."""

    tag: Annotated[dict[_Word, _Word], Field(max_length=16)] = {}
    session: _Word | None = None
    model: ModelName | None = None
    user: _Word | None = None

    def text(self) -> str:
        """The same as one line: ``tag:team=search,model:openai/gpt-5``."""
        tags = [f"tag:{name}={value}" for name, value in sorted(self.tag.items())]
        others = [(name, getattr(self, name)) for name in ("session", "model", "user")]
        return ",".join([*tags, *(f"{name}:{value}" for name, value in others if value is not None)])


class GroupWish(Resource):
    """The whole group: what is left out is not kept."""

    match: Match
    limits: LimitsTable = LimitsTable()
    usd: Money | None = None
    period: words.Period = "month"
    mode: words.BudgetMode = "hard"
    zone: Zone = "UTC"

    @model_validator(mode="after")
    def _is_one(self) -> GroupWish:
        if not self.match.text():
            raise wrong("`match` is empty: name a tag, a session, a model or a user; a tenant covers all its tokens")
        if limits_nothing(self.limits.limits(), self.budget):
            raise wrong("limits nothing: give it usd, or one of the limits")
        return self

    @property
    def budget(self) -> Budget | None:
        """Its budget; None: it has limits only."""
        if self.usd is None:
            return None
        return BudgetTable(usd=self.usd, period=self.period, mode=self.mode, zone=self.zone).budget()

    def group(self, ident: str, origin: str) -> CallGroup:
        """What the data plane is told."""
        match = self.match
        return CallGroup(
            ident, match.tag, match.session or "", match.model or "", match.user or "", self.limits.limits(),
            self.budget, origin,
        )  # fmt: skip


class GroupTable(GroupWish):
    """A group of the configuration file.  Its counters go by its name, or by what it matches where it has none."""

    name: GroupName | None = None

    @property
    def ident(self) -> str:
        """The name of its counters."""
        return self.name or self.match.text()
