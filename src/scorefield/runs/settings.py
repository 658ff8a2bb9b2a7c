"""What `--set` accepts: every name of a recipe with its type, default and description.

All of it is read where the options are declared: pydantic's Fields, the signatures of what the registry's words stand
for, and their docstrings.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Sequence as SequenceType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from scorefield.generation.sampling_options import SamplingOptions
from scorefield.runs.recipe import DataOptions, ModelOptions, Variant
from scorefield.runtime.checks import one_of
from scorefield.runtime.description import Described
from scorefield.runtime.registry import NETS, OBJECTIVES, PROCESSES, SAMPLERS, TIMES, Registry
from scorefield.training import TrainingOptions

__all__ = ["Setting", "sections", "settings_of", "settings_of_kind", "summary_of"]

_TABLES: Mapping[str, type[BaseModel]] = {
    "data": DataOptions,
    "model": ModelOptions,
    "training": TrainingOptions,
    "sampling": SamplingOptions,
    "variants": Variant,
}
_KINDS: Mapping[str, Registry] = {
    "process": PROCESSES,
    "net": NETS,
    "objective": OBJECTIVES,
    "objective.times": TIMES,
    "sampling.sampler": SAMPLERS,
}
_ORDER = (
    "data",
    "process",
    "net",
    "model",
    "objective",
    "objective.times",
    "training",
    "sampling",
    "sampling.sampler",
    "variants",
)
_OF_DATA = "from the data"
_PLAIN = {int: "integer", float: "number", str: "text", bool: "true | false"}


class Setting(NamedTuple):
    """One name of `--set`. type, default: as text."""

    name: str
    type: str
    default: str
    description: str


def sections() -> dict[str, str]:
    """Section -> what it holds, in the order of a recipe; those of one kind are "net.unet"."""
    found: dict[str, str] = {}
    for section in _ORDER:
        if section in _TABLES:
            found[section] = summary_of(_TABLES[section])
        else:
            found[section] = f"one kind of: {', '.join(_KINDS[section])}"
            found |= {f"{section}.{kind}": summary_of(_KINDS[section][kind]) for kind in _KINDS[section]}
    return found


def settings_of(section: str) -> list[Setting]:
    """What a section accepts.

    Args:
        section: "training", "net", "net.unet", ….
    Raises:
        InputError: For no such section.
    """
    if section in _TABLES:
        return list(_of_table(section, _TABLES[section]))
    if section in _KINDS:
        kinds = _KINDS[section]
        words = Setting(f"{section}.kind", "text", "", f"one of {', '.join(kinds)}")
        return [
            words,
            *(Setting(f"{section}.kind={kind}", "", "", summary_of(kinds[kind])) for kind in kinds),
        ]
    table, _, kind = section.rpartition(".")
    if table not in _KINDS or kind not in _KINDS[table]:
        one_of("the section", section, sections())
    return list(settings_of_kind(table, _KINDS[table][kind]))


def summary_of(made: Callable[..., Any]) -> str:
    """The first sentence of a docstring, on one line."""
    paragraph = inspect.cleandoc(made.__doc__ or "").split("\n\n")[0]
    text = " ".join(paragraph.split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z\[])", text)[0].rstrip(".")


def _of_table(section: str, table: type[BaseModel]) -> Iterator[Setting]:
    for name, field in table.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            continue
        default = "required" if field.default is PydanticUndefined else _value(field.default)
        yield Setting(f"{section}.{name}", _type(field.annotation), default, field.description or "")


def settings_of_kind(section: str, make: Callable[..., Any]) -> Iterator[Setting]:
    """What the settings of one kind are, read from its signature and docstring.

    Args:
        section: Before the name of each.
        make: What a word of a registry stands for.
    """
    given: Sequence[str] = make.given if isinstance(make, type) and issubclass(make, Described) else ()
    hints = get_type_hints(make.__init__ if inspect.isclass(make) else make)
    parameters = [p for p in inspect.signature(make).parameters.values() if p.name not in given]
    said = _described(make, [p.name for p in parameters])
    for parameter in parameters:
        missing = _OF_DATA if section == "net" else "required"
        default = missing if parameter.default is parameter.empty else _value(parameter.default)
        kind = _type(hints.get(parameter.name, Any))
        yield Setting(f"{section}.{parameter.name}", kind, default, said.get(parameter.name, ""))


def _described(make: Callable[..., Any], names: Sequence[str]) -> dict[str, str]:
    """Parameter -> what its docstrings say of it in an entry of `Args:`."""
    texts = [make.__doc__, make.__init__.__doc__ if inspect.isclass(make) else None]
    text = "\n\n".join(inspect.cleandoc(one) for one in texts if one)
    known = "|".join(map(re.escape, names))
    if not known:
        return {}
    pieces = re.split(rf"\n    ({known}): ", text)
    found: dict[str, str] = {}
    for name, content in zip(pieces[1::2], pieces[2::2], strict=True):
        words = " ".join(re.split(r"\n\n|\n(?:Args|Returns|Raises|Attributes):", content)[0].split())
        found.setdefault(name, words.rstrip("."))
    return found


def _type(annotation: Any) -> str:
    """An annotation in words: whole number, number, text, true or false, list of …."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(parts[0])
    if origin is Literal:
        return " | ".join(json.dumps(part) for part in parts if part is not None)
    if origin in (Union, types.UnionType):
        kinds = [_type(part) for part in parts if part is not type(None)]
        return " | ".join(dict.fromkeys(kinds))
    if origin in (list, tuple, SequenceType) and parts:
        return f"list of {_type(parts[0])}"
    if annotation in _PLAIN or annotation is Any:
        return _PLAIN.get(annotation, "any")
    return "table"  # an object, which a table {"kind": …} describes


def _value(default: object) -> str:
    """A default as TOML writes it; nothing for none."""
    if default is None:
        return ""
    if isinstance(default, Mapping):
        return "{" + ", ".join(f"{name} = {_value(item)}" for name, item in default.items()) + "}"
    if isinstance(default, list | tuple):
        return json.dumps(list(default))
    return json.dumps(default) if isinstance(default, bool | str) else f"{default}"
