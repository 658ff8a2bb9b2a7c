"""A sampler of your own, compared with DDIM and Heun at equal network calls: python examples/own_sampler.py --steps 20

The model is exact (a Gaussian mixture), so the errors printed are those of the samplers alone.
"""

import argparse
from dataclasses import dataclass
from typing import Any

from torch import Tensor

import scorefield as sf

State = tuple[float, Tensor]  # (σ/α, ε̂) of the step before


@dataclass(frozen=True)
class AdamsBashforth(sf.Sampler[State | None]):
    """d(x/α)/d(σ/α) = ε̂ by the two-step Adams-Bashforth rule: second order, one network call a step."""

    guidance = "eps"  # a classifier's gradient is added to ε̂ by `guided`

    def init(self, model: sf.Denoise, x: Tensor) -> None:
        return None

    def step(
        self, model: sf.Denoise, x_t: Tensor, t: float, s: float, state: State | None, noise: sf.noise.Noise
    ) -> tuple[Tensor, Tensor, State]:
        pred = model(x_t, t).guided(t)
        (alpha_t, ratio_t), (alpha_s, ratio_s) = self._level(model, t), self._level(model, s)
        slope = pred.eps
        if state is not None:
            before, eps = state
            slope = slope + (ratio_s - ratio_t) / (2 * (ratio_t - before)) * (pred.eps - eps)
        x_s = alpha_s * (x_t / alpha_t + (ratio_s - ratio_t) * slope)
        return x_s, pred.x0, (ratio_t, pred.eps)

    def _level(self, model: sf.Denoise, t: float) -> tuple[float, float]:
        alpha, sigma = map(float, model.process.level(t))
        return alpha, sigma / alpha


def main(steps: int) -> None:
    mixture = sf.oracle.GaussianMixture([[-1.0, 0.0], [1.0, 0.5]], [[[0.05, 0.0], [0.0, 0.05]]] * 2)
    model = mixture.denoiser(sf.process.linear(1000))
    x_T = sf.NoiseSource(0).normal((1000, 2)).double()
    exact = sf.sample(model, sf.samplers.Heun(), sf.grids.full(model.process), x_T=x_T)  # the fine grid
    samplers: list[Any] = [AdamsBashforth(), sf.samplers.DDIM(), sf.samplers.Heun()]
    for sampler in samplers:
        grid = sf.grids.uniform(model.process, steps)
        x = sf.sample(model, sampler, grid, x_T=x_T)
        error = (x - exact).norm(dim=1).mean()
        print(f"{sampler}: {sampler.calls(grid)} calls, mean distance to the exact flow {float(error):.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare a sampler of your own with the library's.")
    parser.add_argument("--steps", type=int, default=20)
    main(parser.parse_args().steps)
