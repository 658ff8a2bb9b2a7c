"""DDPM on one screen in plain PyTorch, then the same loss and the same samples from the library on the same noise.

python examples/ddpm_from_scratch.py --steps 2000
"""

import argparse

import torch
from torch import Tensor

import scorefield as sf

T = 200


def loss(net: sf.nets.MLP, alpha_bar: Tensor, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """L_simple = ‖ε − ε_θ(√ᾱ_t x_0 + √(1 − ᾱ_t) ε, t)‖², the mean over dimensions.  [DDPM Eq. 14]"""
    a = alpha_bar[t - 1, None]
    x_t = a.sqrt() * x0 + (1 - a).sqrt() * eps
    return (eps - net(x_t, t - 1)).square().mean(dim=1)


def sample(net: sf.nets.MLP, betas: Tensor, alpha_bar: Tensor, x_T: Tensor, z: Tensor) -> Tensor:
    """x_{t−1} = (x_t − β_t/√(1 − ᾱ_t) ε_θ)/√α_t + √β_t z, without noise in the last step.  [DDPM Algorithm 2]"""
    x = x_T
    for t in range(T, 0, -1):
        beta, a = betas[t - 1], alpha_bar[t - 1]
        eps = net(x, torch.full((len(x),), t - 1))
        x = (x - beta / (1 - a).sqrt() * eps) / (1 - beta).sqrt()
        if t > 1:
            x = x + beta.sqrt() * z[T - t]
    return x


def main(steps: int) -> None:
    torch.manual_seed(0)
    betas = torch.linspace(0.1 / T, 20 / T, T, dtype=torch.float64)
    alpha_bar = (1 - betas).cumprod(0)
    data = sf.data.toy("moons").everything().double()
    net = sf.nets.MLP(2).double()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for step in range(steps):
        x0 = data[torch.randint(len(data), (256,))]
        value = loss(net, alpha_bar, x0, torch.randint(1, T + 1, (256,)), torch.randn_like(x0)).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if (step + 1) % 500 == 0 or step + 1 == steps:
            print(f"step {step + 1}: loss {value.item():.4f}")

    model = sf.Denoiser(net, sf.process.from_betas(betas), "eps")
    x0, t, eps = data[:256], torch.randint(1, T + 1, (256,)), torch.randn(256, 2).double()
    x_T, z = torch.randn(256, 2).double(), torch.randn(T, 256, 2).double()
    with torch.no_grad():
        pred = model(model.process.sample(x0, t, eps), t)
        ours, its = loss(net, alpha_bar, x0, t, eps), (pred.eps - eps).square().mean(dim=1)
        sampler, grid = sf.samplers.Ancestral("upper"), sf.grids.full(model.process)
        samples = sample(net, betas, alpha_bar, x_T, z)
        again = sf.sample(model, sampler, grid, x_T=x_T, noise=sf.noise.Recorded(z))
    print(f"largest difference of the losses {float((ours - its).abs().max()):.1e}")
    print(f"largest difference of the samples {float((samples - again).abs().max()):.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="DDPM in plain PyTorch, compared with the library.")
    parser.add_argument("--steps", type=int, default=2000)
    main(parser.parse_args().steps)
