"""Flags of the original scripts: text to values, with the original defaults."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Annotated, TypeVar

from pydantic import BeforeValidator

from scorefield.runtime.bounds import LEVELS
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import Options, parse

__all__ = ["Integers", "Numbers", "parse_flags", "read_flags"]


def _split(value: object) -> object:
    """ "32,16,8" -> ["32", "16", "8"], and "" -> []."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Numbers = Annotated[tuple[float, ...], BeforeValidator(_split)]
Integers = Annotated[tuple[int, ...], BeforeValidator(_split)]
Table = TypeVar("Table", bound=Options)


def read_flags(table: type[Table], flags: Mapping[str, object]) -> Table:
    """The flags as a table. Sections (ermongroup's configurations have some) are opened: {"model": {"ch":
    128}} is {"ch": 128}.

    InputError for an unknown flag, a value of the wrong type, and a flag that is missing and has no default.
    """
    opened: dict[str, object] = {}
    for name, value in flags.items():
        opened |= value if isinstance(value, Mapping) else {name.rpartition(".")[2]: value}
    return parse(table, opened, largest=LEVELS)


def parse_flags(texts: Iterable[str]) -> dict[str, str]:
    """Flags as they are typed: "a=b c=d", or as the original scripts take them, "--a b --c d".

    InputError for a word that is neither, and for a quotation mark without its fellow.
    """
    flags: dict[str, str] = {}
    try:
        words = [word for text in texts for word in shlex.split(text)]
    except ValueError as error:
        raise InputError(f"the flags cannot be parsed: {error}") from None
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        if not equals and word.startswith("--"):
            value = next(rest, "")
        elif not equals or not name:
            raise InputError(
                f"flags are written a=b, or --a b as the original scripts take them; got {word!r}"
            )
        flags[name] = value
    return flags
