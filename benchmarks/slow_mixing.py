"""Slow mixing: Langevin dynamics gets the weights of two far modes wrong, annealed Langevin dynamics gets
them right.

p = ⅕N((−5, −5), I) + ⅘N((5, 5), I), whose scores are known exactly at every noise level, so that nothing here
is due to training. Both samplers start uniformly in [−8, 8]². Between the modes the score hardly knows the
weights: plain Langevin dynamics leaves each chain in the mode that it falls into first, half of them in each.
Annealed dynamics walks through levels σ = 20 … 1 where the modes overlap.  [NCSN §3.2.2, Figure 3]

    python benchmarks/slow_mixing.py [--out slow_mixing.png] [--samples 4000] [--seed 0]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

import scorefield as sf
from scorefield.core.noise import NoiseSource

WEIGHT = 0.8  # of the mode at (5, 5)
EYE = torch.eye(2, dtype=torch.float64)
MIXTURE = sf.oracle.GaussianMixture([[-5.0, -5.0], [5.0, 5.0]], torch.stack([EYE, EYE]), [1 - WEIGHT, WEIGHT])
SIGMAS = sf.process.geometric_sigmas(20.0, 1.0, 20)


def start(n: int, seed: int) -> Tensor:
    """Uniform in [−8, 8]², (n, 2)."""
    return 16 * NoiseSource(seed).uniform((n, 2)).double() - 8


def plain(n: int, seed: int, updates: int, step: float) -> Tensor:
    """Langevin dynamics on the exact score of p, (n, 2)."""
    sampler = sf.samplers.Langevin(step)
    return sf.sample(
        MIXTURE, sampler, sf.grids.steps(updates), x_T=start(n, seed), noise=NoiseSource(seed + 1)
    )


def annealed(n: int, seed: int, repeats: int, step: float) -> Tensor:
    """Annealed Langevin dynamics on the exact scores of p ∗ N(0, σ² I), (n, 2)."""
    process = sf.process.from_sigmas(SIGMAS)
    grid = sf.grids.staircase(process, repeats)
    sampler = sf.samplers.Langevin(step)
    return sf.sample(
        MIXTURE.denoiser(process), sampler, grid, x_T=start(n, seed), noise=NoiseSource(seed + 1)
    )


def share(x: Tensor) -> float:
    """Of the points (n, 2) that lie on the side of (5, 5)."""
    return float((x.sum(dim=1) > 0).double().mean())


def draw(panels: dict[str, Tensor], path: Path) -> None:
    """The points of every panel, with the share of its right mode."""
    from matplotlib.figure import Figure

    from scorefield.plots.style import plot_style, save_figure

    with plot_style():
        figure = Figure(figsize=(10, 3.6), layout="compressed")
        for axes, (name, x) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
            axes.plot(*x.numpy().T, ".", color="#2a6f97", markersize=2, alpha=0.35, markeredgewidth=0)
            axes.set(
                title=f"{name}\n{share(x):.0%} in the upper mode", xlim=(-9, 9), ylim=(-9, 9), aspect="equal"
            )
        save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("slow_mixing.png"))
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    n, seed, began = options.samples, options.seed, time.perf_counter()
    panels = {
        "p itself": MIXTURE.sample(n, NoiseSource(seed)),
        "Langevin, 2,000 updates, step 0.1": plain(n, seed, updates=2000, step=0.1),
        "annealed, 20 levels × 100, at σ = 1": annealed(n, seed, repeats=100, step=0.4),
    }
    draw(panels, options.out)
    print(f"share of the mode at (5, 5), exactly {WEIGHT}; {n} samples, seed {seed}")
    for name, x in panels.items():
        print(f"  {name:36s} {share(x):.3f}   error {abs(share(x) - WEIGHT):.3f}")
    print(f"figure: {options.out}   ({time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    main()
