"""Many pictures into one array, on a few threads, in a fixed order, with an account of those that could not
be used.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from scorefield.data.images.read import TooSmall, check_options, convert, fit, read_image
from scorefield.runtime.errors import InputError

__all__ = ["Gathered", "gather", "reason_of"]

_CHUNK = 1024  # files in flight: bounds memory where the encoded bytes come from a table


@dataclass(frozen=True)
class Gathered:
    """levels: uint8 (M, C, H, W). kept: int64 (M,), which files these are. skipped: names of the unreadable
    ones.
    """

    values: np.ndarray
    kept: np.ndarray
    skipped: tuple[str, ...]


def gather(
    files: Iterable[tuple[str, Path | bytes | None]],
    count: int,
    source: str,
    *,
    size: int | None,
    channels: int | None,
    upscale: bool,
    strict: bool,
) -> Gathered:
    """Decode `count` (name, file) pairs; a file is a path, its bytes, or None where the data hold no picture.

    size None keeps the pictures' size, which must then be one; channels None gives 1 where all are grey,
    otherwise 3. Unreadable files are skipped by name; they are an error with `strict`, when they are more
    than half, or when all fail. Too small ones are an error with their count unless `upscale`.
    """
    check_options(size, channels)

    def load(file: Path | bytes | None) -> np.ndarray | Exception:
        try:
            if file is None:
                raise ValueError("no picture")
            return np.asarray(convert(fit(read_image(file), size, upscale), channels))
        except Exception as fault:  # decoders raise nearly every type on damaged input; all of it is reported
            return fault

    faults = _Faults(count, source)
    values, colour, first = np.empty((0, 1, 0, 0), dtype=np.uint8), False, ""
    kept: list[int] = []
    for position, (name, outcome) in enumerate(_decoded(files, load)):
        if isinstance(outcome, Exception):
            faults.add(name, outcome)
            continue
        if not kept:
            first, values = name, np.empty((count, channels or 3, *outcome.shape[:2]), dtype=np.uint8)
        elif outcome.shape[:2] != values.shape[2:]:
            height, width = outcome.shape[:2]
            raise InputError(
                f"{source}: pictures differ in size ({first} is {values.shape[3]}×{values.shape[2]}, "
                f"{name} is {width}×{height}): give the size to reduce and crop them to, or make them one size"
            )
        colour = colour or outcome.ndim == 3
        values[len(kept)] = outcome[None] if outcome.ndim == 2 else outcome.transpose(2, 0, 1)
        kept.append(position)
    faults.check(size, strict)
    values = values[: len(kept)]
    if channels is None and not colour:
        values = np.ascontiguousarray(values[:, :1])
    return Gathered(values, np.array(kept, dtype=np.int64), tuple(name for name, _ in faults.broken))


def _decoded(
    files: Iterable[tuple[str, Path | bytes | None]],
    load: Callable[[Path | bytes | None], np.ndarray | Exception],
) -> Iterator[tuple[str, np.ndarray | Exception]]:
    """(name, outcome) in the order of `files`, whichever thread finishes first."""
    files = iter(files)
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        while chunk := list(islice(files, _CHUNK)):
            # Pillow warns of oddities in files that it reads well; damage and excess arrive as exceptions.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="PIL")
                outcomes = list(pool.map(load, (file for _, file in chunk)))
            yield from zip((name for name, _ in chunk), outcomes, strict=True)


@dataclass
class _Faults:
    """What could not be used, and whether that stops everything."""

    count: int
    source: str
    broken: list[tuple[str, str]] = field(default_factory=list)
    small: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, fault: Exception) -> None:
        (self.small if isinstance(fault, TooSmall) else self.broken).append((name, reason_of(fault)))

    def check(self, size: int | None, strict: bool) -> None:
        """Raise InputError unless the rest can be used without these."""
        total = f"of {self.count} images" if self.count > 1 else "of 1 image"
        if self.small:
            raise InputError(
                f"{self.source}: {len(self.small)} {total} are smaller than {size}×{size} ({_some(self.small)}): "
                f"ask for a smaller size, or set upscale to enlarge them"
            )
        if self.broken and (strict or 2 * len(self.broken) > self.count):
            hint = "repair or remove them" + ("" if strict else "; that is more than half")
            raise InputError(
                f"{self.source}: {len(self.broken)} {total} cannot be read ({_some(self.broken)}): {hint}"
            )


def reason_of(fault: Exception) -> str:
    """What a decoder complains of, on one line, without the names that Python gives to objects in memory."""
    return re.sub(r" ?<[^<>]* at 0x[0-9a-f]+>", "", " ".join(str(fault).split())) or type(fault).__name__


def _some(named: list[tuple[str, str]]) -> str:
    """The first three, with what is wrong with each."""
    listed = "; ".join(f"{name}: {reason}" for name, reason in named[:3])
    return listed + ("; …" if len(named) > 3 else "")
