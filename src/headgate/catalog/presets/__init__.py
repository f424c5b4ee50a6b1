"""Providers as data: one TOML file is one row; this module reads rows and makes providers of them.

Owns the rows' format, their folders, and a row's values for a provider and its models.  Refuses a row that it does not
understand whole: an unknown key, quirk or task is an error with a sentence.  Holds no key and sends no request.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from headgate.catalog.money import RATES, price
from headgate.catalog.names import nearest, unfit_provider
from headgate.catalog.words import Auth, Training
from headgate.dialects.openai_chat.quirks import QUIRKS
from headgate.model import ModelRow, Price
from headgate.wire import urls
from headgate.wire.credentials import clean, key_of, problem
from headgate.wire.http import unfit_field

SHIPPED = Path(__file__).parent
RESERVED = frozenset(("builtin", "headgate"))  # the built-in provider; the prefix of the shipped aliases
TASKS = (
    "chat", "fast", "coding", "extraction", "creative", "research", "planning", "tool-use", "classification",
    "summarization", "translation", "vision", "reasoning", "long-context", "free", "lead-analysis", "research-person",
)  # fmt: skip
MAX_BYTES = 64 << 10
MAX_ROWS = 500

_PLACEHOLDER = re.compile(r"\{([A-Z][A-Z0-9_]{1,63})\}")

Variable = Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9_]{1,63}$")]
Text = Annotated[str, Meta(min_length=1, max_length=256)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Dialect = Literal["openai_chat", "anthropic_messages", "openai_responses", "gemini"]  # dialects.registry.BACKENDS
Prefill = Literal["none", "trailing", "continue_final_message", "prefix"]
YesNo = Literal["yes", "no"]
Link = Annotated[str, Meta(pattern=r"^https://\S+$", max_length=256)]


class BadRow(ValueError):
    """An invalid row.  The message is a sentence that names the file."""


class Unfilled(ValueError):
    """A row's base URL has a placeholder that the environment does not fill.  The message has the next step."""


class Prices(Struct, frozen=True, forbid_unknown_fields=True):
    """USD per million tokens, as in the configuration file."""

    input: Decimal | None = None
    output: Decimal | None = None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None


class ModelProperties(Struct, frozen=True, forbid_unknown_fields=True):
    """The certain properties of one model of the provider; the others come from the price list, or are unknown."""

    title: Text | None = None
    canonical: Text | None = None
    context_window: Count | None = None
    max_output: Count | None = None
    capabilities: tuple[Text, ...] = ()
    kind: Literal["chat", "embedding", "image", "speech", "transcription", "other"] = "chat"
    price: Prices = Prices()


class Engine(Struct, frozen=True, forbid_unknown_fields=True):
    """How an engine on this machine is recognised: ``GET probe`` on ``port`` answers 200 with a JSON object that has
    all of the members ``has``.  A dot leads into objects, and into the first item of a list (``data.owned_by``).
    ``equals``: the value of the first of them.
    """

    port: Annotated[int, Meta(ge=1, le=65_535)]
    probe: Annotated[str, Meta(pattern=r"^/[!-~]*$", max_length=128)]
    has: Annotated[tuple[Text, ...], Meta(min_length=1)]
    equals: Text | None = None


class Row(Struct, frozen=True, forbid_unknown_fields=True):
    """One provider.  ``name`` is the file's stem, it does not stand in the file.

    ``base_url`` may hold ``{VARIABLE}``, which the environment fills.  ``key_env``: the first variable that is set
    holds the key.  ``prices`` is genai-prices' id of it, ``ids`` a pattern of its own model ids (the price list has
    further names that cannot be requested).  ``free_suffix`` is the end of ids that cost nothing by the provider's
    own rule.  ``prefill``: the form in which its models continue a text; ``prefill_trims``: whether they lose its
    trailing white space.  ``local``: it runs on the operator's hardware; tokens cost nothing.  ``tasks``: its model for
    each task.  ``retired``: ids that the provider has ended, or will end, if the price list does not know it.
    """

    name: str
    title: Text
    base_url: Text
    docs: Link
    dialect: Dialect = "openai_chat"
    auth: Auth = "bearer"
    key_env: tuple[Variable, ...] = ()
    headers: Mapping[str, str] = {}
    forward_headers: tuple[Text, ...] = ("openai-organization", "openai-project")
    quirks: tuple[Text, ...] = ()
    training: Training = "unknown"
    prefill: Prefill = "none"
    prefill_trims: YesNo | None = None
    capabilities: tuple[Text, ...] = ()
    prices: Text | None = None
    ids: Text | None = None
    free_suffix: Text | None = None
    local: bool = False
    engine: Engine | None = None
    tasks: Mapping[str, Text] = {}
    models: Mapping[str, ModelProperties] = {}
    retired: tuple[Text, ...] = ()


# ------------------------------------------------------------------------------------- finding


def rows(folders: Iterable[Path] = (), *, lenient: bool = False) -> dict[str, Row]:
    """All rows by name: the shipped ones, then those of ``folders``; of one name the last counts.

    A folder that does not exist has none.  Raises BadRow; ``lenient`` leaves out the files that do not hold.
    """
    found = dict(_shipped())
    for folder in folders:
        found.update(_folder(folder, lenient=lenient))
    if len(found) > MAX_ROWS:
        raise BadRow(f"there are {len(found)} provider rows, {MAX_ROWS} is the limit; remove some *.toml files")
    return found


@cache
def _shipped() -> Mapping[str, Row]:
    return _folder(SHIPPED)


def _folder(folder: Path, *, lenient: bool = False) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for path in sorted(folder.glob("*.toml"))[: MAX_ROWS + 1] if folder.is_dir() else ():
        try:
            row = _read(path)
        except BadRow:
            if not lenient:
                raise
        else:
            found[row.name] = row
    return found


def _read(path: Path) -> Row:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BadRow(f"{path}: cannot be read ({error.strerror})") from error
    if len(text) > MAX_BYTES:
        raise BadRow(f"{path}: has {len(text)} bytes, {MAX_BYTES} is the limit of one provider's row")
    try:
        return parse(path.stem, text.decode())
    except (BadRow, UnicodeDecodeError) as error:
        raise BadRow(f"{path}: {error}") from error


def parse(name: str, text: str) -> Row:
    """One row from its TOML.  Raises BadRow with a sentence that names the key."""
    if sentence := unfit_provider(name):
        raise BadRow(f"the file's name is the provider's, then .toml: {sentence}")
    if name in RESERVED:
        raise BadRow(f"the name {name} is reserved; call the file otherwise")
    try:
        table: dict[str, Any] = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:  # an integer of 5,000 digits; a thousand lists in each other
        raise BadRow(f"is not TOML: {error}") from error
    for key in table:
        if key == "name" or key not in Row.__struct_fields__:
            raise BadRow(f"{key}: unknown key{nearest(key, Row.__struct_fields__[1:])}")
    try:
        row = msgspec.convert({**table, "name": name}, Row)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at ")
        raise BadRow(f"{where.strip('`').removeprefix('$.') or 'the row'}: {what}") from None
    for sentence in _wrong(row):
        raise BadRow(sentence)
    return row


def _wrong(row: Row) -> Iterable[str]:
    if urls.problem(_PLACEHOLDER.sub("x", row.base_url)):
        yield "base_url: must be https://HOST[:PORT]/PATH (or http://), with {VARIABLE} where the user's own name goes"
    if row.base_url.endswith("/"):
        yield "base_url: must not end with /"
    for header in (*row.headers, *row.forward_headers):
        if sentence := unfit_field(header):
            yield f"headers: {sentence}"
    for quirk in row.quirks:
        if quirk not in QUIRKS:
            yield f"quirks: there is no quirk {quirk!r}{nearest(quirk, QUIRKS)}"
    for task in row.tasks:
        if task not in TASKS:
            yield f"tasks: there is no task {task!r}{nearest(task, TASKS)}"
        if row.tasks[task] in row.retired:
            yield f"tasks.{task}: {row.tasks[task]} is retired; name another model"
    if row.auth == "none" and row.key_env:
        yield "key_env: auth is none, so a key would never be sent; remove one of the two"
    if row.ids is not None:
        try:
            re.compile(row.ids)
        except (re.error, OverflowError, RecursionError) as error:
            yield f"ids: is not a regular expression ({error})"
    for model, properties in row.models.items():
        for field in RATES:
            usd = getattr(properties.price, field)
            # Of what is not finite not even the order is known
            if usd is not None and not (usd.is_finite() and 0 <= usd <= 1_000_000 and usd.scaleb(9) % 1 == 0):
                yield f"models.{model}.price.{field}: must be 0 to 1,000,000 USD per million tokens, nine decimals"


# ------------------------------------------------------------------------------------- what a row says


def placeholders(row: Row) -> tuple[str, ...]:
    """The environment variables that the base URL needs."""
    return unfilled(row.base_url, {})


def unfilled(url: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables that a row's base URL needs and ``environ`` lacks."""
    return tuple(name for name in _PLACEHOLDER.findall(url) if not environ.get(name))


def base_url(row: Row, environ: Mapping[str, str]) -> str:
    """The base URL with its placeholders filled.  Raises Unfilled."""
    missing = unfilled(row.base_url, environ)
    if missing:
        spelled = _PLACEHOLDER.sub(lambda found: f"<{found[1]}>", row.base_url)
        raise Unfilled(
            f"preset {row.name} needs to know {' and '.join(missing)}: set the environment variable"
            f"{'s' if len(missing) > 1 else ''}, or write base_url: {spelled}"
        )
    url = _PLACEHOLDER.sub(lambda found: environ[found[1]], row.base_url)
    if sentence := urls.problem(url):
        raise Unfilled(f"preset {row.name}: with {', '.join(placeholders(row))} filled in, base_url {sentence}")
    return url


def fields(row: Row) -> dict[str, Any]:
    """The row's part of a provider's table, by the configuration file's keys; all but ``base_url`` and ``keys``.

    A user's own keys beside ``preset`` replace those of the row: ``{**fields(row), **declared}``.
    """
    return {
        "preset": row.name,
        "dialect": row.dialect,
        "auth": row.auth,
        "headers": dict(row.headers),
        "forward_headers": row.forward_headers,
        "quirks": row.quirks,
        "training": row.training,
        "prefill": row.prefill,
        "prefill_trims": row.prefill_trims,
    }


def key_in(row: Row, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the first of the row's variables whose value can be a key, and that value."""
    return first_key(row.key_env, environ)


def first_key(variables: Iterable[str], environ: Mapping[str, str]) -> tuple[str, str] | None:
    """As ``key_in``, of the variables themselves."""
    for name in variables:
        if key := key_of(environ.get(name, "")):
            return name, key
    return None


def unusable_keys(row: Row, environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each of the row's variables whose value cannot be a key."""
    held = [(name, clean(environ[name])) for name in row.key_env if environ.get(name)]
    return [f"{name} {sentence}" for name, text in held if text and (sentence := problem(text))]


def catalog(row: Row) -> dict[str, ModelRow]:
    """Return the row's own models, by id."""
    return {
        model: ModelRow(
            id=model,
            title=properties.title,
            canonical=properties.canonical,
            context_window=properties.context_window,
            max_output=properties.max_output,
            capabilities=properties.capabilities,
            kind=properties.kind,
            price=Price() if properties.price == Prices() else price(properties.price, f"providers/{row.name}.toml"),
        )
        for model, properties in row.models.items()
    }
