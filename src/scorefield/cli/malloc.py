"""The command's own memory. It imports no torch: it must act before torch allocates."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_memory"]

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h


def keep_memory() -> None:
    """Let this process keep the memory that it frees: where glibc gives large blocks back, every new tensor
    pays for its pages again.

    Does nothing elsewhere than on Linux with glibc. A program that uses the library is never touched.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
