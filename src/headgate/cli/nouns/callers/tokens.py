"""``headgate token``: the credentials of clients."""

from __future__ import annotations

import shlex
import time
from typing import Annotated, Any

import typer

from headgate.catalog import words
from headgate.cli.display.terminal import changed, facts, moment, say, show, table
from headgate.cli.display.times import after, duration
from headgate.cli.nouns.callers.allowance import (
    BudgetText,
    Hard,
    OverBudget,
    Parallel,
    Rpd,
    Rpm,
    Tpm,
    Zone,
    budget_text,
    budget_wish,
    limits_text,
    limits_wish,
    over_budget_wish,
    standing_rows,
)  # fmt: skip
from headgate.cli.parsing.options import Config, Json, StateDir, listed, noun
from headgate.cli.reach.gateway import Trouble, at, open_gateway

app = noun("Agent tokens: the credentials of clients.")

Ident = Annotated[str, typer.Argument(metavar="NAME", help="Its name, or its id as `token list` shows it.")]
Expires = Annotated[str | None, typer.Option(help="30d, 12h, or a date like 2027-01-31.")]
Models = Annotated[str | None, typer.Option(help="Allowed models and aliases, with commas; else all.")]
Scopes = Annotated[str | None, typer.Option(help=f"{', '.join(words.choices(words.Scope))}, with commas; else all.")]


Tenant = Annotated[str | None, typer.Option(help="The tenant that it belongs to; none: to no one.")]
FreeOnly = Annotated[bool | None, typer.Option("--free-only/--any-price", help="Only models that cost nothing.")]
Unpriced = Annotated[str | None, typer.Option(help="allow, or refuse models whose price is not known.")]
Tier = Annotated[str | None, typer.Option(help=f"Of calls that name none: {words.listed(words.Tier)}.")]
Tiers = Annotated[str | None, typer.Option(help="Tiers that its calls may name, with commas; all: every one.")]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="A name for it; no other token may have it.")],
    expires: Expires = None,
    models: Models = None,
    scopes: Scopes = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    rpd: Rpd = None,
    parallel: Parallel = None,
    budget: BudgetText = None,
    hard: Hard = None,
    zone: Zone = None,
    over_budget: OverBudget = None,
    free_only: FreeOnly = None,
    unpriced: Unpriced = None,
    tier: Tier = None,
    tiers: Tiers = None,
    tenant: Tenant = None,
    form: Annotated[str | None, typer.Option("--format", help=f"{words.listed(words.TokenFormat)}.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Make a token.

    It is shown once: only its digest is kept.
    """
    wish = {
        "name": name,
        **_wish(expires, models, scopes),
        **_terms(free_only, unpriced, tenant),
        **_tiers(tier, tiers),
    }
    wish |= {"limits": limits_wish(rpm=rpm, tpm=tpm, rpd=rpd, parallel=parallel)}
    wish |= budget_wish(budget, hard, zone) | over_budget_wish(over_budget)
    wish |= {"format": form} if form else {}
    with open_gateway(config, state_dir) as gateway:
        try:
            made = gateway.call("POST", "/tokens", wish)
        except Trouble as trouble:
            if trouble.api_code == "already_exists":
                trouble.step = f"headgate token rotate {shlex.quote(name)}, or another name"
            raise
    changed(made, made["token"], as_json)


@app.command("list")
def listing(
    revoked: Annotated[bool, typer.Option("--revoked", help="Those that were revoked, too.")] = False,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List the tokens, of the file and of the store."""
    with open_gateway(config, state_dir) as gateway:
        rows = gateway.items("/tokens", {"include_revoked": True} if revoked else None)
    show(
        rows,
        as_json,
        lambda: table(
            *("!NAME", "!ID", "??FROM", "?MODELS", "EXPIRES", *(("REVOKED",) if revoked else ())),
            rows=([*_cells(row), *((moment(row.get("revoked")),) if revoked else ())] for row in rows),
            empty="no tokens; make one with: headgate token create NAME",
        ),
    )


@app.command("show")
def one(ident: Ident, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Show what a token may do, and what it has used and has left."""
    with open_gateway(config, state_dir) as gateway:
        row = gateway.call("GET", at("/tokens", ident))
    show(
        row,
        as_json,
        lambda: facts(
            f"token {row['id']}",
            [
                ("name", row["name"]),
                ("may use", ", ".join(row["models"]) or "every model"),
                ("scopes", ", ".join(row["scopes"])),
                ("tenant", row["tenant"]),
                ("made by", row["parent"]),
                ("run", row["run"]),
                ("expires", moment(row["expires"], "never")),
                ("limits", limits_text(row["limits"])),
                ("budget", budget_text(row["budget"])),
                ("over budget", row["over_budget"] if row["budget"] else None),
                ("free only", "yes" if row["free_only"] else None),
                ("tier", row["tier"]),
                ("tiers", ", ".join(row["tiers"]) or None),
                *(pair for standing in row["standings"] or () for pair in standing_rows(standing)),
                ("made", moment(row["created"]) or None),
                ("revoked", moment(row.get("revoked")) or None),
                ("from", row["origin"]),
            ],
        ),
    )


@app.command("edit")
def edit(
    ident: Ident,
    name: Annotated[str | None, typer.Option(help="Another name for it.")] = None,
    expires: Annotated[str | None, typer.Option(help="30d, 12h, a date, or never.")] = None,
    models: Annotated[str | None, typer.Option(help="Allowed models and aliases, with commas; all: every one.")] = None,
    scopes: Scopes = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    rpd: Rpd = None,
    parallel: Parallel = None,
    budget: BudgetText = None,
    hard: Hard = None,
    zone: Zone = None,
    over_budget: OverBudget = None,
    free_only: FreeOnly = None,
    unpriced: Unpriced = None,
    tier: Tier = None,
    tiers: Tiers = None,
    tenant: Tenant = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Change what a token may do.  Its secret stays."""
    limits = limits_wish(rpm=rpm, tpm=tpm, rpd=rpd, parallel=parallel)
    wish = _wish(None if expires == "never" else expires, None if models == "all" else models, scopes)
    wish |= {"name": name} if name else {}
    wish |= {"expires": None} if expires == "never" else {}
    wish |= {"models": []} if models == "all" else {}
    wish |= {"limits": limits} if limits else {}
    wish |= budget_wish(budget, hard, zone) | over_budget_wish(over_budget) | _terms(free_only, unpriced, tenant)
    wish |= _tiers(tier, tiers)
    if not wish:
        raise Trouble("nothing to change", "give --name, --expires, --models, --rpm, --budget or another option", 2)
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("PATCH", at("/tokens", ident), wish)
    changed(answer, f"changed {ident}", as_json)


@app.command("rotate")
def rotate(
    ident: Ident,
    overlap: Annotated[str, typer.Option(help="How long the old secret works on: 0, 90s, 10m, 1h, at most 7d.")] = "0",
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Give a token a new secret; it is shown once.  Its id and its usage stay."""
    with open_gateway(config, state_dir) as gateway:
        made = gateway.call("POST", at("/tokens", ident, "rotate"), {"overlap_s": duration(overlap)})
    changed(made, made["token"], as_json)
    if not as_json and overlap == "0":
        say("the old secret has ended")


@app.command("revoke")
def revoke(ident: Ident, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """End a token, within a second.  Running streams go on."""
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("DELETE", at("/tokens", ident))
    changed(answer, f"revoked {ident}", as_json)


def _wish(expires: str | None, models: str | None, scopes: str | None) -> dict[str, Any]:
    wish = {
        "expires": after(expires, time.time()) if expires else None,
        "models": listed(models),
        "scopes": listed(scopes),
    }
    return {name: value for name, value in wish.items() if value is not None}


def _terms(free_only: bool | None, unpriced: str | None, tenant: str | None) -> dict[str, Any]:
    wish: dict[str, Any] = {"free_only": free_only, "unpriced": unpriced, "tenant": tenant}
    wish = {name: value for name, value in wish.items() if value is not None}
    return wish | ({"tenant": None} if tenant == "none" else {})


def _tiers(tier: str | None, tiers: str | None) -> dict[str, Any]:
    return ({"tier": tier} if tier else {}) | ({"tiers": [] if tiers == "all" else listed(tiers)} if tiers else {})


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["name"],
        row["id"],
        row.get("origin", ""),
        ", ".join(row.get("models") or ()) or "all",
        moment(row.get("expires"), "never"),
    ]
