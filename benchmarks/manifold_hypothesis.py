"""The manifold hypothesis: on data confined to a subspace sliced score matching does not settle; with a
little noise it does.

Points on a plane in D dimensions have no density in D dimensions, so there is no score to find: the loss E[tr
∇s + ½‖s‖²] has no minimum, because a field that points at the plane ever more steeply costs nothing on it.
With noise N(0, 10⁻⁴ I) added to the points the minimum exists, −½ E‖∇ log p‖², and the same training settles.
[NCSN §3.1, Figure 1] Here the points fill a unit square of a random plane in 10 dimensions; the minimum is
then near −(10 − 2)/(2·10⁻⁴) = −40,000.

    python benchmarks/manifold_hypothesis.py [--out manifold_hypothesis.png] [--steps 1000] [--seed 0]

Prints, for both, how far the running mean of the loss (over a tenth of the steps) still moves in the last
half of training, relative to its last value.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scorefield as sf
from scorefield.core.noise import NoiseSource

DIMENSIONS, PLANE, SIGMA = 10, 2, 0.01  # σ² = 10⁻⁴


def losses(sigma: float, steps: int, seed: int, hidden: int = 256) -> Tensor:
    """The sliced (variance-reduced) loss of every training step on a square of a random plane with noise σ
    added, (steps,).
    """
    torch.manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(DIMENSIONS, PLANE))[0]
    data = (NoiseSource(seed).uniform((5000, PLANE)) - 0.5) @ basis.T
    model = sf.ScoreModel(sf.nets.MLP(DIMENSIONS, hidden=hidden, layers=1, noise_levels=False))
    objective = sf.objectives.ScoreMatching(model, "sliced-vr", sigma=sigma)
    options: dict[str, Any] = {
        "steps": steps,
        "batch_size": 128,
        "lr": 3e-3,
        "clip": 0.0,
        "precision": "fp32",
        "seed": seed,
    }
    return torch.tensor(
        [step.loss for step in sf.train(objective, data, device="cpu", **options)], dtype=torch.float64
    )


def running_mean(values: Tensor) -> Tensor:
    """Over a tenth of the steps, (steps − steps//10 + 1,)."""
    return values.unfold(0, len(values) // 10, 1).mean(dim=1)


def movement(values: Tensor) -> float:
    """(largest − smallest)/|last| of the running mean over the last half of the steps."""
    mean = running_mean(values)[-(len(values) // 2) :]
    return float((mean.max() - mean.min()) / mean[-1].abs())


def draw(curves: dict[str, Tensor], path: Path) -> None:
    """The loss against the step, one panel a curve."""
    from matplotlib.figure import Figure

    from scorefield.plots.style import plot_style, save_figure

    with plot_style():
        figure = Figure(figsize=(10, 3.8), layout="compressed")
        for axes, (name, values) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
            mean = running_mean(values)
            axes.plot(values.numpy() / 1000, color="0.75", linewidth=0.6, label="one batch")
            axes.plot(
                range(len(values) - len(mean), len(values)),
                mean.numpy() / 1000,
                color="#d1495b",
                label="running mean",
            )
            axes.set(title=f"{name}\nmoves by {movement(values):.0%} in the last half", xlabel="step")
        figure.axes[0].set_ylabel("sliced score-matching loss / 1,000")
        figure.axes[0].legend()
        save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("manifold_hypothesis.png"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.perf_counter()
    names = {"a plane in 10 dimensions": 0.0, "the same with noise N(0, 10⁻⁴ I)": SIGMA}
    curves = {name: losses(sigma, options.steps, options.seed) for name, sigma in names.items()}
    draw(curves, options.out)
    print(f"sliced score-matching loss, {options.steps} steps, seed {options.seed}")
    for name, values in curves.items():
        mean = running_mean(values)
        half, last = float(mean[-(options.steps // 2)]), float(mean[-1])
        print(
            f"  {name:34s} half-way {half:12,.0f}   at the end {last:12,.0f}   moves by {movement(values):.1%}"
        )
    print(f"figure: {options.out}   ({time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    main()
