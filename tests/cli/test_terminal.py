"""What a person sees: in terminals of several widths, in a conversation, and where a log is kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from headgate.cli.display.layout import columns_of, lines_of
from headgate.cli.nouns.requests import picture
from headgate.process import welcome

if TYPE_CHECKING:
    from tests.cli.conftest import Gateway

_CODES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07]*\x07)")


class Terminal:
    """A command on a terminal of so many columns."""

    def __init__(self, gateway: Gateway, columns: int, *arguments: str) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell starts what runs in its background without it
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
            os.chdir(gateway.home)
            environ = {name: value for name, value in gateway.environ.items() if name != "COLUMNS"}
            command = [sys.executable, "-m", "headgate", *arguments]
            os.execve(sys.executable, command, {**environ, "TERM": "xterm-256color"})

    def send(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def until(self, pattern: str) -> str:
        """What is shown, without colours, until it ends with ``pattern`` or the command has ended."""
        shown = b""
        end = time.monotonic() + 40
        while time.monotonic() < end:
            text = _CODES.sub("", shown.decode(errors="replace")).replace("\r\n", "\n").replace("\r", "\n")
            if re.search(pattern, text):
                return text
            if select.select([self._fd], [], [], 0.1)[0]:
                try:
                    piece = os.read(self._fd, 1 << 16)
                except OSError:
                    piece = b""
                if not piece:
                    return _CODES.sub("", shown.decode(errors="replace")).replace("\r\n", "\n").replace("\r", "\n")
                shown += piece
        raise AssertionError(f"{pattern!r} was not shown: {shown!r}")

    def end(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture(scope="module")
def called(gateway: Gateway) -> Gateway:
    gateway.run("chat", "-m", "builtin/lorem?rate=1000&tokens=5", "x")
    gateway.run("chat", "-m", "builtin/fault/500", "x")
    return gateway


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize(
    "words",
    [("requests",), ("usage",), ("token",), ("providers",), ("aliases",), ("status",), ("config", "show", "--origin")],
)
def test_tables_fit_the_terminal_and_ids_stay_whole(called: Gateway, columns: int, words: tuple[str, ...]) -> None:
    terminal = Terminal(called, columns, *words)
    shown = terminal.until("\x00never")
    assert terminal.end() == 0
    assert max(columns_of(line) for line in shown.splitlines()) <= columns, shown
    if words == ("requests",):
        for row in called.told("requests", "-n", "3"):
            assert row["id"] in shown


def test_a_request_shows_how_many_events_were_skipped(called: Gateway) -> None:
    row = called.told("requests", "show", called.told("requests", "-n", "1")[0]["id"])
    assert not any("skipped" in line.plain for line in lines_of(picture(row), 80))
    shown = [line.plain for line in lines_of(picture(row | {"skipped_events": 2}), 80)]
    assert any(re.search("skipped events +2 of the provider's stream could not be read", line) for line in shown)


def test_a_conversation(called: Gateway) -> None:
    terminal = Terminal(called, 80, "chat", "-m", "builtin/echo")
    assert "Ctrl+D leaves" in terminal.until("> $")
    terminal.send("one two\n")
    assert "\none two\n" in terminal.until("first token .*\n> $")
    terminal.send("/modle x\n")
    assert "did you mean /model?" in terminal.until("> $")
    terminal.send("/model builtin/lorem?rate=5&tokens=1000\n")
    terminal.until("> $")
    terminal.send("go\n")
    terminal.until("Lorem ipsum")
    terminal.send("\x03")
    assert "stopped" in terminal.until("> $")  # the answer, not the conversation
    terminal.send("/model nosuch/model\n")
    terminal.until("> $")
    terminal.send("hello\n")
    assert "nosuch/model" in terminal.until("headgate: .*\n(.*→.*\n)?> $")
    terminal.send("/model builtin/echo\n")
    terminal.until("> $")
    terminal.send("/retry\n")
    assert "go" in terminal.until("first token .*\n> $")  # what was not answered was forgotten
    terminal.send("several \\\n")
    terminal.until(r"\. $")
    terminal.send("lines\n")
    assert "several \nlines\n" in terminal.until("first token .*\n> $")
    terminal.send("half a line\x03")
    terminal.until("leaves\n> $")
    terminal.send("\x04")
    terminal.until("\x00never")
    assert terminal.end() == 0


def test_a_pipe_is_the_message(called: Gateway) -> None:
    assert called.good("chat", "-m", "builtin/echo", stdin="from a pipe") == "from a pipe\n"
    empty = called.run("chat", "-m", "builtin/echo", stdin=" \n")
    assert empty.returncode == 2 and "nothing was asked" in empty.stderr


def test_control_characters_of_a_model_are_shown_not_sent(called: Gateway) -> None:
    raw = "a\x1b[31mred\x07"
    assert called.good("chat", "-m", "builtin/echo", stdin=raw) == raw + "\n"  # a pipe gets what came
    terminal = Terminal(called, 80, "chat", "-m", "builtin/echo", raw)
    assert "a\\x1b[31mred\\x07" in terminal.until("\x00never")
    assert terminal.end() == 0


def test_follow_has_a_heading_and_ids(called: Gateway) -> None:
    terminal = Terminal(called, 120, "requests", "--follow", "-n", "1")
    (row,) = called.told("requests", "-n", "1")
    shown = terminal.until(row["id"])
    assert re.search(r"TIME +ID +OUTCOME +TOOK +IN\+OUT +COST +MODEL", shown)
    terminal.send("\x03")
    terminal.until("\x00never")
    assert terminal.end() == 130


# ------------------------------------------------------------------------------------- kept logs


@contextlib.contextmanager
def _pipe() -> Iterator[int]:
    read, write = os.pipe()
    yield write
    os.close(read)
    os.close(write)


def test_whose_log_is_kept() -> None:
    with _pipe() as output:
        found = os.fstat(output)
        assert not welcome.log_is_kept({}, output)
        assert welcome.log_is_kept({welcome.KEPT_LOG: "1"}, output)
        assert welcome.log_is_kept({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}, output)
        assert not welcome.log_is_kept({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"}, output)
