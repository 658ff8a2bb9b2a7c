"""Train a denoiser in your own loop with Accelerate: accelerate launch examples/accelerate_loop.py

The objective is prepared like any module, so Accelerate places it on the device and averages its gradients
over the processes.
"""

import argparse
from collections.abc import Iterator
from itertools import islice

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

import scorefield as sf


def main(steps: int) -> Tensor:
    accelerator = Accelerator()
    set_seed(0)
    data = sf.data.digits()
    process = sf.process.cosine(1000)
    net = sf.nets.UNet(1, channels=32, channel_mult=(1, 2), attention=(2,), num_classes=10)
    objective = sf.objectives.Simple(sf.Denoiser(net, process, "v", data=data.spec), weighting="v")
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3)
    examples = TensorDataset(*data.batch(torch.arange(len(data))))  # x0 (N, 1, 8, 8) in [-1, 1], y (N,)
    loader = DataLoader(examples, batch_size=64, shuffle=True, drop_last=True)
    prepared, optimizer, loader = accelerator.prepare(objective, optimizer, loader)
    average = AveragedModel(objective.model, multi_avg_fn=get_ema_multi_avg_fn(0.99))

    for step, (x0, y) in enumerate(islice(endless(loader), steps)):
        # Row i of process r is example r·B + i of the step, so that no two processes draw the same noise.
        first = accelerator.process_index * len(x0)
        noise = sf.NoiseSource(seed=0, samples=range(first, first + len(x0)), step=step)
        loss = prepared(x0, y, noise).per_example.mean()
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(prepared.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(objective.model)
        accelerator.print(step + 1, loss.item())

    averaged = average.module.eval().given(range(10))
    grid = sf.grids.uniform(process, 20)
    return sf.sample(averaged, sf.samplers.DDIM(), grid, n=10, noise=sf.NoiseSource(0))


def endless(loader: DataLoader[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    while True:
        yield from loader


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a denoiser of the digits in an Accelerate loop.")
    parser.add_argument("--steps", type=int, default=500)
    images = main(parser.parse_args().steps)
    print(f"sampled {tuple(images.shape)}, values {float(images.min()):.2f} to {float(images.max()):.2f}")
