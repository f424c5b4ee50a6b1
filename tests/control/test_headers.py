"""Providers' headers as secrets: what stays readable, what is sealed, and stores that an earlier release wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from headgate.catalog.presets import rows
from headgate.control.identity.master_key import VaultLocked
from headgate.control.identity.vault import open_vault
from headgate.control.objects import headers, registry
from headgate.control.objects.registry import Objects, StoredProvider
from headgate.control.offline import Nobody
from headgate.control.snapshot.setup import set_up
from headgate.control.store.database import open_store
from headgate.model import Provider
from headgate.process.boot import MasterKey
from headgate.process.channel import World
from headgate.resources import header_secrets
from headgate.resources.compiled import Compiled
from headgate.resources.provider import ProviderBody
from headgate.wire.signing import header_values, hidden_values
from tests.control.journal_writer import run

PRESET = "acme"
PUBLIC = {"Acme-Version": "2024-06-01"}
ROWS = {**rows(), PRESET: replace(rows()["groq"], name=PRESET, headers=PUBLIC)}
SECRET = "hdr-canary-112233"


def test_what_the_presets_row_says_is_public() -> None:
    one = Provider("p", "http://x", preset=PRESET, headers={**PUBLIC, "X-Team": SECRET, "X-Empty": ""})
    assert header_secrets.secrets_of(one, ROWS) == {"p/header:x-team": SECRET}
    assert header_secrets.without_secrets(one, ROWS).headers == {**PUBLIC, "X-Team": "", "X-Empty": ""}
    changed = dict.fromkeys(PUBLIC, "of my own")
    assert set(
        header_secrets.without_secrets(Provider("p", "http://x", preset=PRESET, headers=changed), ROWS).headers.values()
    ) == {""}


def test_values_come_back_in_their_place() -> None:
    secrets = {"p/header:x-team": SECRET}
    assert header_values("p", {"A": "1", "X-Team": ""}, secrets) == {"A": "1", "X-Team": SECRET}
    assert header_values("p", {"X-Other": ""}, secrets) is None


@pytest.mark.parametrize(
    ("value", "hidden"),
    [(SECRET, (SECRET,)), (f"Bearer {SECRET}", (f"Bearer {SECRET}", SECRET)), ("blue", ()), ("team a", ("team a",))],
)
def test_short_words_are_not_taken_out_of_texts(value: str, hidden: tuple[str, ...]) -> None:
    assert hidden_values("p", {"X-Team": "", "X-Public": "2024-06-01"}, {"p/header:x-team": value}) == hidden


def test_a_store_of_an_earlier_release_is_sealed_at_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        engine = await open_store(f"sqlite:///{tmp_path}/headgate.db")
        compiled = Compiled(World({}, {}), {}, {}, rows=ROWS)
        body = ProviderBody(base_url="http://127.0.0.1:9/v1", auth="none", headers={"X-Team": SECRET})
        await registry.save(engine, Objects(), Objects({"p": StoredProvider(1, 1, body)}))
        for _ in range(2):  # the second start finds it sealed
            stored = await registry.load(engine)
            publication = (await set_up(tmp_path, engine, lambda: compiled)).publication
            publication.link = Nobody()
            await publication.begin(compiled)
            assert publication.secrets == {"p/header:x-team": SECRET}
            assert publication.snapshot.providers["p"].headers == {"X-Team": ""}
        stored = await registry.load(engine)
        assert stored.providers["p"].body.headers == {"X-Team": ""}
        (tmp_path / "vault.key").unlink()
        with pytest.raises(VaultLocked):
            await open_vault(engine, tmp_path, MasterKey(), headers.all_sealed_blobs(stored))
        await engine.dispose()

    run(main())
    assert not [path for path in tmp_path.iterdir() if path.is_file() and SECRET.encode() in path.read_bytes()]
