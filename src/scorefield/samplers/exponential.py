"""The integral of a multistep step in x̂0: exact for the polynomial in λ through several predictions of x̂0.

With λ = ln(α/σ) and h = λ_s − λ_t a step of the probability-flow equation is x_s = (σ_s/σ_t) x_t + α_s ∫_0^h e^{u−h}
x̂0(λ_t + u) du.  [Lu et al. 2022b, Eq. 8]  With x̂0 constant it is DDIM's, α_s x̂0 + σ_s ε̂; the polynomial through x̂0 at
λ_t and at further nodes λ_t + τ_j h adds α_s Σ_j w_j (x̂0_j − x̂0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.core.shapes import expand

__all__ = ["Node", "bend", "bend_weights", "remember"]

_SERIES = 24  # terms after which h^k/k! is nothing, for h below 1


class Node(NamedTuple):
    """A prediction x̂0 (B, *) and its λ = ln(α/σ)."""

    log_ratio: Tensor
    x0: Tensor


def remember(here: Node, earlier: Sequence[Node], count: int) -> tuple[Node, ...]:
    """The last `count` nodes, the newest first; none at λ = −∞, whose weight in any later step is 0."""
    return tuple(node for node in (here, *earlier) if node.log_ratio > -math.inf)[:count]


def bend(here: Node, nodes: Sequence[Node], h: Tensor) -> Tensor:
    """Σ_j w_j (x̂0_j − x̂0) of a step of length h from `here`, (B, *)."""
    taus = [float((node.log_ratio - here.log_ratio) / h) for node in nodes]
    found = torch.zeros_like(here.x0)
    for weight, node in zip(bend_weights(h, taus), nodes, strict=True):
        found = found + expand(weight, here.x0) * (node.x0 - here.x0)
    return found


def bend_weights(h: Tensor, taus: Sequence[float]) -> Tensor:
    """w_j with Σ_j w_j τ_j^k = I_k for k = 1 … q, of q nodes: exact for polynomials x̂0 of degree q.  [Zhao et al. 2023,
    Eq. 5, for x̂0]

    I_k = h ∫_0^1 e^{h(τ−1)} τ^k dτ. For one node half of I_0 takes the place of I_1, from which it differs by
    O(h²): the choice a = ½ with B(h) = e^h − 1 of the paper, finite where h is infinite.

    Args:
        h: The length of the step in λ, positive, ().
        taus: Where the nodes lie in units of h from the start of the step, distinct and not 0.

    Returns:
        float64 (q,).
    """
    if len(taus) < 2:
        return -torch.expm1(-h) / 2 / torch.tensor(taus, dtype=torch.float64)
    powers = torch.tensor([[tau**k for tau in taus] for k in range(1, len(taus) + 1)], dtype=torch.float64)
    return torch.linalg.solve(powers, _moments(float(h), len(taus)))


def _moments(h: float, count: int) -> Tensor:
    """I_1 … I_count, by I_k = 1 − (k/h) I_{k−1}: downwards where h is small and that would cancel."""
    if h >= 1:
        found = [-math.expm1(-h)]
        for k in range(1, count + 1):
            found.append(1 - k / h * found[-1])
        return torch.tensor(found[1:], dtype=torch.float64)
    moment, below = 0.0, []
    for k in range(count + _SERIES, 0, -1):
        below.append(moment)
        moment = h / k * (1 - moment)
    return torch.tensor(below[::-1][:count], dtype=torch.float64)
