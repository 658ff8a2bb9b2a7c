"""Typed options: a table of values from a user becomes an object, or an error that names the option."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from scorefield.runtime.checks import did_you_mean
from scorefield.runtime.errors import InputError
from scorefield.runtime.registry import Registry

__all__ = ["Options", "build", "keyword_options", "parse", "whole_number"]


class Options(BaseModel):
    """A frozen table of options: unknown keys and wrong types are refused, defaults are checked like values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, strict=False)


class _Keywords(Options):
    """Keywords may also be objects that no file can hold; those are given from Python only."""

    model_config = ConfigDict(arbitrary_types_allowed=True)


Table = TypeVar("Table", bound=BaseModel)


def parse(table: type[Table], values: Mapping[str, object], where: str = "") -> Table:
    """values -> table; InputError naming the first mistake as `where.key`, with a suggestion for an unknown
    key.
    """
    try:
        return table.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(_explain(table, error, where)) from None


@cache
def keyword_options(make: Callable[..., Any], omit: tuple[str, ...] = ()) -> type[BaseModel]:
    """The keyword arguments of `make` as a table of options, so that each option is declared once, where it
    is used.
    """
    target = make.__init__ if inspect.isclass(make) else make
    hints = get_type_hints(target)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(make).parameters.items():
        if name not in omit:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (hints.get(name, Any), default)
    return create_model(make.__name__, __base__=_Keywords, **fields)


def build(
    kinds: Registry, table: Mapping[str, object], where: str, given: Mapping[str, object] | None = None
) -> Any:
    """The object that {"kind": word, **options} describes, options checked by the signature of what makes it.

    Args:
        where: The name of the table in messages.
        given: Arguments that the table may leave out, used where what makes the object takes them.
    Raises:
        InputError: For an unknown kind or option, and for a value of the wrong type.
    """
    options = dict(table)
    make: Callable[..., Any] = kinds.find(options.pop("kind", None), f"{where}.kind")
    given = {name: value for name, value in (given or {}).items() if name not in options}
    accepted = inspect.signature(make).parameters
    given = {name: value for name, value in given.items() if name in accepted}
    checked = parse(keyword_options(make, tuple(given)), options, where)
    return make(**given, **{name: getattr(checked, name) for name in checked.model_fields_set})


def whole_number(word: str) -> int | None:
    """The number below 2⁶³ that a word of digits is; None for any other word."""
    short = word.isdecimal() and len(word.lstrip("0")) <= 19
    return number if short and (number := int(word)) < 2**63 else None


def _explain(table: type[BaseModel], error: ValidationError, where: str) -> str:
    found = (
        error.errors()
    )  # of a value that may be a function or something else, what the something else lacks
    first = next((one for one in found if one["type"] != "callable_type"), found[0])
    path = [str(part) for part in first["loc"]]
    name = ".".join([where, *path] if where else path)
    if first["type"] == "extra_forbidden":
        known = _fields_at(table, path[:-1])
        return (
            f"there is no option {name}{did_you_mean(path[-1], known) or '; there are ' + ', '.join(known)}"
        )
    if first["type"] == "missing":
        return f"option {name} is missing"
    return f"option {name}: {first['msg'][0].lower()}{first['msg'][1:]}, got {first['input']!r}"


def _fields_at(table: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        annotation = table.model_fields[part].annotation
        annotation = next((kind for kind in get_args(annotation) if inspect.isclass(kind)), annotation)
        if not (inspect.isclass(annotation) and issubclass(annotation, BaseModel)):
            return []
        table = annotation
    return list(table.model_fields)
