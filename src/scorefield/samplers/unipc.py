"""UniPC: a multistep predictor of any order with a corrector that costs no call.  [Zhao et al. 2023]"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.core.shapes import expand
from scorefield.models.base import Denoise
from scorefield.runtime.checks import positive_int
from scorefield.samplers.base import Sampler
from scorefield.samplers.exponential import Node, bend, remember

__all__ = ["Predicted", "UniPC"]

_HIGHEST = 3  # of the orders that the paper recommends


class Predicted(NamedTuple):
    """What a step leaves for the next one.

    Attributes:
        nodes: The last predictions, the newest first; none before the first step, nor from α = 0.
        bend: What the predictor added to DDIM's step over α_s, (B, *); None where it added nothing.
    """

    nodes: tuple[Node, ...]
    bend: Tensor | None


@dataclass(frozen=True)
class UniPC(Sampler[Predicted]):
    """UniPC-p in x̂0: a step from the last p predictions, corrected by the next one, for one call a step.  [Zhao et al.
    2023, Alg. 1–2]

    UniP-p: x_s = α_s x̂0 + σ_s ε̂ + α_s Σ_j w_j (x̂0_j − x̂0) over the p − 1 steps before. Once the model has been asked
    about the x_s so made, UniC-p writes x_s anew with x̂0(x_s, s) as a further node, and the next step starts there;
    x̂0(x_s, s) itself is kept. The w_j are exact for polynomials in λ; only where there is one node does the paper's B(h)
    matter, and there it is e^h − 1 (of one node before: the step of DPM-Solver++(2M)). p = 3 is the exponential
    Adams–Bashforth–Moulton method. The corrector gains an order, so that p = 2 is third order. The first step and the
    step to 0, whose x̂0 is the result, are predicted at first order.

    Args:
        order: p, 2 or 3.
    """

    order: int = 2
    guidance = "eps"

    def __post_init__(self) -> None:
        positive_int("order, that of the predictor,", self.order, at_least=2, at_most=_HIGHEST)

    def init(self, model: Denoise, x: Tensor) -> Predicted:
        return Predicted((), None)

    def step(
        self, model: Denoise, x_t: Tensor, t: float, s: float, state: Predicted, noise: Noise
    ) -> tuple[Tensor, Tensor, Predicted]:
        hi, lo = model.process.level(t), model.process.level(s)
        pred = model(x_t, t).guided(t)
        if s == 0:
            return pred.x0, pred.x0, Predicted((), None)
        here = Node(-hi.ratio.log(), pred.x0)
        x_s = expand(lo.alpha, x_t) * pred.x0 + expand(lo.sigma, x_t) * pred.eps
        if state.nodes:
            x_s = x_s + expand(lo.sigma / hi.sigma * hi.alpha, x_t) * _correction(state, here)
        earlier = state.nodes[: self.order - 1]
        bent = None
        if earlier:
            bent = bend(here, earlier, (hi.ratio / lo.ratio).log())
            x_s = x_s + expand(lo.alpha, x_t) * bent
        return x_s, pred.x0, Predicted(remember(here, earlier, self.order), bent)


def _correction(state: Predicted, here: Node) -> Tensor:
    """What UniC adds to the x that the step before has made, over α, (B, *)."""
    start, *earlier = state.nodes
    bent = bend(start, [*earlier, here], here.log_ratio - start.log_ratio)
    return bent if state.bend is None else bent - state.bend
