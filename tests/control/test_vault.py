"""The vault on a real store: its keys and where they come from, stores of earlier releases, rotation."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.cli.reach.offline import Nobody
from headgate.control.api.access.door import MAX_BODY, MAX_IMPORT
from headgate.control.identity.key_wrapping import LocalKey, WrongKey, key_id
from headgate.control.identity.master_key import VaultLocked
from headgate.control.identity.vault import ACCOUNT, HEADER, Damaged, Vault, key_of, open_vault
from headgate.control.identity.vault_file import ExportedKey, sealed
from headgate.control.objects import registry
from headgate.control.objects.changes import MAX_ACCOUNTS, add_account
from headgate.control.objects.headers import all_sealed_blobs
from headgate.control.objects.registry import Objects, StoredAccount, StoredProvider
from headgate.control.refusals import ALREADY_EXISTS, TOO_MANY
from headgate.control.snapshot.publication import Publication
from headgate.control.snapshot.setup import set_up
from headgate.control.store.database import open_store
from headgate.control.store.vault_tables import data_keys
from headgate.errors import GatewayError
from headgate.model import Provider
from headgate.process.boot import MasterKey
from headgate.process.channel import World
from headgate.process.credentials import make_key
from headgate.resources.account import AccountTerms, AccountWish
from headgate.resources.compiled import Compiled
from headgate.resources.provider import ProviderBody
from headgate.wire import credentials
from tests.control.child import Child
from tests.control.journal_writer import run

PASSPHRASE = "twelve characters"
KEY = "sk-canary-vault-0123456789"
HEADER_SECRET = "hdr-canary-0123456789"
COMPILED = Compiled(World({"up": Provider("up", "http://127.0.0.1:1/v1")}, {}), {}, {})


@asynccontextmanager
async def opened(database: str) -> AsyncIterator[AsyncEngine]:
    engine = await open_store(database)
    try:
        yield engine
    finally:
        await engine.dispose()


async def begun(engine: AsyncEngine, state: Path, master_key: MasterKey = MasterKey()) -> Publication:  # noqa: B008
    publication = (await set_up(state, engine, lambda: COMPILED, master_key=master_key)).publication
    publication.link = Nobody()
    await publication.begin(COMPILED)
    return publication


def stored(vault: Vault, count: int) -> Objects:
    return Objects(
        accounts={
            f"up/{n}": StoredAccount("up", str(n), vault.seal(f"up/{n}", f"{KEY}-{n}"), "", 0, False, n)
            for n in range(count)
        }
    )


def sealed_by_an_earlier_release(master: bytes, row: str, secret: str) -> bytes:
    header, nonce = b"\x01" + key_id(master), os.urandom(12)
    return header + nonce + AESGCM(master).encrypt(nonce, secret.encode(), header + row.encode())


def files(folder: Path) -> Iterator[bytes]:
    yield from (path.read_bytes() for path in folder.rglob("*") if path.is_file())


# ------------------------------------------------------------------------------------------------------------ sealing


def test_a_secret_opens_only_in_its_row_and_for_its_purpose(database: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(database) as engine:
            vault = await open_vault(engine, tmp_path, MasterKey(), [])
            sealed = vault.seal("up/0", KEY)
            assert vault.open("up/0", sealed) == KEY and KEY.encode() not in sealed
            assert vault.seal("up/0", KEY) != sealed, "a nonce of its own"
            for row, purpose, blob in (
                ("up/1", ACCOUNT, sealed),
                ("up/0", HEADER, sealed),
                ("up/0", ACCOUNT, sealed[:-1] + bytes([sealed[-1] ^ 1])),
                ("up/0", ACCOUNT, b"\x03" + sealed[1:]),
                ("up/0", ACCOUNT, sealed[:20]),
                ("up/0", ACCOUNT, b""),
            ):
                with pytest.raises(Damaged):
                    vault.open(row, blob, purpose)
            again = await open_vault(engine, tmp_path, MasterKey(), [sealed])
            assert again.open("up/0", sealed) == KEY and again.key_ids == vault.key_ids
            async with engine.connect() as connection:
                (row,) = (await connection.execute(select(data_keys))).all()
            master = (tmp_path / "vault.key").read_bytes()
            assert row.wrapper == key_id(master).hex() == again.found.wrapper.id
            assert (tmp_path / "vault.key").stat().st_mode & 0o777 == 0o600

    run(main())


def test_a_wrapped_key_opens_only_as_what_it_was_wrapped() -> None:
    wrapper = LocalKey(os.urandom(32))
    wrapped = wrapper.wrap(b"k" * 32, b"one")
    assert wrapper.unwrap(wrapped, b"one") == b"k" * 32
    for other, about, blob in (
        (wrapper, b"two", wrapped),
        (LocalKey(os.urandom(32)), b"one", wrapped),
        (wrapper, b"one", wrapped[:5]),
    ):
        with pytest.raises(WrongKey):
            other.unwrap(blob, about)


# ----------------------------------------------------------------------------------------------------- the master key


@pytest.mark.parametrize("form", ["hex", "base64", "urlsafe", "raw file", "text file"])
def test_the_master_key_from_the_configuration(database: str, tmp_path: Path, form: str) -> None:
    import base64

    key = bytes(range(200, 232))
    file = tmp_path / "master"
    declared = {
        "hex": MasterKey(key.hex()),
        "base64": MasterKey(base64.b64encode(key).decode()),
        "urlsafe": MasterKey(base64.urlsafe_b64encode(key).decode().rstrip("=")),
    }.get(form, MasterKey(file=str(file)))
    file.write_bytes(key if form == "raw file" else base64.b64encode(key) + b"\n")

    async def main() -> None:
        state = tmp_path / "state"
        state.mkdir()
        async with opened(database) as engine:
            vault = await open_vault(engine, state, declared, [])
            sealed = vault.seal("up/0", KEY)
            assert (await open_vault(engine, state, MasterKey(key.hex()), [sealed])).open("up/0", sealed) == KEY
            assert list(state.iterdir()) == []
            for wrong, words in (
                (MasterKey(), ("vault.key", "HEADGATE_MASTER_KEY", "HEADGATE_MASTER_KEY_FILE", "is missing", "backup")),
                (MasterKey("00" * 32), ("HEADGATE_MASTER_KEY", "is not the master key", "restore it")),
            ):
                with pytest.raises(VaultLocked) as raised:
                    await open_vault(engine, state, wrong, [sealed])
                assert all(word in str(raised.value) for word in words), raised.value
                assert list(state.iterdir()) == [], "nothing is made in the place of a lost key"
            assert key.hex() not in repr(declared) + repr(vault)

    run(main())


def test_a_setting_beside_the_file_that_has_the_key(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(f"sqlite:///{tmp_path}/headgate.db") as engine:
            await open_vault(engine, tmp_path, MasterKey(), [])
            with pytest.raises(VaultLocked, match=r"vault\.key is: leave the setting out"):
                await open_vault(engine, tmp_path, MasterKey("11" * 32), [])

    run(main())


def test_the_keyring_is_asked_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keyring.py").write_text(
        "def get_password(service, user):\n    assert service == 'headgate'\n    return '22' * 32\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    state = tmp_path / "state"
    state.mkdir()

    async def main() -> None:
        async with opened(f"sqlite:///{tmp_path}/headgate.db") as engine:
            vault = await open_vault(engine, state, MasterKey(), [])
            assert "keyring" in vault.found.place and vault.found.wrapper.id == LocalKey(b"\x22" * 32).id
            assert list(state.iterdir()) == []

    try:
        run(main())
    finally:
        sys.modules.pop("keyring", None)


# ------------------------------------------------------------------------------------------------- earlier releases


def test_a_store_of_an_earlier_release_opens_and_is_sealed_anew(database: str, tmp_path: Path) -> None:
    master = make_key(tmp_path / "vault.key")

    async def main() -> None:
        async with opened(database) as engine:
            body = ProviderBody(
                base_url="http://127.0.0.1:9/v1", headers={"X-Team": ""},
                sealed_headers={"X-Team": sealed_by_an_earlier_release(master, "p/header:x-team", HEADER_SECRET)},
            )  # fmt: skip
            account = StoredAccount("p", "a", sealed_by_an_earlier_release(master, "p/a", KEY), "", 0, False, 1)
            moved = replace(account, label="b")
            objects = Objects({"p": StoredProvider(1, 1, body)}, {"p/a": account, "p/b": moved})
            await registry.save(engine, Objects(), objects)
            for _start in range(2):
                publication = await begun(engine, tmp_path)
                assert publication.secrets == {"p/a": KEY, "p/header:x-team": HEADER_SECRET}
                assert publication.keyring.damaged == {"p/b"}, "the seal of another row"
            after = await registry.load(engine)
            vault = publication.keyring.vault
            assert vault.is_current(after.accounts["p/a"].sealed)
            assert vault.is_current(after.providers["p"].body.sealed_headers["X-Team"])
            assert after.accounts["p/b"].sealed == moved.sealed

    run(main())
    assert not any(secret.encode() in content for secret in (KEY, HEADER_SECRET) for content in files(tmp_path))


def test_an_earlier_release_without_its_key_is_not_given_a_new_one(tmp_path: Path) -> None:
    sealed = sealed_by_an_earlier_release(os.urandom(32), "p/a", KEY)

    async def main() -> None:
        async with opened(f"sqlite:///{tmp_path}/headgate.db") as engine:
            with pytest.raises(VaultLocked, match=r"vault\.key is missing, which sealed 1 of"):
                await open_vault(engine, tmp_path, MasterKey(), [sealed])
            assert not (tmp_path / "vault.key").exists()
            async with engine.connect() as connection:
                assert (await connection.execute(select(data_keys))).all() == []

    run(main())


# ------------------------------------------------------------------------------------------------------------ rotation


def test_a_rotation_that_is_cut_off_anywhere_loses_nothing(database: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(database) as engine:
            publication = await begun(engine, tmp_path)
            objects = stored(publication.keyring.vault, 7)
            await registry.save(engine, Objects(), objects)
            for batches in range(5):  # so many batches of three, then the process is gone
                publication = await begun(engine, tmp_path)
                keyring = publication.keyring
                assert publication.secrets == {f"up/{n}": f"{KEY}-{n}" for n in range(7)}
                before = keyring.vault.current
                await keyring.vault.add_key(engine)
                for _batch in range(batches):
                    done, left = await publication.rewrite(partial(keyring.resealed, most=3))
                if batches >= 3:
                    assert (done, left) == (1 if batches == 3 else 0, 0)
                    await keyring.vault.drop_keys(engine, all_sealed_blobs(publication.sources.objects))
                    assert keyring.vault.key_ids == [keyring.vault.current] != [before]
            after = await registry.load(engine)
            assert {key_of(one.sealed) for one in after.accounts.values()} == {keyring.vault.current}
            async with engine.connect() as connection:
                assert [row.id for row in await connection.execute(select(data_keys))] == [keyring.vault.current]

    run(main())


def test_a_damaged_row_keeps_the_key_that_sealed_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(f"sqlite:///{tmp_path}/headgate.db") as engine:
            publication = await begun(engine, tmp_path)
            vault = publication.keyring.vault
            objects = stored(vault, 2)
            moved = replace(objects.accounts["up/0"], sealed=objects.accounts["up/1"].sealed)
            await registry.save(engine, Objects(), replace(objects, accounts={**objects.accounts, "up/0": moved}))
            publication = await begun(engine, tmp_path)
            keyring, first = publication.keyring, vault.current
            await keyring.vault.add_key(engine)
            assert await publication.rewrite(partial(keyring.resealed, most=9)) == (1, 0)
            await keyring.vault.drop_keys(engine, all_sealed_blobs(publication.sources.objects))
            assert keyring.vault.key_ids == [first, keyring.vault.current]

    run(main())


def test_changing_the_master_key_wraps_data_keys_only(database: str, tmp_path: Path) -> None:
    new = bytes(range(32))

    async def main() -> None:
        async with opened(database) as engine:
            publication = await begun(engine, tmp_path)
            vault = publication.keyring.vault
            await registry.save(engine, Objects(), stored(vault, 2))
            before = await registry.load(engine)
            old = (tmp_path / "vault.key").read_bytes()
            assert await vault.rewrap(engine, new) is True
            assert (tmp_path / "vault.key").read_bytes() == new and not (tmp_path / "vault.key.next").exists()
            assert await registry.load(engine) == before
            assert (await begun(engine, tmp_path)).secrets == {"up/0": f"{KEY}-0", "up/1": f"{KEY}-1"}
            # The process ended between the store's commit and the file's new name
            (tmp_path / "vault.key").write_bytes(old)
            (tmp_path / "vault.key.next").write_bytes(new)
            assert len((await begun(engine, tmp_path)).secrets) == 2
            assert (tmp_path / "vault.key").read_bytes() == new and not (tmp_path / "vault.key.next").exists()
            # …or before the commit
            (tmp_path / "vault.key.next").write_bytes(old)
            assert len((await begun(engine, tmp_path)).secrets) == 2
            assert (tmp_path / "vault.key").read_bytes() == new
            # The former key opens nothing any more
            with pytest.raises(VaultLocked, match="is not the master key"):
                await begun(engine, tmp_path, MasterKey(old.hex()))

    run(main())


def test_a_declared_master_key_is_the_operators_to_replace(database: str, tmp_path: Path) -> None:
    old, new = MasterKey("33" * 32), MasterKey("44" * 32)

    async def main() -> None:
        async with opened(database) as engine:
            publication = await begun(engine, tmp_path, old)
            await registry.save(engine, Objects(), stored(publication.keyring.vault, 1))
            assert await publication.keyring.vault.rewrap(engine, b"\x44" * 32) is False
            assert not (tmp_path / "vault.key").exists()
            assert (await begun(engine, tmp_path, new)).secrets == {"up/0": f"{KEY}-0"}
            with pytest.raises(VaultLocked):
                await begun(engine, tmp_path, old)

    run(main())


def exported(count: int) -> str:
    """As many keys as long as they can be, as the API takes them."""
    longest = '"' * (credentials.MAX - 5) + "x"  # JSON needs two bytes for each quotation mark
    terms = AccountTerms(owner="t" * 64, minute_limit=10**9, daily_limit=10**9).to_store()
    keys = [ExportedKey("up-a", f"{number:064}", f"{number:04}{longest}", terms=terms) for number in range(count)]
    return base64.b64encode(sealed(keys, PASSPHRASE)).decode()


def test_an_export_of_many_long_keys_can_be_imported(tmp_path: Path) -> None:
    assert len(exported(MAX_ACCOUNTS)) < MAX_IMPORT - 10_000
    wish = {"passphrase": PASSPHRASE, "data": exported(100)}
    assert len(wish["data"]) > MAX_BODY
    with Child(tmp_path) as child:
        answer = child.call("POST", "/admin/v1/vault/import", json=wish)
        assert answer.is_success and len(answer.json()["stored"]) == 100, answer.text[:500]
        wish["data"] = child.call("POST", "/admin/v1/vault/export", json={"passphrase": PASSPHRASE}).json()["data"]
        assert len(child.call("POST", "/admin/v1/vault/import", json=wish).json()["there"]) == 100
        large = child.call("POST", "/admin/v1/vault/export", json=wish)
        assert (large.status_code, large.json()["error"]["code"]) == (413, "payload_too_large")


def test_a_key_that_is_there_is_no_more_than_the_store_takes(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(f"sqlite:///{tmp_path}/headgate.db") as engine:
            publication = await begun(engine, tmp_path)
            full = stored(publication.keyring.vault, MAX_ACCOUNTS)
            sources = replace(publication.sources, objects=full)
            for label, kind in (("7", ALREADY_EXISTS), ("new", TOO_MANY)):
                with pytest.raises(GatewayError) as refused:
                    add_account(sources, publication.keyring.seal, AccountWish(provider="up", key=KEY, label=label))
                assert refused.value.kind is kind

    run(main())
