"""What the configuration file, the environment and the shipped rows declare, checked: control's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headgate.catalog.presets import Row
from headgate.model import Grant
from headgate.process.boot import AlertSettings
from headgate.process.channel import World


@dataclass(frozen=True)
class Compiled:
    """What the configuration file says.  ``tokens`` by digest; ``secrets`` by Account.id, never printed;
    ``needs_restart``: the keys that differ from what the running processes were started with.  ``world`` has the
    environment's providers and the shipped aliases (origin ``shipped``) too; ``rows`` are all of ``providers/``, and
    ``detect_engines`` says whether to look for engines on this machine.  ``path`` is the file, None where there
    is none.
    """

    world: World
    tokens: dict[bytes, Grant]
    secrets: dict[str, str] = field(repr=False)
    needs_restart: tuple[str, ...] = ()
    rows: Mapping[str, Row] = field(default_factory=dict, repr=False)
    detect_engines: bool = True
    path: str | None = None
    alerting: AlertSettings = field(default_factory=AlertSettings)
