"""The log's streams: whatever becomes of their other end, a write neither fails nor waits."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from headgate.process.stdio import BACKLOG, Output

LINE = "x" * 99 + "\n"
MANY = 3 * BACKLOG // len(LINE)  # more than the backlog and a pipe hold together


@pytest.fixture(params=["pipe", "socket", "polled pipe"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """The descriptors of a reader and a writer."""
    if request.param == "socket":
        left, right = socket.socketpair()
        read, write = left.detach(), right.detach()
    else:
        read, write = os.pipe()
    if request.param == "polled pipe":  # as where another user made the pipe
        real = os.open
        monkeypatch.setattr(os, "open", lambda path, *a, **k: real(f"/nowhere{path}", *a, **k))
    yield read, write
    for fd in (read, write):
        with suppress(OSError):
            os.close(fd)


def read_all(fd: int) -> bytes:
    os.set_blocking(fd, False)
    found = b""
    with suppress(BlockingIOError):
        while piece := os.read(fd, 1 << 16):
            found += piece
    return found


def test_lines_arrive_whole_and_in_order(ends: tuple[int, int]) -> None:
    read, write = ends
    output = Output(write, "utf-8")
    print("one", "two", file=output)
    print("grün ✓", file=output)
    assert read_all(read).decode() == "one two\ngrün ✓\n"


def test_writing_after_the_reader_has_gone_does_nothing(ends: tuple[int, int]) -> None:
    read, write = ends
    os.close(read)
    output = Output(write, "utf-8")
    for _ in range(3):
        assert output.write(LINE) == len(LINE)
    output.finish()


def test_stalled_reader_gets_a_count_of_missing_lines(ends: tuple[int, int]) -> None:
    read, write = ends
    output = Output(write, "utf-8")
    for _ in range(MANY):
        output.write(LINE)
    got = b""
    while piece := read_all(read):  # now it reads again
        got += piece
        output.flush()
    whole, _, note = got.decode().partition("headgate: ")
    assert set(whole.splitlines(keepends=True)) == {LINE}, "no line is torn"
    assert int(note.split()[0]) == MANY - whole.count("\n") > 0


def test_the_flags_of_a_shared_descriptor_stay_as_they_are(ends: tuple[int, int]) -> None:
    _, write = ends
    Output(write, "utf-8").write(LINE)
    assert os.get_blocking(write), "a child or the user's shell has this descriptor too"


def test_a_full_disk_costs_the_lines_that_it_does_not_take() -> None:
    with closing(io.FileIO("/dev/full", "w")) as full:
        output = Output(full.fileno(), "utf-8")
        output.write(LINE)
        output.finish()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_characters_that_the_encoding_lacks_are_escaped(encoding: str, ends: tuple[int, int]) -> None:
    read, write = ends
    print("✓ é \udc80", file=Output(write, encoding))
    assert read_all(read).decode(encoding).endswith("\\udc80\n")


def test_a_regular_file_is_appended_to_by_all_who_share_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)  # as `2>log` opens it: without O_APPEND
    one, other = Output(fd, "utf-8"), Output(os.dup(fd), "utf-8")
    for output in (one, other, one):
        output.write(LINE)
    os.close(fd)
    assert (tmp_path / "log").read_text() == LINE * 3


def test_closed_descriptors_are_occupied() -> None:
    program = (
        "import os, socket; from headgate.process import stdio; stdio.install()\n"
        "pair = socket.socketpair(); print('to nobody'); import sys; print('to nobody', file=sys.stderr)\n"
        "pair[1].setblocking(False)\n"
        "try: pair[1].recv(1); os._exit(1)\n"
        "except BlockingIOError: os._exit(10 + min(s.fileno() for s in pair))"
    )
    done = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, program], timeout=20)
    assert done.returncode >= 13
