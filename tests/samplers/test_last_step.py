"""The step to s = 0 of ancestral sampling: the mean of p(x_0 | x_1), or a draw of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

import scorefield as sf

F64 = torch.float64
OLD = Path(__file__).parent.parent / "old_runs"
PROCESS = sf.process.linear(20, 0.05, 0.3)
BINS = sf.DataSpec((1,), bins=6)


def last_step(variance, z, x_1=0.37, last="sample", process=PROCESS):
    """The step from t = 1 to 0 of a model whose x̂0 is x_1/α_1 + 0.1, with these draws z (N, 1)."""
    model = sf.Denoiser(lambda x, c: torch.full_like(x, 0.1), process, "x0", data=BINS)
    sampler = sf.samplers.Ancestral(variance, last=last)
    x = torch.full_like(z, x_1)
    return sf.sample(model, sampler, [1, 0], x_T=x, noise=sf.noise.Recorded([z]))


@pytest.mark.parametrize("variance", ["lower", "upper"])
def test_the_draw_is_that_of_the_discretized_decoder(variance):
    """Draws rounded to the data's values, z at 20,000 quantiles: P(x_0 | x_1) of the bound.  [DDPM Eq. 13]"""
    N = 20_000
    z = torch.from_numpy(norm.ppf((np.arange(N) + 0.5) / N))[:, None]
    draws = last_step(variance, z)
    # x̂0 is the mean of p(x_0 | x_1); at t = 1 both fixed variances are β̃_2 = β_2(1 − ᾱ_1)/(1 − ᾱ_2).
    beta = sf.process.linear_betas(20, 0.05, 0.3)
    var = beta[1] * beta[0] / (1 - (1 - beta[0]) * (1 - beta[1]))
    assert draws.mean().item() == pytest.approx(0.1, abs=1e-6)
    assert draws.var().item() == pytest.approx(float(var), rel=1e-3)
    values = torch.linspace(-1, 1, 6, dtype=F64)
    nearest = (draws - values).abs().argmin(dim=1)
    frequencies = torch.bincount(nearest, minlength=6) / N
    pred = sf.Prediction(
        torch.full((6, 1), 0.37, dtype=F64),
        PROCESS.level(1),
        torch.full((6, 1), 0.1, dtype=F64),
        torch.zeros(6, 1),
    )
    bound = sf.objectives.vlb.Bound(variance)
    nats = sf.objectives.vlb.bound_terms(
        pred, values[:, None], PROCESS.level(0), bound, BINS, PROCESS.level(2)
    )
    assert (frequencies - (-nats).exp()).abs().max() < 2 / N


def test_the_mean_stays_the_default():
    z = torch.randn(4, 1, dtype=F64, generator=torch.Generator().manual_seed(0))
    assert sf.samplers.Ancestral("upper") == sf.samplers.Ancestral("upper", last="mean")
    assert (last_step("upper", z, last="mean") - 0.1).abs().max() < 1e-12
    with pytest.raises(sf.InputError, match="mean, sample"):
        sf.samplers.Ancestral("upper", last="median")  # type: ignore[arg-type]


def test_a_classifier_shifts_the_mean_of_what_is_drawn():
    """N(μ + Σ g, Σ) at s = 0 too, where "lower" has the Σ that is drawn from.  [ADM Algorithm 1]"""
    mixture = sf.oracle.GaussianMixture([[-1.0], [1.0]], [[[0.2]], [[0.2]]], [0.5, 0.5])
    model = sf.guidance.ClassifierGuidance(
        mixture.denoiser(PROCESS), mixture.classifier(PROCESS), 1, scale=2.0
    )
    x = torch.tensor([[0.3]], dtype=F64)
    sampler, zero = sf.samplers.Ancestral("lower", last="sample"), sf.noise.Recorded([torch.zeros_like(x)])
    pred = model(x, 1)
    var = PROCESS.reverse(pred, 1, 0, above=2).var
    assert pred.log_p_grad is not None
    expected = pred.x0 + var * pred.log_p_grad(x, 1)
    assert (sf.sample(model, sampler, [1, 0], x_T=x, noise=zero) - expected).abs().max() < 1e-12


def test_a_run_is_sampled_with_it_by_a_setting():
    run = sf.Run(OLD / "digits")
    mean = run.sample(4, seed=3, sampler="ancestral", steps=3).images
    drawn = run.sample(4, seed=3, sampler="ancestral", steps=3, settings={"sampler.last": "sample"}).images
    assert not np.array_equal(mean, drawn)
