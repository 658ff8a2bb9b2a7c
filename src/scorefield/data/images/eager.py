"""Decode many image files into one array, on a few threads, collecting those that cannot be read."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scorefield.data.images.found import FoundImages, facts_of
from scorefield.data.images.read import NO_IMAGE, ImageOptions, TooSmall, convert, fit, read_image
from scorefield.data.images.unreadable import reason_of
from scorefield.runtime.errors import InputError
from scorefield.runtime.free_memory import needs_memory
from scorefield.runtime.reading import TooManyFiles

__all__ = ["DecodedImages", "decode_all"]


@dataclass(frozen=True)
class DecodedImages:
    """What `decode_all` returns.

    Attributes:
        values: uint8 (M, C, H, W).
        kept: int64 (M,), the positions of these images among the files.
        skipped: Names of the files that could not be read.
        reasons: Why each of them could not.
        notes: What was done to the images, in sentences.
    """

    values: np.ndarray
    kept: np.ndarray
    skipped: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class _Loaded(NamedTuple):
    """A fitted image, the size of its file's, and that one's largest value if it has 16 bits, else 0."""

    array: np.ndarray
    size: tuple[int, int]
    peak: int


def decode_all(
    files: Iterable[tuple[str, Path | bytes | None]],
    count: int,
    source: str,
    options: ImageOptions,
    *,
    chunk: int = 1024,
) -> DecodedImages:
    """Decode image files in their order.

    Args:
        files: (name, file) pairs; a file is a path, its bytes, or None where the data hold no image.
        count: How many there are.
        source: What the user named, for messages.
        options: Size, channels, and what to do about small and unreadable images.
        chunk: How many files are read before their images are stored; bounds the memory of encoded bytes.

    Raises:
        InputError: If more than half of the files are unreadable, or any with options.strict; if images are
            smaller than options.size, unless options.upscale; if they differ in size and none is given.
    """

    def load(file: Path | bytes | None) -> _Loaded | Exception:
        try:
            if file is None:
                raise ValueError(NO_IMAGE)
            image = read_image(file, options.white)
            array = np.asarray(convert(fit(image, options.size, options.upscale), options.channels))
            return _Loaded(array, *facts_of(image))
        except TooManyFiles:
            raise
        except Exception as fault:  # decoders raise nearly every type on damaged input; all are reported
            return fault

    failures, found = _Failures(count, source), FoundImages()
    values, colour, first = np.empty((0, 1, 0, 0), dtype=np.uint8), False, ""
    kept: list[int] = []
    for position, (name, loaded) in enumerate(_in_order(files, load, chunk)):
        if isinstance(loaded, Exception):
            failures.add(name, loaded)
            continue
        outcome = loaded.array
        found.add(loaded.size, loaded.peak)
        if not kept:
            first = name
            shape = (count, options.channels or 3, *outcome.shape[:2])
            needs_memory(math.prod(shape), f"{source}: {count:,} images of {shape[3]}×{shape[2]}")
            values = np.empty(shape, dtype=np.uint8)
        elif outcome.shape[:2] != values.shape[2:]:
            height, width = outcome.shape[:2]
            raise InputError(
                f"{source}: images differ in size ({first} is {values.shape[3]}×{values.shape[2]}, "
                f"{name} is {width}×{height}): give the size to reduce and crop them to, or make them one "
                "size"
            )
        colour = colour or outcome.ndim == 3
        values[len(kept)] = outcome[None] if outcome.ndim == 2 else outcome.transpose(2, 0, 1)
        kept.append(position)
    failures.check(options)
    values = values[: len(kept)]
    if options.channels is None and not colour:
        values = np.ascontiguousarray(values[:, :1])
    return DecodedImages(
        values,
        np.array(kept, dtype=np.int64),
        tuple(name for name, _ in failures.unreadable),
        tuple(reason for _, reason in failures.unreadable),
        found.notes(options),
    )


def _in_order(
    files: Iterable[tuple[str, Path | bytes | None]],
    load: Callable[[Path | bytes | None], _Loaded | Exception],
    chunk: int,
) -> Iterator[tuple[str, _Loaded | Exception]]:
    """(name, outcome) in the order of `files`, whichever thread finishes first."""
    files = iter(files)
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        while some := list(islice(files, chunk)):
            # Pillow warns of oddities in files that it reads well; damage and excess arrive as exceptions.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="PIL")
                outcomes = list(pool.map(load, (file for _, file in some)))
            yield from zip((name for name, _ in some), outcomes, strict=True)


@dataclass
class _Failures:
    """Files that could not be used, each with the reason."""

    count: int
    source: str
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    small: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, fault: Exception) -> None:
        (self.small if isinstance(fault, TooSmall) else self.unreadable).append((name, reason_of(fault)))

    def check(self, options: ImageOptions) -> None:
        """InputError unless the other files can be used without these."""
        total = f"of {self.count} images" if self.count > 1 else "of 1 image"
        if self.small:
            side = f"{options.size}×{options.size}"
            raise InputError(
                f"{self.source}: {len(self.small)} {total} are smaller than {side} ({_first(self.small)}): "
                f"ask for a smaller size, or set upscale to enlarge them"
            )
        if self.unreadable and (options.strict or 2 * len(self.unreadable) > self.count):
            hint = "repair or remove them" + ("" if options.strict else "; that is more than half")
            raise InputError(
                f"{self.source}: {len(self.unreadable)} {total} cannot be read ({_first(self.unreadable)}): "
                f"{hint}"
            )


def _first(named: list[tuple[str, str]]) -> str:
    """The first three names, each with its reason."""
    listed = "; ".join(f"{name}: {reason}" for name, reason in named[:3])
    return listed + ("; …" if len(named) > 3 else "")
