"""Ancestral sampling and DDIM: what they share, point masses, calls, orders of convergence, encoding, and
sample identity.
"""

from itertools import pairwise
from typing import Any

import pytest
import torch
from support import relative_error

import scorefield as sf
from scorefield.core.noise import NoiseSource, Recorded

F64 = torch.float64
MEAN = torch.tensor([0.4, -0.3], dtype=F64)
COV = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=F64)
EYE = torch.eye(2, dtype=F64)

PROCESSES = {
    "linear": sf.process.from_betas(sf.process.linear_betas(1000)),
    "cosine": sf.process.from_betas(sf.process.cosine_betas(100)),
    "ve": sf.process.from_sigmas(sf.process.geometric_sigmas(20.0, 0.01, 60)),
}
PROCESS_OF_BIAS = sf.process.from_betas(sf.process.linear_betas(4096, 0.1 / 4096, 20 / 4096))
GAUSSIAN = sf.oracle.GaussianMixture([[0.0, 0.0]], COV[None])
SAMPLERS: dict[str, Any] = {
    "lower": sf.samplers.Ancestral("lower"),
    "upper": sf.samplers.Ancestral("upper"),
    "ddim0": sf.samplers.DDIM(0.0),
    "ddim0.5": sf.samplers.DDIM(0.5),
    "ddim1": sf.samplers.DDIM(1.0),
}
ETA = {"lower": 1.0, "ddim0": 0.0, "ddim0.5": 0.5, "ddim1": 1.0}


def expected_step(process, t, s, name):
    """(A, b, std) of x_s = A x_t + b + std z on N(MEAN, COV), from the equations, independent of the
    library's algebra.

    x̂0 = MEAN + α C (α²C + σ²I)^{-1}(x − α MEAN); ε̂ = (x − α x̂0)/σ; every sampler here is x_s = α_s x̂0 + d
    ε̂ + std z.
    """
    (a_t, s_t), (a_s, s_s) = process.level(t), process.level(s)
    gain = a_t * COV @ torch.linalg.inv(a_t**2 * COV + s_t**2 * EYE)
    x0_A, x0_b = gain, MEAN - a_t * gain @ MEAN
    eps_A, eps_b = (EYE - a_t * x0_A) / s_t, -a_t * x0_b / s_t
    var_ts = s_t**2 - (a_t / a_s) ** 2 * s_s**2
    if name == "upper":  # the mean is that of DDIM's η = 1; only the noise is larger
        std, direction = var_ts.sqrt() * (s > 0), s_s**2 * (a_t / a_s) / s_t
    else:
        std = ETA[name] * (s_s / s_t) * var_ts.sqrt()
        direction = (s_s**2 - std**2).clamp_min(0).sqrt()
    return a_s * x0_A + direction * eps_A, a_s * x0_b + direction * eps_b, std


@pytest.mark.parametrize("process", PROCESSES)
def test_ddim_eta_one_is_ancestral_lower(process):
    process = PROCESSES[process]
    model = sf.oracle.GaussianMixture(MEAN[None], COV[None]).denoiser(process)
    x = NoiseSource(3).normal((16, 2)).double()
    for grid in (sf.grids.full(process), sf.grids.uniform(process, 7), sf.grids.quadratic(process, 13)):
        ddim = sf.sample(model, sf.samplers.DDIM(1.0), grid, x_T=x, noise=NoiseSource(4))
        ancestral = sf.sample(model, sf.samplers.Ancestral("lower"), grid, x_T=x, noise=NoiseSource(4))
        assert relative_error(ddim, ancestral) < 1e-10


@pytest.mark.parametrize("make", [sf.grids.uniform, sf.grids.quadratic])
def test_point_mass_is_found_at_every_number_of_steps(make):
    """DDIM with the exact ε of a point mass returns x_0 for every S in 1 … T."""
    process, x0 = PROCESSES["cosine"], torch.tensor([[0.3, -0.8]], dtype=F64)
    model = sf.oracle.GaussianMixture(x0, torch.zeros(1, 2, 2, dtype=F64)).denoiser(process)
    x_T = process.sample(x0, process.T, torch.tensor([[1.3, -0.2]], dtype=F64))
    for n in range(1, process.T + 1):
        assert relative_error(sf.sample(model, sf.samplers.DDIM(), make(process, n), x_T=x_T), x0) < 1e-10, n


@pytest.mark.parametrize("name", SAMPLERS)
def test_exactly_one_call_a_step(name):
    process = PROCESSES["linear"]
    calls = []

    def net(x, c, y=None):
        calls.append(float(c[0]))
        return torch.zeros_like(x)

    model = sf.Denoiser(net, process)
    for grid in (
        sf.grids.uniform(process, 30),
        sf.grids.quadratic(process, 10),
        sf.grids.linspace(process, 7),
    ):
        calls.clear()
        sf.sample(model, SAMPLERS[name], grid, x_T=torch.zeros(2, 3), noise=NoiseSource(0))
        assert calls == [t - 1 for t in grid[:-1].tolist()]  # starts at T, never called at 0
        assert SAMPLERS[name].calls(grid.tolist()) == SAMPLERS[name].calls(grid) == len(grid) - 1


MIXTURE = sf.oracle.GaussianMixture(
    [[-1.0, 0.5], [1.5, 1.0], [0.3, -1.5]],
    torch.stack([0.1 * EYE, torch.tensor([[0.2, 0.1], [0.1, 0.15]]), 0.05 * EYE]),
    [0.5, 0.2, 0.3],
)


def test_ddim_converges_at_first_order():
    """Error of DDIM against a far finer solution of the same flow, from the same x_T: halves when the steps
    double.

    Steps are even in ln(σ/α), as far as a table of 32,768 levels allows.
    """
    T = 2**15
    process = sf.process.from_betas(sf.process.linear_betas(T, 0.1 / T, 20 / T))
    model = MIXTURE.denoiser(process)
    x_T = MIXTURE.at(process.level(T)).sample(256, NoiseSource(0))
    alpha, sigma = process.level(torch.arange(1, T + 1))
    log_ratio = (sigma / alpha).log()

    def solve(n):
        wanted = torch.linspace(log_ratio[-1].item(), -3.0, n + 1, dtype=F64)
        grid = torch.searchsorted(log_ratio, wanted).clamp_max(T - 1) + 1
        return sf.sample(model, sf.samplers.DDIM(), grid, x_T=x_T)

    reference = solve(2560)
    errors = [(solve(n) - reference).abs().mean().log2().item() for n in (40, 80, 160, 320)]
    slopes = [a - b for a, b in pairwise(errors)]
    print("slopes", slopes)
    assert all(abs(slope - 1) < 0.15 for slope in slopes), slopes


def test_ancestral_bias_falls_with_first_order():
    """The covariance after the sampler's own steps, which are affine on a Gaussian: its error halves when the
    steps double. A and std of x_s = A x_t + std z are read off steps from unit vectors, and of unit draws.
    """
    model = GAUSSIAN.denoiser(PROCESS_OF_BIAS)
    x, z = torch.cat([EYE, 0 * EYE]), torch.cat([0 * EYE, EYE])
    process = PROCESS_OF_BIAS
    (a_T, s_T), T = process.level(process.T), process.T
    for name in ("lower", "upper"):
        sampler = sf.samplers.Ancestral(name)
        errors = []
        for n in (128, 256, 512, 1024):
            cov, times = (
                a_T**2 * COV + s_T**2 * EYE,
                [T // 16 + (T - T // 16) * i // n for i in range(n, -1, -1)],
            )
            for t, s in pairwise(times):
                x_s, *_ = sampler.step(model, x, t, s, None, Recorded([z]))
                A, B = x_s[:2].T, x_s[2:].T
                cov = A @ cov @ A.T + B @ B.T
            a, s = process.level(times[-1])  # type: ignore[assignment]
            errors.append(torch.linalg.norm(cov - (a**2 * COV + s**2 * EYE)).log2().item())
        slopes = [a - b for a, b in pairwise(errors)]
        assert all(abs(slope - 1) < 0.15 for slope in slopes), (name, slopes)


def test_encoding_comes_back():
    """DDIM upwards and down the same grid: the reconstruction error falls as the grid is refined."""
    process = PROCESSES["cosine"]
    model = MIXTURE.denoiser(process)
    x0, errors = MIXTURE.sample(256, NoiseSource(2)), []
    for n in (10, 25, 50, 100):
        grid = sf.grids.uniform(process, n)
        latent = sf.sample(model, sf.samplers.DDIM(), grid.flip(0), x_T=x0)
        errors.append(((sf.sample(model, sf.samplers.DDIM(), grid, x_T=latent) - x0) ** 2).mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 10


def test_bad_options():
    for make in (
        lambda: sf.samplers.DDIM(1.5),
        lambda: sf.samplers.DDIM(-0.1),
        lambda: sf.samplers.Ancestral("beta"),  # type: ignore[arg-type]
    ):
        with pytest.raises(sf.InputError):
            make()


def test_same_seed_same_sample_at_any_batch_size():
    process = PROCESSES["cosine"]
    model = MIXTURE.denoiser(process)
    grid = sf.grids.uniform(process, 20)

    def run(samples):
        noise = NoiseSource(9, samples)
        x_T = process.prior((len(samples), 2), noise.at(0)).double()
        return sf.sample(model, sf.samplers.Ancestral(), grid, x_T=x_T, noise=noise)

    everyone = run(range(64))
    for samples in (range(1), range(7), [41], [63, 2]):
        assert torch.allclose(run(samples), everyone[list(samples)], atol=1e-12)
