"""Checks of user input that many modules share, each with one message."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, SupportsFloat, TypeGuard, TypeVar

from scorefield.runtime.errors import InputError

if TYPE_CHECKING:  # the command's help is shown without torch
    from torch import Tensor

__all__ = [
    "LARGEST",
    "brief",
    "check_finite",
    "check_length",
    "check_mapping",
    "did_you_mean",
    "flag",
    "instance_of",
    "is_list",
    "number",
    "numbers",
    "one_of",
    "positive_int",
    "unwritable",
]

Known = TypeVar("Known", bound=str | None)
Kind = TypeVar("Kind")

LARGEST = 1e18  # whose square fits float32, in which networks and samplers compute
_SMALL = 10_000
_SHOWN = 100  # characters of a value in a message
_LONGEST_LIST = 10**7  # entries of a list, which Python reads one by one


def positive_int(name: str, value: object, at_least: int = 1, at_most: int = 2**63 - 1) -> int:
    """value, if it is an integer in this range; True and 2.0 are none.

    Args:
        name: What the value is, for the message.
        value: Anything.
        at_least: Smallest integer that is accepted.
        at_most: Largest one. Default: that of int64, in which torch counts.
    Raises:
        InputError: For everything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and at_least <= value <= at_most:
        return value
    too_large = isinstance(value, int) and value > at_most
    if too_large or at_most < _SMALL:  # others are only told of a bound that they reach
        expected = f"an integer from {at_least} to {at_most}"
    else:
        expected = "a positive integer" if at_least == 1 else f"an integer of at least {at_least}"
    raise InputError(f"{name} must be {expected}, got {brief(value)}")


def number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> float:
    """value as a float, if it is a finite real number in this range; words and True are none.

    Args:
        name: What the value is, for the message.
        value: A number of Python or NumPy, or a tensor of one value.
        above: What it must exceed. Default: nothing.
        at_least: Its smallest value. Default: any.
        below: What it must stay below. Default: nothing.
        at_most: Its largest value. Default: any.
    Raises:
        InputError: For everything else.
    """
    found = _real(value)
    low = -math.inf if above is None else above
    high = math.inf if below is None else below
    least = -math.inf if at_least is None else at_least
    most = math.inf if at_most is None else at_most
    if math.isfinite(found) and low < found < high and least <= found <= most:
        return found
    ends = [("above", above), ("of at least", at_least), ("below", below), ("of at most", at_most)]
    range_ = " and ".join(f"{word} {end:g}" for word, end in ends if end is not None)
    raise InputError(f"{name} must be a finite number{range_ and ' ' + range_}, got {brief(value)}")


def _real(value: object) -> float:
    """The float of a real number; NaN of everything else."""
    if isinstance(value, bool) or not isinstance(value, SupportsFloat):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # of arrays and tensors of several values
        return math.nan


def numbers(name: str, values: Any, dimensions: int | None = None) -> Tensor:
    """values as a float64 tensor on the CPU, if they are finite real numbers.

    Args:
        name: What the values are, for the message.
        values: A tensor, an array, or nested lists of numbers.
        dimensions: How many dimensions they have, at least one value in all. Default: any number, also of none.
    Raises:
        InputError: For everything else.
    """
    import torch

    shapes = {None: "", 0: "one number, ", 1: "a one-dimensional list of "}
    expected = shapes.get(dimensions, f"a {dimensions}-dimensional table of ")
    check_length(name, values)
    try:
        if torch.as_tensor(values).dtype in (torch.bool, torch.complex64, torch.complex128):
            raise TypeError
        # Lists of Python floats become float32 unless told otherwise.
        table = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
        fits = bool(table.isfinite().all())
    except (
        TypeError,
        ValueError,
        RuntimeError,
        OverflowError,
    ):  # of words, objects, lists of several lengths
        fits = False
    if not fits:
        raise InputError(f"{name} must be {expected}finite numbers, got {brief(values)}")
    if dimensions is not None and (table.ndim != dimensions or not table.numel()):
        raise InputError(f"{name} must be {expected}finite numbers, got shape {tuple(table.shape)}")
    return table


def flag(name: str, value: object) -> bool:
    """value, if it is True or False. InputError for everything else."""
    if isinstance(value, bool):
        return value
    raise InputError(f"{name} must be True or False, got {brief(value)}")


def instance_of(name: str, value: object, kind: type[Kind], expected: str) -> Kind:
    """value, if it is of this kind.

    Args:
        name: What the value is, for the message.
        value: Anything.
        kind: The class that it must have.
        expected: What is expected, in words, such as "a tensor (B, *)".
    Raises:
        InputError: For everything else.
    """
    if isinstance(value, kind):
        return value
    raise InputError(f"{name} must be {expected}, got {brief(value)}")


def check_mapping(
    name: str, value: object, kind: type | UnionType, expected: str, keys: str = "names"
) -> None:
    """InputError unless value is a mapping with at least one entry whose keys and values are of these kinds.

    Args:
        name: What the value is, for the message.
        value: Anything.
        kind: The class that every value of the mapping must have.
        expected: What they are, in words, such as "tensors (B, T)".
        keys: What the keys are: "names", which are text, or "scales", which are finite numbers.
    """
    known = (
        isinstance(value, Mapping)
        and value
        and all(isinstance(v, kind) for v in value.values())
        and all(isinstance(k, str) if keys == "names" else math.isfinite(_real(k)) for k in value)
    )
    if not known:
        raise InputError(
            f"{name} must be a mapping of {keys} to {expected}, with at least one, got {brief(value)}"
        )


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether this is a list or another sequence, and not text or bytes, which are sequences too."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def check_length(name: str, values: object) -> None:
    """InputError for a list of more than 10⁷ entries, which Python would read one by one; tensors may have more.

    Args:
        name: What the list is, for the message.
        values: Anything.
    """
    if is_list(values) and len(values) > _LONGEST_LIST:
        raise InputError(
            f"{name}: a list may have {_LONGEST_LIST:,} entries, got {brief(values)}: give a tensor"
        )


def brief(value: object) -> str:
    """What a message shows of a value: its repr where that is short and can be made, otherwise its type."""
    name = value.__name__ if isinstance(value, type) else f"a {type(value).__name__}"
    try:
        text = repr(value)
    except Exception:  # of integers with thousands of digits, and of whatever a user's __repr__ does
        return name
    return text if len(text) <= _SHOWN and "\n" not in text else name


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
    if value is None or isinstance(value, str):  # an array compares by element
        for one in known:
            if value == one:
                return one
    near = did_you_mean(value, [str(one) for one in known]) if isinstance(value, str) else ""
    raise InputError(f"{name} must be one of {', '.join(map(str, known))}; got {brief(value)}{near}")


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
