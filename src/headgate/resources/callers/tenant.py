"""A tenant: it stands above tokens, and their calls count against its limits and its budget too."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from headgate import model
from headgate.catalog.names import TENANT_NAME
from headgate.resources.callers.allowance import Allowance

TenantName = Annotated[str, Field(pattern=f"^{TENANT_NAME}$", examples=["acme"])]


class TenantWish(Allowance):
    """The whole tenant: what is left out is not kept.  The file and the store have the same fields."""

    def tenant(self, name: str, origin: str) -> model.Tenant:
        """What the data plane is told."""
        return model.Tenant(name, origin=origin, **self.terms())
