"""Processes and samplers in plain numbers, from the papers' equations: they share no code with the library.

Of data N(M, V) the exact x̂0 is affine in x, and so is every step of a sampler in x and its draws. A state is
therefore a vector c that stands for c_0 + Σ_j c_j z_j with independent standard normals z_j: its mean is c_0
and its variance Σ_{j>0} c_j².
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

M, V = 0.4, 0.3  # of the data


class Level(NamedTuple):
    alpha: float
    sigma: float

    @property
    def r(self):
        return self.sigma / self.alpha if self.alpha else math.inf


# q(x_t | x_0) at a time


def vp_at(r):
    """The variance-preserving level of σ/α = r."""
    return Level(1 / math.hypot(1, r), r / math.hypot(1, r))


def ve_at(r):
    return Level(1.0, r)


def table(betas):
    """(T + 1) levels with ᾱ_t = Π(1 − β_i).  [DDPM Eq. 4]"""
    logs = [0.0, *(math.log1p(-b) for b in betas)]
    sums = [math.fsum(logs[: t + 1]) for t in range(len(logs))]
    return [Level(math.exp(s / 2), math.sqrt(-math.expm1(s))) for s in sums]


def linear_table(T, start, end):
    return table([start + (end - start) * i / (T - 1) for i in range(T)])


def cosine_table(T, s=0.008):
    f = [math.cos((t / T + s) / (1 + s) * math.pi / 2) ** 2 for t in range(T + 1)]
    return table([min(1 - b / a, 0.999) for a, b in pairwise(f)])


def zero_snr(levels):
    """[Lin et al. 2024 Algorithm 1]"""
    first, last = levels[1].alpha, levels[-1].alpha
    alphas = [first * (level.alpha - last) / (first - last) for level in levels[1:]]
    return [levels[0], *(Level(a, math.sqrt(1 - a * a)) for a in alphas)]


def geometric_table(largest, smallest, L):
    return [
        Level(1.0, 0.0),
        *(Level(1.0, smallest * (largest / smallest) ** (i / (L - 1))) for i in range(L)),
    ]


def between(levels):
    """ln(α/σ) linear between the levels of a variance-preserving table; σ/α proportional to t below the
    first.
    """

    def level(t):
        if t == int(t):
            return levels[int(t)]
        low = int(t)
        if low == 0:
            return vp_at(t * levels[1].r)
        return vp_at(
            math.exp((low + 1 - t) * math.log(levels[low].r) + (t - low) * math.log(levels[low + 1].r))
        )

    return level


def vp_level(t, low=0.1, high=20.0):
    integral = t * low + t * t * (high - low) / 2
    return Level(math.exp(-integral / 2), math.sqrt(-math.expm1(-integral)))


def sub_vp_level(t, low=0.1, high=20.0):
    integral = t * low + t * t * (high - low) / 2
    return Level(math.exp(-integral / 2), -math.expm1(-integral))


def sub_vp_at(r):
    """α with (1 − α²)/α = r."""
    alpha = 2 / (r + math.hypot(r, 2))
    return Level(alpha, r * alpha)


def flow_level(t):
    return Level(1 - t, t)


def flow_at(r):
    return Level(1 / (1 + r), r / (1 + r)) if r < math.inf else Level(0.0, 1.0)


def edm_level(t, low=0.002, high=80.0, rho=7.0):
    return Level(1.0, (low ** (1 / rho) + t * (high ** (1 / rho) - low ** (1 / rho))) ** rho if t else 0.0)


# The walk of a sampler


@dataclass
class Walk:
    """What a recursion knows: the grid's levels, the process's ends, and where draws come from."""

    levels: list[Level]
    at: Callable[[float], Level]
    r_1: float
    r_T: float
    draws: int
    used: int = field(default=0, init=False)

    def constant(self):
        return self.unit(0)

    def unit(self, j):
        return np.eye(1, self.draws + 2, j)[0]

    def draw(self):
        self.used += 1
        return self.unit(self.used + 1)

    def start(self):
        """x at the first time, from the exact q(x_T)."""
        a, s = self.levels[0]
        return a * M * self.constant() + math.sqrt(a * a * V + s * s) * self.unit(1)

    def x0(self, x, level):
        """E[x_0 | x_t = x]."""
        a, s = level
        return M * self.constant() + a * V / (a * a * V + s * s) * (x - a * M * self.constant())

    def eps(self, x, level):
        return (x - level.alpha * self.x0(x, level)) / level.sigma

    def slope(self, y, r):
        """dy/dr of the flow in y = x/α and r = σ/α."""
        return (y - self.x0(y, ve_at(r))) / r


def moments(walk: Walk, step: Callable) -> Iterator[tuple[float, float]]:
    """(mean, variance) after every step."""
    x, memory = walk.start(), None
    for hi, lo in pairwise(walk.levels):
        x, memory = step(walk, x, hi, lo, memory)
        yield x[0], float((x[1:] ** 2).sum())


def pair_var(hi, lo):
    """σ²_{t|s}."""
    return hi.sigma**2 - (hi.alpha / lo.alpha * lo.sigma) ** 2


def ancestral(var):
    """[DDPM Eq. 7, Algorithm 2]   var: (β, β̃) of the pair -> the variance of the step."""

    def step(walk, x, hi, lo, memory):
        upper = pair_var(hi, lo)
        lower = upper * lo.sigma**2 / hi.sigma**2
        mean = (lo.alpha * upper * walk.x0(x, hi) + hi.alpha / lo.alpha * lo.sigma**2 * x) / hi.sigma**2
        return (mean, None) if lo.sigma == 0 else (mean + math.sqrt(var(upper, lower)) * walk.draw(), None)

    return step


def family(varsigma):
    """[DDIM Eq. 12]   varsigma: (hi, lo) -> ς."""

    def step(walk, x, hi, lo, memory):
        std = varsigma(hi, lo) if lo.sigma else 0.0
        along = math.sqrt(max(lo.sigma**2 - std**2, 0.0))
        x = lo.alpha * walk.x0(x, hi) + along * walk.eps(x, hi)
        return (x + std * walk.draw() if std else x), None

    return step


def by_eta(eta):
    """[DDIM Eq. 16]"""
    return family(lambda hi, lo: eta * lo.sigma / hi.sigma * math.sqrt(pair_var(hi, lo)))


def euler(walk, x, hi, lo, memory):
    if hi.alpha == 0:
        return straight(walk, x, hi, lo, None)
    y = x / hi.alpha
    return lo.alpha * (y + (lo.r - hi.r) * walk.slope(y, hi.r)), None


def straight(walk, x, hi, lo, memory):
    """dx = x̂0 dα + ε̂ dσ with both held at hi."""
    return x + (lo.alpha - hi.alpha) * walk.x0(x, hi) + (lo.sigma - hi.sigma) * walk.eps(x, hi), None


def heun(churn=0.0, low=0.0, high=math.inf, scale=1.0):
    """[Karras et al. 2022, Algorithms 1 and 2], r̂ within the process and Euler's step above r = 80; where r of T is
    infinite, Heun's rule for dx = x̂0 dα + ε̂ dσ.
    """

    def straight_step(walk, x, hi, lo):
        ahead, _ = straight(walk, x, hi, lo, None)
        if lo.sigma == 0:
            return ahead
        x0, eps = (walk.x0(x, hi) + walk.x0(ahead, lo)) / 2, (walk.eps(x, hi) + walk.eps(ahead, lo)) / 2
        return x + (lo.alpha - hi.alpha) * x0 + (lo.sigma - hi.sigma) * eps

    def step(walk, x, hi, lo, memory):
        if hi.alpha == 0:
            return straight_step(walk, x, hi, lo), None
        y, r = x / hi.alpha, hi.r
        raised = min(r * (1 + min(churn / (len(walk.levels) - 1), math.sqrt(2) - 1)), walk.r_T)
        if raised > r * (1 + 1e-12) and low <= r <= high:
            y, r = y + math.sqrt(raised**2 - r**2) * scale * walk.draw(), raised
        if walk.r_T == math.inf:
            hi = walk.at(r)
            return straight_step(walk, hi.alpha * y, hi, lo), None
        slope = walk.slope(y, r)
        ahead = y + (lo.r - r) * slope
        if lo.r > 0 and r <= 80:
            ahead = y + (lo.r - r) * (slope + walk.slope(ahead, lo.r)) / 2
        return lo.alpha * ahead, None

    return step


def two_m(stochastic):
    """[Lu et al. 2022b, Algorithm 2]; with noise SDE-DPM-Solver++(2M)."""

    def step(walk, x, hi, lo, memory):
        D = x0 = walk.x0(x, hi)
        if lo.sigma == 0:
            return x0, None
        h = math.log(hi.r / lo.r)
        if memory is not None:
            ratio = memory[1] / h
            D = (1 + 1 / (2 * ratio)) * x0 - 1 / (2 * ratio) * memory[0]
        if stochastic:
            drawn = lo.sigma * math.sqrt(-math.expm1(-2 * h)) * walk.draw()
            x = lo.sigma / hi.sigma * math.exp(-h) * x - lo.alpha * math.expm1(-2 * h) * D + drawn
        else:
            x = lo.sigma / hi.sigma * x - lo.alpha * math.expm1(-h) * D
        return x, (x0, h)

    return step


def two_s(walk, x, hi, lo, memory):
    """[Lu et al. 2022b, Algorithm 1 with r = ½]"""
    if hi.alpha == 0:
        return straight(walk, x, hi, lo, None)
    D = walk.x0(x, hi)
    if lo.sigma:
        middle = walk.at(math.sqrt(hi.r * lo.r))
        u = middle.sigma / hi.sigma * x + middle.alpha * (1 - middle.r / hi.r) * D
        D = walk.x0(u, middle)
    return lo.sigma / hi.sigma * x + lo.alpha * (1 - lo.r / hi.r) * D, None


def integral_weights(h, taus):
    """∫_0^h e^{u−h} ℓ_j du for the Lagrange polynomials ℓ_j of the nodes τ_j h; of two nodes, DPM-Solver++(2M)'s."""
    if len(taus) == 1:
        return [-math.expm1(-h)]
    if len(taus) == 2:
        second = -math.expm1(-h) / 2 / (taus[1] - taus[0])
        return [-math.expm1(-h) - second, second]
    at, weights = np.polynomial.legendre.leggauss(80)
    u = (at + 1) / 2
    found = []
    for j, tau in enumerate(taus):
        lagrange = np.prod([(u - other) / (tau - other) for k, other in enumerate(taus) if k != j], axis=0)
        found.append(float((weights * h / 2 * np.exp(h * (u - 1)) * lagrange).sum()))
    return found


def integrated(x, hi, lo, nodes):
    """x_s = (σ_s/σ_t) x_t + α_s ∫_0^h e^{u−h} P(u) du, P through the nodes (r, x̂0), the first one at t."""
    nodes = [nodes[0], *(node for node in nodes[1:] if node[0] < math.inf)]
    h = math.log(hi.r / lo.r) if hi.alpha else math.inf
    taus = [math.log(hi.r / r) / h if h < math.inf else 0.0 for r, _ in nodes]
    bent = sum(w * x0 for w, (_, x0) in zip(integral_weights(h, taus), nodes, strict=True))
    return lo.sigma / hi.sigma * x + lo.alpha * bent


def three_m(walk, x, hi, lo, memory):
    """[Lu et al. 2022b, Eq. 8–9], the integral of the interpolating parabola by quadrature."""
    nodes = [(hi.r, walk.x0(x, hi)), *(memory or [])][:3]
    return (integrated(x, hi, lo, nodes) if lo.sigma else nodes[0][1]), nodes


def unipc(order):
    """[Zhao et al. 2023, Algorithms 1 and 2] in x̂0, the corrector from the x that the step before started at."""

    def step(walk, x, hi, lo, memory):
        here = (hi.r, walk.x0(x, hi))
        nodes = [here]
        if memory is not None:
            before, x_before, earlier = memory
            nodes = [here, *earlier][:order]
            if before.alpha:
                x = integrated(x_before, before, hi, [*earlier, here])
        x_s = integrated(x, hi, lo, nodes) if lo.sigma else here[1]
        return x_s, (hi, x, nodes)

    return step


def langevin(share, denoise=False):
    """[NCSN Algorithm 1] in y = x/α, whose score is −(y − M)/(V + r²); the step is share·r²."""

    def step(walk, x, hi, lo, memory):
        if hi.alpha == 0:
            return straight(walk, x, hi, lo, None)
        y, r = x / hi.alpha, hi.r
        h = share * r * r
        y = y - h / 2 * (y - M * walk.constant()) / (V + r * r) + math.sqrt(h) * walk.draw()
        return (walk.x0(y, ve_at(r)) if denoise and lo.sigma == 0 else lo.alpha * y), None

    return step


def corrected(predictor, corrector, repeats):
    """[Song et al. 2021, predictor–corrector]"""

    def step(walk, x, hi, lo, memory):
        x, memory = predictor(walk, x, hi, lo, memory)
        for _ in range(repeats if lo.sigma else 0):
            x, _ = corrector(walk, x, lo, lo, None)
        return x, memory

    return step
