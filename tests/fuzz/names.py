"""What the code of a case may name: small models of every kind, processes, data, a run; and `use`.

`use(x)` puts an object to work, so that what its constructor accepted is tried out.
"""

import itertools
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from fuzz.world import FORGED

import scorefield as sf

__all__ = ["namespace", "use"]

nan, inf = math.nan, math.inf


class Net(torch.nn.Module):
    """A network of any shape that takes labels and whatever else comes."""

    def __init__(self, factor=0.5):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(float(factor)))

    def forward(self, x, c=None, y=None, **arrays):
        return self.weight * x


class NoTriple(sf.Sampler):
    """A user's sampler whose step returns what no sampler returns."""

    def step(self, model, x_t, t, s, state, noise):
        return x_t


class LikeUser:
    """A denoiser of a user's own: a process and a call, no score."""

    def __init__(self, process):
        self.process = process

    def __call__(self, x_t, t):
        return sf.Prediction(x_t, self.process.level(t), x_t, x_t)


def namespace() -> dict[str, object]:
    """Made once, before any case; cases run in forks and cannot change it."""
    torch.manual_seed(0)
    P = sf.process.cosine(20)
    V = sf.process.geometric(5.0, 0.05, 10)
    C = sf.process.vp()
    K = sf.process.uniform_categories(3, T=10)
    spec = sf.DataSpec((2,), (-3.0, 3.0))
    grey = sf.DataSpec((1, 8, 8), (-1.0, 1.0), ("a", "b", "c"), 17)
    mix = sf.oracle.GaussianMixture(
        torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.eye(2).expand(2, 2, 2) * 0.1
    )
    D = sf.Denoiser(sf.nets.MLP(2, hidden=8, layers=1), P, data=spec)
    DV = sf.Denoiser(sf.nets.MLP(2, hidden=8, layers=1), V, "score", data=spec)
    unet = sf.nets.UNet(
        1,
        out_channels=1,
        channels=32,
        channel_mult=(1,),
        blocks=1,
        attention=(),
        num_classes=3,
        null_label=True,
    )
    DI = sf.Denoiser(unet, P, "v", data=grey)
    net = sf.nets.Classifier(
        1, 3, image_size=8, channels=32, channel_mult=(1,), blocks=1, attention=(), head_channels=32
    )
    return {
        "sf": sf,
        "torch": torch,
        "np": np,
        "math": math,
        "nan": nan,
        "inf": inf,
        "Path": Path,
        "P": P,
        "V": V,
        "C": C,
        "K": K,
        "spec": spec,
        "grey": grey,
        "mix": mix,
        "O": sf.oracle.MixtureDenoiser(mix, P),
        "D": D,
        "DV": DV,
        "DI": DI,
        "D64": sf.Denoiser(sf.nets.MLP(2, hidden=8, layers=1).double(), P, data=spec),
        "DN": sf.Denoiser(Net(nan), P, data=spec),
        "DU": LikeUser(P),
        "S": sf.ScoreModel(sf.nets.MLP(2, hidden=8, layers=1, noise_levels=False), data=spec),
        "clf": sf.NoisyClassifier(net, P, data=grey),
        "Net": Net,
        "NoTriple": NoTriple,
        "moons": sf.data.toy("moons", 64),
        "digits": sf.data.digits(),
        "Run": sf.Run,
        "FORGED": FORGED,
        "source": sf.NoiseSource,
        "use": use,
        "take": take,
        "randn": lambda *shape: torch.randn(*shape, generator=torch.Generator().manual_seed(0)),
        "rand": lambda *shape: torch.rand(*shape, generator=torch.Generator().manual_seed(0)),
    }


def take(iterator: Iterator, count: int = 3) -> list:
    """The first things of an iterator."""
    return list(itertools.islice(iterator, count))


def use(made: object) -> object:
    """What comes of an object when it does its work once; what has no work to do is returned."""
    noise = sf.NoiseSource(0)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    if isinstance(made, sf.Sampler):
        spec = sf.DataSpec((2,), (-3.0, 3.0))
        torch.manual_seed(0)
        model = sf.Denoiser(Net(), sf.process.cosine(20), data=spec)
        with suppress(sf.IncompatibleModel):  # a sampler of one bare score, or of categories
            return sf.sample(model, made, sf.grids.uniform(model.process, 4), n=2, noise=noise)
        score = sf.ScoreModel(Net(-1.0), data=spec)
        with suppress(sf.IncompatibleModel):
            return sf.sample(score, made, sf.grids.steps(4), n=2, noise=noise)
        return made
    if isinstance(made, sf.GaussianProcess):
        times = [made.t_min, *([1, 2, made.T] if made.is_discrete else [0.5, 1.0])]
        levels = [made.level(t) for t in times]
        return [*levels, made.prior((2, 2), noise), made.sample(x, times[0], x)]
    if isinstance(made, sf.Objective):
        return made(x, None, noise)
    if isinstance(made, sf.NoiseSource):
        return made.normal((2, 3))
    if isinstance(made, sf.Denoiser):
        shape = made.data.shape if made.data is not None else (2,)
        return made(torch.zeros(2, *shape), 3)
    if isinstance(made, sf.Dataset):
        return made.batch(torch.arange(min(2, made.examples)))[0]
    if isinstance(made, sf.nets.MLP):
        return made(x, torch.ones(4))
    if isinstance(made, sf.training.Trainer):
        return take(iter(made))
    return take(made) if isinstance(made, Iterator) else made
