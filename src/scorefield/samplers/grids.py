"""At which times? A grid is a 1-D tensor of times from the start down, usually to 0.

A step of a sampler goes from one entry to the next, so n steps have n + 1 entries; every grid here but the
published `leading` and `ddim_quadratic` starts at T.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorefield.core.shapes import check_real
from scorefield.process.base import GaussianProcess, Process, check_process, count_levels
from scorefield.process.schedules import shifted as shifted_times
from scorefield.runtime.checks import LARGEST, brief, check_length, flag, is_list, number, positive_int
from scorefield.runtime.errors import IncompatibleModel, InputError

if TYPE_CHECKING:
    from scorefield.core.noise import Noise
    from scorefield.models.base import AnyModel
    from scorefield.samplers.base import AnySampler

__all__ = [
    "as_grid",
    "ddim_quadratic",
    "fitted",
    "full",
    "karras",
    "leading",
    "linspace",
    "log_snr",
    "quadratic",
    "sections",
    "shifted",
    "staircase",
    "steps",
    "trailing",
    "uniform",
]

_MOST_STEPS = 10**7
_NO_TIME = 1e-12
_ROUNDING = 1e-9  # by how much, relatively, ends computed elsewhere may leave a process


def full(process: Process) -> Tensor:
    """T, T−1, …, 0: every level.

    Args:
        process: A process with a table of levels.

    Returns:
        int64 (T + 1,).

    Raises:
        IncompatibleModel: Where t is continuous.
    """
    return torch.arange(count_levels(process, "the full grid"), -1, -1)


def uniform(process: Process, n: int) -> Tensor:
    """n steps, t_i = round(T·i/n) for i = n … 0 (halves up), strictly decreasing for every n ≤ T; also called
    trailing.

    On a continuous process n times evenly spaced from T to its t_min, then 0.

    Args:
        process: Any process.
        n: Number of steps; at most T where the process is a table of levels.

    Returns:
        (n + 1,), int64 for a table of levels, otherwise float64.
    """
    check_process(process)
    if not process.is_discrete:
        positive_int("the number of steps", n, at_most=_MOST_STEPS)
        return _ended(torch.linspace(process.T, process.t_min, n, dtype=torch.float64))
    T = _check(process, n)
    return torch.tensor([(2 * T * i + n) // (2 * n) for i in range(n, -1, -1)])


trailing = uniform


def quadratic(process: Process, n: int) -> Tensor:
    """n steps, t_i = max(i, round(T·(i/n)²)) for i = n … 0: finer near the data, strictly decreasing for
    every n ≤ T.

    Args:
        process: A process with a table of levels.
        n: Number of steps, 1 ≤ n ≤ T.

    Returns:
        int64 (n + 1,).
    """
    T = _check(process, n)
    return torch.tensor([max(i, (2 * T * i * i + n * n) // (2 * n * n)) for i in range(n, -1, -1)])


def shifted(process: Process, n: int, shift: float = 3.0) -> Tensor:
    """n steps, t_i = T·s·u/(1 + (s − 1)u) with u = i/n for i = n … 0 and the shift s: finer in the noise for s > 1.
    [Esser et al. 2024, Eq. 23]

    On the straight path of `sf.process.flow` it multiplies σ/α by s. An image of m pixels keeps more of itself
    under the same noise than one of n pixels: s = √(m/n) makes up for it. s = 1 gives the even times of flow
    matching, without a call at t_min. Of a table the times are the nearest levels; where two are the same, the
    noisier one moves to the next free level.

    Args:
        process: Any process.
        n: Number of steps; at most T where the process is a table of levels.
        shift: s, from 0.001 to 1000.

    Returns:
        (n + 1,), int64 for a table of levels, otherwise float64.
    """
    check_process(process)
    if not process.is_discrete:
        positive_int("the number of steps", n, at_most=_MOST_STEPS)
        return process.T * shifted_times(torch.linspace(1, 0, n + 1, dtype=torch.float64), shift)
    T, times = _check(process, n), [0]
    wanted = (T * shifted_times(torch.arange(n + 1, dtype=torch.float64) / n, shift) + 0.5).floor().long()
    for i, t in enumerate(wanted.tolist()[1:], start=1):
        times.append(min(max(t, times[-1] + 1), T - (n - i)))  # leaves a level for each noisier time
    return torch.tensor(times[::-1])


def log_snr(
    process: Process,
    n: int,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    to_zero: bool = True,
) -> Tensor:
    """n steps evenly spaced in λ = ln(α/σ), the grid of DPM-Solver.  [Lu et al. 2022a]

    n times from σ/α = sigma_max to sigma_min, then 0; without the 0, n + 1 times. How times become levels of
    a table, and what is done where σ/α of T is infinite: as in `karras`.

    Args:
        process: Any process.
        n: Number of steps.
        sigma_min: σ/α of the last positive time. Default: that of the least noisy one (t = 1, or t_min).
        sigma_max: σ/α of the first time. Default: that of T.
        to_zero: Whether the last time is 0.

    Returns:
        (n + 1,), int64 for a table of levels, otherwise float64.

    Raises:
        InputError: As `karras`.
    """
    return _spaced(process, n, _Scale(torch.log, torch.neg), sigma_min, sigma_max, to_zero)


def karras(
    process: Process,
    n: int,
    rho: float = 7.0,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    to_zero: bool = True,
) -> Tensor:
    """n steps evenly spaced in (σ/α)^{1/ρ}, coarse in the noise and fine near the data.  [Karras et al. 2022,
    Eq. 5]

    n times from σ/α = sigma_max to sigma_min, then 0; without the 0, n + 1 times. Where σ/α of T is infinite,
    the first time is T, and unless sigma_max is given the others descend from σ/α of T − t_min.
    The times are exact where t is continuous. Of a table they are the nearest levels; where two are the same,
    the noisier one moves to the next free level, and the noisiest ones move back if that would take them
    above the first.

    Args:
        process: Any process.
        n: Number of steps, at least 1.
        rho: ρ, from 0.01 to 1000.
        sigma_min: σ/α of the last positive time. Default: that of the least noisy one (t = 1, or t_min).
        sigma_max: σ/α of the first time. Default: that of T.
        to_zero: Whether the last time is 0.

    Returns:
        (n + 1,), int64 for a table of levels, otherwise float64.

    Raises:
        InputError: For n < 1, for values outside the process, and for more times than there are levels
            between the two ends.
    """
    rho = number("rho, the power,", rho, at_least=0.01, at_most=1000)
    scale = _Scale(lambda ratio: ratio ** (1 / rho), lambda u: -rho * u.log())
    return _spaced(process, n, scale, sigma_min, sigma_max, to_zero)


def sections(process: Process, counts: int | Sequence[int]) -> Tensor:
    """The published respacing: T levels cut into len(counts) sections, counts[k] evenly spaced times in the
    k-th (k = 0 least noisy).

    Each section's ends are included; positions are accumulated in float64 and rounded half to even, as the
    Improved DDPM and ADM code does, then 0 is added.

    Args:
        process: A process with a table of levels.
        counts: Steps of each section, or one number for a single section.

    Returns:
        int64 (sum(counts) + 1,).

    Raises:
        InputError: When a section is smaller than its count.
    """
    if not isinstance(counts, int) and not is_list(counts):
        raise InputError(f"counts are the steps of each section, a list of integers; got {brief(counts)}")
    check_length("counts", counts)
    counts = [counts] if isinstance(counts, int) else list(counts)
    T, kept, start = count_levels(process, "a grid of sections"), [], 0
    if not counts or len(counts) > T:
        raise InputError(f"sections needs between 1 and T = {T} counts, got {brief(counts)}")
    for k, count in enumerate(counts):
        size = T // len(counts) + (k < T % len(counts))
        positive_int(f"the count of section {k}", count, at_most=size)
        stride, position = (size - 1) / (count - 1) if count > 1 else 1.0, 0.0
        for _ in range(count):
            kept.append(start + round(position) + 1)
            position += stride
        start += size
    return torch.tensor([*reversed(kept), 0])


def linspace(process: Process, n: int) -> Tensor:
    """n times evenly spaced from T to 1, then 0: sections([n]).

    Args:
        process: A process with a table of levels.
        n: Number of steps, 1 ≤ n ≤ T.

    Returns:
        int64 (n + 1,).
    """
    return sections(process, [n])


def leading(process: Process, n: int) -> Tensor:
    """1 + k⌊T/n⌋ for k = n−1 … 0, then 0: what DDIM's code calls uniform. It starts below T; for published
    numbers only.

    Args:
        process: A process with a table of levels.
        n: Number of steps, 1 ≤ n ≤ T.

    Returns:
        int64 (n + 1,).
    """
    T = _check(process, n)
    return torch.tensor([*(1 + k * (T // n) for k in range(n - 1, -1, -1)), 0])


def ddim_quadratic(process: Process, n: int) -> Tensor:
    """1 + ⌊(k√(0.8T)/(n−1))²⌋ for k = n−1 … 0 without repetitions, then 0: the quadratic grid of DDIM's code.

    It starts at 0.8 T and may have fewer than n steps; for published numbers only.

    Args:
        process: A process with a table of levels.
        n: Number of steps, 2 ≤ n ≤ T.

    Returns:
        int64, at most (n + 1,).
    """
    T = _check(process, n)
    if n < 2:
        raise InputError("ddim_quadratic needs at least 2 steps")
    positions = torch.linspace(0, math.sqrt(0.8 * T), n, dtype=torch.float64) ** 2
    return torch.tensor([*sorted({1 + int(p) for p in positions.tolist()}, reverse=True), 0])


def fitted(
    model: AnyModel,
    n: int,
    x_T: Tensor | Noise | None = None,
    candidates: int = 60,
    sampler: AnySampler | None = None,
) -> Tensor:
    """n steps fitted to the model: among the candidate times those between which DDIM's steps leave the flow the least.

    Reference samples are walked on a fine grid through all candidates, and a step from t to s costs mean|x_s − x̃_s|²,
    x̃_s DDIM's step from the reference x_t. Dynamic programming finds the n steps of the least sum; it is taken four
    times, of the mean squares, of these over the variance of x_s, and of the roots of both. Of these four grids
    and `log_snr` the result is the one on which `sampler` ends nearest to the reference samples; `uniform` unless that is
    nearer by more than two standard errors of the difference. So on them it is never farther from the flow than on the
    uniform grid. It makes some 4·candidates + 6n calls for each of them.

    Args:
        model: A model with noise levels; labels are bound to the reference samples, guidance is in force.
        n: Number of steps; at most T where the process is a table of levels.
        x_T: Where the reference samples start, (B, *), or the noise that 64 of them are drawn from. Default:
            NoiseSource(0).
        candidates: How many times to choose from, 2 to 1,000; at least 2n are taken.
        sampler: A solver of the flow, for which the grid is chosen. Default: UniPC().

    Returns:
        (n + 1,), int64 for a table of levels, otherwise float64.

    Raises:
        InputError: For numbers out of range, and where the shape of an example is not known.
        IncompatibleModel: For a model without noise levels, and for a sampler that adds noise.
    """
    from scorefield.samplers.fitting import fit  # which samples, and samplers know grids

    return fit(model, n, x_T, candidates, sampler)


def staircase(process: Process, repeats: int, times: Tensor | Sequence[float] | None = None) -> Tensor:
    """T, …, T, T−1, …, T−1, …, 1, …, 1, 0: `repeats` steps start at every level, as annealed Langevin needs.
    [NCSN Algorithm 1]

    Args:
        process: Any process; without `times`, one with a table of levels.
        repeats: Updates at each level, at least 1.
        times: The levels to stop at, strictly descending, such as another grid, whose last 0 adds no level.
            Default: every level.

    Returns:
        (levels·repeats + 1,).

    Raises:
        InputError: For repeats < 1, and for times that do not descend.
    """
    check_process(process)
    positive_int("repeats", repeats, at_most=_MOST_STEPS)
    levels = full(process) if times is None else _as_tensor(times)
    if levels.ndim != 1 or len(levels) * repeats > _MOST_STEPS:
        raise InputError(
            f"the times of a staircase are a list, and its updates {_MOST_STEPS:,} at most; got {len(levels.reshape(-1))} "
            f"times with {repeats} updates each"
        )
    levels = levels[:-1] if len(levels) and levels[-1] == 0 else levels
    if not len(levels) or bool((levels.diff() >= 0).any()) or levels[-1] < 0:
        raise InputError(
            f"the times of a staircase must be positive and strictly descend, got {brief(levels.tolist())}"
        )
    process.level(levels)  # refuses what lies outside the process
    return torch.cat([levels.repeat_interleave(repeats), levels.new_zeros(1)])


def steps(n: int) -> Tensor:
    """n, n−1, …, 0: n updates of a score without noise levels, numbered by how many are left.

    Args:
        n: Number of updates, at least 1.

    Returns:
        int64 (n + 1,).
    """
    positive_int("the number of updates", n, at_most=_MOST_STEPS)
    return torch.arange(n, -1, -1)


def as_grid(process: Process | None, grid: Tensor | Sequence[float]) -> list[int] | list[float]:
    """The times of a grid as Python numbers.

    Args:
        process: That of the model; None for a score without noise levels, whose grid must be that of `steps`.
        grid: The times.

    Raises:
        InputError: Unless these are two or more finite times within [0, T].
    """
    times = _as_tensor(grid)
    if times.ndim != 1 or len(times) < 2 or not bool(torch.isfinite(times).all()):
        raise InputError(f"a grid is a one-dimensional list of at least two times, got {brief(grid)}")
    if process is not None:
        check_process(process)
        process.level(times)  # refuses what lies outside the process
    elif not torch.equal(times.double(), steps(len(times) - 1).double()):
        raise InputError("a score without noise levels has no times: use sf.grids.steps(n) for n updates")
    return times.tolist()


def as_floats(grid: Tensor | Sequence[float]) -> list[float]:
    """The times of a grid as Python numbers: tensors hash and compare by identity."""
    if not isinstance(grid, Tensor) and (not isinstance(grid, Iterable) or isinstance(grid, str)):
        raise InputError(f"a grid is a list or tensor of times, got {brief(grid)}")
    check_length("a grid", grid)
    times = grid.tolist() if isinstance(grid, Tensor) else list(grid)
    if not isinstance(times, list) or not all(isinstance(t, int | float | np.number | Tensor) for t in times):
        raise InputError(f"a grid is a list or tensor of times, got {brief(grid)}")
    return times


def _as_tensor(times: Tensor | Sequence[float]) -> Tensor:
    """Times as they are: of a list of Python floats torch would make float32."""
    check_length("times", times)
    try:
        found = (
            check_real("times", times) if isinstance(times, Tensor) else torch.as_tensor(np.asarray(times))
        )
    except (TypeError, ValueError, RuntimeError, OverflowError):  # of words, objects, numbers beyond int64
        raise InputError(f"times are a list of numbers, got {brief(times)}") from None
    if found.is_complex() or found.dtype == torch.bool:
        raise InputError(f"times are a list of numbers, got {brief(times)}")
    return found


def _check(process: Process, n: int) -> int:
    T = count_levels(process, "this grid")
    positive_int("the number of steps", n, at_most=T)
    return T


class _Scale(NamedTuple):
    """What a grid is evenly spaced in: σ/α -> u, ascending, and back from u to λ = ln(α/σ)."""

    of: Callable[[Tensor], Tensor]
    log_ratio: Callable[[Tensor], Tensor]


def _spaced(
    process: Process, n: int, scale: _Scale, sigma_min: float | None, sigma_max: float | None, to_zero: bool
) -> Tensor:
    check_process(process)
    if not isinstance(process, GaussianProcess):
        raise IncompatibleModel(
            "this grid is spaced in σ/α, which a categorical process does not have: use a grid such as "
            "sf.grids.uniform"
        )
    positive_int("the number of steps", n, at_most=_MOST_STEPS)
    flag("to_zero", to_zero)
    if sigma_max is None and process.ends_in_noise:
        return _after_noise(process, n, scale, sigma_min, to_zero)
    first = process.t_min
    high, low = (
        process.level(end).ratio
        if sigma is None
        else torch.tensor(number(name, sigma, above=0, at_most=LARGEST), dtype=torch.float64)
        for name, sigma, end in (("sigma_max", sigma_max, process.T), ("sigma_min", sigma_min, first))
    )
    count = n if to_zero else n + 1
    if not 0 < low <= high < math.inf or (low == high and count > 1):
        raise InputError(
            f"this grid descends from sigma_max to sigma_min, positive values of σ/α; got {high:g} and {low:g}"
        )
    wanted = torch.linspace(float(scale.of(high)), float(scale.of(low)), count, dtype=torch.float64)
    if process.is_discrete:
        times = _nearest_levels(process, wanted, scale)
        return _ended(times) if to_zero else times
    times = _exact_times(process, wanted, scale)
    # Rounding must not move the ends of the process itself.
    times[0] = process.T if sigma_max is None else times[0]
    times[-1] = first if sigma_min is None and len(times) > 1 else times[-1]
    return _ended(times) if to_zero else times


def _after_noise(
    process: GaussianProcess, n: int, scale: _Scale, sigma_min: float | None, to_zero: bool
) -> Tensor:
    """T, where σ/α is infinite, and then the grid from σ/α of T − t_min on."""
    others = n - 1 if to_zero else n
    start = torch.tensor([process.T], dtype=torch.long if process.is_discrete else torch.float64)
    if not others:
        return _ended(start)
    high = float(process.level(process.T - process.t_min).ratio)
    times = torch.cat([start, _spaced(process, others, scale, sigma_min, high, True)])
    return times if to_zero else times[:-1]


def _exact_times(process: GaussianProcess, wanted: Tensor, scale: _Scale) -> Tensor:
    times = process.time(scale.log_ratio(wanted))
    least = process.level(
        _NO_TIME
    ).ratio  # σ_min of the processes that have one: grids may name it, and t_min is just above
    if times[-1] <= 0 and scale.log_ratio(wanted[-1]).neg().exp() >= least * (1 - _ROUNDING):
        times[-1] = process.t_min
    if times[-1] <= 0 or times[0] > process.T * (1 + _ROUNDING):
        raise _outside(process, wanted, scale, process.t_min)
    return times.clamp_max(process.T)


def _nearest_levels(process: GaussianProcess, wanted: Tensor, scale: _Scale) -> Tensor:
    """Descending levels next to the `wanted` values of the scale, no two of them the same."""
    ratios = process.level(torch.arange(1, int(process.T) + 1)).ratio
    table = scale.of(ratios[ratios.isfinite()])
    slack = _ROUNDING * table.abs().max()
    if wanted[-1] < table[0] - slack or wanted[0] > table[-1] + slack:
        raise _outside(process, wanted, scale, 1)
    nearest = (torch.searchsorted((table[1:] + table[:-1]) / 2, wanted) + 1).tolist()
    first, last, count = nearest[-1], nearest[0], len(nearest)
    if last - first + 1 < count:
        raise InputError(
            f"these ends have {last - first + 1} levels from one to the other, but {count} times were requested: "
            "use fewer"
        )
    times = [first]
    for above, t in enumerate(reversed(nearest[:-1]), start=2 - count):
        times.append(
            min(max(t, times[-1] + 1), last + above)
        )  # leaves a level for each of the -above noisier times
    return torch.tensor(times[::-1])


def _outside(process: GaussianProcess, wanted: Tensor, scale: _Scale, first: float) -> InputError:
    low, high = (-scale.log_ratio(wanted[[-1, 0]])).exp().tolist()
    least, most = (float(process.level(t).ratio) for t in (first, process.T))
    return InputError(
        f"a grid from σ/α = {high:g} to {low:g} exceeds this process, whose σ/α ranges from {least:g} to {most:g}"
    )


def _ended(times: Tensor) -> Tensor:
    """The times and then 0."""
    return torch.cat([times, times.new_zeros(1)])
