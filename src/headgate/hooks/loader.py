"""Find the hooks of the configuration: those that ship, and the entry points of installed distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from headgate.hooks.chain import Hooks
from headgate.hooks.guard import HookGuard, UnusableHook
from headgate.hooks.shipped import mask_personal, mask_secrets
from headgate.model import HookSettings

GROUP = "headgate.hooks"
SHIPPED: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "mask-secrets": mask_secrets,
    "mask-personal": mask_personal,
}
_METHODS = ("on_request", "mask", "on_receipt")


def known_names() -> list[str]:
    """Return the names that ``hooks`` may have."""
    return [*SHIPPED, *sorted(entry.name for entry in entry_points(group=GROUP) if entry.name not in SHIPPED)]


def load(wanted: Iterable[HookSettings]) -> Hooks:
    """Make the hooks, in this order.  Raises UnusableHook."""
    return Hooks([_made(settings) for settings in wanted])


def _made(settings: HookSettings) -> HookGuard:
    name = settings.name
    factory = SHIPPED.get(name) or _imported(name)
    try:
        hook = factory(settings.options)
    except Exception as error:  # other people's code
        raise UnusableHook(f"hooks: {name} cannot be made of its options: {type(error).__name__}: {error}") from error
    if not any(callable(getattr(hook, method, None)) for method in _METHODS):
        raise UnusableHook(f"hooks: {name} has none of the methods {', '.join(_METHODS)}")
    return HookGuard(name, hook, passes=settings.on_error == "pass", allowance=settings.allowance_ms / 1e3)


def _imported(name: str) -> Any:
    found: tuple[EntryPoint, ...] = tuple(entry_points(group=GROUP, name=name))
    if not found:
        raise UnusableHook(
            f"hooks: no installed package has an entry point {name!r} of the group {GROUP}; known are "
            + ", ".join(known_names())
        )
    try:
        return found[0].load()
    except Exception as error:  # as above
        raise UnusableHook(f"hooks: {name} cannot be imported: {type(error).__name__}: {error}") from error
