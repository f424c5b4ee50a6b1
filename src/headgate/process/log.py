"""One line per event, the same from every process of the gateway: ``console`` for people, ``json`` for programs.

::

    12:03:11 info    control  configuration reloaded  generation=12
    {"time":"2026-11-28T12:03:11.412Z","level":"info","source":"control","event":"configuration reloaded",…}

Owns the form of a line, for the standard library's logging and for structlog alike.  A terminal gets the time of day
and colours (not with NO_COLOR), other outputs the date and UTC. Control characters are escaped, because the lines
contain names that clients chose.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple, TextIO

import msgspec

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "console", "json")
_PALETTE = {"debug": "2", "info": "", "warning": "33", "error": "31"}
_UNSAFE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {0x2028: "\\u2028", 0x2029: "\\u2029"}


class LineForm(NamedTuple):
    """The form of lines on one stream."""

    json: bool
    terminal: bool
    colour: bool


class LogLine(NamedTuple):
    """One event.  ``at`` is Unix seconds; ``fields`` follow the event as ``key=value``."""

    at: float
    level: str
    source: str
    event: str
    fields: Mapping[str, object] = {}


def form_of(name: str, stream: TextIO) -> LineForm:
    """``auto`` is ``console``: coloured on a terminal."""
    terminal = stream.isatty()
    return LineForm(name == "json", terminal, terminal and not os.environ.get("NO_COLOR"))


def drawn(line: LogLine, form: LineForm) -> str:
    """Return the line, without its end."""
    if form.json:
        when = datetime.fromtimestamp(line.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        table = {"time": when, "level": line.level, "source": line.source, "event": line.event, **line.fields}
        return msgspec.json.encode(table, enc_hook=str).decode()
    when = time.strftime("%H:%M:%S", time.localtime(line.at)) if form.terminal else _utc(line.at)
    fields = "".join(f"  {name}={_value(value)}" for name, value in line.fields.items())
    text = f"{when} {line.level:<7} {line.source:<8} {safe(line.event)}{fields}"
    shade = _PALETTE.get(line.level, "")
    return f"\x1b[{shade}m{text}\x1b[0m" if form.colour and shade else text


def safe(text: str) -> str:
    """Return ``text`` on one line, without control characters that a terminal would obey."""
    return text if text.isprintable() else text.translate(_UNSAFE)


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _value(value: object) -> str:
    text = safe(str(value))
    return f'"{text}"' if " " in text or text == "" else text


class Formatter(logging.Formatter):
    """For the standard library's logging.  ``headgate.listener`` is the source ``listener``."""

    def __init__(self, form: LineForm) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        event = record.getMessage()
        if record.exc_info:
            event += "\n" + self.formatException(record.exc_info)
        source = record.name.rpartition(".")[2]
        line = drawn(LogLine(record.created, record.levelname.lower(), source, event.partition("\n")[0]), self._form)
        rest = event.partition("\n")[2]
        return f"{line}\n{rest}" if rest and not self._form.json else line


def configure(level: str, form: str) -> None:
    """Set up the standard library's logging of this process, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(form_of(form, sys.stderr)))
    # Libraries log every request at info, and every statement at debug
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.startswith("headgate"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


class Voice:
    """The supervisor's lines, for the whole gateway.  Mutable: ``level`` and ``form``; until the configuration has
    been read they are the defaults of a terminal or a file.
    """

    def __init__(self) -> None:
        self.level = "info"
        self.form = "auto"

    def say(self, event: str, level: str = "info") -> None:
        """Write one line at once."""
        if LEVELS.index(level) >= LEVELS.index(self.level):
            line = LogLine(time.time(), level, "gateway", event)
            print(drawn(line, form_of(self.form, sys.stderr)), file=sys.stderr, flush=True)

    def announce(self, sentence: str) -> None:
        """Print a line of the start that operators read and other programs wait for: the sentence alone, unless the
        form is JSON.
        """
        if self.form == "json":
            self.say(sentence)
        else:
            print(sentence, file=sys.stderr, flush=True)


VOICE = Voice()
