"""Samplers of categories: x_s is drawn from what a prediction of x_0 says about it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from scorefield.core.distributions import Categorical
from scorefield.core.noise import Noise
from scorefield.models.base import CategoricalDenoise
from scorefield.models.foreign import as_model
from scorefield.runtime.checks import number
from scorefield.runtime.errors import IncompatibleModel
from scorefield.samplers.base import Sampler

__all__ = ["CategoricalAncestral", "CategoricalDDIM"]


class _FromPrediction(Sampler[None, CategoricalDenoise]):
    """x_s ~ p(x_s | x_t), one uniform draw of x's shape a step. The step to s = 0 draws too: it is p(x_0 |
    x_t).
    """

    def check_model(self, model: CategoricalDenoise) -> None:
        """Refuse a model of anything but categories.

        Args:
            model: The model, of the library or of one's own.

        Raises:
            IncompatibleModel: Unless it is a model of categories.
        """
        asked, name = as_model(model), type(self).__name__
        if asked.family != "categorical":
            raise IncompatibleModel(
                f"{name} samples categorical models, and {asked.kind} is not one: use "
                f"{name.removeprefix('Categorical')} for a model of Gaussian noise, or train a sf.CategoricalDenoiser "
                "on integer levels"
            )

    def init(self, model: CategoricalDenoise, x: Tensor) -> None:
        return None

    def step(
        self, model: CategoricalDenoise, x_t: Tensor, t: float, s: float, state: None, noise: Noise
    ) -> tuple[Tensor, Tensor, None]:
        """x_s ~ `kernel(model, x_t, p0, t, s)`, from one uniform draw.

        Args:
            model: The model, which predicts p(x_0 | x_t).
            x_t: States at t, integers (B, *).
            t: The time that it comes from.
            s: The time that it goes to, s < t.
            state: None, since the steps are independent.
            noise: Where the uniform draw comes from.

        Returns:
            x_s (B, *), the likeliest x_0 (B, *), and None.
        """
        p0 = model(x_t, t)
        return self.kernel(model, x_t, p0, t, s).sample(noise.uniform(x_t.shape)), p0.mode, None

    @abstractmethod
    def kernel(
        self, model: CategoricalDenoise, x_t: Tensor, p0: Categorical, t: float, s: float
    ) -> Categorical:
        """p(x_s | x_t) from the prediction p0 of x_0."""


@dataclass(frozen=True)
class CategoricalAncestral(_FromPrediction):
    """x_s ~ Σ_i q(x_s | x_t, x_0 = i) p(x_0 = i | x_t), Bayes' posterior marginalized over x_0.  [D3PM §3.3]

    It is D3PM's Eq. 4 where the model's parametrization is "bayes".
    """

    def kernel(
        self, model: CategoricalDenoise, x_t: Tensor, p0: Categorical, t: float, s: float
    ) -> Categorical:
        """Σ_i q(x_s | x_t, x_0 = i) p0(i).

        Args:
            model: The model, whose process gives the posterior.
            x_t: States at t, integers (B, *).
            p0: p(x_0 | x_t), (B, K, *).
            t: The time of x_t.
            s: The less noisy time, 0 ≤ s < t.

        Returns:
            The distribution of x_s, (B, S, *).
        """
        return model.process.reverse(x_t, p0, t, s)


@dataclass(frozen=True)
class CategoricalDDIM(_FromPrediction):
    """x_s ~ Cat(ς x_t + (κ_s − ςκ_t) p0 + ((1 − κ_s) − (1 − κ_t)ς) u), ς = (1 − η)(1 − κ_s)/(1 − κ_t).  [DDIM
    Appendix A]

    No η is ancestral sampling, except that of an absorbing process is η = 0.

    Args:
        eta: η in [0, 1]. ς is the probability of copying x_t: η = 0 copies as often as it may and never
            draws from u, η = 1 never copies.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        number("η, from copying x_t as often as possible to never,", self.eta, at_least=0, at_most=1)

    def kernel(
        self, model: CategoricalDenoise, x_t: Tensor, p0: Categorical, t: float, s: float
    ) -> Categorical:
        """Cat(ς x_t + (κ_s − ςκ_t) p0 + ((1 − κ_s) − (1 − κ_t)ς) u).

        Args:
            model: The model, whose process has the κ and u.
            x_t: States at t, integers (B, *).
            p0: p(x_0 | x_t), (B, K, *).
            t: The time of x_t.
            s: The less noisy time, 0 ≤ s < t.

        Returns:
            The distribution of x_s, (B, S, *).
        """
        return model.process.family(x_t, p0, t, s, self.eta)
