"""Processes given by a table of levels at t = 0, 1, …, T."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scorefield.core.prediction import Level
from scorefield.process.base import GaussianProcess, Time, check_moments, table_index
from scorefield.process.schedules import cosine_betas, geometric_sigmas, linear_betas
from scorefield.runtime.checks import LARGEST, brief, numbers
from scorefield.runtime.description import recorded
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import build
from scorefield.runtime.registry import PROCESSES

__all__ = [
    "DiscreteProcess",
    "cosine",
    "from_betas",
    "from_sigmas",
    "geometric",
    "linear",
    "zero_terminal_snr",
]

# Above this share of the signal left at t = T, starting from the prior is visibly not starting from q(x_T).
_SIGNAL_LEFT = 0.1


class DiscreteProcess(GaussianProcess):
    """A table of T + 1 levels whose entry 0 is (1, 0): `linear`, `cosine`, `geometric`, `from_betas`,
    `from_sigmas`.

    Args:
        alphas: α_1 … α_T, (T,), positive; α_T may be 0.
        sigmas: σ_1 … σ_T, (T,), positive.
        mean: Mean of the Gaussian from which sampling starts.
        std: Standard deviation of that Gaussian.
    """

    T: int

    def __init__(self, alphas: Tensor, sigmas: Tensor, mean: float = 0.0, std: float = 1.0):
        alphas, sigmas = numbers("alphas", alphas, 1), numbers("sigmas", sigmas, 1)
        if len(alphas) != len(sigmas) or bool((sigmas <= 0).any()):
            raise InputError(
                f"a table of levels has as many α as σ, and every σ is positive; got {len(alphas)} and {len(sigmas)}"
            )
        check_moments(mean, std)
        one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        self._alphas = torch.cat([one, alphas])
        self._sigmas = torch.cat([zero, sigmas])
        self.T = len(alphas)
        self.prior_mean, self.prior_std = mean, std

    def level(self, t: Time) -> Level:
        index = table_index(t, self.T)
        return Level(self._alphas[index], self._sigmas[index])


@recorded()
def linear(T: int = 1000, start: float = 1e-4, end: float = 0.02) -> DiscreteProcess:
    """The variance-preserving process whose β_t are equally spaced.  [DDPM §4]

    Args:
        T: Number of noise levels.
        start: β_1, in (0, 1).
        end: β_T, in (0, 1]. Neither is rescaled by 1000/T: for other T try start=0.1/T, end=20/T.
    """
    return _preserving(linear_betas(T, start, end))


@recorded(brief=("s", "max_beta"))
def cosine(T: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> DiscreteProcess:
    """The variance-preserving process with ᾱ_t = f(t)/f(0), f(t) = cos²(((t/T + s)/(1 + s))·π/2).
    [Improved DDPM Eq. 17]

    Args:
        T: Number of noise levels.
        s: Offset that keeps β_1 from being too small, at least 0.
        max_beta: Largest β_t, in (0, 1]; 1 leaves nothing of the data at t = T.
    """
    return _preserving(cosine_betas(T, s, max_beta))


@recorded()
def geometric(
    sigma_max: float, sigma_min: float, L: int, mean: float = 0.0, std: float = 0.0
) -> DiscreteProcess:
    """The variance-exploding process of L levels with a constant ratio σ_{t+1}/σ_t.  [NCSN §4.2]

    Args:
        sigma_max: The largest σ, of t = L.
        sigma_min: The smallest σ, of t = 1.
        L: Number of noise levels.
        mean: Mean of the data; sampling starts from N(mean, σ_max² + std²).
        std: Standard deviation of the data.
    """
    return _exploding(geometric_sigmas(sigma_max, sigma_min, L), mean, std)


@recorded()
def from_betas(betas: Tensor | Sequence[float]) -> DiscreteProcess:
    """The variance-preserving process q(x_t|x_{t−1}) = N(√(1−β_t) x_{t−1}, β_t I).  [DDPM Eq. 2, 4]

    α_t² = ᾱ_t = Π(1 − β), σ_t² = 1 − ᾱ_t; sampling starts from N(0, I). Warns when much of the signal is left at
    t = T, where that start is not q(x_T). A run writes all the numbers down: of `linear` and `cosine`, their names.

    Args:
        betas: (T,), β_t in (0, 1) in ascending time; β_T may be 1, which leaves nothing of the data at t = T.
    """
    return _preserving(betas)


@recorded()
def zero_terminal_snr(process: DiscreteProcess | Mapping[str, object]) -> DiscreteProcess:
    """A variance-preserving table rescaled so that β_T = 1: α'_t = α_1 (α_t − α_T)/(α_1 − α_T), σ'_t = √(1 − α'_t²).
    [Lin et al. 2024, Alg. 1]

    At t = T nothing of the data is left, as sampling from N(0, I) assumes. ε does not determine x̂0 there, so that
    models of it predict "v", "x0" or "flow".

    Args:
        process: The table that is rescaled, such as `linear(1000)`, or a table {"kind": …} that describes it.

    Raises:
        InputError: For another process, and for a table of fewer than two levels.
    """
    if isinstance(process, Mapping):
        process = build(PROCESSES, process, "process.process")
    if not isinstance(process, DiscreteProcess) or process.T < 2:
        raise InputError(
            f"a variance-preserving table of two levels or more is rescaled, such as sf.process.linear(1000); got {brief(process)}"
        )
    alpha, sigma = process.level(torch.arange(1, process.T + 1))
    if not torch.allclose(alpha**2 + sigma**2, torch.ones_like(alpha), rtol=0, atol=1e-9):
        raise InputError("only a variance-preserving table (α² + σ² = 1) can be rescaled to end in noise")
    alphas = alpha[0] * (alpha - alpha[-1]) / (alpha[0] - alpha[-1])
    return DiscreteProcess(alphas, ((1 - alphas) * (1 + alphas)).sqrt())


@recorded()
def from_sigmas(sigmas: Tensor | Sequence[float], mean: float = 0.0, std: float = 0.0) -> DiscreteProcess:
    """The variance-exploding process x_t = x_0 + σ_t ε.  [NCSN §4.2]

    Sampling starts from N(mean, σ_T² + std²), which is q(x_T) to second order.

    Args:
        sigmas: (L,), ascending, t = 1 first.
        mean: Mean of the data, known to who trains.
        std: Standard deviation of the data.
    """
    return _exploding(sigmas, mean, std)


def _preserving(betas: Tensor | Sequence[float]) -> DiscreteProcess:
    betas = numbers("betas", betas, 1)
    if bool((betas <= 0).any() or (betas[:-1] >= 1).any() or (betas > 1).any()):
        raise InputError(
            "every β must lie strictly between 0 and 1, but for the last one, which may be 1; got values from "
            f"{betas.min():g} to {betas.max():g}"
        )
    log_alpha_bar = torch.log1p(-betas).cumsum(0)
    alphas, sigmas = (log_alpha_bar / 2).exp(), (-torch.expm1(log_alpha_bar)).sqrt()
    if alphas[-1] > _SIGNAL_LEFT:
        warnings.warn(
            f"at t = T = {len(betas)} the data still enters with weight α = {alphas[-1]:.2f}, so sampling from N(0, I) "
            "does not start where training ends; use larger betas (linear never rescales: for other T try "
            "linear(T, 0.1/T, 20/T))",
            stacklevel=4,
        )
    return DiscreteProcess(alphas, sigmas)


def _exploding(sigmas: Tensor | Sequence[float], mean: float, std: float) -> DiscreteProcess:
    sigmas = numbers("sigmas", sigmas, 1)
    if bool((sigmas <= 0).any()):
        raise InputError(f"every σ must be positive, got {sigmas.min():g}")
    if bool((sigmas > LARGEST).any() or (sigmas < 1 / LARGEST).any()):
        raise InputError(
            f"every σ must lie between {1 / LARGEST:g} and {LARGEST:g}, whose squares float32 can hold; got "
            f"{sigmas.min():g} to {sigmas.max():g}"
        )
    if bool((sigmas.diff() <= 0).any()):
        raise InputError(
            "sigmas must ascend, t = 1 (the least noisy) first; NCSN's papers list them descending: flip them"
        )
    check_moments(mean, std)
    prior_std = float((sigmas[-1] ** 2 + float(std) ** 2).sqrt())
    return DiscreteProcess(torch.ones_like(sigmas), sigmas, float(mean), prior_std)
