"""The pump: what an upstream's read brought goes through the bridge to the client's write, by plain calls.

No task, no queue, no timer per event.  The relay also looks after a running stream every few seconds: a comment where
the client has seen nothing for long, a progress record so that a lost stream is not billed at nothing.
"""

from __future__ import annotations

import logging

from headgate.errors import INTERNAL, UPSTREAM_CUT, GatewayError
from headgate.ports import StreamBridge
from headgate.serving import heads
from headgate.serving.egress import Egress
from headgate.serving.fiber import Signal
from headgate.serving.receipt import Receipt
from headgate.serving.upstream import Upstream
from headgate.serving.wheel import NEVER, Wheel

log = logging.getLogger("headgate.relay")

KEEP_ALIVE = b": keep-alive\n\n"
PROGRESS_S = 5.0


class Relay:
    """One stream from one upstream to one client.  ``done`` is set when the bridge has seen the end, or an error."""

    __slots__ = (
        "_keep_alive", "_receipt", "_seen", "_wheel", "bridge", "done", "due", "egress", "slot", "upstream",
    )  # fmt: skip

    def __init__(
        self,
        upstream: Upstream,
        bridge: StreamBridge,
        egress: Egress,
        receipt: Receipt,
        wheel: Wheel,
        keep_alive: float,
    ) -> None:
        self.upstream = upstream
        self.bridge = bridge
        self.egress = egress
        self.done: Signal[None] = Signal()
        self.due = NEVER
        self.slot = -1
        self._wheel = wheel
        self._keep_alive = keep_alive
        self._receipt = receipt
        self._seen = 0

    def start(self) -> Signal[None]:
        """Attaches both ends; await the Signal."""
        self.egress.source = self.upstream
        self._wheel.set(self, self._wheel.now + min(PROGRESS_S, self._keep_alive))
        self.upstream.attach(self)
        if self.egress.paused:
            self.upstream.pause()
        return self.done

    def stop(self) -> None:
        """Detaches both ends, whatever happened."""
        self.upstream.sink = None
        self.egress.source = None
        self._wheel.drop(self)

    # --------------------------------------------------------------- what the upstream calls

    def feed(self, data: bytes) -> None:
        bridge = self.bridge
        try:
            events = bridge.feed(data)
        except Exception:  # a read that we could not understand must not become a hole in the answer
            log.exception("a bug in the bridge of %s", self._receipt.id)
            self._break()
            return
        if events:
            if self.egress.committed:
                self.egress.send(events)
            else:
                self.deliver(events)
        if bridge.done or bridge.error is not None:
            self.done.set(None)
        elif bridge.events != self._seen:  # comments are no progress: an upstream that only sends those has stalled
            self._seen = bridge.events
            self.upstream.heard = self._wheel.now

    def _break(self) -> None:
        self.bridge.error = GatewayError(
            INTERNAL, f"a fault in the gateway; its log tells more under {self._receipt.id}"
        )
        self.done.set(None)

    def ended(self) -> None:
        try:
            events = self.bridge.close()
        except Exception:  # as above
            log.exception("a bug in the bridge of %s", self._receipt.id)
            self._break()
            return
        if events:
            self.deliver(events)
        self.done.set(None)

    def failed(self, error: GatewayError) -> None:
        """The connection broke or a deadline passed: complete where only ``[DONE]`` was lost, else ``error`` is why."""
        events = self.bridge.close()
        if events:
            self.deliver(events)
        found = self.bridge.error
        if found is not None and found.kind is UPSTREAM_CUT:
            self.bridge.error = error
        self.done.set(None)

    def deliver(self, events: bytes) -> None:
        """Whole events for the client; the first ones commit the stream."""
        if not self.egress.committed:
            self._receipt.commit()
            self.egress.begin(heads.of_stream(self._receipt))
            self.upstream.begin_stalling()
        self.egress.send(events)

    # --------------------------------------------------------------- what the wheel calls

    def expire(self, now: float) -> None:
        egress = self.egress
        if egress.committed and not egress.paused and now - egress.wrote_at >= self._keep_alive:
            egress.send(KEEP_ALIVE)
        self._receipt.progress(self.bridge.progress)
        self._wheel.set(self, now + min(PROGRESS_S, self._keep_alive))
