"""Bits per dimension of a data set, by variational bound or ODE likelihood, with standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.core.noise import NoiseSource
from scorefield.core.prediction import Prediction
from scorefield.data import Dataset
from scorefield.evaluation.flow import OdeKeywords
from scorefield.evaluation.likelihood import (
    BitsPerDim,
    bits_per_dim,
    categorical_bits_per_dim,
    estimate_bits_per_dim,
    ode_bits_per_dim,
    ode_log_prob,
)
from scorefield.evaluation.metric_value import MetricValue, Stamp
from scorefield.models.base import CategoricalModel, Denoise, GaussianModel, Model
from scorefield.models.foreign import as_gaussian
from scorefield.models.guidance import ClipX0
from scorefield.models.wrappers import Wrapper
from scorefield.objectives.vlb import Bound
from scorefield.process import CategoricalProcess, Process
from scorefield.process.base import Time
from scorefield.process.transitions import Variance
from scorefield.runtime.checks import check_finite
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.runtime.progress import Bar, Reporter
from scorefield.samplers.grids import full, uniform

__all__ = ["BoundPlan", "Examples", "bound_figures", "flow_figures"]

_STEPS = 1000  # of a bound where t is real
_MOST = 256  # examples in a batch
_EXACT = 16  # dimensions up to which the flow's trace is exact
_OVER = "standard error over examples"


@dataclass(frozen=True)
class Examples:
    """What a model is to predict, under the labels it has in the data.

    Attributes:
        model: With levels and with the data's bins, a Denoiser or a CategoricalDenoiser (`as_model` of one's
            own).
        data: The data set.
        indices: (N,), which examples of `data`.
        split: What `data` is called.
        seed: Of the noise, which is keyed by the example's index.
    """

    model: Model
    data: Dataset
    indices: Tensor
    split: str
    seed: int

    def __post_init__(self) -> None:
        if self.model.family not in ("gaussian", "categorical"):
            raise IncompatibleModel(
                f"bpd and ode need a model with noise levels, and this {self.model.kind} has none: use metrics of "
                "samples, or train a model with a process"
            )
        known = self.model.data
        bins, found = known and known.bins, self.data.spec.bins
        if bins != found:
            raise InputError(
                f"{self.data.source} has {found or 'no'} levels and the model was trained on data of {bins or 'no'} "
                "levels: likelihoods need data on the same levels"
            )
        made = {"low_res"} if self.model.low_res is not None else set()
        self.model.refuse_missing({*self.data.arrays, *made})
        if not len(self.indices):
            raise InputError(
                f"{self.data.source}: there are no {self.split} examples: train with data.holdout above 0"
            )

    def batches(self, values: int) -> Iterator[tuple[Tensor, Model, NoiseSource]]:
        """(x0 (B, *), the model given its labels, noise) with about `values` values in x0."""
        for part in self._parts(values):
            x0, labels = self.data.batch(part)
            arrays = self.model.conditioning(x0, self.data.arrays_at(part))
            given = self.model.given(labels if self.model.num_classes else None, **arrays)
            yield x0.to(given.device), given, NoiseSource(self.seed, part)

    @property
    def process(self) -> Process:
        """That of the model."""
        if self.model.process is None:
            raise IncompatibleModel(f"{self.model.kind} has no noise levels")
        return self.model.process

    def count_batches(self, values: int) -> int:
        return len(self._parts(values))

    @property
    def unit(self) -> str:
        """Bits a dimension; nats an example for continuous data, whose likelihood is a density."""
        return "nats" if self.data.spec.bins is None else "bits/dim"

    @property
    def scale(self) -> float:
        """What bits a dimension are multiplied by for that unit."""
        return self.data.spec.dimensions * math.log(2) if self.data.spec.bins is None else 1.0

    def _parts(self, values: int) -> tuple[Tensor, ...]:
        return self.indices.split(min(max(values // self.data.spec.dimensions, 1), _MOST))


@dataclass(frozen=True)
class BoundPlan:
    """How the bound is computed.

    Attributes:
        clip: Whether x̂0 is clipped to the data's range.
        steps: Of a uniform grid. Default: every level, and 1,000 steps where t is real.
        terms: Estimate the total from this many terms of each example. Default: all terms.
        variance: "lower", "upper" or "learned". Default: learned where the model has a head, otherwise upper.
    """

    clip: bool = False
    steps: int | None = None
    terms: int | None = None
    variance: Variance | None = None

    def grid(self, process: Process) -> Tensor:
        """The times of the bound, descending to 0."""
        if self.steps is not None:
            return uniform(process, self.steps)
        return full(process) if process.is_discrete else uniform(process, process.levels or _STEPS)

    def bound(self, examples: Examples) -> Bound | None:
        """None for categories, whose steps have no variance. Continuous data have the density decoder.

        IncompatibleModel for a learned variance without a head, and for terms or a variance of categories.
        """
        if not isinstance(examples.model, GaussianModel):
            if self.terms is not None or self.variance is not None:
                raise IncompatibleModel(
                    "the bound of categories is the sum of all its terms, which have no variance: remove both"
                )
            return None
        return Bound.of(
            examples.model, self.variance, "density" if examples.data.spec.bins is None else "discretized"
        )


def bound_figures(
    examples: Examples, plan: BoundPlan, stamp: Stamp, watch: Reporter, *, batch_values: int = 2**18
) -> list[MetricValue]:
    """The variational bound on −log₂ p(x_0)/D: total, prior, decoder (L_0), the sum of the others; every
    term's mean in `parts`.

    An estimate has the total and the prior only. The network runs in float32, and guidance is left out.
    batch_values: most values of x_0 in a batch, over the number of categories where there are some.
    """
    bound, grid = plan.bound(examples), plan.grid(examples.process)
    found = _measure_bound(examples, plan, bound, grid, watch, batch_values)
    count, known = len(grid) - 1, examples.process.T
    facts = {
        **_facts(examples),
        "levels": f"{count:,} of {known:,}" if isinstance(known, int) else f"{count:,} of a real t",
        "terms": "all" if plan.terms is None else f"{plan.terms:,} drawn for each example",
        **(
            {} if bound is None else {"variance": bound.variance, "decoder": bound.decoder, "clip": plan.clip}
        ),
    }
    labels = {
        "bpd": "variational bound on −log p"
        if plan.terms is None
        else "variational bound on −log p, estimated",
        "prior": "of which the prior, L_T",
        "decoder": "of which the decoder, L_0",
        "others": f"of which the other {count - 1:,} terms",
    }
    every = {}
    if "terms" in found:
        every = {
            "times": grid.flip(0)[1:].tolist(),
            "terms": (found["terms"].sum(dim=0) / len(examples.indices)).tolist(),
        }
    stamped = {"bound": facts, **stamp}
    return [
        _mean(
            "bpd",
            name if name == "bpd" else f"bpd_{name}",
            label,
            found[name],
            examples,
            stamped,
            every if name == "bpd" else {},
        )
        for name, label in labels.items()
        if name in found
    ]


def flow_figures(
    examples: Examples,
    stamp: Stamp,
    watch: Reporter,
    *,
    tolerance: float = 1e-5,
    batch_values: int = 2**17,
) -> list[MetricValue]:
    """−log₂ p(x_0)/D by the probability-flow ODE, uniformly dequantized; and by how much the default prior
    moves it at the most.

    Continuous data: −ln p_{t_min} at the data, in nats. Hutchinson's trace by one probe, exact up to 16
    dimensions; the standard error over examples contains the probes'. The network runs in float32, and
    guidance is left out.

    Args:
        examples: The examples and their model.
        stamp: How they came about.
        watch: Receives progress reports.
        tolerance: Relative and absolute, of the solver.
        batch_values: Most values of x_0 in a batch, whose network graphs are kept.
    """
    as_gaussian(examples.model, "the flow's likelihood", categorical="the bound, bpd")
    quantized, exact = examples.data.spec.bins is not None, examples.data.spec.dimensions <= _EXACT
    options: OdeKeywords = {
        "trace": "exact" if exact else "hutchinson",
        "rtol": tolerance,
        "atol": tolerance,
    }
    found: list[tuple[Tensor, Tensor]] = []
    calls: list[int] = []
    done = 0
    with _in_float32(examples.model), watch.progress("the flow", len(examples.indices)) as bar:
        for x0, given, noise in examples.batches(batch_values):
            watched = _Watched(
                as_gaussian(given, "the flow's likelihood"), _Solved(bar, done, len(x0) / examples.process.T)
            )
            values, prior, count = _flow(watched, x0, noise, quantized, options)
            found.append((values, prior))
            calls.append(count)
            done += len(x0)
            bar.update(done)
    facts = {
        **_facts(examples),
        "solver": "dopri5",
        "tolerance": tolerance,
        "calls": sorted({min(calls), max(calls)}),
        "trace": "exact" if exact else "Hutchinson, 1 probe",
        "dequantization": "uniform" if quantized else "none",
    }
    stamped = {"flow": facts, **stamp}
    values, priors = (torch.cat(parts) for parts in zip(*found, strict=True))
    return [
        _mean("ode", "ode", "−log p by the probability-flow ODE", values, examples, stamped),
        _mean("ode", "ode_prior_error", "the default prior moves it by at most", priors, examples, stamped),
    ]


class _Solved:
    """Tells a bar how many examples are done: those before a batch, and of the batch in proportion to the
    largest time reached.
    """

    def __init__(self, bar: Bar, before: int, per_time: float) -> None:
        self.bar, self.done, self.before, self.per_time = bar, before, before, per_time

    def __call__(self, t: Time) -> None:
        reached = self.before + int(self.per_time * float(torch.as_tensor(t).max()))
        if reached > self.done:
            self.done = reached
            self.bar.update(reached)


class _Watched(Wrapper):
    """A model that tells the time of every call."""

    def __init__(self, model: Denoise, on_call: Callable[[Time], None]) -> None:
        super().__init__(as_gaussian(model, type(self).__name__))
        self.on_call = on_call

    def __call__(self, x_t: Tensor, t: Time) -> Prediction:
        self.on_call(t)
        return self.model(x_t, t)


def _measure_bound(
    examples: Examples, plan: BoundPlan, bound: Bound | None, grid: Tensor, watch: Reporter, batch_values: int
) -> dict[str, Tensor]:
    """In the unit: the bound and its parts for each example, (N,); "terms", the sums of every term over each
    batch, (batches, S).
    """
    process = examples.process
    batch = batch_values // (process.classes if isinstance(process, CategoricalProcess) else 1)
    calls = len(grid) - 1 if plan.terms is None else plan.terms + 1
    columns: dict[str, list[Tensor]] = {}
    with (
        _in_float32(examples.model),
        watch.progress("the bound", calls * examples.count_batches(batch)) as bar,
    ):
        for x0, given, noise in examples.batches(batch):
            if isinstance(given, CategoricalModel):
                found = _parts(categorical_bits_per_dim(given, x0, noise, grid))
                for _ in range(calls):
                    bar.advance()
            else:
                model = as_gaussian(given, "the bound")
                watched = _Watched(ClipX0(model) if plan.clip else model, lambda t: bar.advance())
                found = _bound(watched, x0, noise, plan.terms, grid, bound)
            for name, values in found.items():
                columns.setdefault(name, []).append(values)
    return {name: examples.scale * torch.cat(parts) for name, parts in columns.items()}


def _bound(
    model: Denoise, x0: Tensor, noise: NoiseSource, terms: int | None, grid: Tensor, bound: Bound | None
) -> dict[str, Tensor]:
    variance, decoder = (None, "discretized") if bound is None else (bound.variance, bound.decoder)
    if terms is not None:
        estimate = estimate_bits_per_dim(
            model, x0, noise, terms, grid=grid, variance=variance, decoder=decoder
        )
        return {"bpd": estimate.total, "prior": estimate.prior}
    return _parts(bits_per_dim(model, x0, noise, grid=grid, variance=variance, decoder=decoder))


def _parts(bits: BitsPerDim) -> dict[str, Tensor]:
    total, prior, every = bits
    parts = {"decoder": every[:, 0], "others": every[:, 1:].sum(dim=1)}
    return {"bpd": total, "prior": prior, **parts, "terms": every.sum(dim=0, keepdim=True)}


def _flow(
    model: Denoise, x0: Tensor, noise: NoiseSource, quantized: bool, options: OdeKeywords
) -> tuple[Tensor, Tensor, int]:
    """(The figure, what the default prior may move it by), each (B,), and the calls of the network."""
    if quantized:
        bits = ode_bits_per_dim(model, x0, noise, **options)
        return bits.bits, _known(bits.prior_error), bits.calls
    nats = ode_log_prob(model, x0, noise=noise, **options)
    return -nats.log_prob, _known(nats.prior_error), nats.calls


def _mean(
    metric: str,
    name: str,
    label: str,
    values: Tensor,
    examples: Examples,
    stamp: Stamp,
    parts: Mapping[str, object] | None = None,
) -> MetricValue:
    """The mean over examples and its standard error. InputError where it is not finite."""
    check_finite(values, f"results of {metric}", "the model has diverged")
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None
    return MetricValue(
        metric, name, label, float(values.mean()), stamp, error, _OVER, unit=examples.unit, parts=parts or {}
    )


def _facts(examples: Examples) -> dict[str, object]:
    bins = examples.data.spec.bins
    return {
        "examples": len(examples.indices),
        "split": examples.split,
        "bins": "none (a density)" if bins is None else bins,
        "guidance": "none",
        "seed": examples.seed,
        "precision": "fp32",
    }


def _known(error: Tensor | None) -> Tensor:
    return torch.zeros(0, dtype=torch.float64) if error is None else error


@contextmanager
def _in_float32(model: Model) -> Iterator[None]:
    """Without autocast: differences of nearby levels are small, and the solver would follow bf16's rounding."""
    before = model.autocast_dtype
    model.run_in(None)
    try:
        yield
    finally:
        model.run_in(before)
