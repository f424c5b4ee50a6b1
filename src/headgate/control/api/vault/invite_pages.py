"""/invite/…: the pages on which a contributor pastes a key, or removes it again.

For people without a token here: the link is what lets them in.  Plain HTML without scripts, never cached, never framed;
their address goes to no other site.  Refuses more requests than a person makes.  No page shows a key.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from html import escape
from urllib.parse import parse_qs

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.exc import SQLAlchemyError

from headgate.control.api.parts import Admin
from headgate.control.identity.invites import Invite
from headgate.control.objects.assemble import Sources, all_providers
from headgate.control.refusals import INVITE_OVER
from headgate.control.snapshot.contributors import PATH, Contributors
from headgate.errors import GatewayError
from headgate.model.bounded import Bounded

MINUTE_S = 60.0
ALL_LINKS, ONE_LINK = 120, 10  # requests a minute
GONE = 410
log = structlog.get_logger("headgate.api")

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 34rem; margin: 12vh auto; padding: 0 1.25rem; }
h1 { font-size: 1.35rem; margin: 0 0 1rem; }
label { display: block; font-weight: 600; margin: 1.5rem 0 .35rem; }
input { box-sizing: border-box; width: 100%; font: inherit; padding: .55rem .7rem; border: 1px solid #888;
  border-radius: .4rem; background: transparent; color: inherit; }
button { font: inherit; font-weight: 600; margin-top: 1rem; padding: .55rem 1.2rem; border: 0; border-radius: .4rem;
  background: #1f5fbf; color: #fff; cursor: pointer; }
button.remove { background: #b3261e; }
.note { border-left: 3px solid #888; padding-left: .9rem; }
.wrong { border-left: 3px solid #b3261e; padding-left: .9rem; }
.small { color: #777; font-size: .875rem; }
code { overflow-wrap: anywhere; }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex, nofollow",
    "cross-origin-opener-policy": "same-origin",
}


class Throttle:
    """So many requests within a minute, of each key and of all.  Mutable: their times."""

    def __init__(self) -> None:
        self._all: deque[float] = deque()
        self._each: Bounded[str, deque[float]] = Bounded(1024)

    def admits(self, key: str, now: float) -> bool:
        """True if this one may pass; it is counted then."""
        each = self._each.get(key)
        if each is None:
            each = deque()
            self._each.put(key, each)
        for times in (self._all, each):
            while times and times[0] + MINUTE_S <= now:
                times.popleft()
        if len(self._all) >= ALL_LINKS or len(each) >= ONE_LINK:
            return False
        self._all.append(now)
        each.append(now)
        return True


def routes(admin: Admin) -> APIRouter:
    """The pages.  They are no part of the API, and of its documentation."""
    pages = APIRouter(include_in_schema=False)
    contributors, publication = admin.publishing.contributors, admin.publication
    throttle = Throttle()

    async def answered(token: str, page: Callable[[], Awaitable[HTMLResponse]]) -> HTMLResponse:
        if not throttle.admits(token[:64], time.monotonic()):
            return _refusal(429, "Too many requests. Wait a minute, then try again.", {"retry-after": "60"})
        try:
            return await page()
        except GatewayError as error:
            return _refusal(GONE if error.kind is INVITE_OVER else error.kind.status, error.message)
        except (SQLAlchemyError, OSError) as error:
            log.error("the store could not be used for an invite", error=type(error).__name__)
            return _refusal(503, "The gateway's store cannot be used at the moment. Try again later.")

    @pages.get(PATH + "withdraw/{token}")
    async def ask_to_withdraw(token: str) -> HTMLResponse:
        async def page() -> HTMLResponse:
            return _page(200, "Remove your key?", _leaving(await contributors.look_back(token), publication.sources))

        return await answered(token, page)

    @pages.post(PATH + "withdraw/{token}")
    async def withdraw(token: str) -> HTMLResponse:
        async def page() -> HTMLResponse:
            invite = await contributors.withdraw(token)
            name = _title(invite, publication.sources)
            return _page(200, "Your key was removed", f"<p>Your key for {name} is not stored here any more.</p>")

        return await answered(token, page)

    @pages.get(PATH + "{token}")
    async def ask_for_key(token: str) -> HTMLResponse:
        async def page() -> HTMLResponse:
            invite = await contributors.look(token)
            return _page(200, f"Your key for {_title(invite, publication.sources)}", _form(invite))

        return await answered(token, page)

    @pages.post(PATH + "{token}")
    async def take_key(token: str, request: Request) -> HTMLResponse:
        given = parse_qs((await request.body()).decode("latin-1"), keep_blank_values=True).get("key", [""])[0]

        async def page() -> HTMLResponse:
            return await _taken(contributors, publication.sources, token, given)

        return await answered(token, page)

    return pages


async def _taken(contributors: Contributors, sources: Sources, token: str, key: str) -> HTMLResponse:
    """The page after a key was sent.  Raises GatewayError where the link is not good."""
    invite = await contributors.look(token)
    title = _title(invite, sources)
    try:
        if not key.strip():
            return _page(400, f"Your key for {title}", _form(invite, "No key was given."))
        done = await contributors.contribute(token, key)
    except GatewayError as error:
        if error.kind is INVITE_OVER:
            raise
        return _page(400, f"Your key for {title}", _form(invite, error.message))
    link = escape(done.withdrawal)
    return _page(
        200,
        "Thank you, your key is stored",
        f"<p>{title} has taken it ({escape(done.said)}). It is kept encrypted, and is never shown.</p>"
        "<p><strong>Keep this link.</strong> It removes your key again, and it is shown only now:</p>"
        f'<p><code><a href="{link}">{link}</a></code></p>',
    )


def _form(invite: Invite, wrong: str = "") -> str:
    note = f'<p class="note">{escape(invite.note)}</p>' if invite.note else ""
    problem = f'<p class="wrong" role="alert">{escape(wrong)}</p>' if wrong else ""
    until = time.strftime("%d %B %Y, %H:%M UTC", time.gmtime(invite.expires_at / 1e9))
    return (
        f"{note}{problem}"
        "<p>You were asked to lend a key of yours to a Headgate gateway. It is tried once, then stored encrypted. "
        "Those who run the gateway are not shown it, and you can remove it at any time.</p>"
        '<form method="post"><label for="key">API key</label>'
        '<input id="key" name="key" type="password" autocomplete="off" spellcheck="false" autofocus required '
        'maxlength="4096"><button>Store the key</button></form>'
        f'<p class="small">This link is good once, until {until}.</p>'
    )


def _leaving(invite: Invite, sources: Sources) -> str:
    return (
        f"<p>The gateway will not use your key for {_title(invite, sources)} any more, and forgets it. This cannot be "
        "undone.</p>"
        '<form method="post"><button class="remove">Remove the key</button></form>'
    )


def _title(invite: Invite, sources: Sources) -> str:
    provider, row = all_providers(sources).get(invite.provider), sources.compiled.rows.get(invite.provider)
    return escape((provider and provider.title) or (row and row.title) or invite.provider)


def _refusal(status: int, sentence: str, more: dict[str, str] | None = None) -> HTMLResponse:
    return _page(status, "This did not work", f'<p class="wrong">{escape(sentence)}</p>', more)


def _page(status: int, title: str, body: str, more: dict[str, str] | None = None) -> HTMLResponse:
    """``title`` and ``body`` are HTML."""
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main><h1>{title}</h1>{body}</main></body></html>"
    )
    return HTMLResponse(text, status, {**HEADERS, **(more or {})})
