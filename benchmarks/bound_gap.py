"""What the variational bound loses, against T: the bound of an exact model on a mixture, minus the entropy of
the data.

Two modes on the line, cosine schedule, continuous data ("density" decoder). x̂0 is exact, so the gap is due
to the reverse variance alone: the optimal one (of the exact posterior of x_s), "upper" (β) and "lower" (β̃).
The first two fall to 0 as T grows; "lower" is too small by t/(t − 1) next to the data, however large T is,
and tends to γ/2 = 0.289 nats a dimension.

    python benchmarks/bound_gap.py [--out docs/figures/bound-gap.png] [--samples 20000]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scorefield as sf
from scorefield.core.noise import NoiseSource
from scorefield.core.prediction import Prediction
from scorefield.process.transitions import lower_var, posterior_coefficients

MIXTURE = sf.oracle.GaussianMixture([[-0.6], [0.7]], [[[0.04]], [[0.1]]], [0.4, 0.6])
HALF_EULER = 0.5772156649015329 / 2
COUNTS = (5, 10, 20, 50, 100, 200, 500, 1000, 4000)
LINES = {"optimal": "#d1495b", "upper": "#1b2a41", "lower": "#7a93ac"}


class Optimal:
    """The exact x̂0 of one-dimensional data with the exact variance of x_{t−1} given x_t, as a head of ln Σ."""

    variance, data = "direct", None

    def __init__(self, process: Any) -> None:
        self.process, self.exact = process, MIXTURE.denoiser(process)

    def __call__(self, x_t: Tensor, t: Any) -> Prediction:
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            pred = self.exact(x, t)
            slope = torch.autograd.grad(pred.x0.sum(), x)[0]
        below, x0 = self.process.level(torch.as_tensor(t) - 1), pred.x0.detach()
        c_0, _ = posterior_coefficients(pred.level, below)
        of_x0 = (pred.level.sigma**2 / pred.level.alpha) * slope  # Var(x_0 | x_t), Tweedie's formula
        log_var = (lower_var(pred.level, below) + c_0**2 * of_x0).log()
        return Prediction(x_t, pred.level, x0, x0, log_var=log_var, below=below)

    def score(self, x: Tensor, t: Any = None) -> Tensor:
        return self.exact.score(x, t)


def gap(T: int, line: str, x0: Tensor) -> tuple[float, float]:
    """(mean, standard error) of bound + ln p(x_0), nats."""
    process = sf.process.cosine(T)
    model, variance = (
        (Optimal(process), "learned") if line == "optimal" else (MIXTURE.denoiser(process), line)
    )
    bits = sf.likelihood.bits_per_dim(model, x0, NoiseSource(1), variance=variance, decoder="density")  # type: ignore[arg-type]
    difference = bits.total * math.log(2) + MIXTURE.log_prob(x0)
    return float(difference.mean()), float(difference.std()) / math.sqrt(len(x0))


def draw(gaps: dict[str, list[float]], path: Path) -> None:
    from matplotlib.figure import Figure

    from scorefield.plots.style import plot_style, save_figure

    with plot_style():
        figure = Figure(figsize=(7, 4.2), layout="compressed")
        axes = figure.subplots()
        for line, color in LINES.items():
            axes.plot(COUNTS, gaps[line], "o-", color=color, label=f"{line} variance")
        axes.axhline(HALF_EULER, color="0.6", linestyle=":", label="γ/2")
        axes.axhline(0, color="0.8", linewidth=0.8)
        axes.set(xscale="log", xlabel="T", ylabel="bound − entropy, nats a dimension", xticks=COUNTS)
        axes.set_xticklabels([f"{T:,}" for T in COUNTS])
        axes.minorticks_off()
        axes.set_title("What the bound of an exact model loses to its reverse variance")
        axes.legend()
    save_figure(figure, path)
    print(f"wrote {path}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/figures/bound-gap.png"))
    parser.add_argument("--samples", type=int, default=20_000)
    arguments = parser.parse_args()
    x0 = MIXTURE.sample(arguments.samples, NoiseSource(0))
    gaps: dict[str, list[float]] = {line: [] for line in LINES}
    print("| T | " + " | ".join(LINES) + " |\n|---" + "|---" * len(LINES) + "|")
    for T in COUNTS:
        cells = []
        for line in LINES:
            mean, error = gap(T, line, x0)
            gaps[line].append(mean)
            cells.append(f"{mean:.3f} ± {error:.3f}")
        print(f"| {T:,} | " + " | ".join(cells) + " |", flush=True)
    draw(gaps, arguments.out)


if __name__ == "__main__":
    main()
