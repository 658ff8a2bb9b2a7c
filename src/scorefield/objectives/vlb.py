"""The variational bound, one term at a time: as a training loss, alone (L_vlb) or beside L_simple (L_hybrid)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorefield.core.distributions import CDFS, Normal, discretized_log_prob
from scorefield.core.noise import Noise
from scorefield.core.prediction import Level, Prediction
from scorefield.core.shapes import DataSpec, check_batch_of, check_real, expand
from scorefield.models.base import Denoise
from scorefield.models.denoiser import Denoiser
from scorefield.models.foreign import as_gaussian
from scorefield.objectives.base import Loss, Objective
from scorefield.objectives.denoising import prediction_error
from scorefield.objectives.times import Times, TimeSampling, as_times
from scorefield.objectives.weighting import check_weighting
from scorefield.process.base import GaussianProcess, Time, as_time, count_levels
from scorefield.process.transitions import VARIANCES, Variance, family, posterior, reverse
from scorefield.runtime.checks import LARGEST, brief, number, numbers, one_of
from scorefield.runtime.errors import IncompatibleModel, InputError

__all__ = ["DECODERS", "VLB", "Bound", "Hybrid", "bound_terms", "ddim_weights", "prior_term"]

DECODERS = ("discretized", "density")


@dataclass(frozen=True)
class Bound:
    """How p(x_s | x_t) and p(x_0 | x_t) are read off a prediction.

    Attributes:
        variance: "lower", "upper" or "learned".
        decoder: "discretized" (bins of 8-bit or other quantized data) or "density" (the Gaussian itself, for
            continuous data).
        cdf: Of the discretized decoder, "exact" or "tanh" (the published code's).
        eta: η in (0, 1] for DDIM's family in the place of the posterior, on both sides. Default: the posterior.
    """

    variance: Variance
    decoder: str = "discretized"
    cdf: str = "exact"
    eta: float | None = None

    def __post_init__(self) -> None:
        one_of("variance", self.variance, VARIANCES)
        one_of("decoder", self.decoder, DECODERS)
        one_of("cdf", self.cdf, CDFS)
        if self.eta is not None:
            number("η of a bound, which has no variance at 0,", self.eta, above=0, at_most=1)

    @classmethod
    def of(
        cls,
        model: Denoise,
        variance: Variance | None = None,
        decoder: str = "discretized",
        cdf: str = "exact",
        eta: float | None = None,
    ) -> Bound:
        """The bound of a model.

        Args:
            model: A model of Gaussian noise.
            variance: "lower", "upper" or "learned". Default: "learned" where the model has a variance head,
                otherwise "upper".
            decoder: See `Bound`.
            cdf: See `Bound`.
            eta: See `Bound`; it sets the variance.

        Raises:
            InputError: For η beside a variance.
            IncompatibleModel: For "learned" without a head.
        """
        asked = as_gaussian(
            model, "this bound", categorical="CategoricalVLB, or sf.likelihood.categorical_bits_per_dim"
        )
        if eta is not None:
            if variance is not None:
                raise InputError("eta sets the variance of DDIM's family: remove variance")
            return cls("lower", decoder, cdf, eta)
        head = asked.variance is not None
        if isinstance(variance, str) and variance == "learned" and not head:
            raise IncompatibleModel(
                'variance="learned" needs a model with a variance head, and this one has none: use "lower" or "upper", or train one '
                'with Denoiser(..., variance="range")'
            )
        own: Variance = "learned" if head else "upper"
        return cls(own if variance is None else variance, decoder, cdf)


def bound_terms(
    pred: Prediction,
    x0: Tensor,
    lo: Level,
    bound: Bound,
    data: DataSpec | None = None,
    above: Level | None = None,
) -> Tensor:
    """One term L of the bound for the step from pred.level to `lo`, in nats an example: (B,).  [DDPM Eq. 5;
    Improved DDPM Eq. 4–7]

    KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)) where s > 0, and −ln p(x_0 | x_t) where s = 0; x̂0 is not clipped
    here. With η both are of DDIM's family, and the term is γ‖ε̂ − ε‖² with the γ of `ddim_weights`.  [DDIM Eq. 11, Theorem 1]

    The "density" decoder of a fixed variance is ours, not the published code's, and has none of that floor:
    it takes σ²_{t|0}, the variance of x_0 given x_t where the data look flat.

    Args:
        pred: The prediction at x_t = α_t x_0 + σ_t ε.
        x0: x_0, (B, *).
        lo: The levels at s, () or (B,).
        bound: Which variance and which decoder.
        data: Whose bins the discretized decoder uses.
        above: The levels of the grid over t; they set the variance of the step to 0.
    """
    if bound.decoder == "density" and bound.variance != "learned":
        above = None
    p, q = _sides(pred, x0, lo, bound, above)
    last = (lo.sigma == 0).expand(x0.shape[0]).to(x0.device)
    if bool(last.all()):
        return -_decoder(x0, p, bound, data)
    if not bool(last.any()):
        return q.kl(p)
    terms = x0.new_zeros(x0.shape[0])
    terms[~last] = _rows(q, ~last).kl(_rows(p, ~last))
    terms[last] = -_decoder(x0[last], _rows(p, last), bound, data)
    return terms


def _sides(
    pred: Prediction, x0: Tensor, lo: Level, bound: Bound, above: Level | None
) -> tuple[Normal, Normal]:
    """p(x_s | x_t) of the prediction, and q(x_s | x_t, x_0)."""
    hi, x_t, eta = pred.level, pred.x_t, bound.eta
    if eta is None:
        return reverse(pred, hi, lo, bound.variance, above), posterior(x_t, x0, hi, lo)
    return family(x_t, pred.x0, hi, lo, eta, above), family(x_t, x0, hi, lo, eta)


def ddim_weights(
    process: GaussianProcess, grid: Tensor | Sequence[float], eta: float, above: Time | None = None
) -> Tensor:
    """γ_τ of L_γ = Σ_τ γ_τ E‖ε̂(x_τ, τ) − ε‖², which is the bound of DDIM's family on a sub-sequence up to a constant.
    [DDIM Eq. 5, Theorem 1]

    For a step from t to s > 0, γ = (α_s σ_t/α_t − √(σ_s² − ς²))²/(2ς²) with ς = η·(σ_s/σ_t)·σ_{t|s}; for the step to 0,
    σ_t²/(2 α_t² ς²), where ς² is η²ν, see `process.reverse`. `Simple(model, times=ListedTimes(grid[:-1], γ))` minimises
    L_γ/(S·D) for S times in D dimensions.

    Args:
        process: A Gaussian process with α_T > 0.
        grid: Times that strictly descend to 0, (S + 1,).
        eta: η, in (0, 1].
        above: A time over the smallest positive one of the grid, which sets the ν of the step from there to 0. Default: ν is
            σ²_{t|0}, as in the bound with decoder="density".

    Returns:
        γ, (S,) float64 on the CPU, in the order of the grid.
    """
    if not isinstance(process, GaussianProcess):
        raise InputError(f"process must be a Gaussian process, got {brief(process)}")
    number("η of a bound, which has no variance at 0,", eta, above=0, at_most=1)
    times = numbers("the grid", grid, 1)
    if len(times) < 2 or bool((times.diff() >= 0).any()) or times[-1] != 0:
        raise InputError(f"the grid strictly descends to 0, got {brief(grid)}")
    if process.level(float(times[0])).alpha == 0:
        raise InputError("γ is infinite at t = T, where α = 0: an error of ε̂ says nothing of x̂0 there")
    hi, lo = process.level(times[:-1]), process.level(times[1:])
    # In one dimension with x_0 = 0 and ε = 0, an error of ε̂ by 1 is x̂0 = −σ_t/α_t.
    zero, guess = torch.zeros(len(times) - 1, 1, dtype=torch.float64), -(hi.sigma / hi.alpha)[:, None]
    q = family(zero, zero, hi, lo, eta)
    p = family(zero, guess, hi, lo, eta)
    var = q.var.clone()
    if above is not None:
        if not bool((as_time(above) > times[-2]).all()):
            raise InputError(
                f"above must lie over {times[-2]:g}, the last time of the grid before 0; got {brief(above)}"
            )
        last = Level(*(part[-1] for part in hi)), Level(*(part[-1] for part in lo))
        var[-1] = family(zero[-1:], zero[-1:], *last, eta, process.level(above)).var
    return ((p.mean - q.mean) ** 2 / (2 * var))[:, 0]


def prior_term(process: GaussianProcess, x0: Tensor, t: Time) -> Tensor:
    """KL(q(x_t | x_0) ‖ N(prior_mean, prior_std²)) at the noisiest t, in nats an example: (B,) float64 on the
    CPU.  [DDPM Eq. 5, L_T]

    No network enters it. It is computed in float64, because for a good process it is a small difference of
    numbers near 1.

    Args:
        process: A Gaussian process.
        x0: x_0, (B, *).
        t: The time of the prior, usually T.
    """
    if not isinstance(process, GaussianProcess):
        raise InputError(
            f"process must be a Gaussian process such as sf.process.cosine(1000), got {brief(process)}"
        )
    check_batch_of("x0", x0)
    check_real("x0", x0)
    x0 = x0.detach().cpu().double()
    alpha, sigma = (expand(value, x0) for value in process.level(t))
    mean = alpha * x0
    start = Normal(
        torch.full_like(mean, process.prior_mean), torch.tensor(process.prior_std**2, dtype=torch.float64)
    )
    return Normal(mean, sigma**2).kl(start)


class VLB(Objective):
    """L_vlb = E_t[T·L_t]/(D ln 2) in bits a dimension, reweighted by 1/(T p_t) of the t drawn.  [Improved
    DDPM Eq. 4, §3.3]

    The prior term L_T, which no parameter enters, is left out.

    Args:
        model: A Denoiser of a discrete process.
        variance: "lower", "upper" or "learned". Default: "learned" for a model with a variance head,
            otherwise "upper".
        times: Which t are drawn: "uniform" (the default), "importance" (the paper's choice for this loss),
            or see sf.objectives.times.
        decoder: "discretized", the bins of the model's `data`, or "density", the Gaussian itself, for
            continuous data; with a fixed variance that one takes β_1 at t = 1 (see `bound_terms`).
        cdf: Of the discretized decoder, "exact" or "tanh" (the published code's).
    """

    model: Denoiser
    times: TimeSampling

    def __init__(
        self,
        model: Denoiser,
        variance: Variance | None = None,
        times: Times = None,
        decoder: str = "discretized",
        cdf: str = "exact",
    ) -> None:
        super().__init__()
        self.check_model(model)
        count_levels(model.process, "the variational bound")
        self.model = model
        self.bound = Bound.of(model, variance, decoder, cdf)
        self.times = as_times(times, model.process)

    def arguments(self) -> dict[str, object]:
        return {**super().arguments(), "variance": self.bound.variance}

    def forward(self, x0: Tensor, y: Tensor | None, noise: Noise, **arrays: Tensor) -> Loss:
        t, importance = self.times.draw(self.model.process, x0.shape[0], noise)
        pred = self.model(self.model.process.sample(x0, t, noise.normal_like(x0)), t, y, **arrays)
        bits = _scaled_term(self.model, pred, x0, t, self.bound)
        loss = importance.to(bits) * bits
        return Loss(loss, t, {"vlb": loss.detach()}, bits.detach())


class Hybrid(Objective):
    """L_hybrid = L_simple + λ·L_vlb with the mean held constant inside L_vlb, so that it trains Σ alone.
    [Improved DDPM Eq. 16]

    Args:
        model: A Denoiser of a discrete process with a variance head: without one there is nothing for L_vlb
            to train.
        vlb_scale: λ in the units of `VLB` (T·L_t in bits/dim), as in the published RESCALED_MSE; the
            published plain MSE adds one term as it is, vlb_scale = 1/T.
        weighting: Of the simple part, see `Simple`.
        times: Which t are drawn: "uniform" (the default), "importance", or see sf.objectives.times.
        decoder: "discretized", the bins of the model's `data`, or "density", the Gaussian itself, for
            continuous data.
        cdf: Of the discretized decoder, "exact" or "tanh" (the published code's).
    """

    model: Denoiser
    times: TimeSampling

    def __init__(
        self,
        model: Denoiser,
        vlb_scale: float = 0.001,
        weighting: str = "eps",
        times: Times = None,
        decoder: str = "discretized",
        cdf: str = "exact",
    ) -> None:
        super().__init__()
        self.check_model(model)
        count_levels(model.process, "the variational bound")
        self.model = model
        what = "vlb_scale, the weight of the variational bound,"
        self.vlb_scale = number(what, vlb_scale, at_least=0, at_most=LARGEST)
        self.weighting = check_weighting(weighting)
        self.bound = Bound.of(model, "learned", decoder, cdf)
        self.times = as_times(times, model.process)

    def forward(self, x0: Tensor, y: Tensor | None, noise: Noise, **arrays: Tensor) -> Loss:
        t, importance = self.times.draw(self.model.process, x0.shape[0], noise)
        pred = self.model(self.model.process.sample(x0, t, noise.normal_like(x0)), t, y, **arrays)
        mse = prediction_error(self.model, pred, x0, t, self.weighting)
        bits = _scaled_term(self.model, replace(pred, x0=pred.x0.detach()), x0, t, self.bound)
        total, scale = mse + self.vlb_scale * bits, importance.to(bits)
        return Loss(
            scale * total, t, {"mse": (scale * mse).detach(), "vlb": (scale * bits).detach()}, total.detach()
        )


def _scaled_term(model: Denoiser, pred: Prediction, x0: Tensor, t: Tensor, bound: Bound) -> Tensor:
    """T·L_t in bits a dimension for t -> t − 1 on the model's own levels, (B,)."""
    process, T = model.process, count_levels(model.process, "the variational bound")
    above = process.level((t + 1).clamp_max(T)) if T > 1 else None  # at t = T it is never used
    nats = bound_terms(pred, x0, process.level(t - 1), bound, model.data, above)
    return nats * (T / (x0[0].numel() * math.log(2)))


def _decoder(x0: Tensor, p: Normal, bound: Bound, data: DataSpec | None) -> Tensor:
    """ln p(x_0 | x_t), (B,)."""
    if bound.decoder == "density":
        return p.log_prob(x0)
    if data is None:
        raise InputError(
            "the discretized decoder needs to know the bins of the data: build the model with data=sf.DataSpec(shape, bins=256), or "
            'use decoder="density"'
        )
    return discretized_log_prob(x0, p, data, bound.cdf)


def _rows(p: Normal, rows: Tensor) -> Normal:
    return Normal(p.mean[rows], torch.broadcast_to(p.var, p.mean.shape)[rows])
