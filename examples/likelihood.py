"""Bits per dimension of held-out digits, by the variational bound and by the ODE: python examples/likelihood.py

The bound comes with its terms: the prior's, one for each step, and the decoder's.
"""

import argparse

import torch

import scorefield as sf

T = 100


def main(steps: int, images: int) -> None:
    torch.manual_seed(0)
    train, heldout = sf.data.digits().split(0.2, seed=0)
    net = sf.nets.UNet(1, out_channels=2, channels=32, channel_mult=(1, 2), attention=(2,), num_classes=10)
    # The second channel of the network's output chooses Σ between the bounds of DDPM (Improved DDPM).
    model = sf.Denoiser(net, sf.process.cosine(T), variance="range", data=train.spec)
    trainer = sf.train(sf.objectives.Hybrid(model), train, steps=steps, lr=2e-3, warmup=50, ema=0.99)
    for step in trainer:
        loss = step.loss
    print(f"loss {loss:.3f} after {steps} steps")

    x0, y = heldout.batch(torch.arange(images))
    given = trainer.ema_model().given(y)
    bound = sf.likelihood.bits_per_dim(sf.guidance.ClipX0(given), x0, sf.NoiseSource(0))
    print(f"bound   {float(bound.total.mean()):.3f} bits/dim")
    print(f"prior   {float(bound.prior.mean()):.5f}")
    print(f"decoder {float(bound.terms[:, 0].mean()):.3f}")
    for first in range(1, T, 25):
        share = bound.terms[:, first : first + 25].sum(dim=1).mean()
        print(f"steps from t = {first + 1} to {min(first + 25, T)}: {float(share):.3f}")
    ode = sf.likelihood.ode_bits_per_dim(given, x0, sf.NoiseSource(0), rtol=1e-3, atol=1e-3)
    print(f"ODE     {float(ode.bits.mean()):.3f} bits/dim by {ode.calls} network calls")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Likelihoods of held-out digits.")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--images", type=int, default=64, help="held-out digits to measure")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.images)
