"""The table of paths: the Application that gets the listener's requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import msgspec

from headgate.catalog import parameters
from headgate.dialects import registry
from headgate.dialects.base import Client, CountedBy
from headgate.errors import (
    DRAINING,
    INVALID_JSON,
    METHOD_NOT_ALLOWED,
    NO_WEBSOCKET,
    PAYLOAD_TOO_LARGE,
    REQUEST_NOT_FOUND,
    ROUTE_NOT_FOUND,
    ClientGone,
    GatewayError,
)
from headgate.model import Grant
from headgate.policy import auth
from headgate.policy.admission import standings
from headgate.serving.call import response_headers
from headgate.serving.call.exchange import Exchange
from headgate.serving.client.egress import Egress
from headgate.serving.loop.fiber import Fiber, Signal, next_turn
from headgate.serving.public.catalog import Lists, TaggedBody, rest_of, unchanged
from headgate.serving.public.streams import Streams
from headgate.serving.replay.stream import CUT_SHORT
from headgate.serving.uplink.directory import SnapshotDirectory
from headgate.serving.uplink.journal import Refusals
from headgate.serving.uplink.link import Uplink
from headgate.wire import urls
from headgate.wire.http import Request

PREFIXES = ("/v1", "/api/gate/v1", "")
BETA = "/v1beta"  # of an API whose paths name a model
ASK_S = 5.0
_ALLOWED_HEADERS = b"authorization, x-api-key, content-type, idempotency-key, last-event-id"
LARGE = 16 << 10  # a body that waits for a client to take what was sent before
MAX_WISH = 64 << 10  # of a token's child
AWAY_S = 2  # the pause before a question that control did not answer is sent again

log = logging.getLogger("headgate.routes")

Operation = Callable[[Request, Egress], None]
Params = Callable[[Grant], dict[str, str]]
Listing = Callable[[Request], Awaitable[TaggedBody]]


class Routes:
    """See application.Application."""

    def __init__(
        self,
        exchange: Exchange,
        directory: SnapshotDirectory,
        link: Uplink,
        refusals: Refusals,
        cors_origins: tuple[str, ...],
        summary: Callable[[], Mapping[str, object]],
        streams: Streams,
        public_catalog: bool = True,
    ) -> None:
        self._exchange = exchange
        self._directory = directory
        self._link = link
        self._refusals = refusals
        self._origins = frozenset(origin.encode() for origin in cors_origins)
        self._summary = summary
        lists = Lists(directory, public_catalog)
        self._running: set[Fiber] = set()
        self._clients: dict[bytes, Client] = {}  # by path
        self._table: dict[bytes, dict[bytes, Operation]] = {}
        self._collections: dict[bytes, dict[bytes, Operation]] = {}
        for path in (b"/", b"/api/hello"):  # agents look here whether there is a server at all
            self._table[path] = _read_only(self._livez)
        named = [client for client in registry.CLIENTS.values() if client.path.endswith("/")]
        self._roots = {f"{prefix}{one.path}".encode(): one for prefix in (*PREFIXES, BETA) for one in named}
        for prefix in PREFIXES:
            for client in registry.CLIENTS.values():
                if client in named:
                    continue
                route = f"{prefix}{client.path}".encode()
                self._clients[route] = client
                self._table[route] = {b"POST": partial(self._call, client)}
                if client.counts is not None:
                    route = f"{prefix}{client.counts.path}".encode()
                    self._clients[route] = client
                    self._table[route] = {b"POST": partial(self._count, client, client.counts)}
            self._table[f"{prefix}/models".encode()] = self._read(lists.models)
            self._collections[f"{prefix}/models/".encode()] = self._read(lists.model)
            self._table[f"{prefix}/aliases".encode()] = self._read(lists.aliases)
            self._table[f"{prefix}/providers".encode()] = self._read(lists.providers)
            self._table[f"{prefix}/usage".encode()] = _read_only(self._usage)
            self._table[f"{prefix}/tokens".encode()] = {**_read_only(self._children), b"POST": self._mint}
            self._collections[f"{prefix}/tokens/".encode()] = {b"DELETE": self._end_child}
            self._collections[f"{prefix}/requests/".encode()] = _read_only(self._request)
            self._collections[f"{prefix}/streams/".encode()] = {
                b"GET": self._refusing(streams.read),
                b"DELETE": self._refusing(streams.stop),
            }
            self._table[f"{prefix}/health".encode()] = _read_only(self._health)
            self._table[f"{prefix}/livez".encode()] = _read_only(self._livez)
            self._table[f"{prefix}/readyz".encode()] = _read_only(self._readyz)

        for root, client in self._roots.items():  # of paths that name a model
            self._collections.setdefault(root, {})[b"POST"] = partial(self._call_named, client)

    @property
    def running(self) -> int:
        return len(self._running)

    def close(self) -> None:
        """Raise ``draining`` in each running call; it tells its client and closes its receipt."""
        for fiber in tuple(self._running):
            try:
                fiber.throw(GatewayError(DRAINING, CUT_SHORT, retry_after=1))
            except Exception:  # the edge of a call: one's bug must not keep the others from their receipts
                log.exception("a bug in a %s that was ended", fiber.name)

    def drain(self) -> None:
        self._exchange.queue.drain()

    def call(self, request: Request, egress: Egress) -> None:
        operations = self._table.get(request.path) or self._collection(request.path)
        if operations is None:
            self.refuse(
                GatewayError(ROUTE_NOT_FOUND, f"there is nothing at {request.path[:200].decode('latin-1')}"),
                request,
                egress,
            )
            return
        operation = operations.get(request.method)
        if operation is not None:
            operation(request, egress)
        elif request.method == b"OPTIONS":
            self._preflight(request, egress, operations)
        elif request.path in self._clients and b"sec-websocket-key" in request.headers:
            # Codex goes on with events at once after 426, and only after many attempts with any other status
            said = "this path has no WebSocket: POST the request, the answer comes as server-sent events"
            self.refuse(
                GatewayError(NO_WEBSOCKET, said), request, egress, b"Upgrade: HTTP/1.1\r\n" + _allow(operations)
            )
        else:
            allowed = ", ".join(sorted(name.decode() for name in operations))
            self.refuse(
                GatewayError(METHOD_NOT_ALLOWED, f"this path takes {allowed}"), request, egress, _allow(operations)
            )

    def reads_body(self, request: Request) -> bool:
        operations = self._table.get(request.path) or self._collection(request.path)
        if operations is None or request.method != b"POST" or b"POST" not in operations:
            return False
        directory = self._directory
        if any(request.path.startswith(root) for root in self._roots):
            _adopt_key(request)
        try:
            auth.check(request.headers, directory.snapshot.tokens, directory.digester, time.time())
        except GatewayError:
            return False  # ``call`` comes to the same verdict, and answers and counts it
        return True

    def refuse(self, error: GatewayError, request: Request, egress: Egress, fields: bytes = b"") -> None:
        self._refusals.count(error.kind.code)
        client = self._client_of(request)
        egress.answer(error.kind.status, response_headers.of_refusal(error) + fields, client.error_body(error))

    def allowed_origin(self, origin: bytes) -> bytes | None:
        if b"*" in self._origins:
            return b"*"
        return origin if origin in self._origins else None

    def _client_of(self, request: Request) -> Client:
        """The API whose errors the request's sender reads."""
        found = self._clients.get(request.path)
        if found is None and request.method == b"POST" and b":" in request.path:
            found = next((client for root, client in self._roots.items() if request.path.startswith(root)), None)
        return found or registry.DEFAULT

    def _collection(self, path: bytes) -> dict[bytes, Operation] | None:
        """The operations on one member: ids may have slashes."""
        for parent, operations in self._collections.items():
            if path.startswith(parent) and len(path) > len(parent):
                return operations
        return None

    # --------------------------------------------------------------- operations

    def _call(self, client: Client, request: Request, egress: Egress) -> None:
        self._start(self._exchange.run(request, egress, client), "call", egress)

    def _count(self, client: Client, counts: CountedBy, request: Request, egress: Egress) -> None:
        self._start(self._exchange.counting.run(request, egress, client, counts), "count", egress)

    def _call_named(self, client: Client, request: Request, egress: Egress) -> None:
        """A call, or a count, whose path names its model and its method."""
        if b":" not in request.path:
            said = "this path takes GET; a call names its method behind the model and a colon"
            self.refuse(GatewayError(METHOD_NOT_ALLOWED, said), request, egress, b"Allow: GET, HEAD, OPTIONS\r\n")
            return
        _adopt_key(request)
        client = client.begin(request.path, request.query)
        if client.counts is not None:
            self._count(client, client.counts, request, egress)
        else:
            self._call(client, request, egress)

    def _start(self, coroutine: object, name: str, egress: Egress) -> None:
        fiber = Fiber(coroutine, name, self._running.discard)  # type: ignore[arg-type]  # Exchange.run and _question
        self._running.add(fiber)
        egress.owner = fiber
        fiber.step()

    def _refusing(self, operation: Operation) -> Operation:
        """``operation``, with what it raises answered."""

        def refusing(request: Request, egress: Egress) -> None:
            try:
                operation(request, egress)
            except GatewayError as error:
                self.refuse(error, request, egress)

        return refusing

    def _livez(self, request: Request, egress: Egress) -> None:
        egress.answer(200, b"", b'{"status":"ok"}')

    def _readyz(self, request: Request, egress: Egress) -> None:
        summary = self._summary()
        ready = summary["status"] == "ok"
        egress.answer(200 if ready else 503, b"", msgspec.json.encode({"status": summary["status"]}))

    def _health(self, request: Request, egress: Egress) -> None:
        egress.answer(200, b"Cache-Control: no-store\r\n", msgspec.json.encode(self._summary()))

    def _usage(self, request: Request, egress: Egress) -> None:
        self._start(self._question(request, egress, "usage", self._used, "gate:usage"), "usage", egress)

    def _request(self, request: Request, egress: Egress) -> None:
        ident = rest_of(request.path, b"/requests/")
        self._start(self._question(request, egress, "request", partial(_with_id, ident)), "request", egress)

    def _children(self, request: Request, egress: Egress) -> None:
        self._start(self._question(request, egress, "children", _nothing), "children", egress)

    def _mint(self, request: Request, egress: Egress) -> None:
        self._start(self._question(request, egress, "mint", partial(_wish, request.body)), "mint", egress)

    def _end_child(self, request: Request, egress: Egress) -> None:
        ident = rest_of(request.path, b"/tokens/")
        self._start(self._question(request, egress, "end", partial(_with_id, ident)), "end", egress)

    def _used(self, grant: Grant) -> dict[str, str]:
        """What the token has used of its limits and budgets: only the counters here know."""
        directory = self._directory
        found = standings.of_grant(directory.router.quotas, directory.counters, grant, time.time())
        return {"standings": msgspec.json.encode(found).decode()}

    async def _question(
        self, request: Request, egress: Egress, kind: str, params: Params, scope: str = "gate:chat"
    ) -> None:
        """Ask control, with a deadline, for an answer that only the store has."""
        try:
            directory = self._directory
            grant = auth.check(request.headers, directory.snapshot.tokens, directory.digester, time.time(), scope)
            parameters.read(request.query)
            answer = await self._link.ask(kind, grant.id, params(grant), ASK_S)
        except ClientGone:
            return
        except GatewayError as error:
            self.refuse(error, request, egress)
            return
        fields = b"Cache-Control: no-store\r\n"
        if answer.status == 503:
            fields += b"Retry-After: %d\r\nretry-after-ms: %d\r\n" % (AWAY_S, AWAY_S * 1000)
        egress.answer(answer.status, fields, answer.body)

    def _read(self, listing: Listing) -> dict[bytes, Operation]:
        """The operations that are answered from the Snapshot."""
        return _read_only(lambda request, egress: self._start(self._listed(listing, request, egress), "list", egress))

    async def _listed(self, listing: Listing, request: Request, egress: Egress) -> None:
        try:
            page = await listing(request)
            if len(page.body) > LARGE:
                await _room(egress)
        except ClientGone:
            return
        except GatewayError as error:
            self.refuse(error, request, egress)
            return
        fields = b"%bETag: %b\r\n" % (page.fields, page.etag)
        if unchanged(request, page.etag):
            egress.empty(304, fields)
        else:
            egress.answer(200, fields, page.body)

    def _preflight(self, request: Request, egress: Egress, operations: Mapping[bytes, Operation]) -> None:
        """Answer a CORS preflight (WHATWG Fetch §4.8): a browser sends it before an Authorization header."""
        fields = _allow(operations)
        origin = request.headers.get(b"origin")
        if origin is not None and self.allowed_origin(origin) is not None:
            wanted = request.headers.get(b"access-control-request-headers", _ALLOWED_HEADERS)
            fields += (
                b"Access-Control-Allow-Methods: " + b", ".join(operations) + b"\r\n"
                b"Access-Control-Allow-Headers: " + wanted[:1024] + b"\r\n"
                b"Access-Control-Max-Age: 86400\r\n"
            )
        egress.empty(204, fields)


def _adopt_key(request: Request) -> None:
    """Take the token from the query (``?key=``), as clients of some APIs send it.  A token in a header comes first."""
    if b"key=" not in request.query or auth.carried(request.headers):
        return
    key = dict(urls.parameters(request.query)).get("key", "")
    if key.isascii() and key.isprintable():
        request.headers[b"x-api-key"] = key.encode()


def _nothing(_grant: Grant) -> dict[str, str]:
    return {}


def _with_id(ident: str | None, _grant: Grant) -> dict[str, str]:
    """Raises GatewayError (404) where the id is impossible."""
    if ident is None:
        raise GatewayError(REQUEST_NOT_FOUND, "the id is invalid: it must have 1 to 256 printable characters")
    return {"id": ident}


def _wish(body: bytes, _grant: Grant) -> dict[str, str]:
    """Raises GatewayError (400, 413)."""
    if len(body) > MAX_WISH:
        raise GatewayError(PAYLOAD_TOO_LARGE, f"the body may have {MAX_WISH >> 10} KiB at most")
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        raise GatewayError(INVALID_JSON, "the body is not UTF-8") from None


def _read_only(operation: Operation) -> dict[bytes, Operation]:
    return {b"GET": operation, b"HEAD": operation}


def _allow(operations: Mapping[bytes, Operation]) -> bytes:
    return b"Allow: " + b", ".join([*operations, b"OPTIONS"]) + b"\r\n"


class _Room:
    """See egress.Source: tells when a client that has read too little has gone on reading."""

    def __init__(self) -> None:
        self.found: Signal[None] = Signal()

    def pause(self) -> None:
        """It is waited for already."""

    def resume(self) -> None:
        self.found.set(None)


async def _room(egress: Egress) -> None:
    """Until what was written to this client before is on its way: pipelined large answers must not pile up in memory.
    A write is tried at the end of its turn, so that only the next one can tell.
    """
    await next_turn()
    if egress.paused:
        room = egress.source = _Room()
        await room.found
        egress.source = None
