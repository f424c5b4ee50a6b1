"""``/v1/streams/{id}``: resume a kept stream after any event, or stop it.

Owns the rights and the parameters; ``replay`` does the reading.
"""

from __future__ import annotations

import time

import msgspec

from headgate.catalog import parameters
from headgate.errors import INVALID_VALUE, STREAM_STOPPED, GatewayError
from headgate.model.receipt_ids import bare
from headgate.policy import auth, on_disconnect
from headgate.serving.client.egress import Egress
from headgate.serving.public.catalog import rest_of
from headgate.serving.replay.keeper import ReplayKeeper
from headgate.serving.replay.stream import KeptStream
from headgate.serving.uplink.directory import SnapshotDirectory
from headgate.wire.http import Request

PARAMETERS = ("after", "expires", "signature")


class Streams:
    """The operations.  They raise GatewayError where there is nothing to answer with."""

    def __init__(self, replay: ReplayKeeper, directory: SnapshotDirectory) -> None:
        self._replay = replay
        self._directory = directory

    def read(self, request: Request, egress: Egress) -> None:
        """The events behind the last one that the client has: those that are kept, then those that come.

        204 where there are no more (RFC 9110 §15.3.5; to a browser's EventSource: do not come back).
        """
        query = parameters.read(request.query, PARAMETERS)
        stream = self._find(request, query)
        after = on_disconnect.count(query["after"], "after") if "after" in query else 0
        if last_event_id := request.headers.get(b"last-event-id"):  # newer than the address it comes with
            after = on_disconnect.event_number(stream.client_id, last_event_id)
        last = stream.ring.last if stream.ring is not None else 0
        if after > last:
            raise GatewayError(INVALID_VALUE, f"this stream has sent {last} events so far.", param="after")
        if stream.over and after == last:
            egress.empty(204, b"x-headgate-stream-id: %b\r\n" % stream.client_id.encode())
        else:
            stream.follow(egress, after)

    def stop(self, request: Request, egress: Egress) -> None:
        """Ends the generation.  A stream that has ended by itself stays as it is."""
        kept = self._find(request, parameters.read(request.query, PARAMETERS))
        status = "finished" if kept.over else "stopped"
        kept.stop(GatewayError(STREAM_STOPPED, "this stream was stopped by a DELETE"))
        body = {"id": kept.client_id, "object": "headgate.stream", "status": status}
        egress.answer(200, b"", msgspec.json.encode(body))

    def _find(self, request: Request, query: dict[str, str]) -> KeptStream:
        ident = bare(rest_of(request.path, b"/streams/") or "") or ""
        if "signature" in query and self._replay.vouches(ident, query.get("expires", ""), query["signature"]):
            return self._replay.find(ident, None)
        directory = self._directory
        grant = auth.check(request.headers, directory.snapshot.tokens, directory.digester, time.time())
        return self._replay.find(ident, grant.id)
