"""Walks of a sampler in the plane, from noise or from points that were dropped, and what the field is at a point."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from scorefield.core.noise import NoiseSource
from scorefield.evaluation.likelihood import ode_log_prob
from scorefield.generation.sampling import Sampling, build_sampling
from scorefield.generation.sampling_options import SamplingOptions
from scorefield.models.base import GaussianModel, Model
from scorefield.models.foreign import as_model
from scorefield.models.guidance import ClassifierGuidance
from scorefield.oracle import GaussianMixture, MixtureDenoiser
from scorefield.process.base import GaussianProcess
from scorefield.runtime.errors import InputError, ScorefieldError
from scorefield.runtime.parsing import Options
from scorefield.samplers.base import Step, as_sampler, trajectory
from scorefield.samplers.grids import as_floats
from scorefield.studio.plane_learning import METHODS, PlaneModel, smoothed
from scorefield.studio.plane_sources import PlaneSource

__all__ = [
    "EXACT",
    "EXACT_DATA",
    "Pane",
    "PaneRequest",
    "Walk",
    "describe",
    "drop",
    "expected",
    "facts",
    "log_density",
    "probe",
    "score",
    "walk",
]

EXACT = "exact"  # the exact model of every level
EXACT_DATA = "exact-data"  # the exact score of the data alone, without levels
_MOST_STEPS = 5000
_DRAWS = 8000
_KEPT = 240  # states of a walk that are kept, evenly spaced


class PaneRequest(Options):
    """A field and how it is walked."""

    model: str = Field(EXACT, description="exact, exact-data, or the name of what was learned")
    sampler: str = "ddim"
    settings: dict[str, Any] = {}
    grid: str = "uniform"
    steps: int = Field(20, ge=1, le=_MOST_STEPS)
    repeats: int = Field(1, ge=1, le=_MOST_STEPS)
    label: int | None = Field(None, ge=0, description="the component that guidance is towards")
    guidance: float | None = None


@dataclass(frozen=True)
class Pane:
    """A field and its sampler as objects.

    Attributes:
        source: What the model models.
        plain: The model without guidance.
        model: As it is sampled: with guidance, where it was asked for.
        sampling: Sampler and grid.
        request: As it was asked for.
    """

    source: PlaneSource
    plain: PlaneModel
    model: Model
    sampling: Sampling
    request: PaneRequest

    @classmethod
    def of(cls, request: PaneRequest, source: PlaneSource, model: PlaneModel) -> Pane:
        """The pane of a request.

        Args:
            request: What was asked for.
            source: What the model models.
            model: The model without guidance.

        Raises:
            InputError: For options that have no meaning for this model.
            IncompatibleModel: For a sampler or guidance that does not go with the model.
        """
        table = {"kind": request.sampler, **request.settings}
        options = SamplingOptions(
            sampler=table,
            grid=request.grid,
            steps=request.steps,
            repeats=request.repeats,
            clip=False,
        )
        sampled = model if request.guidance is None else _guided(model, request.label or 0, request.guidance)
        sampling = build_sampling(options, sampled)
        made = cls(source, model, sampling.wrap(sampling.model), sampling, request)
        trajectory(
            made.model, sampling.sampler, sampling.grid, torch.zeros(1, 2)
        )  # refuses, and computes nothing
        return made

    @property
    def process(self) -> GaussianProcess | None:
        """That of the model; None for a score without levels."""
        found = as_model(self.model).process
        return found if isinstance(found, GaussianProcess) else None

    @property
    def density(self) -> GaussianMixture:
        """What the model is of: the source's density, of scores that were learned without levels that of x_0 + σε."""
        return smoothed(self.source) if self.request.model in METHODS else self.source.density

    @property
    def times(self) -> list[float]:
        """The grid."""
        return as_floats(self.sampling.grid)

    def start(self, n: int, noise: NoiseSource) -> Tensor:
        """x_T, (n, 2): draws of the prior, or uniform over the square of a score without levels."""
        if self.process is not None:
            return self.process.prior((n, 2), noise.at(0))
        return self.source.reach * (2 * noise.at(0).uniform((n, 2)) - 1)

    def at(self, t: float) -> float | None:
        """The level that the field has at time t: the nearest above 0 of a learned model, None without levels."""
        if self.process is None:
            return None
        return max(float(t), self.process.t_min)


def _guided(model: PlaneModel, label: int, scale: float) -> ClassifierGuidance:
    """Guidance towards a component by the exact classifier. InputError for a model that is not a mixture's own."""
    if not isinstance(model, MixtureDenoiser):
        raise InputError("guidance here is by the exact classifier of a mixture: take the exact model")
    return ClassifierGuidance(model, model.mixture.classifier(model.process), label, scale)


@dataclass
class Walk:
    """States of a walk: the first one, then those after the steps that are kept.

    Attributes:
        times: Of the states; of a walk without levels how many updates are left.
        x: States, each (n, 2).
        x0: Predictions x̂0, each (n, 2); the first one is the first state.
        refused: The library's sentence where the walk could not be finished.
        calls: Network calls of the whole walk.
        seconds: That they took.
    """

    calls: int
    times: list[float] = field(default_factory=list)
    x: list[Tensor] = field(default_factory=list)
    x0: list[Tensor] = field(default_factory=list)
    refused: str | None = None
    seconds: float = 0.0

    def keep(self, time: float, x: Tensor, x0: Tensor) -> None:
        self.times.append(time)
        self.x.append(x.float())
        self.x0.append(x0.float())


def walk(
    pane: Pane,
    x: Tensor,
    noise: NoiseSource,
    on_step: Callable[[int, Step], None] = lambda i, step: None,
    times: Sequence[float] | None = None,
) -> Walk:
    """Walk points along the pane's grid.

    Args:
        pane: Model, sampler and grid.
        x: Where they start, (n, 2).
        noise: Where all draws come from.
        on_step: Called after each step with its number, from 1 on.
        times: Another grid.

    Raises:
        InputError: For a grid that the sampler cannot walk.
    """
    grid = pane.times if times is None else list(times)
    sampler = as_sampler(pane.sampling.sampler)
    process = pane.process
    made = Walk(sampler.calls(grid) if process is None else sampler.calls_on(process, grid))
    made.keep(grid[0], x, x)
    every, last = max(1, math.ceil((len(grid) - 1) / _KEPT)), len(grid) - 1
    start = perf_counter()
    try:
        for i, step in enumerate(trajectory(pane.model, sampler, grid, x, noise), start=1):
            if i % every == 0 or i == last:
                made.keep(step.s, step.x, step.x0)
            on_step(i, step)
    except ScorefieldError as error:  # of a walk that leaves the finite numbers
        made.refused = str(error)
    made.seconds = perf_counter() - start
    return made


def drop(pane: Pane, x: Tensor, t: float, noise: NoiseSource) -> Walk:
    """Walk points from time t to the end of the pane's grid.

    Args:
        pane: Model, sampler and grid.
        x: Where they start, (n, 2).
        t: Their time; of no meaning for a score without levels, which makes all its updates.
        noise: Where all draws come from.
    """
    start = pane.at(t)
    if start is None:
        return walk(pane, x, noise)
    below = [s for s in pane.times if s < start]
    first = int(start) if start == int(start) else start
    return walk(pane, x, noise, times=[first, *below])


def score(pane: Pane, x: Tensor, t: float) -> Tensor:
    """∇ ln p_t(x), with guidance where the pane has it, (n, 2).

    Args:
        pane: The field.
        x: Points, (n, 2).
        t: The time.
    """
    level = pane.at(t)
    with torch.no_grad():
        if isinstance(pane.model, GaussianModel) and level is not None:
            return pane.model(x, level).guided(level).score
        return pane.plain.score(x)


def log_density(pane: Pane, x: Tensor, t: float) -> Tensor:
    """ln p_t(x) of the source's density, with s·ln p_t(y|x) where the pane is guided, (n,).

    Exact for a mixture; of another source it is that of a kernel estimate.

    Args:
        pane: The field.
        x: Points, (n, 2).
        t: The time.
    """
    density, process, request = pane.density, pane.process, pane.request
    at = density if process is None or t <= 0 else density.at(process.level(t))
    found = at.log_prob(x)
    if request.guidance is not None:
        found = found + request.guidance * at.posterior(x)[:, request.label or 0].clamp_min(1e-38).log()
    return found


def probe(pane: Pane, x: Tensor, t: float) -> dict[str, Any]:
    """What the field says at one point.

    Args:
        pane: The field.
        x: The point, (1, 2).
        t: The time.

    Returns:
        "t" (None without levels), "score", "x0" (None without levels), and "log_p", ln p_t of the model without guidance, in
        nats: exact, or by the probability-flow ODE; None with the sentence "log_p_refused" where there is none.
    """
    level = pane.at(t)
    found: dict[str, Any] = {"t": level, "score": score(pane, x, t)[0].tolist(), "x0": None}
    found |= {"log_p": None, "log_p_refused": None}
    if isinstance(pane.model, GaussianModel) and level is not None:
        with torch.no_grad():
            found["x0"] = pane.model(x, level).guided(level).x0[0].tolist()
    try:
        found["log_p"] = _log_p(pane, x, level)
    except ScorefieldError as error:
        found["log_p_refused"] = str(error)
    return found


def _log_p(pane: Pane, x: Tensor, level: float | None) -> float:
    model, mixture = pane.plain, pane.source.mixture
    exact = pane.request.model in (EXACT, EXACT_DATA)
    if exact and mixture is not None:
        at = mixture if pane.process is None or level is None else mixture.at(pane.process.level(level))
        return float(at.log_prob(x))
    if not isinstance(model, GaussianModel):
        raise InputError("a score without levels has no density that could be computed")
    return float(ode_log_prob(model, x, t_min=level, trace="exact").log_prob)


def facts(pane: Pane, made: Walk) -> dict[str, Any]:
    """What is known of the last state of a walk.

    Args:
        pane: Of the walk.
        made: The walk.

    Returns:
        Its cost, "from_the_flow", and what `describe` says of its last points.
    """
    return {
        "steps": len(pane.times) - 1,
        "calls": made.calls,
        "seconds": round(made.seconds, 3),
        "refused": made.refused,
        "from_the_flow": from_the_flow(pane, made),
        **describe(made.x[-1], None if pane.source.mixture is None else pane.density),
    }


def expected(pane: Pane) -> dict[str, Any]:
    """What `describe` says of draws of the pane's density, of a toy of its points."""
    if pane.source.mixture is None:
        return describe(pane.source.points, None)
    return describe(pane.density.sample(_DRAWS, NoiseSource(0)).float(), pane.density)


def describe(x: Tensor, mixture: GaussianMixture | None) -> dict[str, Any]:
    """Numbers of a set of points.

    Args:
        x: (n, 2).
        mixture: Their distribution, where it is known.

    Returns:
        "mean" and "spread", the root mean square distance from it; of a mixture "shares" of its components, where each point
        counts for the component with the largest p(k|x), and "log_p", the mean of ln p(x) in nats. None where not known.
    """
    mean = x.mean(dim=0)
    spread = (x - mean).square().sum(dim=1).mean().sqrt()
    found: dict[str, Any] = {"mean": mean.tolist(), "spread": float(spread), "shares": None, "log_p": None}
    if mixture is not None and bool(x.isfinite().all()):
        counts = torch.bincount(mixture.posterior(x).argmax(dim=1), minlength=len(mixture.weights))
        found["shares"] = (counts / len(x)).tolist() if len(counts) <= 8 else None
        found["log_p"] = float(mixture.log_prob(x).mean())
    return found


def from_the_flow(pane: Pane, made: Walk) -> float | None:
    """Root mean square distance of a walk's last points from where the probability flow takes the same x_T, by DDIM on
    every level. None of a sampler that draws noise, of a score without levels, and of a walk that was refused.
    """
    process = pane.process
    if process is None or made.refused is not None or _draws_noise(pane, made.x[0][:1]):
        return None
    request = PaneRequest(
        sampler="ddim", grid="full", label=pane.request.label, guidance=pane.request.guidance
    )
    end = walk(Pane.of(request, pane.source, pane.plain), made.x[0], NoiseSource(0)).x[-1]
    return float((made.x[-1] - end).square().sum(dim=1).mean().sqrt())


def _draws_noise(pane: Pane, x: Tensor) -> bool:
    """Whether the first step from a point depends on the seed."""
    first = pane.times[:2]
    ends = [walk(pane, x, NoiseSource(seed), times=first).x[-1] for seed in (0, 1)]
    return not torch.equal(*ends)
