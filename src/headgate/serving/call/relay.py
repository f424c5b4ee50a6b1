"""The pump: what an upstream's read brought goes through the bridge to the client's write, by plain calls.

No task, no queue, no timer per event.  A call has one Relay, and each of its attempts a Pump, one after the other.  The
relay looks after the client's stream every few seconds: a comment where the client has seen nothing for long, a
progress record so that a lost stream is not billed at nothing.
"""

from __future__ import annotations

import logging
import math
import time

from headgate.errors import INTERNAL, UPSTREAM_CUT, GatewayError
from headgate.model import UNLIMITED, SeamRecord
from headgate.ports import StreamBridge, Upstream
from headgate.serving.call import response_headers
from headgate.serving.call.receipt import Receipt
from headgate.serving.client.egress import Egress
from headgate.serving.loop.fiber import Signal
from headgate.serving.loop.wheel import NEVER, Wheel

log = logging.getLogger("headgate.relay")
_monotonic = time.monotonic

PROGRESS_S = 5.0


class Relay:
    """One client's stream.  ``bridge`` is that of the last attempt that answered: it has what the client has."""

    __slots__ = ("_early", "_keep_alive", "_sign", "_wheel", "bridge", "due", "egress", "receipt", "slot")

    def __init__(self, egress: Egress, receipt: Receipt, wheel: Wheel, keep_alive: float, sign: bytes) -> None:
        """``sign``: the events that keep a client from giving up, after so many seconds of silence each."""
        self.egress = egress
        self.receipt = receipt
        self.bridge: StreamBridge | None = None
        self.due = NEVER
        self.slot = -1
        self._wheel = wheel
        self._keep_alive = keep_alive
        self._sign = sign
        self._early: float | None = None

    def commit_after(self, seconds: float) -> None:
        """After so many seconds without anything to see, the head is sent all the same."""
        self._early = self._wheel.now + seconds
        self._wheel.set(self, self._early)

    def begin(self, upstream: Upstream, bridge: StreamBridge, joint: SeamRecord | None = None) -> Pump:
        """Another attempt answers; with ``joint`` it goes on where the client's stream broke."""
        self.bridge = bridge
        return Pump(self, self._wheel, upstream, bridge, joint)  # knows this relay: it is not kept here

    def watch(self) -> None:
        """Look after the client's stream while it flows."""
        if self._early is None or self.egress.committed:
            self._wheel.set(self, self._wheel.now + min(PROGRESS_S, self._keep_alive))

    def rest(self) -> None:
        """Nothing flows any more."""
        self._wheel.drop(self)

    def linger(self) -> None:
        """Another attempt will follow: until it does, a client whose stream has begun is kept from giving up."""
        if self.egress.committed:
            self._wheel.set(self, self.egress.wrote_at + self._keep_alive)
        elif self._early is not None:
            self._wheel.set(self, self._early)

    def commit(self) -> None:
        self.receipt.step("commit")
        self.egress.begin(response_headers.of_stream(self.receipt))

    def expire(self, now: float) -> None:
        """What the wheel calls."""
        egress = self.egress
        if egress.over or egress.gone:  # the call has ended without another stream
            return
        if self._early is not None and not egress.committed:
            self.commit()
            egress.send(self._sign)
        if egress.committed and not egress.paused and now - egress.wrote_at >= self._keep_alive:
            egress.send(self._sign)
        if self.bridge is not None:
            self.receipt.progress(self.bridge.progress)
        self._wheel.set(self, now + min(PROGRESS_S, self._keep_alive))


class Pump:
    """One attempt's part of a client's stream.  An upstream that streams is ``start``ed, and is then its Source."""

    __slots__ = (
        "_egress", "_flowing", "_joint", "_most", "_patience", "_quiet", "_relay", "_seen", "_upstream", "_wheel",
        "bridge", "done",
    )  # fmt: skip

    def __init__(
        self, relay: Relay, wheel: Wheel, upstream: Upstream, bridge: StreamBridge, joint: SeamRecord | None
    ) -> None:
        self.bridge = bridge
        self.done: Signal[None] = Signal()
        self._relay = relay
        self._wheel = wheel
        self._upstream = upstream
        self._egress = relay.egress
        self._patience = upstream.patience
        self._joint = joint  # where this attempt goes on, until the client has been told
        self._seen = 0
        self._quiet = 0.0
        self._flowing = False  # this attempt has something to see
        holding = relay.receipt.holding
        self._most = (
            0 if holding is not None and holding.is_extended else UNLIMITED
        )  # bytes of text, before more is held

    def start(self) -> Signal[None]:
        """Attaches both ends; await the Signal: the bridge has seen the end, or an error."""
        upstream, egress = self._upstream, self._egress
        egress.source = upstream
        self._relay.watch()
        upstream.attach(self)
        if egress.paused:
            upstream.pause()
        return self.done

    def stop(self) -> None:
        """Detaches both ends, whatever happened."""
        self._upstream.detach()
        self._egress.source = None
        self._relay.rest()

    # --------------------------------------------------------------- what the upstream calls

    def feed(self, data: bytes) -> None:
        bridge = self.bridge
        try:
            events = bridge.feed(data)
        except Exception:  # a read that we could not understand must not become a hole in the answer
            log.exception("a bug in the bridge of %s", self._relay.receipt.client_id)
            self._break()
            return
        if events:
            if not self._flowing:
                self.deliver(events)
            elif bridge.view.size < self._most or self._extend():
                self._egress.send(events)
        if bridge.done or bridge.error is not None:
            self.done.set(None)
        elif bridge.events != self._seen:  # comments are no progress: an upstream that only sends those has stalled
            self._seen = bridge.events
            self._patience.last_event_at = self._wheel.now
            if not self._flowing and bridge.begun:  # it speaks, though nothing of it may be shown yet
                self._patience.begin_stalling()
            if bridge.quiet:
                self._mind_the_end(bridge.quiet)

    def _extend(self) -> bool:
        """Whether more of the answer may be sent.  If not, it ends with what the client has."""
        bridge, receipt = self.bridge, self._relay.receipt
        holding = receipt.holding
        hold = holding.hold if holding is not None else None
        if holding is None or hold is None:
            return True
        covered = hold.covered
        tokens = receipt.usage.completion + bridge.used.delivered.completion
        self._most = holding.extend_to_size(bridge.view.size, tokens)
        if self._most == 0:
            receipt.stopped = True
            bridge.stop("length")
            return False
        if hold.covered != covered:
            receipt.progress(tokens)
        return True

    def _mind_the_end(self, quiet: float) -> None:
        """Waits no longer for the end than the bridge says; where it was none, as long as for any event."""
        if quiet == self._quiet:
            return  # what comes behind the end does not put it off
        self._quiet = quiet
        if quiet < math.inf:
            self._patience.begin_ending(quiet)
        else:
            self._patience.begin_stalling()

    def _break(self) -> None:
        self.bridge.error = GatewayError(
            INTERNAL, f"a fault in the gateway; its log tells more under {self._relay.receipt.client_id}"
        )
        self.done.set(None)

    def ended(self) -> None:
        self._close(None)

    def failed(self, error: GatewayError) -> None:
        """The connection broke or a deadline passed: complete where only ``[DONE]`` was lost, else ``error`` is why."""
        self._close(error)

    def _close(self, error: GatewayError | None) -> None:
        bridge = self.bridge
        try:
            events = bridge.close(error is None)
        except Exception:  # as above
            log.exception("a bug in the bridge of %s", self._relay.receipt.client_id)
            self._break()
            return
        if events:
            self.deliver(events)
        if error is not None and bridge.error is not None and bridge.error.kind is UPSTREAM_CUT:
            bridge.error = error
        self.done.set(None)

    def deliver(self, events: bytes) -> None:
        """Whole events for the client; the first ones commit the stream."""
        relay = self._relay
        receipt = relay.receipt
        if not self._egress.committed:
            relay.commit()
        if not receipt.first_token:
            receipt.first_token = _monotonic()
        if not self._flowing:
            self._flowing = True
            self._patience.begin_stalling()
            self.mark_seam()
        self._egress.send(events)

    def mark_seam(self) -> None:
        """Tells the client, once, that another attempt goes on."""
        joint = self._joint
        if joint is not None:
            self._joint = None
            self._relay.receipt.continued.append(joint)
            self._egress.send(response_headers.seam_comment(joint))
