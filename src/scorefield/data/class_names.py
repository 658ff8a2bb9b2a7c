"""Which classes a file means: by their names, or by their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from scorefield.runtime.checks import did_you_mean
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import whole_number

__all__ = ["class_numbers", "numbered", "split_names"]


def class_numbers(
    names: Sequence[str], known: Sequence[str], count: int | None = None, source: str = ""
) -> list[int]:
    """The number of each class. All are names, or else all are numbers 0 … K−1: one numbering for all of them.

    Taken one at a time, the labels 0, 1, 2 would be the classes 0, 0, 1 of a model whose classes are called
    1, 2 and 3.

    Args:
        names: What one file, or one list of a user, calls its classes.
        known: The names of the classes 0 … K−1.
        count: K, where not all classes have a name. Default: the number of names.
        source: What messages call the file.

    Raises:
        InputError: Where neither fits all of them.
    """
    number_of = {name: number for number, name in enumerate(known)}
    if all(name in number_of for name in names):
        twice = [name for name in names if known.count(name) > 1] if len(number_of) < len(known) else []
        if twice:
            raise InputError(
                f"{source + ': ' if source else ''}several classes are called {twice[0]!r}: give all classes by number"
            )
        return [number_of[name] for name in names]
    count = len(known) if count is None else count
    if all(_is_number(name, count) for name in names):
        return [int(name) for name in names]
    strangers = [name for name in names if name not in number_of]
    strange = next((name for name in strangers if not _is_number(name, count)), strangers[0])
    mixed = any(name in number_of for name in names)
    reason = ": give all classes by name or all by number" if mixed else ""
    raise InputError(
        f"{source + ': ' if source else ''}there is no class {strange!r}{did_you_mean(strange, known)}; there are "
        f"{', '.join(known[:20])} (0 … {count - 1}){reason}"
    )


def _is_number(name: str, count: int) -> bool:
    number = whole_number(name)
    return number is not None and number < count


def numbered(count: int) -> tuple[str, ...]:
    """What classes are called that have no names: "0" … "K−1"."""
    return tuple(map(str, range(count)))


def split_names(text: str, known: Sequence[str]) -> list[str]:
    """Classes with commas between them; a comma in the name of a known class is part of that name."""
    parts, found = text.split(","), []
    while parts:
        most = next((n for n in range(len(parts), 1, -1) if ",".join(parts[:n]).strip() in known), 1)
        said = ",".join(parts[:most])
        found.append(said if said in known else said.strip())
        parts = parts[most:]
    return found
