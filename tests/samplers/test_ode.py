"""Euler and Heun: their order on a mixture, their calls, and the way up."""

import itertools
import math
from typing import Any

import pytest
import torch
from support import relative_error

import scorefield as sf
from scorefield.core.noise import NoiseSource
from scorefield.samplers import DDIM, Euler, Heun

EYE = torch.eye(2, dtype=torch.float64)
COV = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
MIXTURE = sf.oracle.GaussianMixture(
    [[-1.0, 0.5], [1.5, 1.0], [0.3, -1.5]], torch.stack([0.1 * EYE, COV / 2, 0.05 * EYE]), [0.5, 0.2, 0.3]
)
PROCESSES: dict[str, Any] = {
    "linear": sf.process.from_betas(sf.process.linear_betas(1000)),
    "cosine": sf.process.from_betas(sf.process.cosine_betas(100)),
    "ve": sf.process.from_sigmas(sf.process.geometric_sigmas(20.0, 0.01, 60)),
}
SOLVERS: dict[str, Any] = {"euler": Euler(), "heun": Heun()}


@pytest.mark.parametrize("process", PROCESSES)
def test_euler_is_ddim_without_noise(process):
    # [DDIM Eq. 14]
    process = PROCESSES[process]
    model, x = MIXTURE.denoiser(process), NoiseSource(3).normal((16, 2)).double()
    for grid in (sf.grids.uniform(process, 7), sf.grids.quadratic(process, 13)):
        for way in (grid, grid.flip(0)):
            euler, ddim = (sf.sample(model, sampler, way, x_T=x) for sampler in (Euler(), DDIM()))
            assert relative_error(euler, ddim) < 1e-12


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(name, order):
    """Error against a far finer solution of the same flow, from exact samples at σ/α = 50, on steps even in
    ln(σ/α).
    """
    T = 2**16
    process = sf.process.from_sigmas(sf.process.geometric_sigmas(50.0, 0.01, T))
    model = MIXTURE.denoiser(process)
    x_T = MIXTURE.at(process.level(T)).sample(64, NoiseSource(0))

    def solve(sampler, n):
        grid = [T - round((T - T // 4) * i / n) for i in range(n + 1)]
        return sf.sample(model, sampler, grid, x_T=x_T)

    reference = solve(Heun(), 1920)
    errors = [(solve(SOLVERS[name], n) - reference).abs().mean().log2().item() for n in (60, 120, 240, 480)]
    slopes = [a - b for a, b in itertools.pairwise(errors)]
    print(name, "slopes", slopes)
    assert all(abs(slope - order) < 0.15 for slope in slopes), slopes


@pytest.mark.parametrize("name", SOLVERS)
def test_encoding_comes_back(name):
    process, x0 = PROCESSES["cosine"], MIXTURE.sample(256, NoiseSource(2))
    model, errors = MIXTURE.denoiser(process), []
    for n in (10, 25, 50, 100):
        grid = sf.grids.uniform(process, n)
        latent = sf.sample(model, SOLVERS[name], grid.flip(0), x_T=x0)
        errors.append(((sf.sample(model, SOLVERS[name], grid, x_T=latent) - x0) ** 2).mean().item())
    print(name, errors)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 10


def test_heun_is_better_for_the_same_calls():
    process = PROCESSES["linear"]
    model = MIXTURE.denoiser(process)
    x_T = MIXTURE.at(process.level(process.T)).sample(128, NoiseSource(1))
    reference = sf.sample(model, Heun(), sf.grids.full(process), x_T=x_T)
    euler, heun = (
        sf.sample(model, solver, sf.grids.quadratic(process, n), x_T=x_T)
        for solver, n in ((Euler(), 39), (Heun(), 20))
    )
    assert (
        Heun().calls(sf.grids.quadratic(process, 20).tolist())
        == Euler().calls(sf.grids.quadratic(process, 39).tolist())
        == 39
    )
    assert (heun - reference).abs().mean() < (euler - reference).abs().mean() / 2


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("process", PROCESSES)
def test_calls_are_a_bound_and_never_at_zero(name, process):
    process, made = PROCESSES[process], []

    def net(x, c, y=None):
        made.append(float(c[0]))
        return torch.zeros_like(x)

    model = sf.Denoiser(net, process)
    down = sf.grids.uniform(process, 20)
    for grid in (down, down[:-1], down.flip(0), down.flip(0)[1:], [process.T, 0]):
        times = [float(t) for t in grid]
        made.clear()
        sf.sample(model, SOLVERS[name], grid, x_T=torch.zeros(2, 3))
        ratios = [process.level(t).sigma / process.level(t).alpha for t in times]
        long = sum(
            max(a, b) > 80 and 0 not in (t, s)
            for a, b, t, s in zip(ratios, ratios[1:], times, times[1:], strict=False)
        )
        assert len(made) == SOLVERS[name].calls(times) - (long if name == "heun" else 0)
        assert len(made) == SOLVERS[name].calls_on(process, times)
        assert min(made) >= 0  # t − 1
    if name == "heun":
        assert Heun().calls(down.tolist()) == 39
        assert Heun().calls(down[:-1].tolist()) == 38


def test_churn_acts_at_the_ends_of_its_window():
    """S_tmin ≤ r ≤ S_tmax: a window of one value is that value.  [Karras et al. 2022, Alg. 2]"""
    process = sf.process.edm()
    model = sf.oracle.GaussianMixture([[0.0]], [[[1.0]]]).denoiser(process)
    times = [0.9, 0.5, 0.2]
    r = float(process.level(times[1]).ratio)
    x = torch.ones(1, 1, dtype=torch.float64)
    for low, high, draws in ((r, r, 1), (r, 1e3, 2), (0.0, r, 1), (0.0, r * (1 - 1e-9), 0)):
        tape = sf.noise.Recorded([torch.ones(1, 1)] * draws)
        sf.sample(model, sf.samplers.Heun(1.0, low, high), times, x_T=x, noise=tape)
        with pytest.raises(sf.InputError, match="is used up"):
            tape.normal((1, 1))


@pytest.mark.parametrize("limit", [0.05, 0.5, 3.0, math.inf])
def test_heun_averages_up_to_its_largest_ratio(limit):
    """Each step by hand in y = x, r = σ of an exploding process: Euler above the limit, Heun's average below."""
    process = sf.process.ve(0.01, 100.0)
    model = sf.oracle.GaussianMixture([[-1.0], [0.5]], [[[0.1]], [[0.3]]], [0.4, 0.6]).denoiser(process)
    times = [1.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.0]
    x = torch.tensor([[30.0], [-70.0]], dtype=torch.float64)
    sampler, calls = Heun(largest_ratio=limit), 0
    for step in sf.trajectory(model, sampler, times, x):
        r, r_s = float(process.level(step.t).sigma), float(process.level(step.s).sigma)
        slope = model(x, step.t).eps
        expected, calls = x + (r_s - r) * slope, calls + 1
        if r <= limit and step.s > 0:
            expected, calls = x + (r_s - r) * (slope + model(expected, step.s).eps) / 2, calls + 1
        assert (step.x - expected).abs().max() < 1e-11
        x = step.x
    assert sampler.calls_on(process, times) == calls
