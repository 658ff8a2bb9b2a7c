"""Two-dimensional toys: the documented densities, and that a seed names the points."""

from __future__ import annotations

import math

import pytest
import torch
from support import loaded
from torch import Tensor

from scorefield.data import open_source, toy
from scorefield.runtime.errors import InputError
from scorefield.runtime.registry import TOYS

N = 20_000


def points(name: str) -> Tensor:
    return loaded(toy(name, N)).double()


@pytest.mark.parametrize("name", TOYS)
def test_a_seed_names_the_points(name: str) -> None:
    data = toy(name, 1000, seed=3)
    assert data.spec.shape == (2,)
    assert data.spec.bins is None
    assert data.labels is None
    assert data.source == f"toy:{name}"
    assert torch.equal(loaded(data), loaded(toy(name, 1000, seed=3)))
    assert torch.equal(loaded(toy(name, 10, seed=3)), loaded(data)[:10])
    assert not torch.equal(loaded(data), loaded(toy(name, 1000, seed=4)))


def test_mixture_is_the_two_mode_density_of_ncsn() -> None:
    x = points("mixture")
    right = x.sum(1) > 0
    weight = right.double().mean()
    assert abs(weight - 0.8) < 4 * math.sqrt(0.16 / N)
    for mode, mean in ((x[right], 5.0), (x[~right], -5.0)):
        assert ((mode.mean(0) - mean).abs() < 4 / math.sqrt(len(mode))).all()
        assert ((mode.var(0) - 1).abs() < 4 * math.sqrt(2 / len(mode))).all()


def test_checkerboard_is_uniform_on_its_squares() -> None:
    x = points("checkerboard")
    assert x.min() >= -2
    assert x.max() <= 2
    square = x.floor()
    assert (square.sum(1) % 2 == 0).all()
    counts = torch.bincount((4 * (square[:, 0] + 2) + square[:, 1] + 2).long(), minlength=16)
    assert (counts > 0).sum() == 8
    assert ((counts[counts > 0] - N / 8).abs() < 4 * math.sqrt(N * 7 / 64)).all()
    within = x - square
    assert ((within.mean(0) - 0.5).abs() < 4 * math.sqrt(1 / 12 / N)).all()
    assert ((within.var(0) - 1 / 12).abs() < 4 * math.sqrt(1 / 180 / N)).all()


def curve(name: str, u: Tensor) -> Tensor:
    """The documented curve at u, one arm of it, (len(u), 2)."""
    if name == "moons":
        return torch.stack([torch.cos(math.pi * u) - 0.5, torch.sin(math.pi * u) - 0.25], dim=1)
    if name == "spiral":
        radius, angle = 2 * u.sqrt(), 3 * math.pi * u.sqrt()
    else:
        angle = 1.5 * math.pi * (1 + 2 * u)
        radius = 4 * angle / (9 * math.pi)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


@pytest.mark.parametrize("name", ["moons", "spiral", "swiss-roll"])
def test_curves_have_normal_noise_around_them(name: str) -> None:
    """The distance to the curve has the deviation 0.05 of the noise, and u is uniform on every arm."""
    u = torch.linspace(0, 1, 4001, dtype=torch.float64)
    arms = [curve(name, u)] + ([] if name == "swiss-roll" else [-curve(name, u)])
    distance, nearest = torch.cdist(points(name)[:5000], torch.cat(arms)).min(dim=1)
    assert distance.max() < 0.05 * 5
    inside = (nearest % 4001 > 400) & (nearest % 4001 < 3600)  # the ends see noise along the curve too
    assert abs(distance[inside].square().mean().sqrt() / 0.05 - 1) < 0.04
    for k in range(len(arms)):
        arm = nearest // 4001 == k
        assert abs(arm.double().mean() - 1 / len(arms)) < 4 * math.sqrt(0.25 / 5000)
        assert abs(u[nearest[arm] % 4001].mean() - 0.5) < 4 * math.sqrt(1 / 12 / int(arm.sum()))


def test_toys_are_a_source_of_data() -> None:
    data = open_source("toy:moons")
    assert torch.equal(loaded(data), loaded(toy("moons")))
    assert len(data) == 10_000  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"got 'moon', did you mean 'moons'"):
        open_source("toy:moon")
    with pytest.raises(InputError, match="not images"):
        open_source("toy:moons", size=8)
    with pytest.raises(InputError, match="toy:NAME"):
        open_source("no-such-thing")
    with pytest.raises(InputError, match="positive integer"):
        toy("moons", 0)
