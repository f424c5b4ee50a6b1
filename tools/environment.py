"""Makes .venv and installs pinned requirements into it, with whatever this machine has.

    python3 tools/environment.py requirements.txt [requirements-dev.txt]

Standard library only: it runs before anything is installed.  In this order: uv; the environment's own pip; the pip of
the Python that runs this; pip's wheel as the distribution has it on disk; pip's wheel from the package index (Debian's
python3 comes without pip and without ensurepip).  Every file that is installed is checked against a hash in the
requirements; a fetched wheel against the one below.  No index is named here: it is the one that this machine's
configuration or its Python's standard library knows.
"""

from __future__ import annotations

import contextlib
import hashlib
import html.parser
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import urllib.parse
import urllib.request
import venv
from configparser import ConfigParser, Error
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / "python"
PIP_WHEEL = "pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
# Where distributions keep the wheels that their ensurepip would unpack: CPython's own setting, and Debian's patch.
WHEELS = [sysconfig.get_config_var("WHEEL_PKG_DIR"), "/usr/share/python-wheels"]
PINNED = re.compile(r"^[A-Za-z0-9][^\s;=]*==", re.M)
NO_PIP = """headgate: this Python has no pip, and nothing says where a package index is. One of these helps:
  apt install python3-venv              then make again (any distribution: what brings Python's ensurepip)
  PIP_INDEX_URL=https://… make          the index that your machine can reach"""


def main(requirements: list[str]) -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - any Python of the machine may run this file
        sys.exit(f"Headgate needs Python 3.11 or later, this is {sys.version.split()[0]}: make PYTHON=python3.11 serve")
    uv = shutil.which("uv")
    if not PYTHON.exists():
        make(uv)
    say("looking for an installer")
    install = installer(uv)
    count = sum(len(PINNED.findall((ROOT / name).read_text(encoding="utf-8"))) for name in requirements)
    names = " and ".join(requirements)
    say(f"installing {count} packages of {names} into {VENV.name} with {'uv' if uv else 'pip'}")
    watched([*install, "--require-hashes", *(part for name in requirements for part in ("-r", str(ROOT / name)))])
    # hatchling is among the pinned requirements, so nothing is fetched to build the package itself.
    say("installing headgate itself, from this checkout")
    watched([*install, "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    # uv compiles nothing by default, and an import from source takes four times as long at every start.
    say("compiling")
    watched([str(PYTHON), "-m", "compileall", "-q", "-j", "0", str(ROOT / "src"), site_packages()])


def make(uv: str | None) -> None:
    say(f"making {VENV.name} with Python {sys.version.split()[0]}")
    if uv:
        run([uv, "venv", "--quiet", "--python", sys.executable, str(VENV)])
        return
    bundled = importlib.util.find_spec("ensurepip") is not None
    try:
        venv.create(VENV, with_pip=bundled, symlinks=os.name != "nt", clear=True)
    except (subprocess.CalledProcessError, SystemExit):  # Debian's venv exits where ensurepip does not work
        venv.create(VENV, with_pip=False, symlinks=os.name != "nt", clear=True)


def installer(uv: str | None) -> list[str]:
    """The command up to and including ``install``."""
    if uv:
        return [uv, "pip", "install", "--quiet", "--python", str(PYTHON)]
    options = ["install", "--quiet", "--disable-pip-version-check"]
    if succeeds([str(PYTHON), "-m", "pip", "--version"]):
        return [str(PYTHON), "-m", "pip", *options]
    if succeeds([sys.executable, "-m", "pip", "--python", str(PYTHON), "--version"]):  # pip ≥ 22.3
        return [sys.executable, "-m", "pip", "--python", str(PYTHON), *options]
    return [str(PYTHON), str(pip_wheel() / "pip"), *options]


def pip_wheel() -> Path:
    """pip as one file, which Python runs as it is: the distribution's, else one that is fetched once and checked
    against its hash.
    """
    for folder in filter(None, WHEELS):
        if bundled := sorted(Path(folder).glob("pip-*.whl")):
            return bundled[-1]
    file = VENV / PIP_WHEEL
    if not file.exists():
        content = fetch(wheel_address())
        if hashlib.sha256(content).hexdigest() != PIP_SHA256:
            sys.exit(f"{PIP_WHEEL} from the package index is not the file that was expected; not installing it")
        file.write_bytes(content)
    return file


def wheel_address() -> str:
    """Where the index keeps the wheel: its page for pip is a list of links (PEP 503)."""
    page = index().rstrip("/") + "/pip/"
    links = Links()
    links.feed(fetch(page).decode())
    for link in links.found:
        address = urllib.parse.urljoin(page, link)
        if urllib.parse.urlsplit(address).path.endswith("/" + PIP_WHEEL):
            return address
    sys.exit(f"the package index has no {PIP_WHEEL}; install pip or uv by hand, then run make again")


class Links(html.parser.HTMLParser):
    """The targets of all links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def index() -> str:
    """The package index that pip would use, were it here: its variables, its files, the standard library's default."""
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if address := os.environ.get(name):
            return address
    home = Path.home()
    named = os.environ.get("PIP_CONFIG_FILE")
    files = [Path("/etc/pip.conf"), home / ".pip/pip.conf", home / ".config/pip/pip.conf"]
    files += [Path(named)] if named else []
    parser = ConfigParser(interpolation=None)
    try:
        parser.read(files)
    except Error as error:
        print(f"pip's configuration cannot be read: {error}", file=sys.stderr)
    return parser.get("global", "index-url", fallback="") or default_index() or sys.exit(NO_PIP)


def default_index() -> str | None:
    """The index that the standard library itself names: unittest.mock's source says where its backport is published.
    None where it does not; whatever answers there, the wheel's hash is known.
    """
    spec = importlib.util.find_spec("unittest.mock")
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    published = re.search(r"https://[\w.-]+(?=/project/mock)", Path(spec.origin).read_text(encoding="utf-8"))
    return f"{published[0]}/simple" if published else None


def fetch(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            content: bytes = answer.read()
            return content
    except OSError as error:
        sys.exit(f"cannot fetch pip from the package index ({error}); install pip or uv by hand, then run make again")


def site_packages() -> str:
    scheme = "nt_venv" if os.name == "nt" else "posix_venv"
    return sysconfig.get_path("purelib", scheme, {"base": str(VENV), "platbase": str(VENV)})


def say(sentence: str) -> None:
    print(f"headgate: {sentence}", flush=True)


def watched(command: list[str]) -> None:
    """Runs it; a terminal sees how long it has taken so far, and what was installed last."""
    if not sys.stdout.isatty():
        run(command)
        return
    started, before = time.monotonic(), installed()
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            new = [name for name in installed() if name not in before]
            last = f", {len(new)} packages, {new[-1]}" if new else ""
            print(f"\r\x1b[K  {time.monotonic() - started:.0f} s{last}", end="", flush=True)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.25)
        print("\r\x1b[K", end="", flush=True)
    if process.returncode:
        sys.exit(process.returncode)


def installed() -> dict[str, None]:
    """The packages that lie there, in the order in which they came."""
    folders = [*Path(site_packages()).glob("*.dist-info")]
    ordered = sorted(folders, key=lambda folder: folder.stat().st_mtime if folder.exists() else 0.0)
    return dict.fromkeys(folder.name.removesuffix(".dist-info").rpartition("-")[0] for folder in ordered)


def succeeds(command: list[str]) -> bool:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def run(command: list[str]) -> None:
    done = subprocess.run(command).returncode
    if done:
        sys.exit(done)


if __name__ == "__main__":
    main(sys.argv[1:])
