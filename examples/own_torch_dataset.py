"""Train on a data set of your own: python examples/own_torch_dataset.py --steps 500 --run runs/shapes

Any map-style `torch.utils.data.Dataset` is read item by item, in a seeded order that a resumed run continues.
Here each item is drawn when it is asked for; yours may read a file, or be one of torchvision's.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

import scorefield as sf

SIDE = 16


class Shapes(Dataset[tuple[Tensor, int]]):
    """Grey images (1, SIDE, SIDE) of a disc (0) or a square (1), the same whenever they are read."""

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(index)
        row, column, radius = (torch.rand(3, generator=generator) * torch.tensor([8, 8, 2]) + 3).tolist()
        rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        down, right = (rows - row).abs(), (columns - column).abs()
        inside = down**2 + right**2 < radius**2 if index % 2 == 0 else torch.maximum(down, right) < radius
        return (255 * inside).to(torch.uint8)[None], index % 2


def main(steps: int, run: Path | None = None, resume: bool = False) -> Tensor:
    torch.manual_seed(0)
    data = sf.data.torch_dataset(Shapes(), classes=["disc", "square"])
    process = sf.process.cosine(1000)
    net = sf.nets.UNet(1, channels=32, channel_mult=(1, 2), attention=(), num_classes=2)
    objective = sf.objectives.Simple(sf.Denoiser(net, process, "v", data=data.spec), weighting="v")
    trainer = sf.train(objective, data, steps=steps, batch_size=64, lr=1e-3, ema=0.99, run=run, resume=resume)
    for step in trainer:
        print(step.step, step.loss)
    grid = sf.grids.uniform(process, 20)
    model = trainer.ema_model().given([0, 1] * 5)
    return sf.sample(model, sf.samplers.DDIM(), grid, n=10, noise=sf.NoiseSource(0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train on a torch.utils.data.Dataset of your own.")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    images = main(options.steps, options.run, options.resume)
    print(f"sampled {tuple(images.shape)}, values {float(images.min()):.2f} to {float(images.max()):.2f}")
