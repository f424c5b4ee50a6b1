"""The state directory's lock: who holds it, and who waits for whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from headgate.process import credentials, statedir

HOLD = """
import sys, time
from pathlib import Path
from headgate.process import credentials, statedir
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
        assert time.monotonic() - begin < 60  # the other one holds it so long
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

    lookers = [threading.Thread(target=look) for _ in range(2)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # anybody may lose the processor between any two steps
    for looker in lookers:
        looker.start()
    try:
        for _start in range(1000):
            os.close(statedir.prepare(tmp_path))
    finally:
        sys.setswitchinterval(before)
        ended.set()
        for looker in lookers:
            looker.join()


SLOW_HAND = """
import os, sys, time
from pathlib import Path
from headgate.process import credentials, statedir
sign = os.pwrite
def slowly(*args):
    print("has it", flush=True)
    time.sleep(1)
    return sign(*args)
os.pwrite = slowly
statedir.prepare(Path(sys.argv[1]), command=True)
time.sleep(0.2)
"""


@pytest.mark.parametrize("before", ["nobody", "gateway"])
def test_a_busy_machine_between_taking_and_signing(tmp_path: Path, before: str) -> None:
    """Who has the lock and has not signed yet is neither unknown nor who held it before."""
    if before == "gateway":
        with hold(tmp_path, "gateway", 60) as gone:
            gone.kill()
    command = [sys.executable, "-c", SLOW_HAND, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "has it\n"
        assert statedir.holder(tmp_path) == statedir.Holder(process.pid, command=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "has it\n"
        os.close(statedir.prepare(tmp_path))  # waits for it


def test_a_process_that_is_stopped_in_the_gate_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statedir, "COMMAND_S", 0.2)
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_HAND, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "has it\n"
        process.send_signal(signal.SIGSTOP)
        for ask in (statedir.prepare, statedir.holder):
            with pytest.raises(statedir.StateError, match="is stopped while it takes"):
                ask(tmp_path)
        process.kill()


def test_a_token_file_that_is_no_text_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / statedir.ADMIN_TOKEN).write_bytes(bytes([0x93, 0xFF]))
    with pytest.raises(statedir.StateError, match="damaged"):
        statedir.AdminToken(tmp_path, None, credentials.mint_admin)


def test_a_lock_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / statedir.LOCK).symlink_to("/dev/full")
    with pytest.raises(statedir.StateError, match="cannot be written"):
        statedir.prepare(tmp_path)


def test_stale_addresses_are_removed_before_listening(tmp_path: Path) -> None:
    (tmp_path / statedir.ADDRESSES).write_text("{}")
    os.close(statedir.prepare(tmp_path, command=True))
    assert (tmp_path / statedir.ADDRESSES).exists()
    os.close(statedir.prepare(tmp_path))
    assert not (tmp_path / statedir.ADDRESSES).exists()
