"""At which times? A grid is a 1-D tensor of times from the start down, usually to 0.

A step of a sampler goes from one entry to the next, so n steps have n + 1 entries; every grid here but the published
`leading` and `ddim_quadratic` starts at T.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scorefield.core.errors import InputError
from scorefield.process.base import Process, count_levels
from scorefield.process.continuous import ContinuousProcess

__all__ = [
    "GRIDS",
    "as_grid",
    "ddim_quadratic",
    "full",
    "leading",
    "linspace",
    "quadratic",
    "sections",
    "staircase",
    "steps",
    "uniform",
]


def full(process: Process) -> Tensor:
    """T, T−1, …, 0: every level."""
    return torch.arange(count_levels(process, "the full grid"), -1, -1)


def uniform(process: Process, n: int) -> Tensor:
    """n steps, t_i = round(T·i/n) for i = n … 0 (halves up), strictly decreasing for every n ≤ T; also called trailing.

    On a continuous process n times evenly spaced from T to its t_min, then 0.
    """
    if isinstance(process, ContinuousProcess):
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InputError(f"the number of steps must be a positive integer, got {n!r}")
        return torch.cat([torch.linspace(process.T, process.t_min, n, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    T = _check(process, n)
    return torch.tensor([(2 * T * i + n) // (2 * n) for i in range(n, -1, -1)])


def quadratic(process: Process, n: int) -> Tensor:
    """n steps, t_i = max(i, round(T·(i/n)²)) for i = n … 0: finer near the data, strictly decreasing for every n ≤ T."""
    T = _check(process, n)
    return torch.tensor([max(i, (2 * T * i * i + n * n) // (2 * n * n)) for i in range(n, -1, -1)])


def sections(process: Process, counts: int | Sequence[int]) -> Tensor:
    """The published respacing: T levels cut into len(counts) sections, counts[k] evenly spaced times in the k-th (k = 0 least noisy).

    Each section's ends are included; positions are accumulated in float64 and rounded half to even, as the Improved
    DDPM and ADM code does, then 0 is added. InputError when a section is smaller than its count.
    """
    counts = [counts] if isinstance(counts, int) else list(counts)
    T, kept, start = count_levels(process, "a grid of sections"), [], 0
    if not counts or len(counts) > T:
        raise InputError(f"sections needs between 1 and T = {T} counts, got {counts}")
    for k, count in enumerate(counts):
        size = T // len(counts) + (k < T % len(counts))
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= size:
            raise InputError(
                f"section {k} of {len(counts)} has {size} levels, so its count must be from 1 to {size}; got {count!r}"
            )
        stride, position = (size - 1) / (count - 1) if count > 1 else 1.0, 0.0
        for _ in range(count):
            kept.append(start + round(position) + 1)
            position += stride
        start += size
    return torch.tensor([*reversed(kept), 0])


def linspace(process: Process, n: int) -> Tensor:
    """n times evenly spaced from T to 1, then 0: sections([n])."""
    return sections(process, [n])


def leading(process: Process, n: int) -> Tensor:
    """1 + k⌊T/n⌋ for k = n−1 … 0, then 0: what DDIM's code calls uniform. It starts below T; for published numbers only."""
    T = _check(process, n)
    return torch.tensor([*(1 + k * (T // n) for k in range(n - 1, -1, -1)), 0])


def ddim_quadratic(process: Process, n: int) -> Tensor:
    """1 + ⌊(k√(0.8T)/(n−1))²⌋ for k = n−1 … 0 without repetitions, then 0: the quadratic grid of DDIM's code.

    It starts at 0.8 T and may have fewer than n steps; for published numbers only.
    """
    T = _check(process, n)
    if n < 2:
        raise InputError("ddim_quadratic needs at least 2 steps")
    positions = torch.linspace(0, math.sqrt(0.8 * T), n, dtype=torch.float64) ** 2
    return torch.tensor([*sorted({1 + int(p) for p in positions.tolist()}, reverse=True), 0])


def staircase(process: Process, repeats: int, times: Tensor | Sequence[float] | None = None) -> Tensor:
    """T, …, T, T−1, …, T−1, …, 1, …, 1, 0: `repeats` steps start at every level, as annealed Langevin needs.  [NCSN Algorithm 1]

    times: the levels to stop at, strictly descending, such as another grid; every level if not given. Its last 0 is taken
    as read. InputError for repeats < 1 and for times that do not descend.
    """
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise InputError(f"repeats is the number of steps at a level, a positive integer; got {repeats!r}")
    levels = full(process) if times is None else torch.as_tensor(times)
    levels = levels[:-1] if len(levels) and levels[-1] == 0 else levels
    if not len(levels) or bool((levels.diff() >= 0).any()) or levels[-1] < 0:
        raise InputError(f"the times of a staircase must be positive and strictly descend, got {levels.tolist()}")
    process.level(levels)  # refuses what lies outside the process
    return torch.cat([levels.repeat_interleave(repeats), levels.new_zeros(1)])


def steps(n: int) -> Tensor:
    """n, n−1, …, 0: n updates of a score without noise levels, numbered by how many are left."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InputError(f"the number of updates must be a positive integer, got {n!r}")
    return torch.arange(n, -1, -1)


GRIDS = {
    "uniform": uniform,
    "trailing": uniform,
    "quadratic": quadratic,
    "linspace": linspace,
    "leading": leading,
    "ddim_quadratic": ddim_quadratic,
}


def as_grid(process: Process | None, grid: Tensor | Sequence[float]) -> list[int] | list[float]:
    """The times of a grid as Python numbers. InputError unless it has two or more finite times within [0, T].

    Without a process there are no times, and the grid must be that of `steps`.
    """
    times = torch.as_tensor(grid)
    if times.ndim != 1 or len(times) < 2 or not bool(torch.isfinite(times).all()):
        raise InputError(f"a grid is a one-dimensional list of at least two times, got {grid!r}")
    if process is not None:
        process.level(times)  # refuses what lies outside the process
    elif not torch.equal(times.double(), steps(len(times) - 1).double()):
        raise InputError("a score without noise levels has no times: its grid is sf.grids.steps(n) for n updates")
    return times.tolist()


def listed(grid: Tensor | Sequence[float]) -> list[float]:
    """The times of a grid as Python numbers: tensors hash and compare by identity."""
    return grid.tolist() if isinstance(grid, Tensor) else list(grid)


def _check(process: Process, n: int) -> int:
    T = count_levels(process, "this grid")
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= T:
        raise InputError(f"the number of steps must be an integer from 1 to T = {T}, got {n!r}")
    return T
