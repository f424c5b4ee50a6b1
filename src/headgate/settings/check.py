"""From a tree to a valid ``schema.File``: every problem found at once, each a sentence that names its key and its line.

Two passes.  The schema checks the shape: known keys, types, ranges.  This module checks the sense of values with a
valid shape: names that must resolve, names that must not collide.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from headgate.catalog import names
from headgate.catalog.names import nearest
from headgate.catalog.presets import RESERVED, TASKS
from headgate.catalog.presets import Row as PresetRow
from headgate.catalog.shipped_aliases import PREFIX
from headgate.model import AUTO
from headgate.process import trust
from headgate.process.credentials import read_master_key
from headgate.process.statedir import StateError
from headgate.resources import wording
from headgate.resources.callers.allowance import Allowance
from headgate.resources.callers.prompt import MAX_CHARACTERS
from headgate.resources.fields import Resource
from headgate.settings.document import texts, typed
from headgate.settings.file import ConfigError, Location, Tree, dotted
from headgate.settings.presets import expand
from headgate.settings.pruning import Pruned
from headgate.settings.schema import BUILTIN, SHIPPED_HOOKS, File

HERE = "of this file"
PATTERN = (
    "a model's id is no pattern: leave models out and every id passes, with prices and facts from the price list; "
    "list the ids where only these may pass"
)
MAX_TURNS = 8  # of taking out what has a problem
Problems = Iterator[tuple[Location, str]]


def check(tree: Tree, rows: Mapping[str, PresetRow], environ: Mapping[str, str], found: Collection[str] = ()) -> File:
    """The validated file, with what its presets say.  ``found``: providers that the environment adds.

    Raises ConfigError with every problem: a faulty part is left out, and the rest is checked all the same.
    """
    problems = [*tree.problems, *((here, tree.complain(here, words)) for here, words in expand(tree, rows, environ))]
    if not problems:
        try:
            file = File.model_validate(_valued(File, _present(File, tree.root)))
        except ValidationError as error:
            problems = [(here, tree.complain(here, words)) for here, words in _translated(error)]
        else:
            problems = [(here, tree.complain(here, words)) for here, words in _sense(tree, file, _known(file), found)]
            if not problems:
                return file
            raise ConfigError([words for _here, words in problems])
    pruned = Pruned(tree.root)
    for here, _words in problems:
        pruned.drop(here)
    raise ConfigError([*(words for _here, words in problems), *_of_the_rest(tree, pruned, found)])


def _of_the_rest(tree: Tree, pruned: Pruned, found: Collection[str]) -> Iterator[str]:
    """The problems of what has none so far."""
    for _turn in range(MAX_TURNS):
        try:
            file = File.model_validate(_valued(File, _present(File, pruned.root)))
            break
        except ValidationError as error:
            bad = [(pruned.original(here), words) for here, words in _translated(error)]
            for here, words in bad:
                if not pruned.is_bad(here):
                    yield tree.complain(here, words)
                pruned.drop(here)
    else:
        return
    known = {**dict.fromkeys(_names(tree.root, "providers")), **_known(file)}
    for name in known:
        if not pruned.is_whole(("providers", name)):  # its models are those that it names, sound or not
            table = tree.root["providers"][name]
            models = table.get("models") if isinstance(table, dict) else None
            known[name] = [str(model) for model in models] if isinstance(models, dict) else None
    more = [*found, *(name for name in _names(tree.root, "providers") if name not in file.providers)]
    for here, words in _sense(tree, file, known, more):
        place = pruned.original(here)
        if not pruned.is_bad(place) and not (place[-1:] == ("base_url",) and not pruned.is_whole(place[:2])):
            if place == ("default_model",) and file.default_model in _names(tree.root, "aliases"):
                continue
            yield tree.complain(place, words)


def _names(root: Mapping[str, Any], table: str) -> list[str]:
    """The names in a table of the file, sound or not."""
    value = root.get(table)
    return [str(name) for name in value] if isinstance(value, dict) else []


# ------------------------------------------------------------------------------------- shape


def _row_of(annotation: Any) -> type[Resource] | None:
    """The table that stands somewhere inside an annotation such as ``dict[str, Model | None] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, Resource):
        return annotation
    return next((row for part in get_args(annotation) if (row := _row_of(part))), None)


def _row_at(location: Location) -> type[Resource]:
    """The table of the schema at a place of the file: a value itself, one of a mapping, or an item of a list."""
    row: type[Resource] = File
    parts = iter(location)
    for name in parts:
        annotation = row.model_fields[str(name)].annotation
        if _is_collection(annotation):
            next(parts, None)  # the key or the index
        row = _row_of(annotation) or row
    return row


def _is_collection(annotation: Any) -> bool:
    return get_origin(annotation) in (dict, list) or any(map(_is_collection, get_args(annotation)))


def _unknown(location: Location) -> str:
    row, key = _row_at(location[:-1]), location[-1]
    if key not in row.LATER:
        return f"unknown key{nearest(str(key), row.model_fields)}"
    step = row.LATER[str(key)]
    when = f"it comes with step {step}" if step else "it comes later"
    return f"not supported in this version ({when}); remove the key"


def _present(row: type[Resource], value: dict[str, Any]) -> dict[str, Any]:
    """``providers:`` with nothing behind it is null in YAML and means that there are none."""
    kept: dict[str, Any] = {}
    for key, item in value.items():
        field = row.model_fields.get(key)
        if item is None and field is not None and not field.is_required() and field.default is not None:
            continue
        inner = _row_of(field.annotation) if field else None
        direct = inner is not None and field is not None and not _is_collection(field.annotation)
        kept[key] = _present(inner, item) if direct and inner and isinstance(item, dict) else item
    return kept


_SENTENCES = {
    **dict.fromkeys(("model_type", "dict_type"), "must be a table: its keys on lines of their own, or {key: value}"),
}


def _valued(row: type[Resource], table: dict[str, Any]) -> dict[str, Any]:
    """A table whose values are texts, as they were written, but where the schema takes any value: there they are what
    YAML reads in them.  Numbers and switches the schema reads itself.
    """
    return {key: _value(row.model_fields.get(key), item) for key, item in table.items()}


def _value(field: FieldInfo | None, item: Any) -> Any:
    if field is not None and Any in get_args(field.annotation):
        return typed(item)
    inner = _row_of(field.annotation) if field is not None else None
    direct = field is not None and not _is_collection(field.annotation)
    if inner is not None and direct and isinstance(item, dict):
        return _valued(inner, item)
    if isinstance(item, dict):
        return {
            key: _valued(inner, one) if inner and isinstance(one, dict) else texts(one) for key, one in item.items()
        }
    if isinstance(item, list):
        return [_valued(inner, one) if inner and isinstance(one, dict) else texts(one) for one in item]
    return texts(item)


def _translated(error: ValidationError) -> Problems:
    for detail in error.errors(include_url=False, include_input=False):  # pydantic's own text may quote a secret
        location = tuple(part for part in detail["loc"] if part != "[key]")
        if detail["type"] == "extra_forbidden":
            yield location, _unknown(location)
        else:
            yield location, _SENTENCES.get(detail["type"]) or wording.phrase(detail)


# ------------------------------------------------------------------------------------- sense


def _sense(tree: Tree, file: File, known: names.Known, found: Collection[str]) -> Problems:
    """Check the rules that the schema cannot express.  ``known``: the providers' models; ``found``: providers of
    which any id may be.
    """
    for judge in (_ports, _master_key, _providers, _tokens, _groups, _prompts, _replay, _hooks, _webhooks):
        yield from judge(tree, file)
    yield from _aliases(file, {**dict.fromkeys(found), **known})
    yield from _over_budget(file, {**dict.fromkeys(found), **known})


def _ports(tree: Tree, file: File) -> Problems:
    if file.server.port == file.control.port and file.server.host == file.control.host:
        yield ("control", "port"), f"is the data plane's port too ({file.server.port}); choose another"


def _master_key(tree: Tree, file: File) -> Problems:
    if not file.master_key_file:
        return
    if file.master_key is not None:
        yield ("master_key_file",), "master_key is set too; remove one of the two"
    try:
        read_master_key(beside(tree.path, file.master_key_file))
    except StateError as error:
        yield ("master_key_file",), str(error)


def beside(path: Path | None, name: str) -> Path:
    """A file that the configuration names: relative to the configuration's own folder."""
    return ((path.parent if path else Path()) / Path(name).expanduser()).absolute()


def _providers(tree: Tree, file: File) -> Problems:
    base = tree.path.parent if tree.path else Path()
    for name, row in file.providers.items():
        here: Location = ("providers", name)
        if name in RESERVED:
            what = "the built-in provider" if name == BUILTIN else "the shipped aliases"
            yield here, f"the name {name} is reserved for {what}; choose another"
        elif sentence := names.unfit_provider(name):
            yield here, sentence
        if not row.base_url:
            yield (*here, "base_url"), "is missing; write it, or preset: with the name of a known provider"
        if row.auth == "none" and row.keys:
            yield (*here, "keys"), "auth is none, so keys would never be sent; remove one of the two"
        if row.ca_file and (sentence := trust.problem(base / Path(row.ca_file).expanduser())):
            yield (*here, "ca_file"), f"{row.ca_file} {sentence}"
        labels = row.labels
        for index, label in enumerate(labels):
            if label in labels[:index]:
                yield (
                    (*here, "keys", index),
                    f"two keys would both be called {name}/{label}; give them different labels",
                )
        for model in row.models or ():
            if not model or not model.isprintable() or " " in model:
                yield (*here, "models", model), "a model's id must be printable, without spaces"
            elif "*" in model:
                yield (*here, "models", model), PATTERN


def _aliases(file: File, known: names.Known) -> Problems:
    for name, alias in file.aliases.items():
        here: Location = ("aliases", name)
        if sentence := names.taken(name, known):
            yield here, sentence
        if sentence := names.without_targets(name, alias.targets):
            yield ((*here, "targets") if "targets" in alias.model_fields_set else here), sentence
        if sentence := names.unfit_tenant_alias(name, alias.targets, file.tenants):
            yield here, sentence
        for index, entry in enumerate(alias.targets):
            if sentence := names.unresolved(entry.target, known, HERE):
                yield (*here, "targets", index), sentence
    if sentence := _no_model(file.default_model, file, known):
        yield ("default_model",), sentence


def _known(file: File) -> dict[str, Collection[str] | None]:
    return {name: row.models for name, row in file.providers.items()}


def _over_budget(file: File, known: names.Known) -> Problems:
    for location, holder in _holders(file):
        if holder.instead and (sentence := _no_model(holder.instead, file, known)):
            yield (*location, "over_budget", "alias"), sentence


def _holders(file: File) -> Iterator[tuple[Location, Allowance]]:
    for index, token in enumerate(file.tokens):
        yield ("tokens", index), token
    for name, tenant in file.tenants.items():
        yield ("tenants", name), tenant


def _groups(tree: Tree, file: File) -> Problems:
    idents: set[str] = set()
    for index, group in enumerate(file.budgets):
        if group.ident in idents:
            yield ("budgets", index), f"two budgets are called {group.ident}; give each a name of its own"
        idents.add(group.ident)


def _prompts(tree: Tree, file: File) -> Problems:
    keys: set[str] = set()
    for index, prompt in enumerate(file.prompts):
        if prompt.key in keys:
            yield ("prompts", index, "name"), f"two prompts are called {prompt.key}"
        if sentence := _unknown_tenant(prompt.tenant, file):
            yield ("prompts", index, "tenant"), sentence
        keys.add(prompt.key)
    if sum(prompt.declared_prompt().size for prompt in file.prompts) > MAX_CHARACTERS:
        yield ("prompts",), f"all prompts together may have {MAX_CHARACTERS:,} characters"


def _unknown_tenant(tenant: str | None, file: File) -> str | None:
    if tenant is None or tenant in file.tenants:
        return None
    return f"there is no tenant {tenant}{nearest(tenant, file.tenants) or '; declare it under tenants:'}"


def _no_model(name: str, file: File, known: names.Known) -> str | None:
    plain = [*file.aliases, AUTO, *(PREFIX + task for task in TASKS), *names.owners(known)]
    if name in plain or names.unresolved(name, known, HERE) is None:
        return None
    return f"{name!r} is no alias and no model of this file{nearest(name, [*plain, *names.qualified(known)])}"


def _tokens(tree: Tree, file: File) -> Problems:
    names: set[str] = set()
    secrets: set[str] = set()
    for index, token in enumerate(file.tokens):
        if token.name in names:
            yield ("tokens", index, "name"), f"two tokens are called {token.name}"
        if (secret := token.secret.get_secret_value()) in secrets:
            yield ("tokens", index, "secret"), "another token has the same secret"
        if sentence := _unknown_tenant(token.tenant, file):
            yield ("tokens", index, "tenant"), sentence
        names.add(token.name)
        secrets.add(secret)


def _replay(tree: Tree, file: File) -> Problems:
    replay = file.replay
    if replay.per_stream_kb > replay.max_mb * 1024:
        yield (
            ("replay", "per_stream_kb"),
            f"one stream may take more ({replay.per_stream_kb:g} KB) than all of them together ({replay.max_mb:g} MB)",
        )


def _hooks(tree: Tree, file: File) -> Problems:
    if not file.hooks:
        return
    # Late: importlib.metadata, for files that have any
    from headgate.hooks.loader import known_names  # noqa: PLC0415

    known = known_names()
    seen: set[str] = set()
    for index, hook in enumerate(file.hooks):
        here: Location = ("hooks", index)
        if hook.name not in known:
            yield here, f"there is no hook {hook.name!r}{nearest(hook.name, known)}; known are {', '.join(known)}"
        if hook.name in seen:
            yield here, f"{hook.name} is there twice"
        seen.add(hook.name)
        given = hook.model_fields_set
        if hook.name in SHIPPED_HOOKS and "options" in given:
            yield (*here, "options"), "are of hooks that are installed; this one has on_request and on_answer"
        elif hook.name not in SHIPPED_HOOKS and given & {"on_request", "on_answer"}:
            yield here, "on_request and on_answer are of the hooks that ship; write this one's own into options"


def _webhooks(tree: Tree, file: File) -> Problems:
    seen: set[str] = set()
    for index, hook in enumerate(file.webhooks):
        if hook.label in seen:
            yield ("webhooks", index), f"two webhooks are called {hook.label}; give each a name of its own"
        seen.add(hook.label)


def flat(table: BaseModel, location: Location = ()) -> Iterator[tuple[str, str]]:
    """A table's plain values by dotted key, as text that is equal where they are."""
    for name in type(table).model_fields:
        value = getattr(table, name)
        if isinstance(value, BaseModel):
            yield from flat(value, (*location, name))
        else:
            yield dotted((*location, name)), repr(value)
