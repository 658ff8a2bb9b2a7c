"""Contracts of objects that a user writes: an optional member with a misspelt name is reported instead of being
ignored.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from scorefield.runtime.errors import IncompatibleModel

__all__ = ["refuse_misspelt", "refuse_misspelt_names"]

_CLOSE = 0.85  # of difflib's ratio: one or two letters of a word
_FOUND: dict[tuple[type, frozenset[str], tuple[str, ...], type], tuple[str, str] | None] = {}


def refuse_misspelt(thing: object, members: Iterable[str], what: str, *, beyond: type = object) -> None:
    """IncompatibleModel where an object has a public name that is nearly one of `members`, and not that one itself.

    Args:
        thing: The object; its own attributes and those of its classes are looked at.
        members: The names that a caller would look for. Short ones had better be left out where a name close to
            them is likely to mean something else: `guide` is no misspelt `guided`.
        what: What the object is, for the message, such as "sampler".
        beyond: A base class whose names, and those of its bases, were not written by the user.

    Raises:
        IncompatibleModel: Naming the misspelt member and the one that was probably meant.
    """
    key = (type(thing), frozenset(getattr(thing, "__dict__", ())), tuple(members), beyond)
    if key not in _FOUND:
        known = set(beyond.__mro__)
        of_classes = (vars(base) for base in type(thing).__mro__ if base not in known)
        _FOUND[key] = _misspelt(set(key[1]).union(*of_classes), key[2])
    _refuse(_FOUND[key], f"{what} {type(thing).__name__}")


def refuse_misspelt_names(names: Iterable[str], members: Iterable[str], what: str) -> None:
    """The same for the names themselves, such as those that a class defines.

    Args:
        names: The names.
        members: Names that have a meaning.
        what: Whose names these are, for the message.
    """
    _refuse(_misspelt(set(names), tuple(members)), what)


def _refuse(found: tuple[str, str] | None, what: str) -> None:
    if found is not None:
        raise IncompatibleModel(f"the {what} has an unknown member {found[0]!r}: did you mean {found[1]!r}?")


def _misspelt(written: set[str], members: tuple[str, ...]) -> tuple[str, str] | None:
    """(A name, the member that it nearly is), or None."""
    missing = [name for name in members if name not in written]
    for name in sorted(written):
        if name.startswith("_") or name in members:
            continue
        close = difflib.get_close_matches(name, missing, n=1, cutoff=_CLOSE)
        if close and name not in (close[0] + "s", close[0] + "es"):  # a plural is another word
            return name, close[0]
    return None
