"""The pictures of a job's steps, kept as bytes up to a ceiling."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Literal

import numpy as np

from scorefield.studio.answers import Refusal

__all__ = ["CEILING", "Frames", "What", "thin"]

CEILING = 256 * 2**20  # bytes of the frames of all jobs

What = Literal["x", "x0"]


class Frames:
    """x and x̂0 after each step: uint8 (n, H, W, C) of images, float32 (n, 2) of points. Frame 0 is x_T.

    Attributes:
        whole: Whether all of them are kept, whatever memory they take.
    """

    def __init__(self) -> None:
        self.whole = False
        self._kept: dict[int, dict[What, np.ndarray]] = {}
        self._stride = 1
        self._lock = threading.Lock()

    def keep(self, i: int, x: np.ndarray, x0: np.ndarray) -> None:
        """Add a frame.

        Args:
            i: The number of the step.
            x: The state after it.
            x0: The prediction x̂0 that it was made with.
        """
        with self._lock:
            self._kept[i] = {"x": np.ascontiguousarray(x), "x0": np.ascontiguousarray(x0)}

    def at(self, i: int, what: What) -> np.ndarray:
        """One frame. Refusal where it is not kept."""
        with self._lock:
            if i in self._kept:
                return self._kept[i][what]
            missing = i <= max(self._kept, default=-1)
            there = ", ".join(map(str, sorted(self._kept)[:20]))
        if missing:
            raise Refusal(410, f"step {i} is not kept any more, to save memory; kept are {there}, …")
        raise Refusal(404, f"there is no step {i} yet")

    @property
    def last(self) -> int:
        """The number of the newest frame."""
        with self._lock:
            return max(self._kept, default=-1)

    @property
    def bytes(self) -> int:
        """What they take."""
        with self._lock:
            return sum(array.nbytes for frame in self._kept.values() for array in frame.values())

    def thin(self) -> bool:
        """Drop every second step but the first and the last one; whether there was one to drop."""
        with self._lock:
            ends = {0, max(self._kept, default=0)}
            if self.whole or not self._kept.keys() - ends:
                return False
            self._stride *= 2
            self._kept = {i: frame for i, frame in self._kept.items() if i in ends or i % self._stride == 0}
            return True


def thin(frames: Iterable[Frames], ceiling: int = CEILING) -> None:
    """Drop frames of the first ones until all of them fit below the ceiling, or only ends are left."""
    every = list(frames)
    for one in every:
        while sum(other.bytes for other in every) > ceiling and one.thin():
            pass
