"""Every variance mode on every grid for short and long schedules, against plain Python numbers that share no
code with the library.
"""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

import scorefield as sf
from scorefield.core.prediction import Level, Prediction
from scorefield.process import transitions

GRIDS: dict[str, Any] = {
    "full": sf.grids.full,
    "uniform": lambda p: sf.grids.uniform(p, 7),
    "quadratic": lambda p: sf.grids.quadratic(p, 9),
    "sections": lambda p: sf.grids.sections(p, [3, 2, 1]),
    "linspace": lambda p: sf.grids.linspace(p, 4),
    "one": lambda p: [p.T, 0],
}
FRACTION, SHARE = (
    0.3,
    0.4,
)  # of the way from ln lower to ln upper ("range"), and from lower to upper ("direct")


def betas_of(name, T):
    if name == "cosine":
        f = [math.cos((k / T + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(T + 1)]
        return [min(1 - f[k + 1] / f[k], 0.999) for k in range(T)]
    low, high = (0.01, 0.7) if T == 10 else (0.1 / T, 20 / T)
    return [low + (high - low) * k / (T - 1) for k in range(T)]


class Oracle:
    """The equations from sums of logarithms: σ²_{t|s} = 1 − ᾱ_t/ᾱ_s is never a difference here."""

    def __init__(self, betas):
        self.log = [0.0]
        for beta in betas:
            self.log.append(self.log[-1] + math.log1p(-beta))

    def upper(self, t, s):
        return -math.expm1(self.log[t] - self.log[s])

    def lower(self, t, s):
        return self.upper(t, s) * self.upper(s, 0) / self.upper(t, 0)

    def gain(self, t, s):
        return math.exp(self.log[s] / 2) * self.upper(t, s) / self.upper(t, 0)

    def variance(self, mode, t, s, u):
        floor = self.lower(u, t) if u else self.upper(t, 0)
        low = floor if s == 0 else self.lower(t, s)
        if mode == "lower":
            return low
        if mode == "upper":
            return low if s == 0 else self.upper(t, s)
        if mode == "range":
            return math.exp(FRACTION * math.log(self.upper(t, s)) + (1 - FRACTION) * math.log(low))
        if s == t - 1:
            return self.direct(t)
        excess = max(0.0, self.direct(t) - self.lower(t, t - 1)) / self.gain(t, t - 1) ** 2
        return self.lower(t, s) + self.gain(t, s) ** 2 * excess

    def amplification(self, t, s, u):
        """How much a rounding of ln Σ at (t, t−1) grows on (t, s): Σ − β̃ is all that it says about x_0."""
        if s == t - 1:
            return 1.0
        grown = self.direct(t) * (self.gain(t, s) / self.gain(t, t - 1)) ** 2
        return 1 + grown / self.variance("direct", t, s, u)

    def direct(self, t):
        """What a "direct" head says at t: between β̃ and β."""
        return (1 - SHARE) * self.lower(t, t - 1) + SHARE * self.upper(t, t - 1)


def rows(process, times):
    times = torch.as_tensor(times)
    return process.level(times)


@pytest.mark.parametrize("T", [10, 1000, 4000])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("mode", ["lower", "upper", "range", "direct"])
def test_variance_equals_the_oracle(schedule, T, grid, mode):
    betas = betas_of(schedule, T)
    process, oracle = sf.process.from_betas(betas), Oracle(betas)
    times = [int(t) for t in GRIDS[grid](process)]
    steps = [
        (t, s, times[i - 1] if i else (t + 1 if t < T else None)) for i, (t, s) in enumerate(pairwise(times))
    ]
    expected = torch.tensor([oracle.variance(mode, *step) for step in steps], dtype=torch.float64)
    assert torch.isfinite(expected.log()).all()
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-5)):
        x = torch.zeros(1, 1, dtype=dtype)
        for first, chosen in ((True, steps[:1]), (False, steps[1:])):
            if not chosen:
                continue
            t, s, u = zip(*chosen, strict=True)
            hi, lo = rows(process, t), rows(process, s)
            # Only the first step of a grid can be without a level above it.
            above = None if first and u[0] is None else rows(process, u)
            head = torch.tensor([[oracle.direct(k)] for k in t], dtype=torch.float64).log().to(dtype)
            fields = {
                "range": {"var_frac": torch.full((len(t), 1), FRACTION, dtype=dtype)},
                "direct": {"log_var": head, "below": rows(process, [k - 1 for k in t])},
            }
            x_t = x.expand(len(t), 1)
            pred = Prediction(x_t, hi, x_t, x_t, **fields.get(mode, {}))
            var = transitions.reverse(
                pred, hi, lo, mode if mode in ("lower", "upper") else "learned", above
            ).var
            assert torch.isfinite(var.log()).all()
            want = (expected[:1] if first else expected[1:]).reshape(-1, 1)
            slack = torch.tensor(
                [[oracle.amplification(*step) if mode == "direct" else 1.0] for step in chosen]
            ).double()
            slack = slack if dtype == torch.float32 else 1 + slack * 1e-3
            assert ((var.double() / want - 1).abs() < tolerance * slack).all()


@pytest.mark.parametrize("mode", ["lower", "upper"])
def test_exploding_levels(mode):
    """On VE σ²_{t|s} = σ_t² − σ_s², and lower is its share σ_s²/σ_t²."""
    sigmas = [0.01 * 5000 ** (k / 29) for k in range(30)]
    process, x = sf.process.from_sigmas(sigmas), torch.zeros(1, 1, dtype=torch.float64)
    for t, s in [(30, 29), (30, 1), (12, 5), (2, 1)]:
        hi, lo = process.level(t), process.level(s)
        upper = sigmas[t - 1] ** 2 - sigmas[s - 1] ** 2
        expected = upper if mode == "upper" else upper * sigmas[s - 1] ** 2 / sigmas[t - 1] ** 2
        var = transitions.reverse(Prediction(x, hi, x, x), hi, lo, mode, None).var
        assert var.item() == pytest.approx(expected, rel=1e-9)
    hi, lo, above = process.level(1), Level(*process.level(0)), process.level(2)
    floor = (sigmas[1] ** 2 - sigmas[0] ** 2) * sigmas[0] ** 2 / sigmas[1] ** 2
    assert transitions.reverse(Prediction(x, hi, x, x), hi, lo, mode, above).var.item() == pytest.approx(
        floor, rel=1e-9
    )
