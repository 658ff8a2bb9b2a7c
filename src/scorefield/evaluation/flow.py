"""Exact likelihood of the probability-flow ODE: instantaneous change of variables, solved by torchdiffeq.

With n = √(α² + σ²), u = x_t/n, ℓ = ln(σ/α):  du/dℓ = (α/n)(σ/n)·v̂(x_t, t),  d ln p(u)/dℓ = −(α/n)(σ/n)·tr
∂v̂/∂u, where v̂ is the velocity. u stays of order one on every process and every ℓ, so that one tolerance
fits all of the path. Where nothing of the data is left at T, ℓ is infinite there, and τ = ln(σ/(n + α)) takes its
place: dτ = (α/n) dℓ, so that du/dτ = (σ/n)·v̂, and τ is 0 at α = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor

from scorefield.core.distributions import Normal
from scorefield.core.noise import Noise, as_noise, check_noise
from scorefield.core.shapes import check_batch_of, check_real, expand, sum_flat
from scorefield.models.base import Denoise
from scorefield.models.foreign import as_gaussian, as_model
from scorefield.objectives.vlb import prior_term
from scorefield.process.base import GaussianProcess
from scorefield.runtime.checks import brief, number, one_of, positive_int
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.samplers.between import between_levels

__all__ = ["OdeBits", "OdeKeywords", "OdeLikelihood", "ode_bits_per_dim", "ode_log_prob"]

TRACES = ("hutchinson", "exact")
_MOST_PROBES = 10_000


class OdeLikelihood(NamedTuple):
    """The likelihood of the probability-flow ODE, float64 on the CPU.

    Attributes:
        log_prob: ln p_{t_min}(x) in nats, (B,).
        calls: Network calls.
        error: Standard error of the trace estimate, (B,): 0 for the exact trace, NaN for a single probe.
        prior_error: KL(q(x_T | x) ‖ prior) in nats, (B,); its mean bounds by how much the default prior moves
            the mean of log_prob. It is a divergence, an average over x_T, and no bound for one example: there the
            default prior can move log_prob by far more (70 times as much was seen). None where the prior was given.
    """

    log_prob: Tensor
    calls: int
    error: Tensor
    prior_error: Tensor | None


class OdeBits(NamedTuple):
    """Bits per dimension by the probability-flow ODE, float64 on the CPU.

    Attributes:
        bits: Bits per dimension of the quantized data, (B,).
        calls: Network calls.
        error: As in OdeLikelihood, in bits per dimension.
        prior_error: As in OdeLikelihood, in bits per dimension.
    """

    bits: Tensor
    calls: int
    error: Tensor
    prior_error: Tensor | None


class OdeKeywords(TypedDict, total=False):
    """Options of `ode_log_prob`."""

    prior: Callable[[Tensor], Tensor] | None
    t_min: float | None
    trace: str
    probes: int
    rtol: float
    atol: float


def ode_log_prob(
    model: Denoise,
    x: Tensor,
    prior: Callable[[Tensor], Tensor] | None = None,
    t_min: float | None = None,
    trace: str = "hutchinson",
    probes: int = 1,
    noise: Noise | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> OdeLikelihood:
    """ln p_{t_min}(x) under the probability-flow ODE of the model.  [Song et al. 2021, Eq. 39–40; Grathwohl
    et al. 2019]

    Args:
        model: Any Denoise of a Gaussian process; a discrete one is read between its levels (`Interpolated`).
            Guidance is ignored.
        x: A point of the noise level t_min itself, not of the clean data, (B, *).
        prior: x_T (B, *) -> ln p(x_T), (B,). Default: the process's N(prior_mean, prior_std²).
        t_min: Where the ODE ends. Default: the process's own (1 for a discrete one).
        trace: "exact" (D backward passes per call) or "hutchinson" (`probes` of them, Rademacher, drawn once
            from `noise`).
        probes: Random directions that estimate the trace, at least 1.
        noise: Of the probes. Default: a fresh seed.
        rtol: Relative tolerance of torchdiffeq's dopri5, kept by every example. The batch shares its steps,
            so a result depends on the batch, but only to within the tolerance.
        atol: Absolute tolerance, likewise.
    Returns:
        The likelihood and its errors.
    Raises:
        IncompatibleModel: For models without meaning between levels (parametrization "mean", noise_input
            "rank").
    """
    one_of("trace", trace, TRACES)
    positive_int("probes", probes, at_most=_MOST_PROBES)
    check_batch_of("x", x)
    check_real("x", x)
    if prior is not None and (not callable(prior) or isinstance(prior, type)):
        raise InputError(f"a prior is called x_T (B, *) -> ln p(x_T), (B,), got {brief(prior)}")
    rtol = number("rtol, the relative tolerance,", rtol, above=0)
    atol = number("atol, the absolute tolerance,", atol, above=0)
    process, model = _between_levels(model)
    start = process.t_min if t_min is None else number("t_min", t_min)
    if not 0 < start < process.T:
        raise InputError(f"t_min must lie between 0 and T = {process.T:g}, both excluded; got {start:g}")
    directions = _basis(x) if trace == "exact" else _rademacher(x, probes, as_noise(noise))
    flow = _Flow(process, model, directions)
    x_T, traces = _solve(flow, x, start, rtol, atol)
    along = traces.sum(dim=0) if trace == "exact" else traces.mean(dim=0)
    stretch = x[0].numel() * (_norm(process, process.T).log() - _norm(process, start).log())
    log_prior = _default_prior(process, x_T) if prior is None else prior(x_T)
    if not isinstance(log_prior, Tensor) or log_prior.shape != x.shape[:1]:
        got = f"shape {tuple(log_prior.shape)}" if isinstance(log_prior, Tensor) else brief(log_prior)
        raise InputError(f"a prior gives ln p(x_T) of each of {len(x)} examples, (B,); got {got}")
    error = _standard_error(traces) if trace == "hutchinson" else torch.zeros_like(along)
    bound = prior_term(process, x, process.T) if prior is None else None
    return OdeLikelihood(log_prior.detach().cpu().double() + along + stretch, flow.calls, error, bound)


def ode_bits_per_dim(model: Denoise, x0: Tensor, noise: Noise, **options: Unpack[OdeKeywords]) -> OdeBits:
    """Bits per dimension of quantized data by the ODE and uniform dequantization: −ln p(x)/(D ln 2) − log₂ w.
    [Theis et al. 2016]

    x = x_0 + w·(u − ½), u uniform in [0, 1), w = (high − low)/(bins − 1) the distance of neighbouring bins
    (2/255 for 8-bit images in [−1, 1]): in expectation an upper bound on the bits of the discrete model.

    Args:
        model: As in `ode_log_prob`; its `data` has bins.
        x0: (B, *) on the bins of the model's `data`.
        noise: u comes from noise.at(0), the probes from noise.at(1).
        **options: Of `ode_log_prob`.
    Returns:
        The bits and their errors.
    Raises:
        InputError: Where the model's data has no bins.
    """
    data = as_model(model).data
    if data is None or data.bins is None:
        raise InputError(
            "bits a dimension are those of quantized data, and this model's data has no bins: use ode_log_prob, or build the model with "
            "data=sf.DataSpec(shape, bins=256)"
        )
    check_batch_of("x0", x0)
    check_noise(noise)
    width = (data.range[1] - data.range[0]) / (data.bins - 1)
    u = noise.at(0).uniform(x0.shape).to(x0)
    result = ode_log_prob(model, x0 + width * (u - 0.5), noise=noise.at(1), **options)
    unit = x0[0].numel() * math.log(2)
    prior_error = None if result.prior_error is None else result.prior_error / unit
    return OdeBits(-result.log_prob / unit - math.log2(width), result.calls, result.error / unit, prior_error)


class _Flow:
    """The right-hand side: state (u, one trace a direction and example) -> its derivative in ℓ, or in τ where ℓ of T is
    infinite.
    """

    def __init__(self, process: GaussianProcess, model: Denoise, directions: Tensor) -> None:
        self.process = process
        self.to_noise = process.ends_in_noise
        self.model = model
        self.directions = directions
        self.calls = 0

    def end(self, t: float) -> Tensor:
        """ℓ or τ at t, float64."""
        alpha, sigma = self.process.level(t)
        return (sigma / (_norm(self.process, t) + alpha) if self.to_noise else sigma / alpha).log()

    def __call__(self, at: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        process, at = self.process, at.detach().cpu()
        # α/σ = sinh(−τ), which rounding must not make negative.
        t = process.time((-at).sinh().clamp_min(0).log() if self.to_noise else -at).clamp_max(process.T)
        alpha, sigma = process.level(t)
        norm = (alpha**2 + sigma**2).sqrt()
        speed = expand(sigma / norm if self.to_noise else alpha * sigma / norm**2, state[0])
        self.calls += 1
        with torch.enable_grad():
            u = state[0].detach().requires_grad_()
            velocity = self.model(u * expand(norm, u), t).velocity
            traces = [
                sum_flat(
                    v * torch.autograd.grad(velocity, u, v, retain_graph=i + 1 < len(self.directions))[0]
                )
                for i, v in enumerate(self.directions)
            ]
        return speed * velocity.detach(), speed * torch.stack(traces)


def _solve(flow: _Flow, x: Tensor, t_min: float, rtol: float, atol: float) -> tuple[Tensor, Tensor]:
    """(x_T, ∫ tr dℓ for every direction: (M, B) float64 on the CPU) from x at t_min."""
    try:
        odeint = import_module("torchdiffeq").odeint
    except ImportError:
        raise InputError(
            "the ODE likelihood is solved by torchdiffeq, which is not installed: pip install torchdiffeq, or use the variational bound"
        ) from None
    process = flow.process
    ends = [flow.end(t) for t in (t_min, process.T)]
    # Times that the solver can carry on any device; MPS has no float64.
    times = torch.stack(ends).to(
        device=x.device, dtype=torch.float32 if x.device.type == "mps" else torch.float64
    )
    state = (x / expand(_norm(process, t_min), x), x.new_zeros(len(flow.directions), x.shape[0]))
    with torch.no_grad():
        u, traces = odeint(
            flow, state, times, rtol=rtol, atol=atol, method="dopri5", options={"norm": _worst_example}
        )
    return u[-1] * expand(_norm(process, process.T), x), traces[-1].cpu().double()


def _worst_example(state: tuple[Tensor, Tensor]) -> Tensor:
    """The largest root mean square over the examples: the solver's own mean over the batch would hide a hard
    one among many.
    """
    u, traces = state
    return torch.maximum((u**2).flatten(1).mean(dim=1), (traces**2).mean(dim=0)).max().sqrt()


def _standard_error(traces: Tensor) -> Tensor:
    """Of the mean over the probes, (B,); NaN for one probe."""
    if len(traces) == 1:
        return torch.full_like(traces[0], math.nan)
    return traces.std(dim=0) / math.sqrt(len(traces))


def _between_levels(model: Denoise) -> tuple[GaussianProcess, Denoise]:
    """A process with a level at every real t, and the model on it: a shallow copy on `Interpolated` where its
    own is a table.
    """
    asked = as_gaussian(
        model, "the ODE likelihood", categorical="sf.likelihood.categorical_bits_per_dim, which is a bound"
    )
    asked.refuse_missing()
    between = between_levels(model)
    if not isinstance(between.process, GaussianProcess) or between.process.is_discrete:
        raise IncompatibleModel(
            f"the ODE likelihood needs a level at every real t, which {type(model).__name__} has not"
        )
    return between.process, between


def _norm(process: GaussianProcess, t: float) -> Tensor:
    alpha, sigma = process.level(t)
    return (alpha**2 + sigma**2).sqrt()


def _default_prior(process: GaussianProcess, x_T: Tensor) -> Tensor:
    x_T = x_T.detach().cpu().double()
    var = torch.tensor(process.prior_std**2, dtype=torch.float64)
    return Normal(torch.full_like(x_T, process.prior_mean), torch.broadcast_to(var, x_T.shape)).log_prob(x_T)


def _basis(x: Tensor) -> Tensor:
    """Every unit vector, (D, B, *): the trace is the sum of eᵢᵀ J eᵢ."""
    eye = torch.eye(x[0].numel(), device=x.device, dtype=x.dtype).reshape(-1, 1, *x.shape[1:])
    return eye.expand(-1, *x.shape)


def _rademacher(x: Tensor, probes: int, noise: Noise) -> Tensor:
    """Random signs, (M, B, *): the trace is the expectation of vᵀ J v."""
    signs = [torch.where(noise.uniform(x.shape) < 0.5, -1.0, 1.0) for _ in range(probes)]
    return torch.stack(signs).to(x)
