"""The container image without a container engine: what its files say, and what its RUN steps come to.

The wheel is built from what .dockerignore lets through, runs as another user who may write nothing but the state
directory, answers its health check and ends on SIGTERM.  The image's own packages are those of requirements.txt, which
this environment was installed from.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from headgate.settings.schema import Server
from tests.paths import ROOT
from tests.ports import free_port

NOBODY = 65534


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [
        (name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in text.splitlines()) if name
    ]


def instruction(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


def environment() -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(" ".join(instruction("ENV"))))


def let_through() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines  # everything else is kept out
    return [line[1:] for line in lines if line.startswith("!")]


# ------------------------------------------------------------------------------------- what the files say


def test_the_image_is_slim_pinned_and_nobodys() -> None:
    assert [base.split(" ")[0] for base in instruction("FROM")] == ["python:3.13-slim"] * 2
    assert all(
        "--require-hashes" in step or "--no-deps" in step for step in instruction("RUN") if "pip install" in step
    )
    assert re.fullmatch(r"\d+:\d+", instruction("USER")[0]) and not instruction("USER")[0].startswith("0")
    assert instruction("STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(instruction("ENTRYPOINT")[0]) == ["headgate"] and json.loads(instruction("CMD")[0]) == ["serve"]
    assert instruction("VOLUME") == [environment()["HEADGATE_STATE_DIR"]]
    assert "HEADGATE_CONTROL__HOST" not in environment()  # the control plane stays on loopback


def test_everything_that_is_copied_is_let_through() -> None:
    sources = [word for rest in instruction("COPY") if "--from" not in rest for word in rest.split()[:-1]]
    assert sorted(sources) == sorted(let_through())
    assert all((ROOT / source).exists() for source in sources)


def test_what_is_taken_out_of_the_image_is_in_it() -> None:
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.txt").read_text(), re.M))
    taken = next(step for step in instruction("RUN") if "pip uninstall" in step)
    names = taken.split("--quiet ")[1].split(" && ")[0].split()
    assert set(names) - {"pip"} <= pinned and "pip" in names


def test_compose_runs_one_service_that_can_do_little() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    (service,) = compose["services"].values()
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    state = next(mount for mount in service["volumes"] if mount.endswith(environment()["HEADGATE_STATE_DIR"]))
    assert state.split(":")[0] in compose["volumes"]
    assert int(service["stop_grace_period"].removesuffix("s")) > Server().drain_s
    assert not {"privileged", "network_mode", "user"} & set(service)


def test_readme_and_compose_file_agree() -> None:
    readme, compose = (ROOT / "README.md").read_text(), (ROOT / "compose.yaml").read_text()
    (line,) = re.findall(r"^docker compose up .*$", readme, re.M)
    assert line in compose and "--wait" in line and line.endswith("headgate welcome")
    version = re.search(r"Compose (\d+\.\d+) or newer", compose)
    assert version and f"Compose {version[1]} or newer" in readme
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()  # what --wait waits for


def test_keys_and_configuration_are_not_committed() -> None:
    assert {".env", "headgate.yaml"} <= set((ROOT / ".gitignore").read_text().splitlines())


def unit() -> dict[str, str]:
    lines = [line for line in (ROOT / "packaging" / "headgate.service").read_text().splitlines() if "=" in line]
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_the_systemd_unit_can_do_little_and_lets_streams_end() -> None:
    found = unit()
    assert found["ExecStart"].endswith("headgate serve") and found["User"] == "headgate"
    assert int(found["TimeoutStopSec"]) > Server().drain_s and found["KillMode"] == "mixed"
    assert found["Environment"] == f"HEADGATE_STATE_DIR=/var/lib/{found['StateDirectory']}"
    assert found["CapabilityBoundingSet"] == "" and found["ProtectSystem"] == "strict" and found["LimitCORE"] == "0"
    assert {"NoNewPrivileges", "PrivateTmp", "ProtectHome", "RestrictNamespaces"} <= {
        name for name, value in found.items() if value == "yes"
    }
    assert "packaging/headgate.service" in (ROOT / "docs" / "running.md").read_text()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = (ROOT / "packaging" / "headgate.service").read_text()
    file = tmp_path / "headgate.service"
    file.write_text(text.replace("/opt/headgate/bin/headgate", shutil.which("true") or "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True)
    assert done.returncode == 0 and "headgate.service" not in done.stderr, done.stderr


# ------------------------------------------------------------------------------------- what they come to


def as_nobody(command: list[str]) -> list[str]:
    if os.getuid() != 0:
        return command
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", *command]


def python_for_nobody() -> str | None:
    """A Python of this version that another user may start, and that may start itself again."""
    again = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'pass']))"
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for candidate in filter(
        None, (os.path.realpath(sys.executable), shutil.which(name, path="/usr/local/bin:/usr/bin"))
    ):
        with contextlib.suppress(OSError):  # no setpriv
            if not subprocess.run(as_nobody([candidate, "-c", again]), cwd="/", capture_output=True).returncode:
                return candidate
    return None


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """A fresh environment with the wheel in it, where another user can read it; removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="headgate-image-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        checkout = folder / "checkout"
        checkout.mkdir()
        for source in let_through():
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, checkout / source, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, checkout / source)
        subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=checkout, check=True)
        base = python_for_nobody()
        subprocess.run([base or sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        site = next((folder / "venv" / "lib").glob("python*/site-packages"))
        (wheel,) = (checkout / "dist").glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        (site / "pinned.pth").write_text(sysconfig.get_path("purelib") + "\n")
        shutil.rmtree(checkout)
        yield folder / "venv" / "bin" / "python"


def test_the_wheel_has_what_is_not_python(installed: Path) -> None:
    package = next(installed.parents[1].glob("lib/python*/site-packages/headgate"))
    names = [str(path.relative_to(package)) for path in package.rglob("*")]
    for pattern in ("catalog/presets/openai.toml", "control/store/migrations/versions/0001_*.py"):
        assert any(fnmatch(name, pattern) for name in names), pattern
    assert not any("tests" in name or name.endswith(".yaml") for name in names)


def test_it_runs_as_nobody_is_healthy_and_ends_on_sigterm(installed: Path) -> None:
    if python_for_nobody() is None:
        pytest.skip("no setpriv, or this Python lies in a private directory: nobody may not run it here")
    folder = installed.parents[2]
    state, work = folder / "state", folder / "etc"
    state.mkdir(mode=0o700)
    work.mkdir(mode=0o755)
    if os.getuid() == 0:
        os.chown(state, NOBODY, NOBODY)
    inside = environment()["HEADGATE_STATE_DIR"]
    environ = {name: value.replace(inside, str(state)) for name, value in environment().items() if name != "PATH"}
    environ |= {
        "PATH": os.defpath,
        "HEADGATE_SERVER__PORT": str(free_port()),
        "HEADGATE_CONTROL__PORT": str(free_port()),
    }
    before = set(installed.parents[1].rglob("*"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            as_nobody([str(installed), *arguments]),
            cwd=work, env=environ, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    check = json.loads(instruction("HEALTHCHECK")[0].split(" CMD ")[1])
    assert check[0] == "python"
    assert run(*check[1:]).returncode == 1
    with (folder / "out").open("w") as out:
        process = subprocess.Popen(
            as_nobody([str(installed), "-m", "headgate", *json.loads(instruction("CMD")[0])]),
            cwd=work, env=environ, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        end = time.monotonic() + 80
        while run(*check[1:]).returncode:
            assert process.poll() is None and time.monotonic() < end, (folder / "out").read_text()
        printed = (folder / "out").read_text()
        assert "hg_" not in printed and "headgate welcome" in printed  # a container's log is kept
        assert (state / "first.token").stat().st_mode & 0o777 == 0o600
        welcome = run("-m", "headgate", "welcome").stdout
        agent = re.search(r"agent token +(hg_pat_\S+)", welcome)
        assert re.search(r"admin token +hg_admin_", welcome) and agent and f"Bearer {agent[1]}" in welcome
        assert run("-m", "headgate", "chat", "-m", "builtin/echo", "x", "--token", agent[1]).stdout == "x\n"
        again = run("-m", "headgate", "welcome")
        assert again.returncode == 0 and "hg_pat_" not in again.stdout and not (state / "first.token").exists()
        made = run("-m", "headgate", "token", "create", "inside")
        assert made.returncode == 0 and made.stdout.startswith("hg_pat_"), made.stderr
        assert run("-m", "headgate", "chat", "-m", "builtin/echo", "hello").stdout == "hello\n"
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
    assert code == 0, (folder / "out").read_text()
    assert run(*check[1:]).returncode == 1
    assert set(installed.parents[1].rglob("*")) == before  # nothing is written but the state
    assert all(stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0 for path in [state, *state.iterdir()])
