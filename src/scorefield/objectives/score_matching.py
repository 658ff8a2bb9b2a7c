r"""Score matching as functions: explicit, implicit, sliced, sliced with variance reduction, denoising.

Each takes a score s, any callable x -> tensor of x's shape, and x of shape (B, *), and gives one value per
example, (B,): a sum over the data dimensions, in nats, differentiable in the parameters of s (and in x, where
x requires gradients). In expectation over x ~ p all but the denoising loss have the minimiser and the
parameter gradient of the explicit loss; where projections are drawn, so do they in expectation over v.

Derivatives. J = ds/dx is never formed. vᵀJv takes one double backward: vᵀJ = grad(s, x, v), kept in the
graph. Forward mode (`torch.func.jvp`) gives the same numbers, but a training step takes 1.27 to 1.36 times as
long (an MLP, D = 50 to 800, one CPU core: `benchmarks/score_matching_cost.py`), and it raises through bf16
autocast, GroupNorm on channels-last input, non-reentrant checkpoints and custom autograd functions. Hence
double backward, always.

Scores must treat the examples of a batch independently (no batch normalization) and be built by autograd: a
score computed under `torch.no_grad()` looks constant, so its Jacobian counts as zero. Called under
`torch.no_grad()` or `torch.inference_mode()`, the functions here give the same numbers, detached.

Sources: SM = Hyvärinen 2005; DSM = Vincent 2011; SSM = Song, Garg, Shi & Ermon 2019 (Sliced Score Matching);
NCSN = Song & Ermon 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from scorefield.core.derivatives import check_batch, differentiable, recording, score_from_energy, vjp
from scorefield.core.shapes import check_batch_of, check_device, check_real, expand, sum_flat
from scorefield.models.base import Model
from scorefield.runtime.checks import LARGEST, brief, number, one_of, positive_int
from scorefield.runtime.errors import InputError

__all__ = [
    "MOST_DIMENSIONS",
    "MOST_PROJECTIONS",
    "NormalSource",
    "ProjectionKind",
    "Score",
    "denoising_score_matching",
    "explicit_score_matching",
    "explicit_sliced_score_matching",
    "implicit_score_matching",
    "projections",
    "score_from_energy",
    "sliced_score_matching",
    "sliced_score_matching_vr",
]

Score = Callable[[Tensor], Tensor]
MOST_PROJECTIONS = 2**16
MOST_DIMENSIONS = 3 * 64 * 64  # of an exact trace: each takes a backward pass, and memory for its graph

ProjectionKind = Literal["rademacher", "gaussian", "sphere"]


@runtime_checkable
class NormalSource(Protocol):
    """Where random numbers come from: `NoiseSource`, `Recorded`, or anything with this method."""

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal values, float32 on the CPU; the first dimension counts the examples."""


def explicit_score_matching(score: Score, x: Tensor, target: Tensor | Score) -> Tensor:
    """½‖s(x) − ∇log p(x)‖²; in expectation over p the Fisher divergence.  [SM §2, Fisher divergence]

    Args:
        score: s, a callable x (B, *) -> (B, *).
        x: (B, *).
        target: The true score ∇log p at x, as a tensor (B, *) or a callable.

    Returns:
        (B,).

    Raises:
        InputError: Where x is not a batch of floats, or the score or the target has another shape than x.
    """
    check_batch(x)
    difference = _call(score, x) - _target(target, x)
    return 0.5 * sum_flat(difference.square())


def explicit_sliced_score_matching(score: Score, x: Tensor, target: Tensor | Score, v: Tensor) -> Tensor:
    """½(vᵀs(x) − vᵀ∇log p(x))², averaged over the projections v.  [SSM §3, sliced Fisher divergence]

    With E[vvᵀ] = I its expectation over v is the explicit loss.

    Args:
        score: s, a callable x (B, *) -> (B, *).
        x: (B, *).
        target: The true score ∇log p at x, as a tensor (B, *) or a callable.
        v: (B, *), or (M, B, *) for M projections.

    Returns:
        (B,).

    Raises:
        InputError: On shapes that do not fit.
    """
    check_batch(x)
    v = _stack(v, x)
    difference = _call(score, x) - _target(target, x)
    return 0.5 * _dot(v, difference).square().mean(dim=0)


def implicit_score_matching(score: Score, x: Tensor) -> Tensor:
    """tr ∇s(x) + ½‖s(x)‖², with the exact trace.  [SM Theorem 1; NCSN Eq. 1]

    In expectation over p this is the explicit loss − ½E‖∇log p‖².

    Costs D backward passes, D the number of data dimensions. With gradients enabled the graph of each is kept
    for the parameters, so memory grows with D too; under `torch.no_grad()` each is freed before the next.
    Beyond a few hundred dimensions use the sliced losses.

    Args:
        score: s, a callable x (B, *) -> (B, *), differentiable in x.
        x: (B, *), D up to 12,288.

    Returns:
        (B,).

    Raises:
        InputError: Where x is not a batch of floats, on more dimensions, or on the score's shape.
    """
    check_batch(x)
    if (dimensions := x[0].numel()) > MOST_DIMENSIONS:
        raise InputError(
            f"the exact trace in {dimensions:,} dimensions takes as many backward passes, and at most "
            f"{MOST_DIMENSIONS:,} are allowed: use sliced_score_matching_vr"
        )
    with recording() as create_graph:
        x_in = differentiable(x, create_graph)
        s = _call(score, x_in)
        trace = _trace(s, x_in, create_graph)
        loss = trace + 0.5 * sum_flat(s.square())
    return loss if create_graph else loss.detach()


def sliced_score_matching(score: Score, x: Tensor, v: Tensor) -> Tensor:
    """vᵀ∇s(x)v + ½(vᵀs(x))², averaged over the projections.  [SSM §3, the SSM loss]

    E[vvᵀ] must be positive definite with finite second moment. Where it is I, the expectation over v is the
    implicit loss; on the unit sphere, which the original code uses for several projections, it is 1/D of
    that. One evaluation of the score and M backward passes.

    Args:
        score: s, a callable x (B, *) -> (B, *), differentiable in x.
        x: (B, *).
        v: (B, *), or (M, B, *) for M projections; `projections` draws them.

    Returns:
        (B,).

    Raises:
        InputError: On shapes that do not fit.
    """
    check_batch(x)
    v = _stack(v, x)
    s, products = _score_and_products(score, x, v)
    return (products + 0.5 * _dot(v, s).square()).mean(dim=0)


def sliced_score_matching_vr(score: Score, x: Tensor, v: Tensor) -> Tensor:
    """vᵀ∇s(x)v averaged over the projections, + ½‖s(x)‖².  [SSM §3, the SSM-VR loss; NCSN Eq. 3]

    As `sliced_score_matching`, with (vᵀs)² replaced by its expectation, which takes most of the variance
    away. Requires E[vvᵀ] = I: Rademacher, Gaussian, or the sphere of radius √D.

    Args:
        score: s, a callable x (B, *) -> (B, *), differentiable in x.
        x: (B, *).
        v: (B, *), or (M, B, *) for M projections; `projections` draws them.

    Returns:
        (B,).

    Raises:
        InputError: On shapes that do not fit.
    """
    check_batch(x)
    s, products = _score_and_products(score, x, _stack(v, x))
    return products.mean(dim=0) + 0.5 * sum_flat(s.square())


def denoising_score_matching(score: Score, x: Tensor, eps: Tensor, sigma: float | Tensor) -> Tensor:
    """½‖s(x + σε) + ε/σ‖², at one noise level or at one for each example.  [DSM §4; NCSN Eq. 2 and 5]

    In expectation it has the minimiser and gradient of the explicit loss on p ∗ N(0, σ²I), plus a constant.
    The energy form of the published code is σ⁴ times this.

    Args:
        score: s, a callable x (B, *) -> (B, *).
        x: (B, *), without noise.
        eps: ε ~ N(0, I), (B, *).
        sigma: σ, a positive number or a tensor () or (B,), in the units of x.

    Returns:
        (B,).

    Raises:
        InputError: Where sigma is not positive and finite, or on shapes that do not fit.
    """
    check_batch(x)
    check_batch_of("eps", eps, like=x)
    std = expand(_check_sigma(sigma, x), x)
    eps = eps.to(x.dtype)
    return 0.5 * sum_flat((_call(score, x + std * eps) + eps / std).square())


def projections(kind: ProjectionKind, x: Tensor, noise: NormalSource, count: int | None = None) -> Tensor:
    """Random directions v with E[vvᵀ] = I, for the sliced losses.  [SSM §3]

    Args:
        kind: "rademacher" (±1, the sign of a Gaussian), "gaussian", or "sphere" (uniform, of radius √D over
            all data dimensions of an example).
        x: (B, *), whose shape, dtype and device v takes.
        noise: Where the draws come from.
        count: None gives (B, *); M gives (M, B, *), drawn one after the other, so that the first do not
            depend on M.

    Raises:
        InputError: On an unknown kind or count < 1.
    """
    check_batch(x)
    one_of("projection", kind, ("rademacher", "gaussian", "sphere"))
    if count is not None:
        positive_int("count, the number of projections,", count, at_most=MOST_PROJECTIONS)
    if not isinstance(noise, NormalSource) or isinstance(noise, type):
        raise InputError(
            f"noise must be a noise source, such as sf.noise.NoiseSource(seed=0); got {brief(noise)}"
        )
    drawn = [_shape_projection(kind, noise.normal(tuple(x.shape))) for _ in range(count or 1)]
    v = drawn[0] if count is None else torch.stack(drawn)
    return v.to(device=x.device, dtype=x.dtype)


def _score_and_products(score: Score, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """s(x), (B, *), and vᵀJv for each of the projections (M, B, *), (M, B)."""
    with recording() as create_graph:
        x_in = differentiable(x, create_graph)
        s = _call(score, x_in)
        products = torch.stack([sum_flat(vjp(s, x_in, v_m, create_graph) * v_m) for v_m in v])
    return (s, products) if create_graph else (s.detach(), products.detach())


def _trace(s: Tensor, x: Tensor, create_graph: bool) -> Tensor:
    """tr(ds/dx), (B,): entry d of grad(s_d), d by d. A batched backward is faster but needs a vmap rule for
    every layer.
    """
    flat = s.reshape(s.shape[0], -1)
    ones = torch.ones_like(flat[:, 0])
    diagonal = [
        vjp(flat[:, d], x, ones, create_graph).reshape(flat.shape)[:, d] for d in range(flat.shape[1])
    ]
    return torch.stack(diagonal, dim=1).sum(dim=1)


def _call(score: Score, x: Tensor) -> Tensor:
    """s(x) in x's dtype (a network under autocast answers in another)."""
    if isinstance(score, Model):
        raise InputError(
            "a score is called x -> tensor of x's shape, got a model: give its method, model.score"
        )
    if not callable(score) or isinstance(score, type):
        raise InputError(f"a score is called x -> tensor of x's shape, got {brief(score)}")
    return _same_shape(score(x), x, "a score")


def _target(target: Tensor | Score, x: Tensor) -> Tensor:
    if not isinstance(target, Tensor) and (not callable(target) or isinstance(target, type)):
        raise InputError(f"the target score is a tensor or is called x -> tensor, got {brief(target)}")
    return _same_shape(target if isinstance(target, Tensor) else target(x), x, "the target score")


def _same_shape(s: object, x: Tensor, what: str) -> Tensor:
    if not isinstance(s, Tensor) or s.shape != x.shape:
        got = tuple(s.shape) if isinstance(s, Tensor) else brief(s)
        raise InputError(f"{what} must be a tensor of the shape of x, {tuple(x.shape)}, got {got}")
    check_device(what, s, x)
    return s.to(x.dtype)


def _shape_projection(kind: ProjectionKind, g: Tensor) -> Tensor:
    if kind == "gaussian":
        return g
    if kind == "rademacher":
        return torch.ones_like(g).copysign(g)
    flat = g.double().reshape(g.shape[0], -1)
    v: Tensor = flat * (math.sqrt(flat.shape[1]) / flat.norm(dim=1, keepdim=True))
    return v.reshape(g.shape)


def _dot(v: Tensor, s: Tensor) -> Tensor:
    """vᵀs for each projection and example: (M, B, *), (B, *) -> (M, B)."""
    return (v * s).flatten(start_dim=2).sum(dim=2)


def _stack(v: Tensor, x: Tensor) -> Tensor:
    """Projections (B, *) or (M, B, *) as (M, B, *) in x's dtype."""
    check_real("projections", v, "a tensor of real numbers")
    check_device("projections", v, x)
    v = v.unsqueeze(0) if v.ndim == x.ndim else v
    if v.shape[1:] != x.shape or v.shape[0] == 0:
        shape = ", ".join(str(n) for n in x.shape)
        raise InputError(
            f"projections must have the shape of x, ({shape}), or (M, {shape}), got {tuple(v.shape)}"
        )
    return v.to(x.dtype)


def _check_sigma(sigma: float | Tensor, x: Tensor) -> Tensor:
    if isinstance(sigma, Tensor):
        value = check_real("sigma", sigma, "a number or one value per example")
    else:
        value = torch.tensor(number("sigma", sigma, above=0, at_most=LARGEST), dtype=torch.float64)
    if value.ndim and value.shape != x.shape[:1]:
        raise InputError(
            f"sigma must be a number or one value per example, ({x.shape[0]},), got {tuple(value.shape)}"
        )
    if not bool(((value > 0) & value.isfinite()).all()):
        raise InputError(f"sigma must be positive and finite, got {brief(sigma)}")
    return value
