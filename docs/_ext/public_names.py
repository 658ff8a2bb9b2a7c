"""The public names of scorefield: each object once, under the name that a user writes."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import check_docstrings

__all__ = ["entries", "modules", "names_of", "short_names"]


@cache
def modules() -> dict[str, ModuleType]:
    """Public module -> itself: "scorefield.grids", "scorefield.interop.ncsn", …."""
    found = check_docstrings.public_modules("scorefield")
    return {name: module for name, module in found.items() if name != "scorefield"}


@cache
def entries() -> dict[str, Any]:
    """Name -> object. A name of `scorefield` itself goes before the same object's name in a module."""
    found = check_docstrings.public_names("scorefield")
    return {name: thing for name, thing in found.items() if name != "scorefield.__version__"}


def names_of(module: str) -> list[str]:
    """The entries of a public module's names, in the order of its `__all__`."""
    by_object = {id(thing): name for name, thing in entries().items()}
    things = (getattr(modules()[module], name) for name in modules()[module].__all__)
    return list(dict.fromkeys(by_object[id(thing)] for thing in things if id(thing) in by_object))


@cache
def short_names() -> dict[str, str]:
    """What a docstring may write in backticks -> the entry: "DDIM", "sf.samplers.DDIM", "samplers.DDIM"."""
    found: dict[str, str] = {}
    last: dict[str, list[str]] = {}
    for entry in entries():
        path = entry.removeprefix("scorefield.")
        found |= {path: entry, f"sf.{path}": entry, entry: entry}
        last.setdefault(entry.rpartition(".")[2], []).append(entry)
    # One word that two modules have, such as `decode`, is nobody's.
    return {word: names[0] for word, names in last.items() if len(names) == 1} | found
