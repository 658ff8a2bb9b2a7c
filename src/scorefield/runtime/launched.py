"""What the environment says of the processes that torchrun or accelerate launched together. Loads no torch."""

from __future__ import annotations

import os

from scorefield.runtime.errors import InputError

__all__ = ["is_first_process", "launched_together"]

_HOW = "start them with torchrun --nproc_per_node N -m scorefield …, or unset WORLD_SIZE"

_MOST = 2**16  # processes


def is_first_process() -> bool:
    """Whether this process speaks and writes. RANK counts only among several: a job script may leave it behind."""
    try:
        return launched_together()[0] == 0
    except InputError:
        return True


def launched_together() -> tuple[int, int]:
    """(rank, number) of this process among those launched together, (0, 1) alone.

    Raises:
        InputError: For an environment that does not say which one of several this is.
    """
    world = _number("WORLD_SIZE", 1)
    if world < 2:
        return 0, 1
    if world > _MOST:
        raise InputError(f"WORLD_SIZE must be at most {_MOST:,}, got {world}: {_HOW}")
    if "RANK" not in os.environ:
        raise InputError(f"WORLD_SIZE is {world}, but RANK is not set: {_HOW}")
    rank = _number("RANK", 0)
    if not 0 <= rank < world:
        raise InputError(
            f"RANK must be one of 0 … {world - 1}, since WORLD_SIZE is {world}, got {rank}: {_HOW}"
        )
    return rank, world


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise InputError(f"the environment's {name} must be an integer, got {text[:40]!r}: {_HOW}") from None
