"""Deadlines, as an alias and a model have them."""

from __future__ import annotations

from headgate.resources.fields import Positive, Resource


class TimeoutsWish(Resource):
    """Seconds; what is left out comes from the configuration's defaults."""

    connect: Positive | None = None
    headers: Positive | None = None
    first_token: Positive | None = None
    stall: Positive | None = None
    total: Positive | None = None

    def set_ones(self) -> dict[str, float]:
        """The deadlines that are set, as ``model.Alias`` and ``model.ModelRow`` have them."""
        return self.model_dump(exclude_none=True)
