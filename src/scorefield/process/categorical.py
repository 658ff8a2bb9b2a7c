"""Diffusion of categories: at each step a value is kept or redrawn, in log space on the CPU in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from scorefield.core.distributions import LOG_ZERO, Categorical
from scorefield.core.noise import Noise, as_noise
from scorefield.core.shapes import check_batch_of, check_real, expand, is_true
from scorefield.process.base import Process, Time, table_index
from scorefield.runtime.checks import brief, instance_of, number, numbers, positive_int
from scorefield.runtime.errors import InputError
from scorefield.runtime.registry import KAPPAS

__all__ = [
    "CategoricalProcess",
    "absorbed_categories",
    "absorbing",
    "check_categories",
    "check_category_batch",
    "uniform_categorical",
    "uniform_categories",
]

_MOST_CLASSES, _MOST_DIMENSIONS = 2**16, 60

Schedule = Literal["cosine", "linear"]
Kappas = Tensor | Sequence[float]


class CategoricalProcess(Process):
    """q(x_t = k | x_0) = κ_t 1[k = x_0] + (1 − κ_t) u_k: kept with probability κ_t, otherwise drawn from u.
    [D3PM §3.1]

    Every dimension is noised by itself. κ_0 = 1 and κ falls; between s and t > s a value is kept with κ_{t|s}
    = κ_t/κ_s. Build it with `uniform_categories` or `absorbed_categories`. A state x is an integer tensor
    (B, *), a distribution a `Categorical` (B, S, *); t and s are numbers or (B,).

    Args:
        kappas: (T,), κ_1 … κ_T, strictly descending in (0, 1); the last may be 0.
        classes: K, the categories 0 … K − 1 of the data.
        log_u: (S,), ln u over the S states of x_t; S is K or K + 1.
        config: What a run's config.toml says of this process.

    Attributes:
        classes: K.
        states: S.
    """

    T: int

    def __init__(self, kappas: Kappas, classes: int, log_u: Tensor, config: Mapping[str, object]) -> None:
        table = _check_kappas(kappas)
        self.T, self.classes, self.states = len(table), classes, len(log_u)
        self._config = dict(config)
        self._kappas = torch.cat([torch.ones(1, dtype=torch.float64), table])
        self._log_kappas = self._kappas.log().clamp_min(LOG_ZERO)
        self._log_u = log_u

    def level(self, t: Time) -> Tensor:
        """κ_t, the probability that a value is still that of the data: float64 on the CPU, in t's shape.

        Args:
            t: An integer or (B,) of them, in 0 … T.
        """
        return self._kappas[table_index(t, self.T)]

    def check_states(self, x: Tensor) -> None:
        check_categories(x, self.states, "x")

    def prior(self, shape: Sequence[int], noise: Noise) -> Tensor:
        """x_T ~ u in every dimension, int64 (B, *).

        Args:
            shape: (B, *).
            noise: Where the uniform draw comes from.
        """
        u = as_noise(noise).uniform(shape)
        return self.prior_distribution(u.ndim - 1).sample(u)

    def prior_distribution(self, dimensions: int, dtype: torch.dtype = torch.float32) -> Categorical:
        """u as a distribution that broadcasts over examples, (1, S, 1, …).

        Args:
            dimensions: How many dimensions one example has.
            dtype: Of the log-probabilities.
        """
        positive_int("dimensions, those of one example,", dimensions, at_least=0, at_most=_MOST_DIMENSIONS)
        return Categorical(self._log_u.to(dtype).reshape(1, -1, *[1] * dimensions))

    def sample(self, x0: Tensor, t: Time, u: Tensor) -> Tensor:
        """x_t ~ q(x_t | x_0), int64 (B, *).

        Args:
            x0: Data, integers 0 … K − 1, (B, *).
            t: An integer or (B,) of them, in 0 … T.
            u: The draw, uniform in [0, 1), (B, *), on any device: noise sources draw on the CPU.
        """
        check_batch_of("u", u)
        check_real("u", u, "a tensor (B, *) of numbers in [0, 1)")
        check_real("x0", x0, "an integer tensor (B, *)")
        if x0.shape != u.shape:
            raise InputError(f"u must have the shape of x0, {tuple(x0.shape)}; got {tuple(u.shape)}")
        return self.transition(x0, t, 0).sample(u)

    def transition(self, x_s: Tensor, t: Time, s: Time, dtype: torch.dtype = torch.float32) -> Categorical:
        """q(x_t | x_s) = Cat(κ_{t|s} x_s + (1 − κ_{t|s}) u); s = 0 is the marginal q(x_t | x_0).
        [D3PM Eq. 2–3]

        Args:
            x_s: States at s, integers (B, *).
            t: The noisier time.
            s: The less noisy time, 0 ≤ s ≤ t.
            dtype: Of the log-probabilities.

        Returns:
            A distribution over the S states, (B, S, *).
        """
        check_category_batch(x_s, self.states, "x_s")
        log_keep, log_redraw = self._log_kept(t, s)
        keep = Categorical.at(x_s, self.states, dtype).log_p
        return Categorical(
            torch.logaddexp(expand(log_keep, keep) + keep, expand(log_redraw, keep) + self._noise(keep))
        )

    def posterior(
        self, x_t: Tensor, x0: Tensor, t: Time, s: Time, dtype: torch.dtype = torch.float32
    ) -> Categorical:
        """q(x_s | x_t, x_0) ∝ q(x_t | x_s) q(x_s | x_0).  [D3PM Eq. 3]

        Args:
            x_t: States at t, integers (B, *), which must be possible given x_0.
            x0: Data, integers 0 … K − 1, (B, *).
            t: The time of x_t.
            s: The less noisy time, 0 ≤ s < t.
            dtype: Of the log-probabilities.

        Returns:
            A distribution over the S states, (B, S, *).
        """
        check_category_batch(x_t, self.states, "x_t")
        check_category_batch(x0, self.classes, "x0")
        if x_t.shape != x0.shape:
            raise InputError(f"x_t must have the shape of x0, {tuple(x0.shape)}; got {tuple(x_t.shape)}")
        return self.reverse(x_t, Categorical.at(x0, self.classes, dtype), t, s)

    def reverse(self, x_t: Tensor, p0: Categorical, t: Time, s: Time) -> Categorical:
        """Σ_i q(x_s | x_t, x_0 = i) p0(i): Bayes' posterior, marginalized over a distribution of x_0.

        Every step of it is in log space and of order K:
        q(x_t | x_s = j)·(κ_s p0(j)/Z_j + (1 − κ_s) u_j Σ_i p0(i)/Z_i) with Z_i = q(x_t | x_0 = i).

        Args:
            x_t: States at t, integers (B, *).
            p0: p(x_0 | x_t), such as a denoiser's, (B, K, *).
            t: The time of x_t.
            s: The less noisy time, 0 ≤ s < t.

        Returns:
            A distribution over the S states, (B, S, *).
        """
        self._check_pair(x_t, p0)
        log_z = self.log_likelihood(x_t, t, 0, p0.log_p.dtype)[:, : self.classes]
        log_w = torch.where(self.possible(log_z), p0.log_p - log_z, LOG_ZERO)  # ln p0/Z
        log_kappa, log_rest = self._log_kept(s, 0)
        keep = expand(log_kappa, log_w) + self._padded(log_w)
        redraw = expand(log_rest, log_w) + self._noise(log_w) + log_w.logsumexp(dim=1, keepdim=True)
        return Categorical.of(self.log_likelihood(x_t, t, s, log_w.dtype) + torch.logaddexp(keep, redraw))

    def family(self, x_t: Tensor, p0: Categorical, t: Time, s: Time, eta: float) -> Categorical:
        """Cat(ς x_t + (κ_s − ςκ_t) p0 + ((1 − κ_s) − (1 − κ_t)ς) u), ς = (1 − η)(1 − κ_s)/(1 − κ_t).  [DDIM
        Appendix A]

        q(x_s | x_0) is the same for every η.

        Args:
            x_t: States at t, integers (B, *).
            p0: p(x_0 | x_t), such as a denoiser's, (B, K, *).
            t: The time of x_t.
            s: The less noisy time, 0 ≤ s < t.
            eta: η in [0, 1]. ς is the probability of copying x_t: η = 1 never does, η = 0 never draws from u.

        Returns:
            A distribution over the S states, (B, S, *).
        """
        self._check_pair(x_t, p0)
        number("η", eta, at_least=0, at_most=1)
        kappa_t, kappa_s = self.level(t), self.level(s)
        if bool((kappa_t >= kappa_s).any()):
            raise InputError(f"s must lie below t; got t = {brief(t)} and s = {brief(s)}")
        copy = (1 - eta) * (1 - kappa_s) / (1 - kappa_t)
        # κ_s − ςκ_t and (1 − κ_s) − (1 − κ_t)ς, written so that nothing cancels.
        data = (kappa_s - kappa_t + eta * kappa_t * (1 - kappa_s)) / (1 - kappa_t)
        redraw = eta * (1 - kappa_s)
        copied = Categorical.at(x_t, self.states, p0.log_p.dtype).log_p
        parts = ((copy, copied), (data, self._padded(p0.log_p)), (redraw, self._noise(copied)))
        terms = torch.broadcast_tensors(*(_weighted(weight, part) for weight, part in parts))
        return Categorical.of(torch.stack(terms).logsumexp(dim=0))

    def log_likelihood(self, x_t: Tensor, t: Time, s: Time, dtype: torch.dtype = torch.float32) -> Tensor:
        """ln q(x_t | x_s = j) for every state j, (B, S, *): not a distribution over j.

        Args:
            x_t: States at t, integers (B, *).
            t: The time of x_t.
            s: The less noisy time, 0 ≤ s ≤ t.
            dtype: Of the result.
        """
        log_keep, log_redraw = self._log_kept(t, s)
        same = Categorical.at(x_t, self.states, dtype).log_p
        drawn = self._log_u.to(same)[x_t].unsqueeze(1)
        return torch.logaddexp(expand(log_keep, same) + same, expand(log_redraw, same) + drawn)

    def _check_pair(self, x_t: Tensor, p0: Categorical) -> None:
        """InputError unless these are states and a prediction of the data of the same examples."""
        check_category_batch(x_t, self.states, "x_t")
        shape = (x_t.shape[0], self.classes, *x_t.shape[1:])
        instance_of("p0", p0, Categorical, "a Categorical, p(x_0 | x_t)")
        if tuple(p0.log_p.shape) != shape:
            raise InputError(
                f"p0 must be a distribution over {self.classes} classes of shape {shape}; got {tuple(p0.log_p.shape)}"
            )

    @staticmethod
    def possible(log_p: Tensor) -> Tensor:
        """Where a sum of log-probabilities contains no ln 0.

        Args:
            log_p: Sums of log-probabilities, in any shape.

        Returns:
            bool, in the shape of log_p.
        """
        return log_p > LOG_ZERO / 2

    def _log_kept(self, t: Time, s: Time) -> tuple[Tensor, Tensor]:
        """(ln κ_{t|s}, ln(1 − κ_{t|s})), float64, in the shape of t or s. InputError for s above t."""
        log_t, log_s = self._log_kappas[table_index(t, self.T)], self._log_kappas[table_index(s, self.T)]
        if log_t.ndim and log_s.ndim and len(log_t) != len(log_s):
            raise InputError(
                f"t and s are times of the same examples, got {len(log_t)} and {len(log_s)} of them"
            )
        log_keep = log_t - log_s
        if bool((log_keep > 0).any()):
            raise InputError(
                f"values are noised from s up to t, so s must not lie above t; got t = {brief(t)} and s = {brief(s)}"
            )
        return log_keep, _log_complement(log_keep)

    def _noise(self, like: Tensor) -> Tensor:
        """ln u, (1, S, 1, …)."""
        return self._log_u.to(like).reshape(1, -1, *[1] * (like.ndim - 2))

    def _padded(self, log_p: Tensor) -> Tensor:
        """A distribution over the data's categories (B, K, *) as one over all states, (B, S, *)."""
        missing = self.states - self.classes
        if not missing:
            return log_p
        return torch.cat(
            [log_p, log_p.new_full((log_p.shape[0], missing, *log_p.shape[2:]), LOG_ZERO)], dim=1
        )


def uniform_categories(
    classes: int, schedule: Schedule = "cosine", T: int = 100, kappas: Kappas | None = None
) -> CategoricalProcess:
    """Values are redrawn from all K classes alike, u_k = 1/K.  [Multinomial diffusion §4; D3PM §3.1, uniform]

    Args:
        classes: K, the number of categories of a value, at least 2.
        schedule: "cosine" or "linear", how κ_t falls from 1 to 0: see `cosine_kappas` and `linear_kappas`.
        T: Number of noise levels.
        kappas: (T,), κ_t in place of a schedule, strictly descending in (0, 1); the last may be 0.
    """
    _check_classes(classes)
    log_u = torch.full((classes,), -math.log(classes), dtype=torch.float64)
    table, said = _kappas(schedule, T, kappas)
    return CategoricalProcess(
        table, classes, log_u, {"kind": "uniform-categorical", "classes": classes, **said}
    )


def absorbed_categories(
    classes: int, schedule: Schedule = "linear", T: int = 100, kappas: Kappas | None = None
) -> CategoricalProcess:
    """Values are erased: u is all on one more state, number K, which is never left.  [D3PM §3.1, absorbing]

    Args:
        classes: K, the number of categories of a value, at least 2.
        schedule: "cosine" or "linear", how κ_t falls from 1 to 0: see `cosine_kappas` and `linear_kappas`.
        T: Number of noise levels.
        kappas: (T,), κ_t in place of a schedule; the last must be 0, since sampling starts from all erased.
    """
    _check_classes(classes)
    log_u = torch.full((classes + 1,), LOG_ZERO, dtype=torch.float64)
    log_u[-1] = 0
    table, said = _kappas(schedule, T, kappas)
    process = CategoricalProcess(table, classes, log_u, {"kind": "absorbing", "classes": classes, **said})
    if process.level(process.T) > 0:
        raise InputError(
            f"an absorbing process must have erased everything at t = T, and its last κ is "
            f"{float(process.level(process.T)):g}: use linear_kappas(T) or cosine_kappas(T), or append a 0"
        )
    return process


def uniform_categorical(kappas: Kappas, classes: int) -> CategoricalProcess:
    """`uniform_categories` with this table of κ_t. See `cosine_kappas`, `linear_kappas` and
    `kappas_from_betas`.

    Args:
        kappas: (T,), κ_t, strictly descending in (0, 1); the last may be 0.
        classes: K, the number of categories of a value, at least 2.
    """
    return uniform_categories(classes, kappas=kappas)


def absorbing(kappas: Kappas, classes: int) -> CategoricalProcess:
    """`absorbed_categories` with this table of κ_t.

    Args:
        kappas: (T,), κ_t, strictly descending in (0, 1), the last one 0.
        classes: K, the number of categories of a value, at least 2.
    """
    return absorbed_categories(classes, kappas=kappas)


def _kappas(schedule: Schedule, T: int, kappas: Kappas | None) -> tuple[Kappas, dict[str, object]]:
    """κ_1, …, κ_T, and what a configuration file says of them."""
    if kappas is None:
        return KAPPAS[schedule](T), {"schedule": schedule, "T": T}
    table = _check_kappas(kappas)
    return table, {"kappas": table.tolist()}


def check_categories(x: Tensor, count: int, what: str) -> None:
    """InputError unless x holds integers 0 … count − 1."""
    check_category_batch(x, count, what)
    if x.numel() and x.device.type != "cpu" and not 0 <= int(x.min()) <= int(x.max()) < count:
        raise InputError(
            f"{what} must hold categories 0 … {count - 1}, got values from {int(x.min())} to {int(x.max())}"
        )


def check_category_batch(x: Tensor, count: int, what: str) -> None:
    """InputError unless x is a batch of integers. Those of other devices than the CPU are not looked at, which would
    make the host wait.
    """
    check_real(what, x, f"a tensor (B, *) of the integers 0 … {count - 1}")
    if x.is_floating_point():
        raise InputError(f"{what} must hold categories, the integers 0 … {count - 1}; got {x.dtype}")
    if x.ndim < 1 or not x.shape[0]:
        raise InputError(f"{what} must hold at least one example, (B, *); got shape {tuple(x.shape)}")
    if x.device.type == "cpu" and is_true(((x < 0) | (x >= count)).any()):
        raise InputError(
            f"{what} must hold categories 0 … {count - 1}, got values from {int(x.min())} to {int(x.max())}"
        )


def _check_kappas(kappas: Tensor | Sequence[float]) -> Tensor:
    table = numbers("kappas", kappas, 1)
    if not bool((table.diff() < 0).all()) or not table[0] < 1 or table[-1] < 0:
        raise InputError(
            "kappas are the shares of the values that are kept up to t = 1, 2, …, T: they must strictly descend within (0, 1), and only "
            f"the last may be 0; got {table[:3].tolist()} … {float(table[-1]):g}"
        )
    return table


def _check_classes(classes: int) -> None:
    positive_int("classes", classes, at_least=2, at_most=_MOST_CLASSES)


def _weighted(weight: Tensor, log_p: Tensor) -> Tensor:
    """ln(weight · p)."""
    return expand(weight.log().clamp_min(LOG_ZERO), log_p) + log_p


def _log_complement(log_p: Tensor) -> Tensor:
    """ln(1 − p) from ln p ≤ 0, exact at both ends."""
    near_one = (-torch.expm1(log_p)).log()
    return torch.where(log_p > -math.log(2), near_one, torch.log1p(-log_p.exp())).clamp_min(LOG_ZERO)
