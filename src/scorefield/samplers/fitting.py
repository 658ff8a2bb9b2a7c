"""A grid fitted to a model: the times between which the steps of DDIM go wrong the least.

Some samples are walked along a fine grid. At every candidate time of theirs x̂0 is known, and with it the DDIM step from
there to every later one, whose distance to the fine path needs no further call. Dynamic programming finds the n steps
of the least sum. One-step errors do not say how far an error travels, so that the sum is taken in four ways, and the
grid kept is the one on which the sampler itself ends nearest to the fine path, log-SNR included; uniform unless that is
nearer by more than two standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from scorefield.core.noise import Noise, NoiseSource, as_noise
from scorefield.core.shapes import expand
from scorefield.models.base import GaussianModel
from scorefield.models.foreign import as_gaussian
from scorefield.process.base import GaussianProcess
from scorefield.runtime.checks import positive_int
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.samplers.base import AnySampler, as_sampler, sample, trajectory
from scorefield.samplers.grids import log_snr, uniform
from scorefield.samplers.unipc import UniPC

__all__ = ["fit", "fitting_calls", "reference_count"]

CANDIDATES = 60
_SAMPLES, _FEWEST = 64, 4  # walked where no x_T is given
_VALUES = 2**27  # of the paths that are kept
_BETWEEN = 3  # steps of the fine grid from one candidate to the next
_MOST_CANDIDATES = 1000
_TABLE = 10_000  # times among which the candidates of a continuous process are found
_CHOICES = 6  # four fitted grids, uniform, log-SNR


def fitting_calls(
    process: GaussianProcess, n: int, candidates: int = CANDIDATES, sampler: AnySampler | None = None
) -> int:
    """How many network calls `fit` makes for each sample, at most."""
    solver = as_sampler(UniPC() if sampler is None else sampler)
    times = _candidates(process, n, candidates)
    return (_BETWEEN + 1) * (len(times) - 1) + _CHOICES * solver.calls(uniform(process, n))


def fit(
    model: Any,
    n: int,
    x_T: Tensor | Noise | None = None,
    candidates: int = CANDIDATES,
    sampler: AnySampler | None = None,
) -> Tensor:
    """What `sf.grids.fitted` returns; see there."""
    asked = as_gaussian(model, "a fitted grid", categorical="sf.grids.uniform")
    positive_int("candidates", candidates, at_least=2, at_most=_MOST_CANDIDATES)
    solver, process = as_sampler(UniPC() if sampler is None else sampler), asked.process
    others = [uniform(process, n)]  # refuses an n that the process does not have
    if process.is_discrete and n == process.T:
        return others[0]
    x = x_T if isinstance(x_T, Tensor) else _start(asked, x_T, n)
    times = _candidates(process, n, candidates)
    path, x0s = _reference(model, times, x)
    errors = _step_errors(process, times, path, x0s)
    grids = [torch.tensor([times[j] for j in _shortest(cost, n)]) for cost in errors]
    if process.level(process.T).alpha > 0:
        others.append(log_snr(process, n))
    return _nearest(model, solver, [*others, *grids], x, path[-1])


def reference_count(shape: Sequence[int], n: int) -> int:
    """How many samples of this shape are walked to fit n steps: 64, fewer where their paths would not fit into memory."""
    kept = 2 * max(CANDIDATES, 2 * n) * math.prod(shape)
    return max(_FEWEST, min(_SAMPLES, _VALUES // kept))


def _start(model: GaussianModel, x_T: Noise | None, n: int) -> Tensor:
    noise = NoiseSource(0) if x_T is None else as_noise(x_T)
    if model.data is None:
        raise InputError(
            "the shape of an example is not known: build the model with data=sf.DataSpec(shape), or give x_T"
        )
    count = reference_count(model.data.shape, n)
    x = model.process.prior((count, *model.data.shape), noise.at(0)).to(model.device)
    return x.double() if model.dtype == torch.float64 else x


def _candidates(process: GaussianProcess, n: int, count: int) -> list[int] | list[float]:
    """Descending times from T to t_min, and 0: evenly spaced in the mean of t's share and that of λ.

    At least twice as many as steps. λ starts at that of the noisiest time that has one.
    """
    count = max(count, 2 * n)
    first, last = process.t_min, process.T
    table = (
        torch.arange(1, int(last) + 1)
        if process.is_discrete
        else torch.linspace(first, last, _TABLE, dtype=torch.float64)
    )
    log_ratio = -process.level(table).ratio.log()
    lowest = log_ratio[log_ratio > -math.inf].min()
    log_ratio = log_ratio.clamp_min(float(lowest))
    shares = (table - first) / max(last - first, 1) + (log_ratio[0] - log_ratio) / (
        log_ratio[0] - lowest
    ).clamp_min(1e-300)
    wanted = torch.linspace(0, float(shares[-1]), min(count, len(table)), dtype=torch.float64)
    chosen = torch.unique(torch.searchsorted(shares, wanted).clamp_max(len(table) - 1))
    return [*table[chosen].flip(0).tolist(), 0]


def _reference(model: Any, times: Sequence[float], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """x at every candidate time on a fine path, and x̂0 at all of them but 0."""
    fine: list[float] = []
    for t, s in pairwise(times):
        between = [t + (s - t) * k / _BETWEEN for k in range(_BETWEEN)] if s > 0 else [t]
        if model.process.is_discrete:
            between = [*dict.fromkeys(round(time) for time in between if round(time) != s)]
        fine += between
    path, kept = [x], set(times)
    for step in trajectory(model, UniPC(3), [*fine, 0], x, _NoDraws()):
        if step.s in kept:
            path.append(step.x)
    with torch.no_grad():
        x0s = [model(x_t, t).guided(t).x0 for x_t, t in zip(path, times[:-1], strict=False)]
    return path, x0s


def _step_errors(
    process: GaussianProcess, times: Sequence[float], path: Sequence[Tensor], x0s: Sequence[Tensor]
) -> list[Tensor]:
    """The error of a DDIM step from every candidate to every later one, (J, J) each, ∞ elsewhere: the mean square, that
    over the variance of x_s, and the roots of both.
    """
    squares = torch.full((len(times), len(times)), math.inf, dtype=torch.float64)
    for i, (x_t, x0) in enumerate(zip(path[:-1], x0s, strict=True)):
        hi = process.level(times[i])
        eps = (x_t - expand(hi.alpha, x_t) * x0) / expand(hi.sigma, x_t)
        for j in range(i + 1, len(times)):
            lo = process.level(times[j])
            missed = expand(lo.alpha, x_t) * x0 + expand(lo.sigma, x_t) * eps - path[j]
            squares[i, j] = missed.double().square().mean().cpu()
    spread = torch.stack([(x.double() - x.double().mean(0)).square().mean().cpu() for x in path])
    relative = squares / spread.clamp_min(1e-300)
    return [squares, relative, squares.sqrt(), relative.sqrt()]


def _shortest(cost: Tensor, n: int) -> list[int]:
    """The n + 1 nodes, from the first to the last, between which the sum of the costs is least."""
    best, before = cost[0], []
    for _ in range(n - 1):
        best, where = (best[:, None] + cost).min(dim=0)
        before.append(where)
    way = [len(cost) - 1]
    for where in reversed(before):
        way.append(int(where[way[-1]]))
    return [0, *way[::-1]]


def _nearest(model: Any, sampler: AnySampler, grids: Sequence[Tensor], x: Tensor, end: Tensor) -> Tensor:
    """The grid on which the sampler ends nearest to the fine path in the mean; the first one, unless another is nearer by
    more than two standard errors: what these samples cannot tell apart may be the other way round on others.
    """
    first, *others = (_end_errors(model, sampler, grid, x, end) for grid in grids)
    best, chosen = first.mean(), grids[0]
    for errors, grid in zip(others, grids[1:], strict=True):
        gained = first - errors
        sure = gained.mean() > 2 * gained.std(correction=0) / math.sqrt(len(gained))
        if sure and errors.mean() < best:
            best, chosen = errors.mean(), grid
    return chosen


def _end_errors(model: Any, sampler: AnySampler, grid: Tensor, x: Tensor, end: Tensor) -> Tensor:
    """How far each sample ends from the end of its fine path, float64 (B,) on the CPU."""
    found = sample(model, sampler, grid, x_T=x, noise=_NoDraws())
    return (found - end).flatten(1).double().norm(dim=1).cpu()


class _NoDraws:
    """The noise of a deterministic solver, which draws none."""

    def at(self, step: int) -> _NoDraws:
        return self

    def _refuse(self) -> IncompatibleModel:
        return IncompatibleModel(
            "a fitted grid is the one on which a sampler ends nearest to the flow, and a sampler that adds noise does not "
            "follow the flow: fit it with a solver such as UniPC(), or use another grid"
        )

    def normal(self, shape: Sequence[int]) -> Tensor:
        raise self._refuse()

    def uniform(self, shape: Sequence[int]) -> Tensor:
        raise self._refuse()

    def normal_like(self, x: Tensor) -> Tensor:
        raise self._refuse()
