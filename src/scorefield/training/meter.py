"""Speed, time spent waiting for data, and memory of training."""

from __future__ import annotations

import sys
import time

import torch

__all__ = ["Meter"]


class Meter:
    """Sums over the steps since `read`, leaving out whatever happens between steps (checkpoints, pictures).

    device: whose memory is read.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._examples, self._seconds, self._waited, self._start = 0, 0.0, 0.0, 0.0

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

    def read(self) -> dict[str, float]:
        """examples_per_second, data_wait (a share, 0 to 1) and memory_bytes (the largest so far); then count
        from 0.
        """
        values = {
            "examples_per_second": self._examples / self._seconds,
            "data_wait": self._waited / self._seconds,
            "memory_bytes": _peak_memory(self.device),
        }
        self._examples, self._seconds, self._waited = 0, 0.0, 0.0
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
