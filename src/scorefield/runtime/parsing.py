"""Typed options: a table of values from a user becomes an object, or an error that names the option."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_args, get_type_hints

from pydantic import AllowInfNan, BaseModel, ConfigDict, ValidationError, create_model

from scorefield.runtime.bounds import SEED, check_bounds
from scorefield.runtime.checks import brief, did_you_mean
from scorefield.runtime.errors import InputError, ScorefieldError, first_reason
from scorefield.runtime.own_code import find_class, is_own, where_raised
from scorefield.runtime.registry import Registry

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

__all__ = ["Options", "build", "keyword_options", "parse", "whole_number"]


class _Explained(ModelMetaclass):
    """Mistakes in the call of a class of options are InputErrors, as those in a file are."""

    def __call__(cls, *args: Any, **values: Any) -> Any:
        check_bounds(values, "")  # before pydantic reads lists one by one
        try:
            return super().__call__(*args, **values)
        except ValidationError as error:
            raise InputError(_explain(cast(type[BaseModel], cls), error, "")) from None


class Options(BaseModel, metaclass=_Explained):
    """A frozen table of options: unknown keys, wrong types, NaN and infinite numbers are refused, defaults are
    checked like values.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, strict=False, allow_inf_nan=False
    )


class _Keywords(Options):
    """Keywords may also be objects that no file can hold; those are given from Python only."""

    model_config = ConfigDict(arbitrary_types_allowed=True)


Table = TypeVar("Table", bound=BaseModel)


def parse(table: type[Table], values: Mapping[str, object], where: str = "", largest: int = SEED) -> Table:
    """values -> table; InputError naming the first mistake as `where.key`, with a suggestion for an unknown
    key.

    largest: the largest integer anywhere in it. Default: that of a seed.
    """
    check_bounds(values, where, largest)
    try:
        found = table.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(_explain(table, error, where)) from None
    _refuse_truths(values, found, where)
    # Text and floats may have become integers.
    check_bounds({name: getattr(found, name) for name in found.model_fields_set}, where, largest)
    return found


def _refuse_truths(values: Mapping[str, object], found: BaseModel, where: str) -> None:
    """InputError for true and false that have become the numbers 1 and 0."""
    for name in found.model_fields_set & values.keys():
        value, made = values[name], getattr(found, name)
        place = f"{where}.{name}" if where else name
        if isinstance(value, Mapping) and isinstance(made, BaseModel):
            _refuse_truths(value, made, place)
        elif isinstance(value, bool) and isinstance(made, int | float) and not isinstance(made, bool):
            raise InputError(f"option {place}: a number is expected, got {value}")


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
            hint = hints.get(name, Any)
            endless = isinstance(default, float) and math.isinf(default)
            fields[name] = (Annotated[hint, AllowInfNan(True)] if endless else hint, default)
    return create_model(make.__name__, __base__=_Keywords, **fields)


def build(
    kinds: Registry, table: Mapping[str, Any], where: str, given: Mapping[str, Any] | None = None
) -> Any:
    """The object that {"kind": word, **options} describes, options checked by the signature of what makes it.

    Args:
        kinds: The concept. A kind "module:Name" is a class of the user's own, found where `own_code.allowing` says.
        where: The name of the table in messages.
        given: Arguments that the table may leave out, used where what makes the object takes them.
    Raises:
        InputError: For an unknown kind or option, and for a value of the wrong type.
    """
    options = dict(table)
    kind = options.pop("kind", None)
    given = {name: value for name, value in (given or {}).items() if name not in options}
    if is_own(kind):
        return _build_own(kinds, kind, options, where, given)
    if kind == "custom":
        raise InputError(
            f'this run\'s {kinds.what} is your own (kind "custom"): pass the object itself, as in '
            f"sf.load(run, {kinds.what}=yours)"
        )
    make: Callable[..., Any] = kinds.find(kind, f"{where}.kind")
    accepted = inspect.signature(make).parameters
    given = {name: value for name, value in given.items() if name in accepted}
    checked = parse(keyword_options(make, tuple(given)), options, where, kinds.largest)
    arguments = {**given, **{name: getattr(checked, name) for name in checked.model_fields_set}}
    try:
        return make(**arguments)
    except ScorefieldError:
        raise
    except Exception as error:  # of sizes that do not fit together, and of overflows
        raise InputError(
            f"[{where}]: a {kind} cannot be built from these values: {first_reason(error)}"
        ) from error


def _build_own(
    kinds: Registry, kind: str, options: Mapping[str, Any], where: str, given: Mapping[str, Any]
) -> Any:
    """An object of the user's own class. Its description holds all its arguments but those without a default that
    are given.
    """
    make = find_class(kind, f"{where}.kind")
    if not issubclass(make, kinds.base):
        raise InputError(f"{where}.kind: {kind} is no {kinds.what}: it must be a {kinds.base.__name__}")
    needed = {
        name
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    }
    arguments = {**{name: value for name, value in given.items() if name in needed}, **options}
    try:
        inspect.signature(make).bind(**arguments)
    except TypeError as error:
        raise InputError(f"{where}: {kind} does not take these arguments: {error}") from None
    try:
        return make(**arguments)
    except ScorefieldError:
        raise
    except Exception as error:  # whatever the user's constructor raises; its author sees the cause in Python
        raise InputError(
            f"[{where}]: {kind} cannot be built from these arguments: {where_raised(error)}"
        ) from error


def whole_number(word: str) -> int | None:
    """The number below 2⁶³ that a word of digits is; None for any other word."""
    short = word.isdecimal() and len(word.lstrip("0")) <= 19
    return number if short and (number := int(word)) < 2**63 else None


def _explain(table: type[BaseModel], error: ValidationError, where: str) -> str:
    found = (
        error.errors()
    )  # of a value that may be a function or something else, what the something else lacks
    first = next((one for one in found if one["type"] != "callable_type"), found[0])
    # In a union pydantic names the type that was tried, "list[int]" or "is-instance[Sampler]"; no option has brackets.
    # The last part of an unknown option is the user's own word, whatever it holds.
    unknown, place = first["type"] == "extra_forbidden", list(enumerate(first["loc"], 1))
    parts = [part for i, part in place if "[" not in str(part) or (unknown and i == len(place))]
    while not unknown and len(parts) > 1 and isinstance(parts[-1], str) and not _fields_at(table, parts[:-1]):
        parts.pop()  # the name of one of several types that an option may have
    path = [str(part) for part in parts]
    name = ".".join([where, *path] if where else path)
    if unknown:
        known = _fields_at(table, path[:-1])
        near = did_you_mean(path[-1], known) or f"; there are {', '.join(known)}"
        return f"there is no option {name}{near}"
    if first["type"] == "missing":
        return f"option {name} is missing"
    said = first["msg"].removeprefix("Value error, ")  # of a check of this library
    if first["type"] == "is_instance_of":
        kind = str(first["ctx"]["class"])
        said = "a list is expected" if kind == "Sequence" else f"an object of the class {kind} is expected"
    return f"option {name}: {said[0].lower()}{said[1:]}, got {brief(first['input'])}"


def _fields_at(table: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    for part in map(str, path):
        if part.isdecimal():  # of a list of tables
            continue
        if part not in table.model_fields:
            return []
        annotation = table.model_fields[part].annotation
        annotation = next((kind for kind in get_args(annotation) if inspect.isclass(kind)), annotation)
        if not (inspect.isclass(annotation) and issubclass(annotation, BaseModel)):
            return []
        table = annotation
    return list(table.model_fields)
