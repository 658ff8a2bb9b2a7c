"""The variational bound of categorical diffusion as a loss, with an auxiliary cross-entropy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield.core.distributions import Categorical
from scorefield.core.noise import Noise
from scorefield.core.shapes import check_batch_of
from scorefield.models.categorical_denoiser import CategoricalDenoiser
from scorefield.objectives.base import Loss, Objective
from scorefield.objectives.times import Times, TimeSampling, as_times
from scorefield.process.base import Time
from scorefield.process.categorical import CategoricalProcess, check_category_batch
from scorefield.runtime.checks import LARGEST, number

__all__ = ["CategoricalVLB", "categorical_prior_term", "categorical_term"]


class CategoricalVLB(Objective):
    """E_t[T·(L_t + λ·CE_t)]/(D ln 2) in bits a dimension, reweighted by 1/(T p_t) of the t drawn.  [D3PM Eq.
    1, 5]

    L_t = KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)), which at t = 1 is −ln p(x_0 | x_1); CE_t = −ln p(x_0 |
    x_t). The prior term, which no parameter enters, is left out.

    Args:
        model: A CategoricalDenoiser.
        auxiliary: λ ≥ 0, of each term as in the published code, so that the cross-entropies of all t are
            summed like the L_t.
        times: Which t are drawn: "uniform" (the default), "importance", or see sf.objectives.times.
    """

    trains = CategoricalDenoiser
    model: CategoricalDenoiser
    times: TimeSampling

    def __init__(self, model: CategoricalDenoiser, auxiliary: float = 0.001, times: Times = None) -> None:
        super().__init__()
        self.check_model(model)
        self.model = model
        what = "auxiliary, the weight of the cross-entropy,"
        self.auxiliary = number(what, auxiliary, at_least=0, at_most=LARGEST)
        self.times = as_times(times, model.process)

    def check_data(self, x0: Tensor) -> None:
        """Check that x0 is a batch of the data.

        Args:
            x0: Values or integers (B, *).

        Raises:
            InputError: For anything else.
        """
        if isinstance(x0, Tensor) and x0.is_floating_point():
            check_batch_of("x0", x0)
        else:
            check_category_batch(x0, self.model.process.classes, "x0")

    def forward(self, x0: Tensor, y: Tensor | None, noise: Noise, **arrays: Tensor) -> Loss:
        """The loss of each example. Draws t, then x_t.

        Args:
            x0: Values on the data's bins, or integers, (B, *).
            y: Labels (B,) int64, or None.
            noise: Where every draw comes from.
            arrays: What the model is conditioned on besides, (B, *) by name.

        Returns:
            The losses (B,), the times drawn, and the parts "vlb", T·L_t, and "cross_entropy", CE_t, both in
            bits a dimension.
        """
        process = self.model.process
        x0 = self.model.categories(x0)
        t, importance = self.times.draw(process, x0.shape[0], noise)
        x_t = process.sample(x0, t, noise.uniform(x0.shape))
        p0 = self.model(x_t, t, y, **arrays)
        per_bit = 1 / (x0[0].numel() * math.log(2))
        bits = process.T * per_bit * categorical_term(process, p0, x_t, x0, t, t - 1)
        entropy = -per_bit * p0.log_prob(x0)
        total, scale = bits + self.auxiliary * process.T * entropy, importance.to(bits)
        parts = {"vlb": (scale * bits).detach(), "cross_entropy": (scale * entropy).detach()}
        return Loss(scale * total, t, parts, total.detach())


def categorical_term(
    process: CategoricalProcess, p0: Categorical, x_t: Tensor, x0: Tensor, t: Time, s: Time
) -> Tensor:
    """KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)) in nats an example, (B,); at s = 0 it is −ln p0(x_0).  [D3PM Eq.
    1]

    Args:
        process: A process of categories.
        p0: The model's p(x_0 | x_t), (B, K, *).
        x_t: States at t, integers (B, *).
        x0: Data, integers (B, *).
        t: The time of x_t, a number or (B,).
        s: The less noisy time, a number or (B,), 0 ≤ s < t.
    """
    return process.posterior(x_t, x0, t, s, p0.log_p.dtype).kl(process.reverse(x_t, p0, t, s))


def categorical_prior_term(process: CategoricalProcess, x0: Tensor, t: Time) -> Tensor:
    """KL(q(x_t | x_0) ‖ u) at the noisiest t, in nats an example: (B,) float64 on the CPU.  [D3PM Eq. 1, L_T]"""
    x0 = x0.cpu()
    return process.transition(x0, t, 0, torch.float64).kl(
        process.prior_distribution(x0.ndim - 1, torch.float64)
    )
