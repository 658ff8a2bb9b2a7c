"""Objects say how they were made: {"kind": word, **arguments}, of plain values that a file can hold.

One mechanism for all: a class that is `Described` remembers the arguments of its constructor, a function that is
`recorded` writes its own into what it returns, and `describe` reads them.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, ParamSpec, TypeVar, get_type_hints

import numpy as np
import torch

from scorefield.runtime.bounds import LEVELS
from scorefield.runtime.registry import kind_of

__all__ = ["Described", "Unwritable", "describe", "path_of", "recorded", "short"]

P = ParamSpec("P")
D = TypeVar("D", bound="Described")

_SHOWN = 4  # entries of a list that a repr shows


@dataclass(frozen=True)
class Unwritable:
    """Stands in a description for an argument that no file can hold."""

    type: str


class Described:
    """Says how it was made.

    given: arguments that whoever builds it has at hand, such as an objective's model; descriptions leave them out.
    """

    given: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **keywords: object) -> None:
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            setattr(cls, "__init__", _remembering(vars(cls)["__init__"]))  # noqa: B010

    @property
    def config(self) -> Mapping[str, Any]:
        """What rebuilds this from a configuration file: {"kind": …, **arguments}."""
        return describe(self)

    @config.setter
    def config(self, arguments: Mapping[str, Any]) -> None:
        vars(self)["_arguments"] = {name: _plain(value) for name, value in arguments.items()}

    def arguments(self) -> dict[str, object]:
        """The arguments of the constructor as plain values, without `given`."""
        said = vars(self).get("_arguments", {})
        return {name: value for name, value in said.items() if name not in self.given}

    def __repr__(self) -> str:
        return short(self.config)


def recorded(*, brief: Sequence[str] = ()) -> Callable[[Callable[P, D]], Callable[P, D]]:
    """A function whose result says by which arguments it was made.

    Args:
        brief: Arguments that are left out at their defaults.
    """

    def decorate(make: Callable[P, D]) -> Callable[P, D]:
        signature = inspect.signature(make)

        @wraps(make)
        def made(*args: P.args, **kwargs: P.kwargs) -> D:
            thing = make(*args, **kwargs)
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            hints = get_type_hints(make)
            arguments = {
                name: float(value) if hints.get(name) is float else _plain(value)
                for name, value in bound.arguments.items()
                if not (name in brief and value == signature.parameters[name].default)
            }
            vars(thing)["_config"] = {"kind": kind_of(path_of(make)), **arguments}
            return thing

        return made

    return decorate


def describe(thing: object) -> dict[str, Any]:
    """{"kind": word or "module:name", **arguments} of any object, None left out: TOML has no null.

    The arguments are those that it was recorded with; of another object its `config` (a mapping of arguments; one
    whose kind is "custom" is the whole description), the fields of a dataclass, or none.
    """
    if isinstance(thing, Described) and "_config" in vars(thing):
        return dict(vars(thing)["_config"])
    arguments = _arguments(thing)
    if arguments.get("kind") == "custom":
        return dict(arguments)
    said = {name: value for name, value in arguments.items() if name != "kind" and value is not None}
    made_by = vars(thing).get("_made_by", type(thing)) if isinstance(thing, Described) else type(thing)
    return {"kind": kind_of(path_of(made_by)), **said}


def path_of(code: Callable[..., object]) -> str:
    """ "module:name" of a class or function. What a script defines is named by the script's file."""
    module = code.__module__
    if module == "__main__":
        file = getattr(sys.modules["__main__"], "__file__", None)
        module = module if file is None else Path(file).stem
    return f"{module}:{code.__qualname__}"


def short(config: Mapping[str, object]) -> str:
    """A description as one reads it: cosine(T=1000)."""
    kind = str(config.get("kind", "custom"))
    arguments = ", ".join(f"{name}={_brief(value)}" for name, value in config.items() if name != "kind")
    return f"{kind.rpartition(':')[2]}({arguments})"


def _brief(value: object) -> str:
    if isinstance(value, Mapping):
        return short(value)
    if isinstance(value, list) and len(value) > _SHOWN:
        return f"[{', '.join(map(repr, value[:_SHOWN]))}, … {len(value)} values]"
    return repr(value)


def _remembering(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that first notes its arguments; of nested ones the outermost does."""
    signature = inspect.signature(init)

    @wraps(init)
    def remembering(self: object, *args: object, **kwargs: object) -> None:
        if "_arguments" not in vars(self):
            try:
                bound = signature.bind(self, *args, **kwargs)
            except TypeError:
                pass  # which the constructor itself explains
            else:
                bound.apply_defaults()
                vars(self)["_made_by"] = type(self)  # which FSDP2 replaces
                vars(self)["_arguments"] = _named(signature, bound.arguments)
        init(self, *args, **kwargs)

    return remembering


def _named(signature: inspect.Signature, arguments: Mapping[str, object]) -> dict[str, object]:
    """The arguments of a constructor by name, without its first one, the object itself."""
    said: dict[str, object] = {}
    for name, value in list(arguments.items())[1:]:
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD and isinstance(value, Mapping):
            said |= {key: _plain(item) for key, item in value.items()}
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            said |= {name: Unwritable("arguments without names")} if value else {}
        else:
            said[name] = _plain(value)
    return said


def _arguments(thing: object) -> Mapping[str, object]:
    if isinstance(thing, Described) and type(thing).config is Described.config:
        said = thing.arguments()
    else:
        said = {str(name): _plain(value) for name, value in _own_words(thing).items()}
    if said or not is_dataclass(thing):
        return said
    return {f.name: _plain(getattr(thing, f.name)) for f in fields(thing) if f.init}


def _own_words(thing: object) -> Mapping[str, object]:
    """The `config` of an object of the user's own: the one place that asks a foreign object what it is."""
    own = getattr(thing, "config", None)
    return own if isinstance(own, Mapping) else {}


def _plain(value: object) -> object:
    """The value as TOML can hold it, None as it is, `Unwritable` where it cannot."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor) and (value.is_meta or value.layout != torch.strided):
        return Unwritable("tensor without values")
    if isinstance(value, torch.Tensor | np.ndarray):
        count = math.prod(value.shape)
        return value.tolist() if count <= LEVELS else Unwritable(f"tensor of {count:,} values")
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Unwritable):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence) and len(value) > LEVELS:
        return Unwritable(f"list of {len(value):,} entries")
    if isinstance(value, Sequence):
        items = [_plain(item) for item in value]
        wrong = next((item for item in items if isinstance(item, Unwritable)), None)
        return wrong or items
    if not isinstance(value, type) and (
        is_dataclass(value) or isinstance(value, Described) or _own_words(value)
    ):
        return describe(value)
    return Unwritable(type(value).__name__)
