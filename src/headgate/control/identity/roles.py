"""Who calls the admin API, and what each role may do.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import get_args

from headgate.catalog.words import Role
from headgate.control.audit.chain import Actor

ROLES: tuple[Role, ...] = get_args(Role)


class Need(Enum):
    """What a route needs.  ``…_OWN``: a tenant admin may call it too, and the route bounds it to its own tenant."""

    NOTHING = ()  # no credential at all
    SIGNED_IN = ROLES
    READ = ("admin", "operator", "viewer")
    READ_OWN = ("admin", "operator", "viewer", "tenant_admin")
    OPERATE = ("admin", "operator")
    OPERATE_OWN = ("admin", "operator", "tenant_admin")
    ADMIN = ("admin",)

    # Two with the same roles would be one member by their value
    def __new__(cls, *roles: Role) -> Need:
        member = object.__new__(cls)
        member._value_ = len(cls.__members__)
        member.roles = frozenset(roles)
        return member

    roles: frozenset[Role]


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose credential is good.  ``session``: the public id of a user's session, None for the admin token.
    ``csrf``: the value that a session's changes must repeat in a header.
    """

    role: Role
    name: str
    address: str = ""
    tenant: str | None = None
    user_id: str | None = None
    session: str | None = None
    csrf: str | None = None

    @property
    def actor(self) -> Actor:
        """The caller as the audit log names it."""
        return Actor("user" if self.user_id else "admin_token", self.name, self.session, self.address)

    @property
    def bound_to(self) -> str | None:
        """The only tenant whose objects exist for this caller; None: all do."""
        if self.role != "tenant_admin":
            return None
        assert self.tenant, "a tenant admin without a tenant would own what no tenant has"
        return self.tenant
