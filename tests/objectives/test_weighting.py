"""Loss weights, each against its published form in x0 units, w_eps = w_x0 · σ²/α², and against the errors that it names."""

import pytest
import torch

import scorefield as sf
from scorefield.core.noise import NoiseSource
from scorefield.objectives.denoising import weighted_error
from scorefield.objectives.weighting import weight

PROCESSES = [
    sf.process.from_betas(sf.process.linear_betas(1000)),
    sf.process.from_sigmas(sf.process.geometric_sigmas(20.0, 0.01, 30)),
]


def model(process, parametrization="eps"):
    return sf.Denoiser(lambda x, c, y=None: x, process, parametrization, sigma_data=0.3)


@pytest.mark.parametrize("process", PROCESSES)
def test_min_snr(process):
    """min(SNR, 5) weighs |x̂0 − x0|², and |ε̂ − ε|² = SNR·|x̂0 − x0|².  [Hang et al. 2023]"""
    t = torch.arange(1, process.T + 1)
    alpha, sigma = process.level(t)
    snr = (alpha / sigma) ** 2
    expected = torch.minimum(snr, torch.full_like(snr, 5.0)) / snr
    assert torch.allclose(weight("min-snr", model(process), t), expected, rtol=1e-12)
    assert {bool(v) for v in expected == 1} == {True, False}


@pytest.mark.parametrize("process", PROCESSES)
def test_edm(process):
    """λ(σ̃) = (σ̃² + σ_d²)/(σ̃ σ_d)² weighs |x̂0 − x0|², which is σ̃²·|ε̂ − ε|²; it is what EDM's own network
    error weighs.
    """
    # [Karras et al. 2022 Table 1]
    t = torch.arange(1, process.T + 1)
    alpha, sigma = process.level(t)
    ratio, data = sigma / alpha, 0.3
    expected = (ratio**2 + data**2) / (ratio * data) ** 2 * ratio**2
    assert torch.allclose(weight("edm", model(process), t), expected, rtol=1e-12)
    assert torch.allclose(weight("network", model(process, "edm"), t), expected, rtol=1e-9)


def test_unknown_names():
    with pytest.raises(sf.InputError, match="min-snr, edm"):
        weight("snr", model(PROCESSES[0]), torch.tensor([1]))


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("parametrization", ["eps", "x0", "v", "edm"])
@pytest.mark.parametrize("weighting", ["eps", "x0", "v"])
def test_a_weighted_error_is_the_plain_error_of_what_it_names(process, parametrization, weighting):
    """mean|ε̂ − ε|², mean|x̂0 − x0|² or mean|v̂ − v|², v = (α ε − σ x0)/√(α² + σ²), from the prediction alone."""
    # [DDPM Eq. 14; NCSN Eq. 6]
    denoiser = sf.Denoiser(lambda x, c, y=None: (3 * x).sin(), process, parametrization)
    t = torch.tensor([1, 2, process.T // 2, process.T - 1, process.T])
    x0, eps = (NoiseSource(k).normal((5, 6)).double() for k in (0, 1))
    alpha, sigma = (part[:, None] for part in process.level(t))
    pred = denoiser(alpha * x0 + sigma * eps, t)
    found, true = {
        "eps": (pred.eps, eps),
        "x0": (pred.x0, x0),
        "v": (pred.velocity, (alpha * eps - sigma * x0) / (alpha**2 + sigma**2).sqrt()),
    }[weighting]
    error = weighted_error(denoiser, x0, None, t, eps, weighting)
    assert torch.allclose(error, ((found - true) ** 2).mean(dim=1), rtol=1e-7)
