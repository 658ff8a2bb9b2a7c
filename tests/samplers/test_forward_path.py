"""Forward paths: the covariance of x_1, …, x_T given x_0, entry by entry, against the papers' definitions."""

import math

import numpy as np
import pytest
import torch
from categories import KINDS, step_matrices

import scorefield as sf

F64 = torch.float64
PROCESSES = {
    "linear": (sf.process.linear(20, 0.1 / 20, 20 / 20 * 0.5), [0, 1, 2, 5, 11, 20]),
    "geometric": (sf.process.geometric(8.0, 0.1, 12), [0, 1, 3, 4, 9, 12]),
    "vp": (sf.process.vp(), [0.0, 0.01, 0.2, 0.21, 0.7, 1.0]),
    "flow": (sf.process.flow(), [0.0, 0.01, 0.2, 0.21, 0.7, 1.0]),
}
ETAS = [None, 0.0, 0.3, 0.8, 1.0]


def path(process, grid, eta):
    """(mean (K,) at x_0 = 0.7, covariance (K, K)): what x is in the draws z_1, …, z_K, by giving unit vectors for them."""
    K = len(grid) - 1
    zeros = [torch.zeros(1, 1, dtype=F64)] * K
    still = sf.forward(process, torch.full((1, 1), 0.7, dtype=F64), grid, sf.noise.Recorded(zeros), eta)
    mean = torch.cat([step.x for step in still])[:, 0]
    units = [row[:, None] for row in torch.eye(K, dtype=F64)]
    moved = sf.forward(process, torch.zeros(K, 1, dtype=F64), grid, sf.noise.Recorded(units), eta)
    factors = torch.cat([step.x for step in moved], dim=1).T  # x_k = Σ_i factors[k, i] z_i
    return mean.numpy(), (factors @ factors.T).numpy()


def drawn_downwards(process, grid, eta):
    """The covariance of x_T ~ q(x_T | x_0), then q(x_s | x_t, x_0), as the paper writes it.  [DDIM Eq. 6–7, 16]"""
    levels = [process.level(t) for t in grid[1:]]
    alpha, sigma = ([float(pair[k]) for pair in levels] for k in (0, 1))
    K = len(levels)
    rows = np.zeros((K, K))
    rows[K - 1, K - 1] = sigma[K - 1]
    for s in reversed(range(K - 1)):
        t = s + 1
        var_ts = sigma[t] ** 2 - (alpha[t] / alpha[s]) ** 2 * sigma[s] ** 2
        varsigma = eta * sigma[s] / sigma[t] * math.sqrt(var_ts)
        rows[s] = math.sqrt(sigma[s] ** 2 - varsigma**2) * rows[t] / sigma[t]
        rows[s, s] = varsigma
    return rows @ rows.T


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("eta", ETAS)
def test_joint_distribution_of_a_path(name, eta):
    """q(x_{1:T} | x_0) upwards is the joint distribution that the papers draw in their own order.  [DDIM Eq. 6–8]"""
    process, grid = PROCESSES[name]
    mean, covariance = path(process, grid, eta)
    alphas = np.array([float(process.level(t).alpha) for t in grid[1:]])
    assert np.abs(mean - 0.7 * alphas).max() < 1e-13
    expected = drawn_downwards(process, grid, 1.0 if eta is None else eta)
    assert np.abs(covariance / expected[-1, -1] - expected / expected[-1, -1]).max() < 1e-12


@pytest.mark.parametrize("name", ["linear", "geometric"])
def test_markov_chain_is_a_product_of_single_steps(name):
    """x_t = √(1 − β_t) x_{t−1} + √β_t z with β from the schedule itself: Cov(x_t, x_s).  [DDPM Eq. 2]"""
    process, T = PROCESSES[name][0], {"linear": 20, "geometric": 12}[name]
    if name == "linear":
        beta = sf.process.linear_betas(20, 0.1 / 20, 20 / 20 * 0.5).numpy()
        factor, var = np.sqrt(1 - beta), beta
    else:
        sigma = np.concatenate([[0], sf.process.geometric_sigmas(8.0, 0.1, 12).numpy()])
        factor, var = np.ones(T), np.diff(sigma**2)
    rows = np.zeros((T, T))
    for t in range(T):
        rows[t] = factor[t] * rows[t - 1] if t else 0
        rows[t, t] = math.sqrt(var[t])
    _, covariance = path(process, list(range(T + 1)), None)
    assert np.abs(covariance - rows @ rows.T).max() < 1e-11


def test_at_eta_0_one_noise_serves_at_every_time():
    process, x0 = (
        sf.process.cosine(30),
        torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(0)),
    )
    found = [
        (step.x - process.level(step.s).alpha * x0) / process.level(step.s).sigma
        for step in sf.forward(process, x0, sf.grids.full(process).flip(0), sf.NoiseSource(3), eta=0.0)
    ]
    assert len(found) == 30
    assert (torch.stack(found) - found[0]).abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_chain_of_categories(kind):
    """Frequencies of (x_1, x_3) are those of the transition matrices, within five standard errors.  [D3PM Eq. 2]"""
    kappas, K, n = [0.8, 0.5, 0.2, 0.0], 3, 40_000
    process, matrices = KINDS[kind](kappas, K), step_matrices(kind, K, kappas)
    x0 = torch.ones(n, 1, dtype=torch.int64)
    first, second = sf.forward(process, x0, [0, 1, 3], sf.NoiseSource(0))
    counts = np.zeros((process.states, process.states))
    np.add.at(counts, (first.x[:, 0].numpy(), second.x[:, 0].numpy()), 1)
    expected = matrices[0][1][:, None] * (matrices[1] @ matrices[2])
    assert np.abs(counts / n - expected).max() < 5 * math.sqrt(0.25 / n)
    assert ((first.t, first.s), (second.t, second.s)) == ((0, 1), (1, 3))


def test_forward_refuses_what_is_no_path():
    process, x0 = sf.process.linear(10), torch.zeros(2, 1)
    for grid in ([10, 5, 0], [1, 2, 3], [0, 3, 3], [0]):
        with pytest.raises(sf.InputError, match=r"ascends from 0|at least two times"):
            sf.forward(process, x0, grid)
    with pytest.raises(sf.InputError, match="η"):
        sf.forward(process, x0, [0, 5], eta=1.5)
    categories = sf.process.uniform_categories(3, T=10)
    with pytest.raises(sf.IncompatibleModel, match="family"):
        sf.forward(categories, torch.zeros(2, 1, dtype=torch.int64), [0, 5], eta=0.0)
