"""Published checkpoints: their flags, and the names and shapes that identify them (cards.json)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePath

from scorefield.interop.fit import Shapes
from scorefield.runtime.checks import did_you_mean
from scorefield.runtime.errors import InputError

__all__ = ["Card", "card", "card_names", "cards", "cards_of", "names_sha256"]


@dataclass(frozen=True)
class Card:
    """A published configuration.

    Attributes:
        origin: As in `scorefield import`.
        files: Names of the checkpoints that have it.
        flags: Names and values of the original.
        parameters: Their number.
        tensors: Their number.
        names_sha256: Of the sorted lines "name [shape]" of its weights.
    """

    origin: str
    files: tuple[str, ...]
    flags: Mapping[str, object]
    parameters: int
    tensors: int
    names_sha256: str

    @property
    def names(self) -> list[str]:
        """What the card is called: its files without their endings."""
        return [PurePath(file).stem for file in self.files]

    @property
    def is_classifier(self) -> bool:
        """Whether it is a classifier of noisy images."""
        return any(flag.startswith("classifier_") for flag in self.flags)


@cache
def cards() -> tuple[Card, ...]:
    """All cards, in the order of the repositories' lists."""
    listed = json.loads((files("scorefield.interop") / "cards.json").read_text())["cards"]
    return tuple(Card(**{**entry, "files": tuple(entry["files"])}) for entry in listed)


def card_names(origin: str) -> list[str]:
    """The names of all cards of one origin.

    Args:
        origin: The repository's name, such as "guided-diffusion".
    """
    return [name for entry in cards() if entry.origin == origin for name in entry.names]


def card(origin: str, name: str) -> Card:
    """The card of one origin by the name of its file.

    Args:
        origin: The repository's name, such as "guided-diffusion".
        name: Of the file, with or without the ending.

    Raises:
        InputError: For an unknown name.
    """
    stem = PurePath(name).stem
    for entry in cards():
        if entry.origin == origin and stem in entry.names:
            return entry
    known = card_names(origin)
    there = f"there are {', '.join(known)}" if known else "there are none of this origin, give flags"
    raise InputError(
        f"{origin} has no card {name!r}{did_you_mean(stem, known)}; {there}", command="--card, --flags"
    )


def cards_of(origin: str, shapes: Shapes) -> list[str]:
    """The names of the cards whose weights have these names and shapes.

    Args:
        origin: The repository's name, such as "guided-diffusion".
        shapes: Shape of each tensor by its name.
    """
    digest = names_sha256(shapes)
    return [
        name
        for entry in cards()
        if (entry.origin, entry.names_sha256) == (origin, digest)
        for name in entry.names
    ]


def names_sha256(shapes: Shapes) -> str:
    """SHA-256 of the sorted lines "name [shape]": what tells apart checkpoints of different networks.

    Args:
        shapes: Shape of each tensor by its name.
    """
    lines = sorted(f"{name} {list(shape)}" for name, shape in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
