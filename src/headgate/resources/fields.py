"""What all resources have in common: their base class, and what a URL, a header, a key, a price or a name may be.

A value that is refused is refused with a whole sentence, and never shown in it where it is a secret.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo
from pydantic_core import PydanticCustomError

from headgate.catalog.names import PROVIDER_NAME, nearest
from headgate.model import CAPABILITIES
from headgate.wire import credentials, urls
from headgate.wire.http import unfit_field

_SECONDS = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
_OF_KEYS = frozenset(("authorization", "x-api-key", "api-key"))

STORE = "store"  # as a context: what is read or written is the store's JSON; as an origin: it is declared there


class Resource(BaseModel):
    """What an operator declares.  Unknown fields are refused, and no error repeats what was given.

    ``LATER``: keys of the file that are documented but not served yet, with the step of the plan that brings each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    LATER: ClassVar[dict[str, int | None]] = {}

    @classmethod
    def from_store(cls, body: str) -> Self:
        """Read what ``to_store`` wrote.  Fields of a newer release are skipped.  Raises pydantic's ValidationError."""
        return cls.model_validate_json(body, extra="ignore", context=STORE)

    def to_store(self) -> str:
        """The JSON of what is set."""
        return self.model_dump_json(exclude_defaults=True, context=STORE)

    def described(self) -> dict[str, Any]:
        """What the audit log may show of it."""
        return self.model_dump(mode="json", exclude_defaults=True, context=STORE)


Positive = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


def wrong(sentence: str) -> PydanticCustomError:
    """A validation error whose text is a whole sentence for the operator."""
    return PydanticCustomError("headgate", "{sentence}", {"sentence": sentence})


def capability(value: str) -> str:
    """One of the words that a model can be said to have."""
    if value not in CAPABILITIES:
        near = nearest(value, CAPABILITIES) or f"; known are {', '.join(CAPABILITIES)}"
        raise wrong(f"there is no capability {value[:50]!r}{near}")
    return value


def printable(value: str) -> str:
    """``value``, where every character of it can be shown."""
    if not value.isprintable():
        raise wrong("must have printable characters only")
    return value


def as_prefill(value: Any) -> Any:
    """``true`` is short for the spelling that needs nothing beside the message."""
    return {
        **dict.fromkeys(("true", "yes", "on"), "trailing"),
        **dict.fromkeys(("false", "no", "off"), "none"),
    }.get(str(value).lower(), value)


def as_yes_no(value: Any) -> Any:
    """YAML's ``true`` and ``false`` are meant as well."""
    return {"true": "yes", "false": "no"}.get(str(value).lower(), value)


def _url(value: str) -> str:
    if sentence := urls.problem(value):
        raise wrong(sentence)
    return value.rstrip("/")


def header_names(value: list[str]) -> list[str]:
    """Names of headers that may be forwarded from the client, in lower case."""
    for name in value:
        if sentence := unfit_field(name):
            raise wrong(sentence)
    return [name.lower() for name in value]


def header_values(value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
    """Headers that may be sent with every request to a provider.  A stored one of an earlier release is read as it is:
    the transport leaves out the fields that it writes itself, and the next change must be sound.
    """
    if info.context != STORE and (sentence := unfit_headers(value)):
        raise wrong(sentence)
    return value


def unfit_headers(value: Mapping[str, str]) -> str | None:
    """Why these headers may not be sent with every request to a provider, or None."""
    seen: set[str] = set()
    for name, text in value.items():
        if sentence := unfit_field(name):
            return f"{sentence} (keys belong in keys:)" if name.lower() in _OF_KEYS else sentence
        if name.lower() in seen:
            return f"{name!r} is there twice, in another case"
        if any(ord(c) < 32 or ord(c) in (127,) or ord(c) > 255 for c in text):
            return f"the value of {name!r} has characters that no header may have"
        seen.add(name.lower())
    return None


def credential(value: SecretStr) -> SecretStr:
    """What can stand in a header as a key or a token, without the blanks and quotes around it."""
    text = credentials.clean(value.get_secret_value())
    if sentence := credentials.problem(text):
        raise wrong(sentence)
    return SecretStr(text)


def _usd(value: Any) -> Any:
    """Numbers are read by their decimal digits: 0.1 in the file is exactly 0.1 USD, not the nearest binary fraction."""
    if isinstance(value, bool):
        raise wrong("must be a number: USD per million tokens")
    return str(value) if isinstance(value, float) else value


def _nano(value: Decimal) -> Decimal:
    if value.scaleb(9) % 1:
        raise wrong("has more than nine decimals: prices are kept in nano-USD per million tokens")
    return value


def instant(value: Any) -> Any:
    """Unix seconds, or a date or instant as YAML reads them; without a zone it is UTC, a date is its first moment."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):  # Unix seconds from a variable are a text, too: no date has ten digits
            value = datetime.fromisoformat(value)
    if isinstance(value, bool) or (isinstance(value, str) and not _SECONDS.fullmatch(value)):
        raise wrong("must be a date, an instant like 2027-01-31T12:00:00Z, or Unix seconds")
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    return value


Usd = Annotated[Decimal, BeforeValidator(_usd), Field(ge=0, le=1_000_000, allow_inf_nan=False), AfterValidator(_nano)]
Credential = Annotated[SecretStr, AfterValidator(credential)]
Url = Annotated[str, AfterValidator(_url)]
# A name that clients may send as `model`: an alias, a model's id, provider/model
ModelName = Annotated[str, Field(pattern=r"^\S+$", min_length=1, max_length=256), AfterValidator(printable)]
ProviderName = Annotated[str, Field(pattern=f"^{PROVIDER_NAME}$", examples=["openai"])]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", examples=["team"])]
Text = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(printable)]
Capability = Annotated[str, Field(examples=["tools"]), AfterValidator(capability)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000_000)]
