"""Values of the command line: text → str, int, float, bool, choices, lists of them.

Typer would ask pydantic, whose import takes longer than a command may.  Other types are left to Typer.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, get_args, get_origin

import typer

_YES = frozenset({"1", "true", "t", "yes", "y", "on"})
_NO = frozenset({"0", "false", "f", "no", "n", "off", ""})
_WORDS: dict[Any, str] = {str: "TEXT", int: "N", float: "N"}
_PLAIN = (str, int, float, bool)


def simplify(command: Any) -> None:
    """Has the parameters of a command, and of all below it, read by this module where that is possible."""
    found = command.get_params

    def get_params(ctx: Any) -> list[Any]:
        parameters: list[Any] = found(ctx)  # --help too, which exists only now
        for parameter in parameters:
            _simplify(parameter)
        return parameters

    command.get_params = get_params
    for below in getattr(command, "commands", {}).values():
        simplify(below)


def _simplify(parameter: Any) -> None:
    _name_value(parameter)
    if getattr(parameter, "_runtime_param", None) is None:
        described = getattr(parameter, "type_descriptor", None)
        if described is not None and getattr(described.parameter_info, "parser", None) is None:
            annotation = described.annotation
            item = get_args(annotation)[0] if get_origin(annotation) is list else annotation
            if item in _PLAIN or (isinstance(item, type) and issubclass(item, Enum)):
                parameter._runtime_param = _Reader(item, get_origin(annotation) is list, described.parameter_info)


def _name_value(parameter: Any) -> None:
    """``TEXT`` and ``N`` in the help, where Typer would show the name of a type; an argument by its name alone."""
    described = getattr(parameter, "type_descriptor", None)
    if described is None:
        return
    if parameter.param_type_name == "argument":
        parameter.metavar = parameter.metavar or parameter.name.upper()
        parameter.display_type_rich = lambda ctx: ""
        parameter.get_usage_pieces = lambda ctx: [_usage(parameter)]
    elif parameter.metavar is None:
        annotation = described.annotation
        item = get_args(annotation)[0] if get_origin(annotation) is list else annotation
        parameter.metavar = _WORDS.get(item)


def _usage(parameter: Any) -> str:
    name = str(parameter.metavar)
    if name.startswith("["):  # written out
        return name
    return (name if parameter.required else f"[{name}]") + ("..." if parameter.nargs != 1 else "")


class _Reader:
    """Read one parameter (Typer's runtime parameter)."""

    def __init__(self, kind: type, many: bool, info: Any) -> None:
        self._kind = kind
        self._many = many
        self._info = info

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value.  Raises typer.BadParameter with a sentence."""
        many = self._many or param.multiple or param.nargs == -1
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        try:
            if many:
                return [self._one(item) for item in (value if isinstance(value, list | tuple) else [value])]
            return self._one(value)
        except ValueError as error:
            raise typer.BadParameter(str(error), ctx=ctx, param=param) from None

    def _one(self, value: Any) -> Any:
        if issubclass(self._kind, Enum):
            return self._choice(value)
        if self._kind is str:
            return str(value)
        if self._kind is bool:
            return self._switch(value)
        return self._number(value)

    def _choice(self, value: Any) -> Any:
        members = list(self._kind.__members__.values())  # type: ignore[attr-defined]  # it is an Enum
        text = str(value.value if isinstance(value, Enum) else value)
        for member in members:
            if text == member.value or (not self._info.case_sensitive and text.lower() == str(member.value).lower()):
                return member
        raise ValueError(f"{text!r} is not one of {', '.join(str(member.value) for member in members)}.")

    def _number(self, value: Any) -> Any:
        try:
            number = self._kind(value)
        except (ValueError, OverflowError):
            what = "a whole number" if self._kind is int else "a number"
            raise ValueError(f"{value!r} is not {what}.") from None
        least, most = self._info.min, self._info.max
        # As a negation, so that NaN is in no range
        if (least is not None and not number >= least) or (most is not None and not number <= most):
            bounds = [f"at least {least:g}"] if least is not None else []
            bounds += [f"at most {most:g}"] if most is not None else []
            raise ValueError(f"{value} is out of range: {' and '.join(bounds)}.")
        return number

    def _switch(self, value: Any) -> bool:
        text = str(value).strip().lower()
        if text in _YES or text in _NO:
            return text in _YES
        raise ValueError(f"{value!r} is neither true nor false.")
