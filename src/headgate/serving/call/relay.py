"""The pump: what an upstream's read brought goes through the bridge to the client's write, by plain calls.

No task, no queue, no timer per event.  A call has one relay, and each of its attempts runs through it in turn.  It also
looks after the client's stream every few seconds: a comment where the client has seen nothing for long, a progress
record so that a lost stream is not billed at nothing.
"""

from __future__ import annotations

import logging
import math
import time
from typing import cast

from headgate.errors import INTERNAL, UPSTREAM_CUT, GatewayError
from headgate.model import SeamRecord
from headgate.ports import StreamBridge, StreamDeadlines, Upstream
from headgate.serving.call import response_headers
from headgate.serving.call.receipt import Receipt
from headgate.serving.client.egress import Egress
from headgate.serving.loop.fiber import Signal
from headgate.serving.loop.wheel import NEVER, Wheel

log = logging.getLogger("headgate.relay")
_monotonic = time.monotonic

KEEP_ALIVE = b": keep-alive\n\n"
PROGRESS_S = 5.0


class Relay:
    """One client's stream.  ``bridge`` is the last attempt's: what the client has seen is in it.

    An attempt ``begin``s with its bridge and, where its upstream streams, is then ``start``ed.
    """

    __slots__ = (
        "_early", "_flowing", "_joint", "_keep_alive", "_patience", "_quiet", "_receipt", "_seen", "_wheel", "bridge",
        "done", "due", "egress", "slot", "upstream",
    )  # fmt: skip

    def __init__(self, egress: Egress, receipt: Receipt, wheel: Wheel, keep_alive: float) -> None:
        self.egress = egress
        self.bridge = cast(StreamBridge, None)  # until ``begin``
        self.upstream = cast(Upstream, None)
        self._patience: StreamDeadlines
        self.done: Signal[None]
        self.due = NEVER
        self.slot = -1
        self._wheel = wheel
        self._keep_alive = keep_alive
        self._receipt = receipt
        self._seen = 0
        self._quiet = 0.0
        self._flowing = False  # this attempt has something to see
        self._early: float | None = None
        self._joint: SeamRecord | None = None  # where this attempt goes on, until the client has been told

    def commit_after(self, seconds: float) -> None:
        """After so many seconds without anything to see, the head is sent all the same."""
        self._early = self._wheel.now + seconds
        self._wheel.set(self, self._early)

    @property
    def begun(self) -> bool:
        """There has been an attempt that answered with a stream."""
        return cast("StreamBridge | None", self.bridge) is not None

    def begin(self, upstream: Upstream, bridge: StreamBridge, joint: SeamRecord | None = None) -> None:
        """Another attempt answers; with ``joint`` it goes on where the client's stream broke."""
        self.bridge = bridge
        self._joint = joint
        self.upstream = upstream
        self._patience = upstream.patience
        self._seen = 0
        self._quiet = 0.0
        self._flowing = False

    def start(self) -> Signal[None]:
        """Attaches both ends; await the Signal: the bridge has seen the end, or an error."""
        upstream = self.upstream
        done = self.done = Signal()
        self.egress.source = upstream
        if self._early is None or self.egress.committed:
            self._wheel.set(self, self._wheel.now + min(PROGRESS_S, self._keep_alive))
        upstream.attach(self)
        if self.egress.paused:
            upstream.pause()
        return done

    def stop(self) -> None:
        """Detaches both ends, whatever happened."""
        self.upstream.detach()
        self.egress.source = None
        self._wheel.drop(self)

    def linger(self) -> None:
        """Another attempt will follow: until it does, a client whose stream has begun is kept from giving up."""
        if self.egress.committed:
            self._wheel.set(self, self.egress.wrote_at + self._keep_alive)
        elif self._early is not None:
            self._wheel.set(self, self._early)

    # --------------------------------------------------------------- what the upstream calls

    def feed(self, data: bytes) -> None:
        bridge = self.bridge
        try:
            events = bridge.feed(data)
        except Exception:  # a read that we could not understand must not become a hole in the answer
            log.exception("a bug in the bridge of %s", self._receipt.client_id)
            self._break()
            return
        if events:
            if self._flowing:
                self.egress.send(events)
            else:
                self.deliver(events)
        if bridge.done or bridge.error is not None:
            self.done.set(None)
        elif bridge.events != self._seen:  # comments are no progress: an upstream that only sends those has stalled
            self._seen = bridge.events
            self._patience.last_event_at = self._wheel.now
            if not self._flowing and bridge.begun:  # it speaks, though nothing of it may be shown yet
                self._patience.begin_stalling()
            if bridge.quiet:
                self._mind_the_end(bridge.quiet)

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
            INTERNAL, f"a fault in the gateway; its log tells more under {self._receipt.client_id}"
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
            log.exception("a bug in the bridge of %s", self._receipt.client_id)
            self._break()
            return
        if events:
            self.deliver(events)
        if error is not None and bridge.error is not None and bridge.error.kind is UPSTREAM_CUT:
            bridge.error = error
        self.done.set(None)

    def deliver(self, events: bytes) -> None:
        """Whole events for the client; the first ones commit the stream."""
        receipt = self._receipt
        if not self.egress.committed:
            self._commit()
        if not receipt.first_token:
            receipt.first_token = _monotonic()
        if not self._flowing:
            self._flowing = True
            self._patience.begin_stalling()
            self.mark_seam()
        self.egress.send(events)

    def mark_seam(self) -> None:
        """Tells the client, once, that another attempt goes on."""
        joint = self._joint
        if joint is not None:
            self._joint = None
            self._receipt.continued.append(joint)
            self.egress.send(response_headers.seam_comment(joint))

    def _commit(self) -> None:
        self._receipt.step("commit")
        self.egress.begin(response_headers.of_stream(self._receipt))

    # --------------------------------------------------------------- what the wheel calls

    def expire(self, now: float) -> None:
        egress = self.egress
        if egress.over or egress.gone:  # the call has ended without another stream
            return
        if self._early is not None and not egress.committed and not egress.gone:
            self._commit()
            egress.send(KEEP_ALIVE)
        if egress.committed and not egress.paused and now - egress.wrote_at >= self._keep_alive:
            egress.send(KEEP_ALIVE)
        if self.begun:
            self._receipt.progress(self.bridge.progress)
        self._wheel.set(self, now + min(PROGRESS_S, self._keep_alive))
