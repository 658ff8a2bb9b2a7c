"""A run with a process, a network and an objective of your own, which resumes and loads again.

The run names these classes, and code is imported only where you allow it: from here nothing is imported, elsewhere say
sf.load("runs/own", allow=["own_process"]), or scorefield sample runs/own --allow own_process in this folder.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import scorefield as sf


@dataclass(frozen=True)
class Straight(sf.process.GaussianProcess):
    """x_t = (1 − t) x_0 + t^bend ε: at t = 1 nothing of the data is left."""

    bend: float = 1.0
    T = 1.0

    def level(self, t: float | Tensor) -> sf.Level:
        time = torch.as_tensor(t, dtype=torch.float64)
        return sf.Level(1 - time, time**self.bend)


class Network(nn.Module):
    def __init__(self, pixels: int, width: int = 256) -> None:
        super().__init__()
        self.config = {"pixels": pixels, "width": width}  # what makes it again
        layers = [nn.Linear(pixels + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, pixels))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = torch.cat([x.flatten(1), c[:, None] / 1000], dim=1)
        return x + self.layers(h).reshape(x.shape)


class Reconstruction(sf.objectives.Objective):
    """E_{t, ε} mean|x̂0 − x0|^power."""

    model: sf.Denoiser

    def __init__(self, model: sf.Denoiser, power: float = 2.0) -> None:
        super().__init__()
        self.model, self.power, self.times = model, power, sf.objectives.UniformTimes()

    def forward(
        self, x0: Tensor, y: Tensor | None, noise: sf.noise.Noise, **arrays: Tensor
    ) -> sf.objectives.Loss:
        t, _ = self.times.draw(self.model.process, len(x0), noise)
        x_t = self.model.process.sample(x0, t, noise.normal_like(x0))
        error = (self.model(x_t, t).x0 - x0).abs() ** self.power
        return sf.objectives.Loss(error.flatten(1).mean(dim=1), t, {})


def main(steps: int, run: Path = Path("runs/own")) -> Tensor:
    torch.manual_seed(0)
    data = sf.data.digits()
    spec = sf.DataSpec(data.spec.shape, bins=data.spec.bins)  # without classes: the network takes none
    model = sf.Denoiser(Network(64), Straight(bend=0.9), "v", noise_input="scaled", data=spec)
    resume = (run / "config.toml").exists()
    objective = Reconstruction(model)
    for step in sf.train(
        objective, data, run=run, resume=resume, steps=steps, lr=1e-3, ema=0.99, checkpoint_every=50
    ):
        print(step.step, step.loss)

    loaded = sf.load(run, kind=sf.Denoiser, allow=["own_process"])
    grid = sf.grids.uniform(loaded.process, 20)
    return sf.sample(loaded, sf.samplers.DDIM(), grid, n=10, noise=sf.NoiseSource(0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Train a run with a process, network and objective of your own."
    )
    parser.add_argument("--steps", type=int, default=1000)
    images = main(parser.parse_args().steps)
    print(f"sampled {tuple(images.shape)}, values {float(images.min()):.2f} to {float(images.max()):.2f}")
