"""Train a network of your own, save it as a run, load it and sample: python examples/own_network.py --steps 1000

A network is any module F(x, c, y): x is the noisy image, c the noise level (B,), y the labels (B,). With a `config`,
which holds the arguments that make it again, a run can be loaded. The run names this file, so code of it is imported
only where you allow it: sf.load("runs/own-network", allow=["own_network"]).
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

import scorefield as sf


class ConvNet(nn.Module):
    """Residual 3 × 3 convolutions at one resolution; noise level and label shift the features of each."""

    def __init__(self, channels: int = 1, width: int = 64, blocks: int = 4, num_classes: int = 10) -> None:
        super().__init__()
        self.config = {"channels": channels, "width": width, "blocks": blocks, "num_classes": num_classes}
        self.level = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(num_classes, width)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(blocks)
        )
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, c: Tensor, y: Tensor) -> Tensor:
        angles = c[:, None] * torch.logspace(0, -4, 32, device=c.device)  # sinusoids from fast to slow
        shift = self.level(torch.cat([angles.sin(), angles.cos()], dim=1)) + self.label(y)
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h + shift[:, :, None, None])
        return self.last(h)


def main(steps: int, run: Path = Path("runs/own-network")) -> Tensor:
    torch.manual_seed(0)
    data = sf.data.digits()
    model = sf.Denoiser(ConvNet(), sf.process.cosine(1000), "v", data=data.spec)
    objective = sf.objectives.Simple(model, weighting="v")
    for step in sf.train(objective, data, run=run, steps=steps, lr=1e-3, ema=0.99):
        print(step.step, step.loss)

    loaded = sf.load(run, kind=sf.Denoiser, allow=["own_network"])
    grid = sf.grids.uniform(loaded.process, 20)
    return sf.sample(loaded.given(range(10)), sf.samplers.DDIM(), grid, n=10, noise=sf.NoiseSource(0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train, save and load a network of your own.")
    parser.add_argument("--steps", type=int, default=1000)
    images = main(parser.parse_args().steps)
    print(f"sampled {tuple(images.shape)}, values {float(images.min()):.2f} to {float(images.max()):.2f}")
