"""Denoising objectives: the regression of ε, x_0, v or the score at random noise levels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scorefield.core.noise import Noise
from scorefield.core.prediction import Prediction
from scorefield.core.shapes import expand, mean_flat
from scorefield.models.denoiser import Denoiser
from scorefield.objectives.base import Loss, Objective
from scorefield.objectives.coupling import COUPLINGS, coupled
from scorefield.objectives.times import Times, TimeSampling, as_times
from scorefield.objectives.weighting import SMALLEST_SIGNAL, check_weighting, weight
from scorefield.runtime.checks import flag, one_of
from scorefield.runtime.errors import IncompatibleModel

__all__ = ["LogLoss", "Simple", "prediction_error", "weighted_error"]

_FEATURES = 128
_LARGEST = 1e6


def weighted_error(
    model: Denoiser,
    x0: Tensor,
    y: Tensor | None,
    t: Tensor,
    eps: Tensor,
    weighting: str = "eps",
    arrays: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """w(t)·mean|ε̂ − ε|² per example, (B,), of the model at x_t = α_t x_0 + σ_t ε.

    Args:
        model: A Denoiser.
        x0: Data (B, *).
        y: Labels (B,), or None.
        t: Times (B,).
        eps: The noise (B, *).
        weighting: The name of w, see `weighting`.
        arrays: What else the network is conditioned on, (B, *) by name.
    """
    pred = model(model.process.sample(x0, t, eps), t, y, **(arrays or {}))
    return prediction_error(model, pred, x0, t, weighting)


def prediction_error(
    model: Denoiser, pred: Prediction, x0: Tensor, t: Tensor, weighting: str = "eps"
) -> Tensor:
    """w(t)·mean|ε̂ − ε|² an example, (B,), computed as w·(α c_out/σ)²·mean|F − target|².

    target = (x_0 − c_skip x_t)/c_out. The two forms are equal, but dividing by a small σ or α is never needed
    here.
    """
    c = model.coefficients(t)
    target = (x0 - expand(c.skip, x0) * pred.x_t) / expand(c.out, x0)
    alpha, sigma = pred.level
    scale = weight(weighting, model, t) * (alpha.clamp_min(SMALLEST_SIGNAL) * c.out / sigma) ** 2
    error = mean_flat((pred.raw - target) ** 2)
    return scale.to(error) * error


class Simple(Objective):
    """L_simple = E_{t, ε} w(t)·mean|ε̂ − ε|².  [DDPM Eq. 14 with w = 1]

    Args:
        model: A Denoiser.
        weighting: "eps" (w = 1), "x0", "v", "network", each the plain mean squared error of that quantity;
            or "min-snr", "edm" (see sf.objectives.weighting).
        times: Which t are drawn: "uniform" (the default), "importance", "logit-normal", "shifted", or an object
            or table of sf.objectives.times.
        coupling: "optimal" reorders the noise of every batch to lie as near to its examples as it can, within each
            class, so that paths cross less and fewer sampling steps are needed.  [Tong et al. 2024]  ε then depends on
            x_0: x̂0, ε̂ and the flow of Euler, Heun, DDIM with η = 0 and DPM-Solver stay right, while −ε̂/σ is no
            score, and samplers that add noise assume one. Default: independent noise.
        uncertainty: Whether the loss is e^{−u(t)}·L + u(t) with a learned u, so that all levels count about alike;
            L is the loss of a level.  [Karras et al. 2024a Sec. 2.2]

    Raises:
        IncompatibleModel: For a coupling with a network that takes further arrays, of which ε must not depend.
    """

    model: Denoiser
    times: TimeSampling

    def __init__(
        self,
        model: Denoiser,
        weighting: str = "eps",
        times: Times = None,
        coupling: str | None = None,
        uncertainty: bool = False,
    ) -> None:
        super().__init__()
        self.check_model(model)
        self.model = model
        self.weighting = check_weighting(weighting)
        self.times = as_times(times, model.process)
        self.coupling = one_of("coupling", coupling, COUPLINGS)
        if coupling is not None and model.arrays:
            raise IncompatibleModel(
                f"with an optimal coupling the noise would depend on the array {min(model.arrays)!r} that conditions this "
                "network: leave coupling out"
            )
        self.uncertainty = flag("uncertainty", uncertainty)
        if self.uncertainty:
            self.log_loss = LogLoss()

    def forward(self, x0: Tensor, y: Tensor | None, noise: Noise, **arrays: Tensor) -> Loss:
        t, importance = self.times.draw(self.model.process, x0.shape[0], noise)
        eps = noise.normal_like(x0)
        if self.coupling is not None:
            eps = coupled(x0, eps, y)
        error = weighted_error(self.model, x0, y, t, eps, self.weighting, arrays)
        mse = (importance.to(error) * error).detach()
        if self.uncertainty:
            u = self.log_loss(self.model.process.level(t).ratio.to(error))
            error = error * torch.exp(-u) + u
        return Loss(importance.to(error) * error, t, {"mse": mse}, error.detach())


class LogLoss(nn.Module):
    """u: a linear function of Fourier features √2 cos(2π(f c + φ)) of c = ln(σ/α)/4, 0 at the start.  [Karras et al. 2024a
    Sec. 2.2]

    f ~ N(0, 1) and φ ~ U(0, 1) are drawn once, the same ones for every model.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("frequencies", torch.randn(_FEATURES, generator=generator), persistent=False)
        self.register_buffer("phases", torch.rand(_FEATURES, generator=generator), persistent=False)
        self.weight = nn.Parameter(torch.zeros(_FEATURES))

    def forward(self, ratio: Tensor) -> Tensor:
        """u of noise levels.

        Args:
            ratio: σ/α, (B,).
        """
        c = ratio.clamp_max(_LARGEST).log() / 4  # σ/α is infinite where α = 0
        features = torch.cos(2 * torch.pi * (c[:, None] * self.frequencies + self.phases))
        return (2 / _FEATURES) ** 0.5 * (features @ self.weight)
