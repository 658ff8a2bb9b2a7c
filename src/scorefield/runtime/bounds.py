"""How large what a description asks for may be, in one place.

A description is a table from a file that someone else may have made: it must not make reading it take memory or time
without bound. What a bound refuses here can still be made in Python and passed as an object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from scorefield.runtime.checks import brief, is_list
from scorefield.runtime.errors import InputError

__all__ = ["COUNT", "LEVELS", "SEED", "SIDE", "SIZE", "TEXT", "VALUES", "check_bounds", "few_modules"]

COUNT = 10**12  # training steps and what is counted in them
LEVELS = 2**20  # of a process and of a grid; and the entries of any list
SEED = 2**64 - 1
SIDE = 2**16  # pixels
SIZE = 2**24  # any integer of a network's description
TEXT = 2**23  # bytes of a description, which is parsed in seconds
VALUES = 2**28  # of one example

_DEPTH = 20  # tables within tables
_MODULES = 4_000  # and parameters; ADM at 512 pixels has 1,451


def check_bounds(value: object, where: str, largest: int = SEED, depth: int = _DEPTH) -> None:
    """InputError, naming the place, for a description that no bound holds: integers beyond ±largest, lists of
    more than LEVELS entries, tables within tables within tables.

    Args:
        value: The description, or a part of it.
        where: Its name, for the message; "" at the top.
        largest: The largest integer.
        depth: How many tables and lists may be within each other.
    """
    place = where or "the description"
    if isinstance(value, int):
        if abs(value) > largest:
            raise InputError(
                f"option {place}: an integer of at most {largest:,} is expected, got {brief(value)}"
            )
        return
    if not isinstance(value, Mapping) and not is_list(value):
        return
    if depth == 0:
        raise InputError(f"option {place}: tables and lists are nested too deeply")
    if len(value) > LEVELS:
        raise InputError(f"option {place}: at most {LEVELS:,} entries are expected, got {len(value):,}")
    if isinstance(value, Mapping):
        for name, item in value.items():
            check_bounds(item, f"{where}.{name}" if where else str(name), largest, depth - 1)
    else:
        for i, item in enumerate(value):
            check_bounds(item, f"{where}.{i}", largest, depth - 1)


@contextmanager
def few_modules() -> Iterator[None]:
    """Within the block, building networks of more modules and parameters than any published one stops with an
    InputError, however they are described.
    """
    from torch.nn.modules.module import (
        register_module_module_registration_hook,
        register_module_parameter_registration_hook,
    )

    count = 0

    def note(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > _MODULES:
            raise InputError(
                f"a network of more than {_MODULES:,} modules and parameters is not built from a description: "
                "describe a smaller one, or build it in Python and pass it as `net`"
            )

    handles = [
        register_module_module_registration_hook(note),
        register_module_parameter_registration_hook(note),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
