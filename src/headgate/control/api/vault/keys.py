"""/admin/v1/vault: the keys that seal the store's secrets, and the vault as a whole."""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import AfterValidator, Field, SecretStr

from headgate.control.api.access.door import MAX_IMPORT
from headgate.control.api.errors import documented
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.views import Changed, View
from headgate.control.audit.chain import Change, record_alone
from headgate.control.identity.vault_file import SHORTEST
from headgate.errors import INVALID_VALUE, GatewayError
from headgate.process.credentials import KEY_FORM, parse_key
from headgate.resources.fields import Resource, wrong


def _long_enough(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < SHORTEST:
        raise wrong(f"must have at least {SHORTEST} characters")
    return value


def _key(value: SecretStr) -> SecretStr:
    if parse_key(value.get_secret_value()) is None:
        raise wrong(KEY_FORM.removeprefix("it "))
    return value


Passphrase = Annotated[SecretStr, Field(max_length=1024), AfterValidator(_long_enough)]


class RotateWish(Resource):
    """One batch.  The first request of a rotation makes a data key, the others ``continue`` until ``left`` is 0."""

    continue_: bool = Field(default=False, alias="continue", description="With the newest key, which is there.")
    batch: int = Field(default=100, ge=1, le=1000, description="At most so many secrets are sealed anew.")


class MasterKeyWish(Resource):
    key: Annotated[SecretStr, Field(max_length=1024), AfterValidator(_key)] = Field(
        description="32 random bytes, in hex or base64."
    )


class ExportWish(Resource):
    passphrase: Passphrase


class ImportWish(Resource):
    passphrase: Annotated[SecretStr, Field(max_length=1024)]
    data: Annotated[str, Field(max_length=MAX_IMPORT, description="What POST /vault/export answered, base64.")]


class DataKeyView(View):
    """``secrets``: how many it has sealed."""

    id: str
    secrets: int


class VaultFindingView(View):
    mark: Literal["good", "warning", "bad"]
    subject: str
    sentence: str


class VaultView(View):
    """``place``: where the master key was found.  ``data_keys``: oldest first; the last one seals.  ``ok``: no finding
    is bad.
    """

    object: Literal["headgate.vault"] = "headgate.vault"
    master_key: str
    place: str
    data_keys: list[DataKeyView]
    ok: bool
    findings: list[VaultFindingView]


class RotationView(View):
    """``damaged``: secrets that no key opens; the keys that they name are kept."""

    object: Literal["headgate.rotation"] = "headgate.rotation"
    key: str
    resealed: int
    left: int
    damaged: int


class MasterKeyView(View):
    """``kept``: STATE/vault.key holds it from now on.  Where it does not, the next start needs it where the former one
    was: ``place``.
    """

    object: Literal["headgate.master_key"] = "headgate.master_key"
    master_key: str
    kept: bool
    place: str


class ExportView(View):
    object: Literal["headgate.vault.export"] = "headgate.vault.export"
    data: str
    accounts: int


class ImportView(Changed):
    """Ids of accounts; ``there``: as they are.  ``refused``: with the reasons."""

    object: Literal["headgate.vault.import"] = "headgate.vault.import"
    stored: list[str]
    there: list[str]
    refused: dict[str, str]


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("vault")
    keys = admin.publishing.vault

    @api.get("/vault")
    async def show_vault() -> VaultView:
        """The keys of the vault, and everything that is wrong with it.  No secret is in the answer."""
        findings = await asyncio.to_thread(keys.findings)
        return VaultView(
            master_key=keys.vault.found.wrapper.id,
            place=keys.vault.found.place,
            data_keys=[DataKeyView(id=ident, secrets=count) for ident, count in keys.counts().items()],
            ok=all(one.mark != "bad" for one in findings),
            findings=[VaultFindingView.of(one) for one in findings],
        )

    @api.post("/vault/rotate")
    async def rotate_vault(wish: RotateWish | None = None) -> RotationView:
        """Seals stored secrets with a new data key, a batch at a time.  Both keys open until all is done."""
        wish = wish or RotateWish()
        return RotationView.of(await keys.rotate(wish.batch, new_key=not wish.continue_))

    @api.post("/vault/master-key")
    async def change_master_key(wish: MasterKeyWish) -> MasterKeyView:
        """Wraps the data keys with another master key, in one transaction.  No secret is sealed anew."""
        place = keys.vault.found.place
        key = parse_key(wish.key.get_secret_value())
        assert key is not None
        kept = await keys.rewrap(key)
        return MasterKeyView(master_key=keys.vault.found.wrapper.id, kept=kept, place=place)

    @api.post("/vault/export")
    async def export_vault(wish: ExportWish) -> ExportView:
        """The stored keys with their terms, sealed under a passphrase (scrypt, AES-256-GCM)."""
        await record_alone(admin.engine, Change("vault", "", "exported"))
        data, count = await asyncio.to_thread(keys.exported, wish.passphrase.get_secret_value())
        return ExportView(data=base64.b64encode(data).decode(), accounts=count)

    @api.post("/vault/import", responses=documented(404, 409))
    async def import_vault(wish: ImportWish) -> ImportView:
        """Stores the keys of an exported vault that are not there yet.  Those that are there stay as they are."""
        try:
            data = base64.b64decode(wish.data, validate=True)
        except ValueError as error:  # binascii's too
            raise GatewayError(INVALID_VALUE, "`data` is no base64.", param="data") from error
        found, effective = await keys.take_in(data, wish.passphrase.get_secret_value())
        return ImportView.now(
            effective, stored=list(found.stored), there=list(found.there), refused=dict(found.refused)
        )

    return api
