"""Shipped fakes on real sockets, for Headgate's tests and for yours.

::

    async with serve() as provider:           # echo, lorem, engine, fault/<name>; provider.url, provider.requests
    with serve_in_thread() as provider:       # the same without an event loop
    async with scripted([...]) as upstream:   # exactly these bytes
    ManualClock()                             # time that only a test moves

``python -m headgate.testing --port 9100`` serves the provider on its own.  It imports asyncio, httptools and msgspec,
nothing heavier.
"""

from headgate.testing.clock import ManualClock
from headgate.testing.faults.scene import FAULTS, Fault
from headgate.testing.provider.provider import Provider, exchanges, serve
from headgate.testing.provider.scripted import Script, ScriptedUpstream, Step, scripted
from headgate.testing.provider.server import ReceivedRequest, Seen
from headgate.testing.provider.threaded import serve_in_thread

__all__ = [
    "FAULTS",
    "Fault",
    "ManualClock",
    "Provider",
    "ReceivedRequest",
    "Script",
    "ScriptedUpstream",
    "Seen",
    "Step",
    "exchanges",
    "scripted",
    "serve",
    "serve_in_thread",
]
