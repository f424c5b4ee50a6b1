"""The state directory's lock: who holds it, and who waits for whom."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from headgate import statedir

HOLD = """
import sys, time
from pathlib import Path
from headgate import statedir
statedir.prepare(Path(sys.argv[1]), command=sys.argv[2] == "command")
print("held", flush=True)
time.sleep(float(sys.argv[3]))
"""


def hold(path: Path, what: str, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), what, str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_who_holds_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert statedir.holder(state) is None  # and it was not made
    assert not state.exists()
    for what in ("gateway", "command"):
        with hold(state, what, 60) as process:
            assert statedir.holder(state) == statedir.Holder(process.pid, what == "command")
            process.kill()
        assert statedir.holder(state) is None  # whoever is killed lets go
    assert (state / statedir.LOCK).stat().st_mode & 0o777 == 0o600


def test_a_gateway_refuses_beside_a_gateway_at_once(tmp_path: Path) -> None:
    with hold(tmp_path, "gateway", 60) as process:
        begin = time.monotonic()
        with pytest.raises(statedir.StateError, match=rf"another headgate \(pid {process.pid}\) already serves"):
            statedir.prepare(tmp_path)
        assert time.monotonic() - begin < 5
        process.kill()


def test_a_gateway_waits_for_a_command_to_end(tmp_path: Path) -> None:
    with hold(tmp_path, "command", 0.5):
        os.close(statedir.prepare(tmp_path))


def test_looking_never_stops_a_start(tmp_path: Path) -> None:
    """``holder`` takes the lock for microseconds: a start at that moment must not take it for a gateway."""
    os.close(statedir.prepare(tmp_path))
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            statedir.holder(tmp_path)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _start in range(50):
            os.close(statedir.prepare(tmp_path))
    finally:
        ended.set()
        looking.join()


def test_a_token_file_that_is_no_text_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / statedir.ADMIN_TOKEN).write_bytes(bytes([0x93, 0xFF]))
    with pytest.raises(statedir.StateError, match="damaged"):
        statedir.Admin(tmp_path, None)


def test_a_lock_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / statedir.LOCK).symlink_to("/dev/full")
    with pytest.raises(statedir.StateError, match="cannot be written"):
        statedir.prepare(tmp_path)


def test_an_earlier_lifes_addresses_are_gone_before_anything_listens(tmp_path: Path) -> None:
    (tmp_path / statedir.ADDRESSES).write_text("{}")
    os.close(statedir.prepare(tmp_path, command=True))
    assert (tmp_path / statedir.ADDRESSES).exists()
    os.close(statedir.prepare(tmp_path))
    assert not (tmp_path / statedir.ADDRESSES).exists()
