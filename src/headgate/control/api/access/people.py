"""/admin/v1/users: who may log in, and with which role.  For admins."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path

from headgate.catalog.words import Role
from headgate.control.api.access.logins import Guard, PasswordChanged
from headgate.control.api.errors import documented
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.views import Page, View, seconds
from headgate.control.identity import users
from headgate.control.identity.users import User
from headgate.errors import INVALID_VALUE, GatewayError
from headgate.resources.fields import Text
from headgate.resources.user import TENANT_RULE, PasswordWish, UserEdit, UserWish

Wanted = Annotated[Text, Path(description="The user's id, name or e-mail.", examples=["ada"])]


class UserView(View):
    """``password``: whether the user has one; users of the OIDC provider have none.  Instants are Unix seconds."""

    object: Literal["headgate.user"] = "headgate.user"
    id: str
    name: str
    email: str | None
    role: Role
    tenant: str | None
    disabled: bool
    password: bool
    oidc: bool
    created: int | None
    last_login: int | None


class DeletedUser(View):
    object: Literal["headgate.user.deleted"] = "headgate.user.deleted"
    id: str
    name: str


def routes(admin: Admin, guard: Guard) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("users")
    engine = admin.engine

    @api.get("/users")
    async def list_users() -> Page[UserView]:
        """Every user, by name."""
        return Page(data=[_view(user) for user in await users.listed(engine)])

    @api.post("/users", status_code=201, responses=documented(409))
    async def add_user(wish: UserWish) -> UserView:
        """Stores a user.  The password is kept as its argon2id hash."""
        hashed = None if wish.password is None else await guard.passwords.hashed(wish.password.get_secret_value())
        user = User("", wish.name, wish.role, wish.email, wish.tenant, password=hashed)
        return _view(await users.create(engine, user))

    @api.get("/users/{wanted}", responses=documented(404))
    async def get_user(wanted: Wanted) -> UserView:
        """One user."""
        return _view(await users.named(engine, wanted))

    @api.patch("/users/{wanted}", responses=documented(404, 409))
    async def edit_user(wanted: Wanted, wish: UserEdit) -> UserView:
        """Changes a user.  A new role holds from the next request; a disabled user's sessions end at once."""
        user = await users.named(engine, wanted)
        return _view(await users.edit(engine, user.id, _changes(user, wish)))

    @api.delete("/users/{wanted}", responses=documented(404))
    async def remove_user(wanted: Wanted) -> DeletedUser:
        """Removes a user and ends all sessions."""
        user = await users.named(engine, wanted)
        await users.remove(engine, user)
        return DeletedUser.of(user)

    @api.post("/users/{wanted}/password", responses=documented(404))
    async def reset_password(wanted: Wanted, wish: PasswordWish) -> PasswordChanged:
        """Gives a user another password and ends all sessions."""
        user = await users.named(engine, wanted)
        await users.set_password(engine, user.id, await guard.passwords.hashed(wish.password.get_secret_value()))
        return PasswordChanged(user=user.id)

    return api


def _changes(user: User, wish: UserEdit) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name in wish.model_fields_set:
        changes[name] = getattr(wish, name)
        if changes[name] is None and name not in ("email", "tenant"):
            raise GatewayError(INVALID_VALUE, f"`{name}` cannot be null; leave it out to keep it.", param=name)
    role = changes.get("role", user.role)
    if role != "tenant_admin" and "tenant" not in changes:
        changes["tenant"] = None
    if (role == "tenant_admin") != (changes.get("tenant", user.tenant) is not None):
        raise GatewayError(INVALID_VALUE, TENANT_RULE, param="tenant")
    return changes


def _view(user: User) -> UserView:
    return UserView.of(
        user,
        password=user.password is not None,
        oidc=user.subject is not None,
        created=seconds(user.created_at),
        last_login=seconds(user.last_login_at),
    )
