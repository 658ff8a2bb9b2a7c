"""Checks of user input that many modules share, each with one message."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from scorefield.runtime.errors import InputError

if TYPE_CHECKING:  # the command's help is shown without torch
    from torch import Tensor

__all__ = ["check_finite", "did_you_mean", "one_of", "positive_int", "unwritable"]

Known = TypeVar("Known", bound=str | None)


def positive_int(name: str, value: object, at_least: int = 1, at_most: int | None = None) -> int:
    """value, if it is an integer in this range; True and 2.0 are none.

    Args:
        name: What the value is, for the message.
        value: Anything.
        at_least: Smallest integer that is accepted.
        at_most: Largest one. Default: any.
    Raises:
        InputError: For everything else.
    """
    most = math.inf if at_most is None else at_most
    if isinstance(value, int) and not isinstance(value, bool) and at_least <= value <= most:
        return value
    if at_most is not None:
        expected = f"an integer from {at_least} to {at_most}"
    else:
        expected = "a positive integer" if at_least == 1 else f"an integer of at least {at_least}"
    raise InputError(f"{name} must be {expected}, got {value!r}")


def one_of(name: str, value: object, known: Iterable[Known]) -> Known:
    """value, if it is among the known ones.

    Args:
        name: What the value is, for the message.
        value: Anything.
        known: The values that are accepted, in the order of the message.
    Raises:
        InputError: For everything else, with the nearest known word.
    """
    known = list(known)
    for one in known:
        if value == one:
            return one
    near = did_you_mean(str(value), [str(one) for one in known])
    raise InputError(f"{name} must be one of {', '.join(map(str, known))}; got {value!r}{near}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ ", did you mean X?" where a known word is close, otherwise nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def check_finite(x: Tensor, what: str, advice: str) -> None:
    """InputError if any of x is NaN or infinite.

    Args:
        x: Values (N, *).
        what: What its N rows are, in the plural.
        advice: What to do, or what has probably happened.
    """
    wrong = ~x.isfinite()
    rows = wrong.flatten(1).any(dim=1) if x.ndim > 1 else wrong
    if count := int(rows.sum()):
        raise InputError(f"{count} of {len(x)} {what} hold NaN or infinite values: {advice}")


def unwritable(path: Path, error: Exception, advice: str = "") -> InputError:
    """The error that says why a file or folder could not be written, to be raised.

    Args:
        path: The file or folder.
        error: What writing it raised.
        advice: What to do, or what is still intact.
    """
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return InputError(f"{path} cannot be written ({reason}){advice and ': ' + advice}")
