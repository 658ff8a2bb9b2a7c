"""Losses, speed, time spent waiting for data, and memory of training, over the steps between two lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import torch

__all__ = ["Meter"]


class Meter:
    """Sums over the steps since `read`, leaving out whatever happens between steps (checkpoints, pictures).

    Args:
        device: Whose memory is read.

    Attributes:
        added: How many steps have a loss that counts.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self._start = device, 0.0
        self.restart()

    def restart(self) -> None:
        """Forget the steps since `read`."""
        self._examples, self._seconds, self._waited = 0, 0.0, 0.0
        self._sums: dict[str, float] = {}
        self.added = 0

    def start(self) -> None:
        self._start = time.perf_counter()

    def stop(self, examples: int, waited: float) -> float:
        """Count a step of so many examples, `waited` seconds of it for data; its seconds."""
        seconds = time.perf_counter() - self._start
        self._examples, self._seconds, self._waited = (
            self._examples + examples,
            self._seconds + seconds,
            self._waited + waited,
        )
        return seconds

    def add(self, values: Mapping[str, float]) -> None:
        """Count the losses of a step."""
        self.added += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def read(self) -> dict[str, float]:
        """The means of what was added, examples_per_second, data_wait (a share, 0 to 1) and memory_bytes (the
        largest so far); then count from 0.
        """
        values = {
            **{name: total / self.added for name, total in self._sums.items()},
            "examples_per_second": self._examples / self._seconds,
            "data_wait": self._waited / self._seconds,
            "memory_bytes": _peak_memory(self.device),
        }
        self.restart()
        return values


def _peak_memory(device: torch.device) -> int:
    """The device's largest allocation, or this process's largest resident size; 0 where the system does not
    tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kibibytes everywhere else
