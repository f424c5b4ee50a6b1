"""``headgate user``: people who may log in to the admin API, and their roles.

A password comes from standard input or a hidden prompt, never from the command line: other users of the machine read
those.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headgate.catalog import words
from headgate.cli.display.terminal import moment, show, table
from headgate.cli.parsing.options import Config, Json, StateDir, noun
from headgate.cli.parsing.secrets import read_secret
from headgate.cli.reach.gateway import Trouble, at, open_gateway

app = noun("Users of the admin API, and their roles.")


ROLES = words.listed(words.Role)
Ident = Annotated[str, typer.Argument(metavar="NAME", help="A user's name, e-mail or id.")]
Tenant = Annotated[str | None, typer.Option(help="The tenant of a tenant admin.")]


@app.command("list")
def listing(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """List the users."""
    with open_gateway(config, state_dir) as gateway:
        rows = gateway.items("/users")
    show(
        rows,
        as_json,
        lambda: table(
            *("!NAME", "ROLE", "?TENANT", "??E-MAIL", "LAST LOGIN", "?STATE"),
            rows=(_cells(row) for row in rows),
            empty="no users; add one with: headgate user add NAME --role viewer",
        ),
    )


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="The name to log in with.")],
    role: Annotated[str, typer.Option(help=f"What the user may do: {ROLES}.")] = "viewer",
    email: Annotated[str | None, typer.Option(help="Opens a login like the name.")] = None,
    tenant: Tenant = None,
    no_password: Annotated[bool, typer.Option("--no-password", help="Only an admin can give one later.")] = False,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Add a user.  The password is piped in, or asked for without being shown."""
    wish: dict[str, Any] = {"name": name, "role": role}
    wish |= {"email": email} if email else {}
    wish |= {"tenant": tenant} if tenant else {}
    if not no_password:
        wish["password"] = read_secret("password", name, twice=True)
    with open_gateway(config, state_dir) as gateway:
        made = gateway.call("POST", "/users", wish)
    show(made, as_json, lambda: f"added {made['name']} ({made['role'].replace('_', ' ')})")


@app.command("edit")
def edit(
    ident: Ident,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    role: Annotated[str | None, typer.Option(help=f"Another role: {ROLES}.")] = None,
    email: Annotated[str | None, typer.Option(help="Another e-mail; none: take it away.")] = None,
    tenant: Tenant = None,
    disabled: Annotated[
        bool | None, typer.Option("--disable/--enable", help="End the user's sessions and let no new one in.")
    ] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Change a user.  It holds from the next request."""
    wish = {
        "name": name,
        "role": role,
        "email": None if email == "none" else email,
        "tenant": tenant,
        "disabled": disabled,
    }
    wish = {field: value for field, value in wish.items() if value is not None or (field, email) == ("email", "none")}
    if not wish:
        raise Trouble("nothing to change", "give --name, --role, --email, --tenant, --disable or --enable", 2)
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("PATCH", at("/users", ident), wish)
    show(answer, as_json, lambda: f"changed {answer['name']}")


@app.command("password")
def password(ident: Ident, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Give a user another password, and end all sessions."""
    with open_gateway(config, state_dir) as gateway:
        name = gateway.call("GET", at("/users", ident))["name"]
        gateway.let_go()
        wish = {"password": read_secret("password", name, twice=True)}
        answer = gateway.call("POST", at("/users", ident, "password"), wish)
    show(answer, as_json, lambda: f"changed the password of {name}; all sessions have ended")


@app.command("remove")
def remove(ident: Ident, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Remove a user, and end all sessions."""
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("DELETE", at("/users", ident))
    show(answer, as_json, lambda: f"removed {answer['name']}")


def _cells(row: dict[str, Any]) -> list[str]:
    state = "disabled" if row["disabled"] else "oidc" if row["oidc"] else "" if row["password"] else "no password"
    return [
        row["name"],
        row["role"].replace("_", " "),
        row["tenant"] or "",
        row["email"] or "",
        moment(row["last_login"], "never"),
        state,
    ]
