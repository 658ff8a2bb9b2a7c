"""Processes: their conventions, and the refusals that teach."""

import math

import pytest
import torch
from support import relative_error

import scorefield as sf


def test_time_zero_is_data_and_noise_grows():
    for process in (
        sf.process.from_betas(sf.process.linear_betas(1000)),
        sf.process.from_betas(sf.process.cosine_betas(1000)),
        sf.process.from_sigmas(sf.process.geometric_sigmas(50.0, 0.01, 10)),
    ):
        alpha, sigma = process.level(torch.arange(process.T + 1))
        assert (alpha[0], sigma[0]) == (1, 0)
        assert alpha.dtype == sigma.dtype == torch.float64
        assert ((sigma / alpha).diff() > 0).all()


def test_variance_preserving_and_exploding():
    vp = sf.process.from_betas(sf.process.cosine_betas(1000)).level(torch.arange(1001))
    assert torch.allclose(vp.alpha**2 + vp.sigma**2, torch.ones(1001, dtype=torch.float64), atol=1e-14)
    sigmas = sf.process.geometric_sigmas(1.0, 0.01, 10)
    ve = sf.process.from_sigmas(sigmas).level(torch.arange(1, 11))
    assert torch.equal(ve.sigma, sigmas)
    assert (ve.alpha == 1).all()


def test_geometric_sigmas_have_a_constant_ratio():
    sigmas = sf.process.geometric_sigmas(1.0, 0.01, 10)
    assert sigmas[0] == 0.01
    assert sigmas[-1] == 1.0
    assert relative_error(sigmas[1:] / sigmas[:-1], torch.full((9,), 100 ** (1 / 9))) < 1e-7


def test_cosine_is_cos_squared():
    alpha, _ = sf.process.from_betas(sf.process.cosine_betas(1000)).level(torch.arange(1000))
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1000)]
    assert relative_error(alpha**2, torch.tensor(f, dtype=torch.float64) / f[0]) < 1e-12


def test_sample_at_mixed_times():
    process = sf.process.from_betas(sf.process.linear_betas(1000))
    x0, eps = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), torch.ones(2, 3, 4)
    x_t = process.sample(x0, torch.tensor([1, 700]), eps)
    alpha, sigma = process.level(700)
    assert torch.allclose(x_t[1], alpha.float() * x0[1] + sigma.float(), atol=1e-6)
    assert x_t.dtype == torch.float32


def test_prior_of_exploding_process_knows_the_data():
    process = sf.process.from_sigmas([1.0, 3.0], mean=2.0, std=4.0)
    z = torch.tensor([[1.0, -1.0]])
    assert process.prior((1, 2), sf.noise.Recorded([z])).tolist() == [[7.0, -3.0]]


def test_unrescaled_linear_schedule_warns_where_the_prior_is_wrong():
    with pytest.warns(UserWarning, match="never rescales"):
        process = sf.process.from_betas(sf.process.linear_betas(100))
    assert process.level(100).alpha > 0.5  # with T = 100 much of the data is left at T


@pytest.mark.parametrize("build", ["linear", "cosine", "geometric", "betas", "sigmas"])
def test_description_names_the_schedule(build):
    betas = {
        "linear": sf.process.linear_betas(1000),
        "cosine": sf.process.cosine_betas(300),
        "betas": torch.tensor([0.5, 0.9, 0.99]),
    }
    sigmas = {"geometric": sf.process.geometric_sigmas(7.0, 0.3, 12), "sigmas": torch.tensor([0.1, 0.5, 0.6])}
    process = sf.process.from_betas(betas[build]) if build in betas else sf.process.from_sigmas(sigmas[build])
    assert process.config["kind"] == build


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sf.process.linear_betas(0), "positive integer"),
        (lambda: sf.process.linear_betas(10.0), "positive integer"),
        (lambda: sf.process.from_betas([0.1, 1.0]), "strictly between 0 and 1"),
        (lambda: sf.process.from_betas([0.1, math.nan]), "finite"),
        (lambda: sf.process.from_betas([]), "one-dimensional"),
        (lambda: sf.process.from_sigmas([1.0, 0.1]), "flip"),
        (lambda: sf.process.from_sigmas([0.0, 0.1]), "positive"),
        (lambda: sf.process.from_sigmas([0.1, 0.2], std=-1.0), "standard deviation"),
        (lambda: sf.process.geometric_sigmas(0.1, 1.0, 10), "sigma_min < sigma_max"),
        (lambda: sf.process.from_sigmas([0.1, 1.0]).level(3), "0 … 2"),
        (lambda: sf.process.from_sigmas([0.1, 1.0]).level(-1), "0 … 2"),
        (lambda: sf.process.from_sigmas([0.1, 1.0]).level(0.5), "levels at t = 0, 1"),
        (lambda: sf.process.from_sigmas([0.1, 1.0]).level(math.nan), "finite"),
    ],
)
def test_bad_input_teaches(make, message):
    with pytest.raises(sf.InputError, match=message):
        make()
