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
    # [NCSN §4.2]
    sigmas = sf.process.geometric_sigmas(1.0, 0.01, 10)
    assert sigmas[0] == 0.01
    assert sigmas[-1] == 1.0
    assert relative_error(sigmas[1:] / sigmas[:-1], torch.full((9,), 100 ** (1 / 9))) < 1e-7


def test_cosine_is_cos_squared():
    # [Improved DDPM Eq. 17]
    alpha, _ = sf.process.from_betas(sf.process.cosine_betas(1000)).level(torch.arange(1000))
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1000)]
    assert relative_error(alpha**2, torch.tensor(f, dtype=torch.float64) / f[0]) < 1e-12


def test_sample_at_mixed_times():
    # [DDPM Eq. 4]
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


@pytest.mark.parametrize(
    ("process", "config", "text"),
    [
        (sf.process.cosine(1000), {"kind": "cosine", "T": 1000}, "cosine(T=1000)"),
        (sf.process.cosine(50, s=0.01), {"kind": "cosine", "T": 50, "s": 0.01}, "cosine(T=50, s=0.01)"),
        (
            sf.process.linear(1000),
            {"kind": "linear", "T": 1000, "start": 1e-4, "end": 0.02},
            "linear(T=1000, start=0.0001, end=0.02)",
        ),
        (
            sf.process.geometric(7, 0.3, 12),
            {"kind": "geometric", "sigma_max": 7.0, "sigma_min": 0.3, "L": 12, "mean": 0.0, "std": 0.0},
            "geometric(sigma_max=7.0, sigma_min=0.3, L=12, mean=0.0, std=0.0)",
        ),
        (
            sf.process.from_betas([0.5, 0.9, 0.99]),
            {"kind": "betas", "betas": [0.5, 0.9, 0.99]},
            "betas(betas=[0.5, 0.9, 0.99])",
        ),
        (
            sf.process.Interpolated(sf.process.cosine(50)),
            {"kind": "interpolated", "discrete": {"kind": "cosine", "T": 50}},
            "interpolated(discrete=cosine(T=50))",
        ),
        (
            sf.process.uniform_categories(17, T=20),
            {"kind": "uniform-categorical", "classes": 17, "schedule": "cosine", "T": 20},
            "uniform-categorical(classes=17, schedule='cosine', T=20)",
        ),
    ],
)
def test_a_process_says_how_it_was_made(process, config, text):
    assert process.config == config
    assert repr(process) == text


def test_named_processes_are_their_tables():
    pairs = [
        (sf.process.linear(300, 1e-3, 0.1), sf.process.from_betas(sf.process.linear_betas(300, 1e-3, 0.1))),
        (sf.process.cosine(300), sf.process.from_betas(sf.process.cosine_betas(300))),
        (
            sf.process.geometric(7.0, 0.3, 12, 0.1, 0.2),
            sf.process.from_sigmas(sf.process.geometric_sigmas(7.0, 0.3, 12), 0.1, 0.2),
        ),
    ]
    for named, given in pairs:
        times = torch.arange(named.T + 1)
        for mine, theirs in zip(named.level(times), given.level(times), strict=True):
            assert torch.equal(mine, theirs)
        assert (named.prior_mean, named.prior_std) == (given.prior_mean, given.prior_std)


class Straight(sf.process.GaussianProcess):
    """x_t = (1 − t) x_0 + t ε."""

    T = 1.0

    def level(self, t):
        time = torch.as_tensor(t, dtype=torch.float64)
        return sf.Level(1 - time, time)


@pytest.mark.parametrize("process", [sf.process.cosine(20), sf.process.vp(), Straight()])
def test_what_every_gaussian_process_says_of_its_times(process):
    assert process.is_discrete == isinstance(process, sf.process.DiscreteProcess)
    assert process.t_min == (1 if process.is_discrete else 1e-3)
    assert process.positive_time(process.t_min) == process.t_min
    with pytest.raises(sf.InputError, match="t must be > 0"):
        process.positive_time(torch.tensor([process.T, 0]))


def test_times_are_found_by_bisection():
    process = Straight()
    t = torch.tensor([1e-6, 0.1, 0.5, 0.999, 1.0], dtype=torch.float64)
    alpha, sigma = process.level(t)
    torch.testing.assert_close(process.time((alpha / sigma).log()), t, rtol=1e-12, atol=0)
    with pytest.raises(sf.IncompatibleModel, match="Interpolated"):
        sf.process.cosine(10).time(torch.zeros(1))


@pytest.mark.parametrize("process", [sf.process.cosine(20), sf.process.ve(0.1, 5.0), Straight()])
def test_transition_and_posterior_are_bayes_rule(process):
    """q(x_s | x_t, x_0) ∝ q(x_t | x_s) q(x_s | x_0), the product of two Gaussians in x_s."""
    # [DDPM Eq. 2, 6–7]
    t, s, x0, x_t = process.T / 2, process.T / 4, torch.tensor([[0.7]]), torch.tensor([[-0.2]])
    t, s = (int(t), int(s)) if process.is_discrete else (t, s)
    slope, var = process.transition(t, s)
    alpha, sigma = process.level(s)
    precision = slope**2 / var + 1 / sigma**2
    found = process.posterior(x_t, x0, t, s)
    mean = (slope * x_t / var + alpha * x0 / sigma**2) / precision
    torch.testing.assert_close(found.mean, mean, check_dtype=False, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.var.reshape(()), 1 / precision, check_dtype=False, rtol=1e-6, atol=0)
    with pytest.raises(sf.InputError, match="s must lie below t"):
        process.transition(s, t)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sf.process.linear_betas(0), "positive integer"),
        (lambda: sf.process.linear_betas(10.0), "positive integer"),  # type: ignore[arg-type]
        (lambda: sf.process.from_betas([1.0, 0.1]), "strictly between 0 and 1"),
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


@pytest.mark.parametrize(
    "t", [5, 5.0, torch.tensor(5), torch.tensor(5, dtype=torch.int32), torch.tensor([5.0])]
)
def test_a_time_means_the_same_as_a_number_and_as_a_tensor(t):
    process = sf.process.cosine(10)
    level, expected = process.level(t), process.level(torch.arange(11))
    assert [float(part) for part in level] == [float(part[5]) for part in expected]
    assert process.positive_time(t).ndim == (1 if isinstance(t, torch.Tensor) and t.ndim else 0)


@pytest.mark.parametrize(
    "t", [-1, 11, 2**63, -(10**30), torch.tensor(-1), torch.tensor(11), torch.tensor([3, 11]), True]
)
def test_a_time_that_is_none_is_refused(t):
    with pytest.raises(sf.InputError, match=r"must lie in 0 … 10|a time is a finite number"):
        sf.process.cosine(10).level(t)
