"""Arguments that figures share: points of the plane, the limits of a panel, the values of black and white, texts,
and functions of the user's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from scorefield.core.shapes import check_real
from scorefield.runtime.checks import brief, check_finite, instance_of, is_list, numbers
from scorefield.runtime.errors import InputError

__all__ = ["Limits", "as_limits", "as_points", "check_function", "check_span", "check_text", "check_texts"]

Limits = Sequence[tuple[float, float]]


def as_points(name: str, x: object) -> Tensor:
    """Points of the plane as float64 on the CPU. InputError for anything else, and for values that are not finite."""
    found = check_real(name, x, "points of the plane, a tensor (N, 2)")
    if found.ndim != 2 or found.shape[1] != 2 or not len(found):
        raise InputError(f"{name}: points of the plane are a tensor (N, 2), got shape {tuple(found.shape)}")
    check_finite(found, f"points of {name}", "remove them first")
    return found.detach().cpu().double()


def as_limits(limits: object) -> list[tuple[float, float]]:
    """(left, right) and (bottom, top) of a panel. InputError for anything but two ascending pairs."""
    table = numbers("limits", limits, 2)
    if table.shape != (2, 2) or not bool((table[:, 0] < table[:, 1]).all()):
        raise InputError(
            f"limits must be (left, right) and (bottom, top), each ascending, got {brief(limits)}"
        )
    return [(low, high) for low, high in table.tolist()]


def check_span(span: object) -> None:
    """InputError unless these are two ascending numbers: the values of the darkest and the brightest pixel."""
    pair = numbers("span", span, 1)
    if len(pair) != 2 or not pair[0] < pair[1]:
        raise InputError(f"span must be two ascending numbers, such as (-1, 1); got {brief(span)}")


def check_text(name: str, text: object) -> None:
    """InputError unless this is text."""
    instance_of(name, text, str, "text")


def check_texts(name: str, texts: object) -> None:
    """InputError unless this is a list of texts."""
    if not is_list(texts) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{name} must be a list of texts, got {brief(texts)}")


def check_function(name: str, function: object, what: str) -> None:
    """InputError unless this is a function, or another object that is called.

    Args:
        name: What it is, for the message.
        function: Anything.
        what: What it maps to what, in words, such as "points (N, 2) to scores (N, 2)".
    """
    if not callable(function) or isinstance(function, type):
        raise InputError(f"{name} must be a function from {what}, got {brief(function)}")
