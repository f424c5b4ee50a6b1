"""``headgate vault rotate | export | import | doctor``: the vault as a whole.

A passphrase comes from standard input or a hidden prompt, never from the command line.  Nothing here prints a key.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from headgate.cli.display.layout import Hanging, Text
from headgate.cli.display.terminal import changed, count, counting, draw, print_json, say
from headgate.cli.parsing.options import Config, Json, StateDir
from headgate.cli.parsing.secrets import read_secret
from headgate.cli.reach.gateway import Gateway, Trouble, open_gateway

BATCH = 50
DERIVE_S = 30.0  # a key from a passphrase, on a busy machine
MARKS = {"good": Text("✓", "green"), "warning": Text("!", "yellow"), "bad": Text("✗", "red")}


def rotate(
    master_key_file: Annotated[
        str | None,
        typer.Option("--master-key-file", metavar="NEW", help="Change the master key to this file's; no key is made."),
    ] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Seal every key anew, with a fresh data key.

    The gateway serves meanwhile.  It may be stopped at any moment, and begun again.
    """
    with open_gateway(config, state_dir) as gateway:
        if master_key_file is not None:
            _change_master_key(gateway, master_key_file, as_json)
            return
        answer = gateway.call("POST", "/vault/rotate", {"batch": BATCH})
        done, total = answer["resealed"], answer["resealed"] + answer["left"]
        with counting("sealing anew", total) as step:
            for _one in range(done):
                step("")
            while answer["left"]:
                answer = gateway.call("POST", "/vault/rotate", {"batch": BATCH, "continue": True})
                done += answer["resealed"]
                for _one in range(answer["resealed"]):
                    step("")
    answer["resealed"] = done
    changed(answer, f"sealed {count(done, 'secret')} with the new data key {answer['key']}", as_json)
    if answer["damaged"]:
        say(f"{count(answer['damaged'], 'secret')} could not be opened; see: headgate vault doctor")
        raise typer.Exit(1)


def _change_master_key(gateway: Gateway, file: str, as_json: bool) -> None:
    from headgate.process.credentials import read_master_key  # noqa: PLC0415 - late: see late.py
    from headgate.process.statedir import StateError  # noqa: PLC0415 - late: see late.py

    try:
        key = read_master_key(Path(file))
    except StateError as error:
        raise Trouble(str(error), "openssl rand -base64 32 > NEW", 2) from error
    answer = gateway.call("POST", "/vault/master-key", {"key": base64.b64encode(key).decode()})
    where = f"it is kept in {answer['place']}: back that file up"
    if not answer["kept"]:
        where = f"put it in the place of {answer['place']} before the next start"
    changed(answer, f"the master key is {answer['master_key']} now; {where}", as_json)


def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="It must not exist yet.")],
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Write the stored keys into a file, sealed under a passphrase."""
    path = Path(file)
    if path.exists():
        raise Trouble(f"{file} exists already", "choose another name, or remove it", 2)
    passphrase = read_secret("passphrase", twice=True)
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("POST", "/vault/export", {"passphrase": passphrase}, timeout_s=DERIVE_S)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(base64.b64decode(answer["data"]))
    except OSError as error:
        raise Trouble(f"{file} cannot be written ({error.strerror})") from error
    told = {"file": file, "accounts": answer["accounts"]}
    changed({**told, "effective": True}, f"wrote {count(answer['accounts'], 'key')} to {file}", as_json)


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `vault export` wrote.")],
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Store the keys of an exported vault that are not there yet.

    Exit code 1 where one cannot be stored.
    """
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise Trouble(f"{file} cannot be read ({error.strerror})", code=2) from error
    wish = {"passphrase": read_secret("passphrase"), "data": base64.b64encode(content).decode()}
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("POST", "/vault/import", wish, timeout_s=DERIVE_S)
    there = f"; {count(len(answer['there']), 'key')} were there already" if answer["there"] else ""
    changed(answer, f"stored {count(len(answer['stored']), 'key')}{there}", as_json)
    for ident, reason in answer["refused"].items():
        say(f"{ident}: {reason}")
    if answer["refused"]:
        raise typer.Exit(1)


def doctor(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Check every seal, key and file of the vault.

    Exit code 1 where something is wrong.
    """
    with open_gateway(config, state_dir) as gateway:
        vault = gateway.call("GET", "/vault")
    if as_json:
        print_json(vault)
    else:
        _picture(vault)
    raise typer.Exit(0 if vault["ok"] else 1)


def _picture(vault: dict[str, Any]) -> None:
    secrets = sum(one["secrets"] for one in vault["data_keys"])
    whole = [
        ("good", "master key", f"{vault['master_key']}, {vault['place']}"),
        *(("good", "data key", f"{one['id']}, {count(one['secrets'], 'secret')}") for one in vault["data_keys"]),
    ]
    rows = [*whole, *((one["mark"], one["subject"], one["sentence"]) for one in vault["findings"])]
    for mark, subject, sentence in rows:
        draw(Hanging(Text.assemble(MARKS[mark], " ", (f"{subject}: ", "bold"), sentence)))
    if not vault["findings"]:
        draw(Text.assemble(MARKS["good"], f" every one of {count(secrets, 'secret')} opens"))
