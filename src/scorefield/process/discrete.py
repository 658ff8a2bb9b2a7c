"""Processes given by a table of levels at t = 0, 1, …, T."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from scorefield.core.prediction import Level
from scorefield.process.base import GaussianProcess, Time, check_moments, table_index
from scorefield.process.schedules import cosine_betas, geometric_sigmas, linear_betas
from scorefield.runtime.errors import InputError

__all__ = ["DiscreteProcess", "from_betas", "from_sigmas"]

# Above this share of the signal left at t = T, starting from the prior is visibly not starting from q(x_T).
_SIGNAL_LEFT = 0.1


class DiscreteProcess(GaussianProcess):
    """A table of T + 1 levels whose entry 0 is (1, 0). Build it with `from_betas` or `from_sigmas`."""

    T: int

    def __init__(
        self, alphas: Tensor, sigmas: Tensor, spec: Mapping[str, Any], mean: float = 0.0, std: float = 1.0
    ):
        one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        self._alphas = torch.cat([one, alphas])
        self._sigmas = torch.cat([zero, sigmas])
        self._config = dict(spec)
        self.T = len(alphas)
        self.prior_mean, self.prior_std = mean, std

    @property
    def config(self) -> Mapping[str, Any]:
        return dict(self._config)

    def level(self, t: Time) -> Level:
        index = table_index(t, self.T)
        return Level(self._alphas[index], self._sigmas[index])

    def __repr__(self) -> str:
        return f"DiscreteProcess({', '.join(f'{k}={v!r}' for k, v in self._config.items() if k not in ('betas', 'sigmas'))})"


def from_betas(betas: Tensor | Sequence[float]) -> DiscreteProcess:
    """The variance-preserving process q(x_t|x_{t−1}) = N(√(1−β_t) x_{t−1}, β_t I).  [DDPM Eq. 2, 4]

    betas: (T,), β_t in (0, 1) in ascending time. α_t² = ᾱ_t = Π(1 − β), σ_t² = 1 − ᾱ_t; sampling starts from
    N(0, I). Warns when much of the signal is left at t = T, where that start is not q(x_T).
    """
    betas = _table("betas", betas)
    if bool((betas <= 0).any() or (betas >= 1).any()):
        raise InputError(
            f"every β must lie strictly between 0 and 1, got values from {betas.min():g} to {betas.max():g}"
        )
    log_alpha_bar = torch.log1p(-betas).cumsum(0)
    alphas, sigmas = (log_alpha_bar / 2).exp(), (-torch.expm1(log_alpha_bar)).sqrt()
    if alphas[-1] > _SIGNAL_LEFT:
        warnings.warn(
            f"at t = T = {len(betas)} the data still enters with weight α = {alphas[-1]:.2f}, so sampling from N(0, I) does not start "
            "where training ends; use larger betas (linear_betas never rescales: for other T try linear_betas(T, 0.1/T, 20/T))",
            stacklevel=2,
        )
    return DiscreteProcess(alphas, sigmas, _identify_betas(betas))


def from_sigmas(sigmas: Tensor | Sequence[float], mean: float = 0.0, std: float = 0.0) -> DiscreteProcess:
    """The variance-exploding process x_t = x_0 + σ_t ε.  [NCSN §4.2]

    sigmas: (L,), ascending, t = 1 first (geometric_sigmas gives them so). mean, std: of the data, known to
    who trains; sampling starts from N(mean, σ_T² + std²), which is q(x_T) to second order.
    """
    sigmas = _table("sigmas", sigmas)
    if bool((sigmas <= 0).any()):
        raise InputError(f"every σ must be positive, got {sigmas.min():g}")
    if bool((sigmas.diff() <= 0).any()):
        raise InputError(
            "sigmas must ascend, t = 1 (the least noisy) first; NCSN's papers list them descending: flip them"
        )
    check_moments(mean, std)
    spec = {**_identify_sigmas(sigmas), "mean": float(mean), "std": float(std)}
    prior_std = float((sigmas[-1] ** 2 + std**2).sqrt())
    return DiscreteProcess(torch.ones_like(sigmas), sigmas, spec, float(mean), prior_std)


def _table(name: str, values: Tensor | Sequence[float]) -> Tensor:
    table = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    if table.ndim != 1 or len(table) == 0 or not bool(torch.isfinite(table).all()):
        raise InputError(
            f"{name} must be a one-dimensional list of finite numbers, got shape {tuple(table.shape)}"
        )
    return table


def _identify_betas(betas: Tensor) -> dict[str, Any]:
    """The shortest description that rebuilds this table exactly, so that a saved configuration stays
    readable.
    """
    T, start, end = len(betas), float(betas[0]), float(betas[-1])
    if torch.equal(betas, linear_betas(T, start, end)):
        return {"kind": "linear", "T": T, "start": start, "end": end}
    if torch.equal(betas, cosine_betas(T)):
        return {"kind": "cosine", "T": T}
    return {"kind": "betas", "betas": betas.tolist()}


def _identify_sigmas(sigmas: Tensor) -> dict[str, Any]:
    L, low, high = len(sigmas), float(sigmas[0]), float(sigmas[-1])
    if L > 1 and torch.equal(sigmas, geometric_sigmas(high, low, L)):
        return {"kind": "geometric", "sigma_max": high, "sigma_min": low, "L": L}
    return {"kind": "sigmas", "sigmas": sigmas.tolist()}
