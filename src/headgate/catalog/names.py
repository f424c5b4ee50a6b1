"""Check names for a meaning and for shadowing: (a name, the providers' models) → a sentence or None.

WIRE's order of resolution is an alias, then a model's id, then ``provider/model``.  If two of them have one name, it
reaches only the first.  Pure: the same functions check the configuration file and the stored objects.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping

from headgate.model import AUTO

BUILTIN = "builtin"  # the built-in provider: always there, any model id
PROVIDER_NAME = r"[a-z0-9-]{1,64}"
TENANT_NAME = r"[A-Za-z0-9._-]{1,64}"
TENANT_ALIAS = "client:"  # a tenant's aliases are ``client:<tenant>/<leaf>``
MAX_SLOTS = 16
_LEAF = re.compile(r"[a-z0-9_-]{1,64}")

Known = Mapping[str, Collection[str] | None]
"""Providers' model ids by provider; None: any id may follow the slash."""


def unfit_provider(name: str) -> str | None:
    """Return the reason why no provider may have this name, or None."""
    if re.fullmatch(PROVIDER_NAME, name):
        return None
    return (
        "a provider's name may have a-z, 0-9 and - only, at most 64 of them: it is the part before the slash in a "
        "model's name"
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean X?"`` or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def ended(sentence: str) -> str:
    """End with a full stop, unless it is a question: a text that ends in ``nearest`` may be one."""
    return sentence if sentence.endswith(("?", ".", "!")) else f"{sentence}."


def qualified(known: Known) -> list[str]:
    """Return every known ``provider/model``."""
    return [f"{name}/{model}" for name, models in known.items() for model in models or ()]


def owners(known: Known) -> dict[str, str]:
    """Return a map: model id → the last provider that has it."""
    return {model: name for name, models in known.items() for model in models or ()}


def unresolved(target: str, known: Known, place: str) -> str | None:
    """Return the reason why ``target`` is no ``provider/model``, or None.  ``place`` ends the sentence: "of this file",
    "here".
    """
    provider, slash, model = target.partition("/")
    if not slash or not model:
        owner = next((name for name, models in known.items() if target in (models or ())), None)
        hint = f"; did you mean {owner}/{target}?" if owner else nearest(target, qualified(known))
        return f"{target!r} must be written provider/model{hint}"
    if provider == BUILTIN:
        return None
    if provider not in known:
        return f"{target!r} names no provider {place}{nearest(provider, [*known, BUILTIN])}"
    models = known[provider]
    if models is not None and model not in models:
        return f"provider {provider} declares no model {model!r}{nearest(model, models)}"
    return None


def taken(alias: str, known: Known) -> str | None:
    """Return the reason why an alias may not have this name, or None."""
    provider, slash, model = alias.partition("/")
    if not alias or not alias.isprintable() or " " in alias:
        return "an alias's name must be printable, without spaces"
    if owner := owners(known).get(alias):
        return f"is also the id of a model of provider {owner}; one of the two could never be reached"
    if slash and (provider == BUILTIN or (provider in known and _passes(known[provider], model))):
        return f"also names a model of provider {provider}; choose another name"
    return None


def without_targets(alias: str, targets: Collection[object]) -> str | None:
    """Return the reason why an alias must have targets, or None.  ``auto`` finds its own."""
    return None if targets or alias == AUTO else "names no target; name one (provider/model), or remove the alias"


def tenant_of(alias: str) -> str | None:
    """The tenant whose alias this is; None: it is for everybody."""
    return alias[len(TENANT_ALIAS) :].partition("/")[0] if alias.startswith(TENANT_ALIAS) else None


def unfit_tenant_alias(alias: str, targets: Collection[object], tenants: Collection[str]) -> str | None:
    """Why no tenant may have this alias with these targets, or None.  Of an alias for everybody: None."""
    tenant = tenant_of(alias)
    if tenant is None:
        return None
    if not _LEAF.fullmatch(alias.partition("/")[2]):
        return f"a tenant's alias is written {TENANT_ALIAS}<tenant>/<name>, the name of a-z, 0-9, _ and -, at most 64"
    if tenant not in tenants:
        return f"names no tenant{nearest(tenant, tenants) or '; add the tenant first'}"
    if len(targets) > MAX_SLOTS:
        return f"has {len(targets)} targets; a tenant's alias has at most {MAX_SLOTS}"
    return None


def _passes(models: Collection[str] | None, model: str) -> bool:
    return models is None or model in models
