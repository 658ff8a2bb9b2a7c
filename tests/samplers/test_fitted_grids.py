"""Grids fitted to a model: the parts against brute force, and that the whole is never farther than uniform."""

from itertools import combinations, pairwise

import pytest
import torch

import scorefield as sf
from scorefield.core.noise import NoiseSource
from scorefield.samplers import fitting

F64 = torch.float64
EYE = torch.eye(2, dtype=F64)
MIXTURE = sf.oracle.GaussianMixture(
    [[-1.0, 0.5], [1.5, 1.0], [0.3, -1.5]], torch.stack([0.1 * EYE, 0.2 * EYE, 0.05 * EYE]), [0.5, 0.2, 0.3]
)
PROCESSES = {"table": sf.process.cosine(200), "flow": sf.process.flow(), "ve": sf.process.ve(0.01, 50.0)}


def start(process, seed=0, n=32):
    return process.prior_std * NoiseSource(seed).normal((n, 2)).double()


def test_the_shortest_way_is_that_of_brute_force():
    cost = torch.rand(9, 9, generator=torch.Generator().manual_seed(0), dtype=F64)
    cost[torch.ones(9, 9).tril().bool()] = torch.inf
    for n in (1, 2, 5, 8):
        ways = [(0, *inner, 8) for inner in combinations(range(1, 8), n - 1)]
        best = min(ways, key=lambda way: sum(float(cost[a, b]) for a, b in pairwise(way)))
        assert fitting._shortest(cost, n) == list(best)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_cost_of_a_step_is_how_far_ddim_misses_the_path(name):
    process = PROCESSES[name]
    model, x = MIXTURE.denoiser(process), start(process, n=5)
    times = fitting._candidates(process, 3, 10)
    path, x0s = fitting._reference(model, times, x)
    squares, relative, root, _ = fitting._step_errors(process, times, path, x0s)
    assert len(path) == len(times) == len(x0s) + 1
    for i, j in ((0, 1), (0, len(times) - 1), (3, 6)):
        step = sf.sample(model, sf.samplers.DDIM(), [times[i], times[j]], x_T=path[i])
        missed = (step - path[j]).square().mean()
        torch.testing.assert_close(squares[i, j], missed, rtol=1e-9, atol=0)
        torch.testing.assert_close(root[i, j], missed.sqrt(), rtol=1e-9, atol=0)
        spread = (path[j] - path[j].mean(0)).square().mean()
        torch.testing.assert_close(relative[i, j], missed / spread, rtol=1e-9, atol=0)
    assert squares.tril().isinf().sum() == len(times) * (len(times) + 1) / 2


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("sampler", [sf.samplers.DDIM(), sf.samplers.UniPC(), sf.samplers.Heun()], ids=str)
def test_it_is_never_farther_than_uniform_on_its_reference_samples(name, sampler):
    process = PROCESSES[name]
    model, x = MIXTURE.denoiser(process), start(process)
    fine = fitting._candidates(process, 6, 60)
    end = fitting._reference(model, fine, x)[0][-1]
    for n in (4, 10):
        grid = sf.grids.fitted(model, n, x, sampler=sampler)
        assert len(grid) == n + 1
        assert (grid[0], grid[-1]) == (process.T, 0)
        assert bool((grid.diff() < 0).all())
        assert grid.is_floating_point() != process.is_discrete
        mine, other = (
            (sf.sample(model, sampler, times, x_T=x) - end).norm(dim=1).mean()
            for times in (grid, sf.grids.uniform(process, n))
        )
        assert mine <= other


def test_it_is_nearer_than_uniform_from_other_noise():
    process = PROCESSES["table"]
    model, sampler, x = MIXTURE.denoiser(process), sf.samplers.UniPC(), start(process, seed=5)
    end = sf.sample(model, sampler, sf.grids.full(process), x_T=x)
    grid = sf.grids.fitted(model, 12, start(process), sampler=sampler)
    mine, other = (
        (sf.sample(model, sampler, times, x_T=x) - end).norm(dim=1).mean()
        for times in (grid, sf.grids.uniform(process, 12))
    )
    assert mine < other / 1.5


def test_calls_are_no_more_than_were_said():
    process = PROCESSES["table"]
    made = []

    def net(x, c, y=None):
        made.append(1)
        return torch.zeros_like(x)

    model = sf.Denoiser(net, process, "x0", data=sf.DataSpec((2,)))
    grid = sf.grids.fitted(model, 7)
    assert 60 < len(made) <= fitting.fitting_calls(process, 7)
    assert torch.equal(grid, sf.grids.fitted(model, 7, sf.noise.NoiseSource(0)))
    assert torch.equal(sf.grids.fitted(model, 200), sf.grids.full(process))


@pytest.mark.parametrize(
    "sampler",
    [sf.samplers.Ancestral(), sf.samplers.DDIM(0.5), sf.samplers.DPMSolver2M(stochastic=True)],
    ids=str,
)
def test_samplers_that_add_noise_are_refused(sampler):
    with pytest.raises(sf.IncompatibleModel, match="a sampler that adds noise does not follow the flow"):
        sf.grids.fitted(MIXTURE.denoiser(PROCESSES["table"]), 5, start(PROCESSES["table"]), sampler=sampler)


def test_what_has_no_flow_is_refused():
    with pytest.raises(sf.IncompatibleModel, match="a fitted grid needs a model with noise levels"):
        sf.grids.fitted(sf.ScoreModel(lambda x, c: -x, data=sf.DataSpec((2,))), 5)
    with pytest.raises(sf.InputError, match="number of steps"):
        sf.grids.fitted(MIXTURE.denoiser(PROCESSES["table"]), 201, start(PROCESSES["table"]))
    with pytest.raises(sf.InputError, match="candidates"):
        sf.grids.fitted(MIXTURE.denoiser(PROCESSES["table"]), 5, start(PROCESSES["table"]), candidates=1)
