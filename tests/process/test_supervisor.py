"""The supervisor over stand-in children, as real processes on real sockets and signals."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headgate.process import credentials, statedir
from headgate.process.supervisor import backoff
from tests import forked
from tests.ports import free_port
from tests.waiting import wait_until

SERVE = "tests.process.standins:serve"


class Gateway:
    """One run of the supervisor, and what its children wrote down."""

    def __init__(self, folder: Path, extra: str = "", **environ: str) -> None:
        self.folder = folder
        self.port, self.control_port = free_port(), free_port()
        self.state = folder / "state"
        self.notes = folder / "notes"
        self.config = folder / "headgate.yaml"
        self.environ = {**os.environ, **environ}
        self.write(extra)
        self.start()

    def write(self, extra: str) -> None:
        draft = self.config.with_suffix(".draft")  # in its place whole at once, as editors do it
        draft.write_text(
            f"server: {{port: {self.port}, drain_s: 2}}\ncontrol: {{port: {self.control_port}}}\n"
            f"state_dir: {self.state}\n{extra}"
        )
        draft.rename(self.config)

    def start(self) -> None:
        self.out, self.err = self.folder / "out", self.folder / "err"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = forked.fork(
                SERVE, "serve", str(self.config), str(self.notes),
                modules=forked.WHOLE, fds={1: out.fileno(), 2: err.fileno()}, environ=self.environ,
            )  # fmt: skip

    def lines(self, *start: str) -> list[list[str]]:
        text = self.notes.read_text() if self.notes.exists() else ""
        rows = [line.split() for line in text.splitlines()]
        return [row for row in rows if row[: len(start)] == list(start)]

    def until(self, what: Callable[[], object], seconds: float = 40) -> None:
        wait_until(what, seconds, step=0.005, why=lambda: f"notes: {self.lines()}")

    def get(self, timeout: float = 5) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=timeout) as answer:
            body: bytes = answer.read()
            return body.decode()

    def ready(self) -> Gateway:
        self.until(lambda: (self.state / statedir.ADMIN_TOKEN).exists())
        return self

    def pid(self, role: str) -> int:
        return int(self.lines(role, "boot")[-1][2])

    def end_by_itself(self, timeout: float = 60) -> tuple[int, str, str]:
        """The exit code, and what was written to standard output and error."""
        return self.process.wait(timeout), self.out.read_text(), self.err.read_text()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.end_by_itself()


Make = Callable[..., Gateway]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Make]:
    made: list[Gateway] = []

    def make(*arguments: str, **environ: str) -> Gateway:
        made.append(Gateway(tmp_path, *arguments, **environ))
        return made[-1]

    yield make
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        for row in one.lines():
            if row[1] == "boot":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(row[2]), signal.SIGKILL)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # An orphan whose new parent does not reap stays a zombie: it has ended all the same.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_first_start_shows_tokens_once_and_a_line_to_paste(gateway: Make) -> None:
    one = gateway().ready()
    assert one.get() == f"data {one.pid('data')}"
    code, out, err = one.end()
    assert code == 0
    admin = re.search(r"hg_admin_\S+", out)
    agent = re.search(r"hg_pat_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", out)
    assert admin and agent
    assert f"http://127.0.0.1:{one.port}/v1/chat/completions" in out and '"builtin/lorem"' in out
    assert re.search(rf"^listening data=127\.0\.0\.1:{one.port} control=127\.0\.0\.1:\d+$", err, re.M)
    (boot,) = one.lines("control", "boot")
    assert boot[3:] == [admin[0], agent[0]]
    assert one.lines("data", "boot")[0][3] == "1"  # it works at once
    assert (one.state / statedir.ADMIN_TOKEN).read_text().strip() == admin[0]
    modes = {name: (one.state / name).stat().st_mode & 0o777 for name in ("admin.token", "instance.key", "lock")}
    assert set(modes.values()) == {0o600} and one.state.stat().st_mode & 0o777 == 0o700

    one.start()
    one.until(lambda: len(one.lines("control", "boot")) == 2 and one.get())
    code, out, err = one.end()
    assert (code, out) == (0, "")
    assert one.lines("control", "boot")[1][3:] == [admin[0], "None"]


def test_curl_line_names_auto_where_a_provider_is_configured(gateway: Make) -> None:
    one = gateway("providers: {up: {base_url: 'http://127.0.0.1:9/v1', auth: none, models: {m: }}}\n").ready()
    _code, out, _err = one.end()
    assert '"model": "auto"' in out


def test_planes_end_in_order(gateway: Make) -> None:
    one = gateway(STANDIN_DRAIN="0.3").ready()
    data, control = one.pid("data"), one.pid("control")
    code, _out, err = one.end(signal.SIGINT)
    assert code == 0 and "draining" in err
    turns = [(row[0], row[1]) for row in one.lines() if row[1] in ("term", "ended")]
    assert turns == [("data", "term"), ("data", "ended"), ("control", "term"), ("control", "ended")]
    assert gone(data) and gone(control)


def test_no_new_connection_waits_on_a_draining_gateway(gateway: Make) -> None:
    one = gateway(STANDIN_DRAIN="1").ready()
    one.process.send_signal(signal.SIGTERM)
    one.until(lambda: one.lines("data", "term"))
    os.kill(one.pid("data"), signal.SIGKILL)  # it held the other copy of the socket
    one.until(lambda: gone(one.pid("data")))
    with pytest.raises(OSError):
        one.get(timeout=1)
    assert one.end()[0] == 0
    assert len(one.lines("data", "boot")) == 1


def test_second_signal_ends_at_once(gateway: Make) -> None:
    drain_s = 60
    one = gateway(STANDIN_DRAIN=str(drain_s)).ready()
    one.process.send_signal(signal.SIGTERM)
    one.until(lambda: one.lines("data", "term"))
    started = time.monotonic()
    code, _out, _err = one.end()
    assert code == 0 and time.monotonic() - started < drain_s


def test_a_child_that_hesitates_in_its_sentence_is_heard_out(gateway: Make) -> None:
    """A busy machine may stop a niced process between two writes."""
    one = gateway(STANDIN_HESITATE="1.5").ready()
    code, _out, err = one.end()
    assert code == 0 and f"listening data=127.0.0.1:{one.port} " in err, err
    assert len(one.lines("control", "boot")) == 1


def test_killed_data_process_refuses_nobody(gateway: Make) -> None:
    one = gateway().ready()
    first, control = one.pid("data"), one.pid("control")
    os.kill(first, signal.SIGKILL)
    # What it had accepted dies with it; what comes from its burial on waits for the next one.
    one.until(lambda: not Path(f"/proc/{first}").exists())
    assert one.get() != f"data {first}"
    assert len(one.lines("control", "boot")) == 1 and not gone(control)
    # The first token is the store's by now: a restart must not bring back what may have been revoked.
    assert one.lines("data", "boot")[1][3] == "0"
    _code, _out, err = one.end()
    assert "the data process ended (signal 9); starting it again in 0 s" in err
    assert "the data process answers again" in err


def test_killed_control_does_not_touch_data(gateway: Make) -> None:
    one = gateway().ready()
    data = one.pid("data")
    os.kill(one.pid("control"), signal.SIGKILL)
    one.until(lambda: len(one.lines("control", "boot")) == 2)
    assert one.get() == f"data {data}"


def test_restarted_data_process_gets_the_file_as_it_is_now(gateway: Make) -> None:
    one = gateway().ready()
    one.write("default_model: builtin/echo\n")
    os.kill(one.pid("data"), signal.SIGKILL)
    one.until(lambda: len(one.lines("data", "boot")) == 2)
    assert one.lines("data", "boot")[1][4] == "builtin/echo"
    one.config.write_text("default_model: [\n")  # a bad file: the last good one stays
    os.kill(one.pid("data"), signal.SIGKILL)
    one.until(lambda: len(one.lines("data", "boot")) == 3)
    assert one.get()


def test_builtin_starts_with_its_first_connection_and_again(gateway: Make) -> None:
    one = gateway().ready()
    time.sleep(0.2)
    assert not one.lines("builtin", "boot")
    port = builtin_port(one)
    assert ask(port).startswith("builtin ")
    os.kill(one.pid("builtin"), signal.SIGKILL)
    time.sleep(0.2)
    assert len(one.lines("builtin", "boot")) == 1  # lazily again
    assert ask(port) == f"builtin {one.pid('builtin')}"
    assert one.end()[0] == 0
    assert one.lines("builtin", "term")


def builtin_port(one: Gateway) -> int:
    """The supervisor's second listening port, as the kernel tells it."""
    inodes = {
        os.readlink(entry)[8:-1]
        for entry in Path(f"/proc/{one.process.pid}/fd").iterdir()
        if os.readlink(entry).startswith("socket:")
    }
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ports = {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in inodes}
    (port,) = ports - {one.port}
    return port


def ask(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        body: bytes = answer.read()
        return body.decode()


def test_orphans_end(gateway: Make) -> None:
    one = gateway().ready()
    data, control = one.pid("data"), one.pid("control")
    one.process.kill()
    one.process.wait()
    one.until(lambda: gone(data) and gone(control))
    assert one.lines("data", "orphaned") and one.lines("control", "orphaned")


def test_reload_is_forwarded(gateway: Make) -> None:
    one = gateway().ready()
    one.process.send_signal(signal.SIGHUP)
    one.until(lambda: one.lines("control", "reload"))


def test_second_serve_exits_4(gateway: Make, tmp_path: Path) -> None:
    one = gateway().ready()
    other = tmp_path / "other.yaml"
    other.write_text(f"server: {{port: {free_port()}}}\nstate_dir: {one.state}\n")
    run = forked.run(SERVE, "serve", str(other), str(tmp_path / "others"), modules=forked.WHOLE)
    assert run.returncode == 4
    assert f"another headgate (pid {one.process.pid}) already serves from {one.state}" in run.stderr
    assert one.get()


def test_port_in_use_exits_3_and_is_no_first_start(gateway: Make, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = tmp_path / "taken.yaml"
        config.write_text(f"server: {{port: {taken.getsockname()[1]}}}\nstate_dir: {tmp_path / 'state'}\n")
        run = forked.run(SERVE, "serve", str(config), str(tmp_path / "notes"), modules=forked.WHOLE)
    assert run.returncode == 3 and "is in use" in run.stderr and "--port" in run.stderr
    assert not (tmp_path / "state" / statedir.ADMIN_TOKEN).exists()


def test_bad_configuration_exits_2_with_every_problem(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("server: {prot: 1}\nalias: {}\n")
    run = forked.run(SERVE, "serve", str(config), str(tmp_path / "notes"), modules=forked.WHOLE)
    assert run.returncode == 2
    assert "server.prot" in run.stderr and "did you mean aliases?" in run.stderr


def test_child_that_cannot_start_gives_its_exit_code(gateway: Make) -> None:
    one = gateway(STANDIN_FAIL="3")
    _code, _out, err = one.end_by_itself(10)
    assert one.process.returncode == 3
    assert "headgate: the control port is taken" in err
    assert not (one.state / statedir.ADMIN_TOKEN).exists()


def test_failing_control_is_named_while_streams_run(gateway: Make) -> None:
    one = gateway(STANDIN_CRASH="1")
    one.until(lambda: len(one.lines("control", "boot")) >= 4)
    assert one.get() == f"data {one.pid('data')}"
    code, out, err = one.end()
    # Nothing has kept the agent token, so it is not shown, and the next start is the first again
    assert code == 0 and "hg_pat_" not in out and not (one.state / statedir.ADMIN_TOKEN).exists()
    assert err.count("the control process does not come up") == 1
    assert "the control process ended (exit code 1); starting it again in 0.2 s" in err


@pytest.mark.parametrize(
    "bad",
    [
        "default_model: [\n",
        "providers: {p: {preset: [groq], base_url: 'http://x'}}",
        "server: {port: !!timestamp x}",
        "[" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_restarted_control_begins_with_the_last_good_file(gateway: Make, bad: str) -> None:
    one = gateway("default_model: builtin/echo\n").ready()
    one.config.write_text(bad)
    os.kill(one.pid("control"), signal.SIGKILL)
    one.until(lambda: len(one.lines("control", "declared")) == 2)
    assert [row[2] for row in one.lines("control", "declared")] == ["builtin/echo"] * 2


def test_a_start_waits_for_the_ports_of_a_life_that_was_killed(gateway: Make) -> None:
    """The planes end by themselves when their supervisor is gone; until then they have the ports."""
    one = gateway(STANDIN_DRAIN="1.5").ready()
    one.process.kill()
    one.process.wait(40)
    taken = socket.create_server(("127.0.0.1", one.control_port))  # as if control were still reading the journal
    one.start()
    time.sleep(0.5)
    assert one.process.poll() is None
    taken.close()
    one.until(lambda: len(one.lines("data", "boot")) == 2)
    assert one.end()[0] == 0
    with socket.create_server(("127.0.0.1", one.control_port)):  # and after an orderly end it waits for nobody
        one.start()
        code, _out, err = one.end_by_itself()
    assert code == 3 and "is in use" in err and "waiting for it" not in err


def test_control_in_backoff_starts_for_the_journal(gateway: Make) -> None:
    one = gateway(STANDIN_CRASH="1")
    one.until(lambda: len(one.lines("control", "boot")) >= 6)  # its next start is more than a second away
    one.until(lambda: not Path(f"/proc/{one.pid('control')}").exists())
    before = len(one.lines("control", "boot"))
    code, _out, err = one.end()
    assert code == 0 and "Traceback" not in err
    assert len(one.lines("control", "boot")) == before + 1


def test_an_end_while_control_starts_waits_for_its_reading(gateway: Make) -> None:
    """A signal would kill it in the middle of its imports."""
    one = gateway(STANDIN_SLOW="6")
    one.until(lambda: one.lines("data", "boot"))
    code, _out, err = one.end()
    assert code == 0 and "Traceback" not in err
    assert one.lines("control", "orphaned"), one.lines()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_the_v6_wildcard_takes_both_families() -> None:
    from headgate.app import listen
    from headgate.control.process import bind

    for made in (listen("::", free_port()), bind("::", free_port())):
        with made:
            for host in ("127.0.0.1", "::1"):
                socket.create_connection((host, made.getsockname()[1]), 5).close()
    with listen("::1", free_port()) as alone, pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", alone.getsockname()[1]), 5)


def test_declared_admin_token_ends_with_its_declaration(tmp_path: Path) -> None:
    first = statedir.AdminToken(tmp_path, "a-declared-admin-token", credentials.mint_admin)
    assert first.first and not first.made
    first.keep()
    assert statedir.read_token(tmp_path / statedir.ADMIN_TOKEN) == "a-declared-admin-token"
    after = statedir.AdminToken(tmp_path, None, credentials.mint_admin)
    assert after.made and not after.first and after.token != "a-declared-admin-token"
    after.keep()
    again = statedir.AdminToken(tmp_path, None, credentials.mint_admin)
    assert again.token == after.token and not again.made


def test_backoff() -> None:
    assert [backoff(n) for n in range(1, 9)] == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]


def test_the_first_token_is_the_same_until_it_was_shown(gateway: Make) -> None:
    """A first start that ends before control has the store shows nothing, and leaves its token to the next one."""
    one = gateway(STANDIN_CRASH="1")
    kept = one.state / "first.token"
    one.until(kept.exists)
    token = kept.read_text().strip()
    assert one.end()[0] == 0 and kept.read_text().strip() == token
    two = gateway().ready()
    _code, out, _err = two.end()
    assert token in out and not kept.exists()
