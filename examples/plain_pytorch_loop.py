"""Train a denoiser in your own loop with plain PyTorch: python examples/plain_pytorch_loop.py --steps 500

An objective is an `nn.Module` that turns a batch into one loss per example; the optimizer, the average of the
weights and the order of the data are yours here. `sf.train` adds exact resume, checkpoints and several
processes.
"""

import argparse
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

import scorefield as sf


def main(steps: int) -> Tensor:
    torch.manual_seed(0)
    data = sf.data.digits()
    process = sf.process.cosine(1000)
    net = sf.nets.UNet(1, channels=32, channel_mult=(1, 2), attention=(2,), num_classes=10)
    model = sf.Denoiser(net, process, "v", data=data.spec)
    objective = sf.objectives.Simple(model, weighting="v")
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3)
    examples = TensorDataset(*data.batch(torch.arange(len(data))))  # x0 (N, 1, 8, 8) in [-1, 1], y (N,)
    loader = DataLoader(examples, batch_size=64, shuffle=True, drop_last=True)

    for step, (x0, y) in enumerate(islice(endless(loader), steps)):
        noise = sf.NoiseSource(seed=0, step=step)  # the draws of this step; torch's generator is not used
        loss = objective(x0, y, noise).per_example.mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(model)
        print(step + 1, loss.item())

    averaged = average.module.eval().given(range(10))
    grid = sf.grids.uniform(process, 20)
    return sf.sample(averaged, sf.samplers.DDIM(), grid, n=10, noise=sf.NoiseSource(0))


def endless(loader: DataLoader[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    while True:
        yield from loader


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a denoiser of the digits in a plain PyTorch loop.")
    parser.add_argument("--steps", type=int, default=500)
    images = main(parser.parse_args().steps)
    print(f"sampled {tuple(images.shape)}, values {float(images.min()):.2f} to {float(images.max()):.2f}")
