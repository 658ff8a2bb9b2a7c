"""DDIM's objective: the bound of its family on a sub-sequence against joint Gaussians, and γ against the paper's formula.
[DDIM Eq. 5, 11, Theorem 1]
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import scorefield as sf
from scorefield.objectives.vlb import Bound, bound_terms

F64 = torch.float64
PROCESSES = {
    "linear": sf.process.linear(16, 0.02, 0.6),
    "cosine": sf.process.cosine(16),
    "ve": sf.process.geometric(20.0, 0.05, 16, std=0.8),
}
GRIDS = {"full": list(range(16, -1, -1)), "sub": [16, 13, 9, 8, 3, 1, 0], "sparse": [16, 6, 0]}


def written(process, grid, eta):
    """(ς, √(σ_s² − ς²), α_s, σ_s) of every step, as the paper writes them; ς = η σ_{t|0} to s = 0.  [DDIM Eq. 16]"""
    for t, s in pairwise(grid):
        (a_t, s_t), (a_s, s_s) = (tuple(map(float, process.level(time))) for time in (t, s))
        std = math.sqrt(s_t**2 - (a_t / a_s * s_s) ** 2)
        varsigma = eta * (s_s / s_t if s else 1) * std
        yield varsigma, (math.sqrt(s_s**2 - varsigma**2) if s else 0.0), a_t, s_t, a_s


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("eta", [0.2, 0.7, 1.0])
def test_bound_is_that_of_the_joint_gaussians(name, grid, eta):
    """E_q[bound] = −ln p(x_0) + KL(q(x_{1:T} | x_0) ‖ p(x_{1:T} | x_0)) of a model that is linear in x_t.

    Every term is quadratic in its ε, so ε = ±1 gives its mean exactly. [DDIM Eq. 11]
    """
    process, v, x0 = PROCESSES[name], 0.64, 0.7
    model = sf.oracle.GaussianMixture([[0.0]], [[[v]]]).denoiser(process)
    S, steps = len(grid) - 1, list(written(process, grid, eta))
    # p: x_T = std z, then x_s = α_s x̂0 + √(σ_s² − ς²) ε̂ + ς z with x̂0 = α_t v/(α_t² v + σ_t²)·x_t. Rows: x_T, …, x_0.
    p, q = np.zeros((S + 1, S + 1)), np.zeros((S, S))
    p[0, 0], q[0, 0] = process.prior_std, steps[0][3]
    for i, (varsigma, along, a_t, s_t, a_s) in enumerate(steps):
        shrink = a_t * v / (a_t**2 * v + s_t**2)
        p[i + 1] = (a_s * shrink + along * (1 - a_t * shrink) / s_t) * p[i]
        p[i + 1, i + 1] = varsigma
        if i < S - 1:
            q[i + 1] = along * q[i] / s_t
            q[i + 1, i + 1] = varsigma
    P, Q = p @ p.T, q @ q.T
    mean_q = x0 * np.array([float(process.level(t).alpha) for t in grid[:-1]])
    # p(x_{1:T} | x_0) by conditioning, then the divergence of two Gaussians.
    gain = P[:S, S] / P[S, S]
    cond, mean_p = P[:S, :S] - np.outer(gain, P[S, :S]), gain * x0
    inverse, gap = np.linalg.inv(cond), mean_q - mean_p
    kl = (np.trace(inverse @ Q) - S + gap @ inverse @ gap) / 2
    kl += (np.linalg.slogdet(cond)[1] - np.linalg.slogdet(Q)[1]) / 2
    expected = (math.log(2 * math.pi * P[S, S]) + x0**2 / P[S, S]) / 2 + kl
    signs = torch.tensor([[1.0], [-1.0]], dtype=F64)
    found = sf.likelihood.bits_per_dim(
        model,
        torch.full((2, 1), x0, dtype=F64),
        sf.noise.Recorded([signs] * S),
        grid,
        decoder="density",
        eta=eta,
    )
    assert found.total.mean().item() * math.log(2) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_terms_are_gamma_times_the_error_of_eps(name, grid):
    """KL = γ‖ε̂ − ε‖² for s > 0, −ln p(x_0 | x_t) the same up to its constant.  [DDIM Theorem 1; DDPM Eq. 12]"""
    process, eta, n = PROCESSES[name], 0.6, 5
    gamma = sf.objectives.ddim_weights(process, grid, eta)
    x0, eps = (sf.NoiseSource(k).normal((n, 3)).double() for k in (0, 1))
    for k, ((t, s), (varsigma, along, a_t, s_t, a_s)) in enumerate(
        zip(pairwise(grid), written(process, grid, eta), strict=True)
    ):
        assert float(gamma[k]) == pytest.approx((a_s * s_t / a_t - along) ** 2 / (2 * varsigma**2), rel=1e-9)
        x_t = process.sample(x0, t, eps)
        pred = sf.Prediction(x_t, process.level(t), torch.sin(2 * x_t), x_t)
        term = bound_terms(pred, x0, process.level(s), Bound("lower", "density", eta=eta))
        constant = 0.0 if s else 1.5 * math.log(2 * math.pi * varsigma**2)
        assert torch.allclose(term - constant, gamma[k] * ((eps - pred.eps) ** 2).sum(1), rtol=1e-8)


@pytest.mark.parametrize("decoder", ["discretized", "density"])
def test_eta_1_is_the_bound_of_the_lower_variance(decoder):
    data = sf.DataSpec((3,), bins=6)
    model = sf.Denoiser(lambda x, c: torch.sin(x), PROCESSES["linear"], "x0", data=data)
    x0 = data.from_bins(torch.tensor([[0, 3, 5], [2, 2, 1]])).double()
    lower, family = (
        sf.likelihood.bits_per_dim(model, x0, sf.NoiseSource(0), GRIDS["sub"], decoder=decoder, **how)
        for how in ({"variance": "lower"}, {"eta": 1.0})
    )
    assert torch.allclose(lower.terms, family.terms, rtol=1e-9)


def test_a_list_of_times_and_weights_is_l_gamma():
    """The mean of the loss over all draws is Σ γ_τ·mean|ε̂ − ε|²/S.  [DDIM Eq. 5]"""
    process, grid = PROCESSES["cosine"], [13, 9, 3, 0]
    gamma = sf.objectives.ddim_weights(process, grid, 0.5)
    times = sf.objectives.ListedTimes(grid[:-1], gamma.tolist())
    model = sf.Denoiser(lambda x, c: torch.sin(x), process, "eps")
    objective = sf.objectives.Simple(model, times=times)
    x0, eps = (sf.NoiseSource(k).normal((3, 2)).double() for k in (0, 1))
    u = torch.tensor([[0.1], [0.5], [0.9]])
    loss = objective(x0, None, sf.noise.Recorded([u, eps]))
    assert loss.t is not None
    assert loss.t.tolist() == [13, 9, 3]
    for k, t in enumerate(grid[:-1]):
        x_t = process.sample(x0, t, eps)
        expected = gamma[k] * ((torch.sin(x_t) - eps) ** 2).mean(1)[k]
        assert loss.per_example[k].item() == pytest.approx(expected.item(), rel=1e-9)
    assert objective.config["times"] == {"kind": "list", "times": grid[:-1], "weights": gamma.tolist()}
    again = sf.objectives.Simple(model, times=objective.config["times"])
    assert again.config == objective.config


def test_what_is_no_objective_of_the_family_is_refused():
    process = PROCESSES["linear"]
    for times, weights in (([], None), ([1, 2], [1.0]), ([1, 2], [-1.0, 1.0]), ([1], [0.0])):
        with pytest.raises(sf.InputError, match=r"weight|times"):
            sf.objectives.ListedTimes(times, weights)
    with pytest.raises(sf.InputError, match="0 … 16"):
        sf.objectives.ListedTimes([17]).draw(process, 2, sf.NoiseSource(0))
    with pytest.raises(sf.InputError, match="descends to 0"):
        sf.objectives.ddim_weights(process, [0, 5, 16], 0.5)
    with pytest.raises(sf.InputError, match="η"):
        sf.objectives.ddim_weights(process, [16, 0], 0.0)
    with pytest.raises(sf.InputError, match="α = 0"):
        sf.objectives.ddim_weights(sf.process.flow(), [1.0, 0.5, 0.0], 0.5)
    model = sf.oracle.GaussianMixture([[0.0]], [[[1.0]]]).denoiser(process)
    with pytest.raises(sf.InputError, match="remove variance"):
        sf.likelihood.bits_per_dim(model, torch.zeros(1, 1), sf.NoiseSource(0), variance="lower", eta=0.5)
