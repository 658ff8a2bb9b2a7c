"""The value of a metric, with its uncertainty and its provenance."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scorefield.runtime.atomic import append
from scorefield.runtime.checks import unwritable

__all__ = ["MetricValue", "Stamp", "append_line", "grouped", "stamp_lines"]

Stamp = Mapping[str, Mapping[str, object]]
_WIDTH, _INDENT = 100, 12


@dataclass(frozen=True)
class MetricValue:
    """The value of a metric, with everything that has to be known to compare it with another.

    Attributes:
        metric: The metric that was asked for, such as "fd".
        name: Of this number, one word.
        label: Of this number, for people.
        value: The number.
        stamp: Its provenance: groups of facts.
        error: Its error; None where one number shows none.
        error_of: What the error is: a standard deviation over sets, a standard error over images.
        heldout: The same metric of held-out images, where there is one.
        ratio: value/heldout where that means something.
        unit: "bits/dim", "nats"; "%" where value and heldout are fractions, printed as percentages.
        parts: Further numbers, for JSON.
    """

    metric: str
    name: str
    label: str
    value: float
    stamp: Stamp
    error: float | None = None
    error_of: str = ""
    heldout: float | None = None
    ratio: float | None = None
    unit: str = ""
    parts: Mapping[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Everything, for JSON; what is not known is left out."""
        known = {
            "metric": self.metric,
            "value": self.value,
            "error": self.error,
            "error_of": self.error_of if self.error is not None else None,
            "heldout": self.heldout,
            "ratio": self.ratio,
            "unit": self.unit or None,
            **self.parts,
            "stamp": self.stamp,
        }
        return {name: value for name, value in known.items() if value is not None}


def grouped(figures: Sequence[MetricValue]) -> list[tuple[list[MetricValue], Stamp]]:
    """Figures whose stamps differ in nothing but groups that some lack, and the whole stamp, in the order of
    the first.
    """
    groups: list[tuple[list[MetricValue], Stamp]] = []
    for figure in figures:
        at = next((i for i, (_, stamp) in enumerate(groups) if _agree(stamp, figure.stamp)), None)
        if at is None:
            groups.append(([figure], figure.stamp))
        else:
            groups[at] = ([*groups[at][0], figure], {**groups[at][1], **figure.stamp})
    return groups


def stamp_lines(stamp: Stamp, width: int = _WIDTH) -> list[str]:
    """A stamp as text, a line a group ("sampling    samples 360, sets 3, …"), wrapped."""
    lines: list[str] = []
    for group, facts in stamp.items():
        text = ", ".join(f"{name} {_text(value)}" for name, value in facts.items() if value is not None)
        indent = " " * _INDENT
        lines += textwrap.wrap(
            text, width, initial_indent=group.ljust(_INDENT), subsequent_indent=indent, break_on_hyphens=False
        )
    return lines


def append_line(path: Path, values: Mapping[str, object]) -> None:
    """Add one JSON object to a file of lines. InputError where it cannot be written."""
    try:
        append(path, json.dumps(values) + "\n")
    except OSError as error:
        raise unwritable(path, error) from None


def _agree(a: Stamp, b: Stamp) -> bool:
    """Whether one of them is part of the other."""
    few, many = sorted((a, b), key=len)
    return all(name in many and many[name] == facts for name, facts in few.items())


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return "–".join(_text(part) for part in value)
    return str(value)
