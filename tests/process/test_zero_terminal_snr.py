"""Tables whose last level is pure noise: the rescaled schedules, what predicts x̂0 there, and its losses."""

import math

import pytest
import torch
from support import assert_close, relative_error

import scorefield as sf
from scorefield.core.noise import NoiseSource
from scorefield.objectives.denoising import weighted_error

LINEAR = sf.process.linear(100, 1e-3, 0.2)
RESCALED = sf.process.zero_terminal_snr(LINEAR)
TABLES = {
    "rescaled": RESCALED,
    "last β is 1": sf.process.from_betas([0.1, 0.3, 0.6, 1.0]),
    "cosine": sf.process.cosine(50, max_beta=1.0),
}


def test_the_published_rescaling():
    """Of √ᾱ: shifted so that the last is 0, and scaled so that the first stays, in plain numbers."""
    # [Lin et al. 2024 Alg. 1]
    betas = [1e-3 + (0.2 - 1e-3) * i / 99 for i in range(100)]
    roots = [math.sqrt(math.prod(1 - b for b in betas[: t + 1])) for t in range(100)]
    expected = [(root - roots[-1]) * roots[0] / (roots[0] - roots[-1]) for root in roots]
    alpha, sigma = RESCALED.level(torch.arange(1, 101))
    assert_close(alpha, torch.tensor(expected, dtype=torch.float64), 1e-12)
    assert_close(alpha**2 + sigma**2, torch.ones(100, dtype=torch.float64), 1e-14)
    assert (float(alpha[-1]), float(sigma[-1])) == (0.0, 1.0)


def test_the_rescaling_of_diffusers():
    """In float32, as that library computes it."""
    scheduling = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
    theirs = scheduling.rescale_zero_terminal_snr(sf.process.linear_betas(100, 1e-3, 0.2).float())
    alpha, _ = RESCALED.level(torch.arange(101))
    assert (1 - (alpha[1:] / alpha[:-1]) ** 2 - theirs).abs().max() < 1e-5


@pytest.mark.parametrize("name", TABLES)
def test_what_divides_by_the_signal_is_refused_when_it_is_built(name):
    process = TABLES[name]
    assert process.ends_in_noise
    for parametrization, given in (("eps", "index"), ("score", "index"), ("v", "log_sigma")):
        with pytest.raises(sf.IncompatibleModel, match=r'0 at the last level.*"v", "x0" or "flow"'):
            sf.Denoiser(lambda x, c, y=None: x, process, parametrization, noise_input=given)
    x = NoiseSource(0).normal((4, 2))
    for parametrization in ("v", "x0", "flow", "edm", "mean"):
        pred = sf.Denoiser(lambda x, c, y=None: 0.3 * x, process, parametrization)(x, process.T)
        assert all(part.isfinite().all() for part in (pred.x0, pred.eps, pred.score, pred.velocity))


@pytest.mark.parametrize(
    ("parametrization", "weighting", "share"),
    [
        *((name, weighting, 1.0) for name in ("v", "x0", "flow") for weighting in ("x0", "v", "network")),
        *((name, weighting, 0.0) for name in ("v", "x0", "flow") for weighting in ("eps", "min-snr")),
        ("v", "edm", 1 / 0.5**2),
        ("edm", "edm", 1 / 0.5**2),
    ],
)
def test_weights_at_pure_noise_are_their_limits(parametrization, weighting, share):
    """w·|ε̂ − ε|² as α goes to 0: that of x̂0 times the limit of w·α²; the velocity −x_0 there, so of v too."""
    x0, eps = (NoiseSource(i).normal((5, 3)).double() for i in (1, 2))
    model = sf.Denoiser(lambda x, c, y=None: x.sin(), RESCALED, parametrization, noise_input="scaled")
    t = torch.full((5,), 100)
    error = weighted_error(model, x0, None, t, eps, weighting)
    expected = share * (model(eps, t).x0 - x0).square().mean(dim=1)
    torch.testing.assert_close(error, expected, rtol=1e-12, atol=1e-200)


def test_interpolated_between_its_levels():
    process = sf.process.Interpolated(RESCALED)
    t = torch.cat([torch.arange(101), torch.linspace(98, 100, 21), torch.linspace(0.01, 100, 300)]).double()
    alpha, sigma = process.level(t)
    assert_close(alpha[:101], RESCALED.level(torch.arange(101)).alpha, 1e-13)
    assert_close(alpha**2 + sigma**2, torch.ones_like(alpha), 1e-14)
    assert (alpha[t.argsort()].diff() <= 0).all()
    assert relative_error(process.time((alpha / sigma).log())[1:], t[1:]) < 1e-9
    with pytest.raises(sf.InputError, match="pure noise"):
        sf.process.Interpolated(sf.process.from_betas([1.0]))


def test_the_ode_likelihood_is_exact_from_pure_noise():
    mixture = sf.oracle.GaussianMixture([[-1.0], [0.8]], [[[0.05]], [[0.1]]], [0.4, 0.6])
    noisy = mixture.at(RESCALED.level(1))
    x = noisy.sample(12, NoiseSource(0))
    result = sf.likelihood.ode_log_prob(mixture.denoiser(RESCALED), x, trace="exact")
    assert (result.log_prob - noisy.log_prob(x)).abs().max() < 1e-3


def test_refusals():
    for wrong in (sf.process.vp(), sf.process.geometric(10.0, 0.1, 5), sf.process.linear(1, 0.995, 0.995)):
        with pytest.raises(sf.InputError, match=r"variance-preserving"):
            sf.process.zero_terminal_snr(wrong)  # type: ignore[arg-type]
