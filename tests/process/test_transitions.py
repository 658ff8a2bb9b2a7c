"""Posterior and reverse distributions against Bayes' rule and against closed forms."""

import math
from typing import Any

import pytest
import torch

import scorefield as sf
from scorefield.core.distributions import Normal
from scorefield.core.prediction import Prediction
from scorefield.process import transitions

PROCESSES: dict[str, Any] = {
    "linear": sf.process.from_betas(sf.process.linear_betas(1000)),
    "cosine": sf.process.from_betas(sf.process.cosine_betas(50)),
    "ve": sf.process.from_sigmas(sf.process.geometric_sigmas(20.0, 0.01, 30)),
}


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("share", [(1.0, 0.9), (0.6, 0.3), (0.5, 0.04), (0.1, 0.02)])
def test_posterior_is_bayes(name, share):
    """q(x_s|x_t,x_0) ∝ q(x_t|x_s) q(x_s|x_0), by quadrature on a grid of x_s.  [DDPM Eq. 6–7]"""
    process = PROCESSES[name]
    t, s = (max(1, round(f * process.T)) for f in share)
    hi, lo = process.level(t), process.level(s)
    alpha_ts, var_ts = transitions.transition(hi, lo)
    x0 = torch.tensor([[0.7]], dtype=torch.float64)
    x_t = hi.alpha * x0 + 0.8 * hi.sigma
    p = transitions.posterior(x_t, x0, hi, lo)
    x_s = torch.linspace(-12, 12, 200_001, dtype=torch.float64) * p.std.item() + p.mean.item()
    log_w = -((x_t - alpha_ts * x_s) ** 2) / (2 * var_ts) - (x_s - lo.alpha * x0) ** 2 / (2 * lo.sigma**2)
    w = torch.softmax(log_w.squeeze(0), 0)
    mean = (w * x_s).sum()
    assert p.mean.item() == pytest.approx(mean.item(), rel=1e-9)
    assert p.var.item() == pytest.approx((w * (x_s - mean) ** 2).sum().item(), rel=1e-7)


@pytest.mark.parametrize("name", PROCESSES)
def test_transitions_compose(name):
    # [DDPM Eq. 2]
    process = PROCESSES[name]
    a, b, c = (process.level(t) for t in (process.T, process.T // 2, 3))
    (alpha_ab, var_ab), (alpha_bc, var_bc), (alpha_ac, var_ac) = (
        transitions.transition(*pair) for pair in ((a, b), (b, c), (a, c))
    )
    assert (alpha_ab * alpha_bc).item() == pytest.approx(alpha_ac.item(), rel=1e-12)
    assert (alpha_ab**2 * var_bc + var_ab).item() == pytest.approx(var_ac.item(), rel=1e-11)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("variance", ["lower", "upper", "learned"])
def test_every_variance_is_finite_and_ordered(name, variance):
    process, x = PROCESSES[name], torch.zeros(2, 1, dtype=torch.float64)
    for t, s in [(process.T, 0), (process.T, 1), (2, 1), (1, 0), (process.T // 2, 2)]:
        hi, lo = process.level(t), process.level(s)
        pred = Prediction(x, hi, x, x, var_frac=torch.tensor([[0.0], [1.0]], dtype=torch.float64))
        var = transitions.reverse(
            pred, hi, lo, variance, process.level(min(t + 1, process.T)) if t < process.T else None
        ).var
        assert torch.isfinite(var.log()).all()
        if s > 0:
            _, upper = transitions.transition(hi, lo)
            assert (var <= upper * (1 + 1e-12)).all()
            assert (var >= transitions.lower_var(hi, lo) * (1 - 1e-12)).all()


def test_direct_variance_on_any_pair():
    """With the exact Σ of Gaussian data at (t, t−1), the carried-over Σ at (t, s) is exact too."""
    process, data_var = PROCESSES["linear"], 0.3
    x = torch.zeros(1, 1, dtype=torch.float64)

    def exact(t, s):  # Var(x_s | x_t) = lower + c_0² Var(x_0 | x_t)
        hi, lo = process.level(t), process.level(s)
        c_0, _ = transitions.posterior_coefficients(hi, lo)
        return transitions.lower_var(hi, lo) + c_0**2 * data_var * hi.sigma**2 / (
            hi.alpha**2 * data_var + hi.sigma**2
        )

    for t, s in [(1000, 999), (1000, 500), (400, 3), (400, 0), (1, 0)]:
        hi, lo = process.level(t), process.level(s)
        pred = Prediction(
            x, hi, x, x, log_var=exact(t, t - 1).log().reshape(1, 1), below=process.level(t - 1)
        )
        assert transitions.reverse(pred, hi, lo, "learned").var.item() == pytest.approx(
            exact(t, s).item(), rel=1e-9
        )


def test_reverse_refuses_what_it_cannot_do():
    process, x = PROCESSES["linear"], torch.zeros(1, 1)
    pred = Prediction(x, process.level(5), x, x)
    with pytest.raises(sf.IncompatibleModel, match="variance head"):
        transitions.reverse(pred, process.level(5), process.level(4), "learned")
    with pytest.raises(sf.InputError, match="lower, upper, learned"):
        transitions.reverse(pred, process.level(5), process.level(4), "small")  # type: ignore[arg-type]


def test_normal_log_prob_kl_and_sample():
    p = Normal(
        torch.tensor([[0.3, -1.0]], dtype=torch.float64), torch.tensor([[0.5, 2.0]], dtype=torch.float64)
    )
    q = Normal(
        torch.tensor([[0.0, 0.5]], dtype=torch.float64), torch.tensor([[1.0, 0.7]], dtype=torch.float64)
    )
    ours = torch.distributions.Independent(torch.distributions.Normal(p.mean, p.std), 1)
    theirs = torch.distributions.Independent(torch.distributions.Normal(q.mean, q.std), 1)
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    assert torch.allclose(p.log_prob(x), ours.log_prob(x), rtol=1e-12)
    assert torch.allclose(p.kl(q), torch.distributions.kl_divergence(ours, theirs), rtol=1e-12)
    assert p.sample(torch.ones(1, 2).double())[0, 1].item() == pytest.approx(-1 + math.sqrt(2))


REVERSED = {
    "linear": (PROCESSES["linear"], 400, 150),
    "ve": (PROCESSES["ve"], 20, 11),
    "flow": (sf.process.flow(), 0.8, 0.3),
}


@pytest.mark.parametrize("name", REVERSED)
def test_reverse_with_the_exact_x0_has_the_mean_of_the_true_reverse_chain(name):
    """E[x_s | x_t] ∝ ∫ x_s q(x_t | x_s) p(x_s) dx_s of a mixture, by quadrature.  [DDPM §3.2]"""
    process, t, s = REVERSED[name]
    mixture = sf.oracle.GaussianMixture([[-1.0], [0.8]], [[[0.04]], [[0.1]]], [0.3, 0.7])
    hi, lo = process.level(t), process.level(s)
    x_t = (0.3 * hi.alpha + 0.9 * hi.sigma).reshape(1, 1)
    p = process.reverse(mixture.denoiser(process)(x_t, t), t, s)
    x_s = torch.linspace(-12, 12, 400_001, dtype=torch.float64)[:, None] * float(lo.alpha + lo.sigma)
    alpha_ts = hi.alpha / lo.alpha
    log_w = mixture.log_prob(x_s, lo) - ((x_t - alpha_ts * x_s) ** 2)[:, 0] / (
        2 * (hi.sigma**2 - alpha_ts**2 * lo.sigma**2)
    )
    expected = (torch.softmax(log_w, 0) * x_s[:, 0]).sum()
    assert p.mean.item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("name", REVERSED)
def test_reverse_variances_are_exact_for_a_point_and_for_white_data(name):
    """Var(x_s | x_t): β̃ where x_0 is known; β where x_t is white noise at every t.  [DDPM §3.2; Improved DDPM Eq. 15]"""
    process, t, s = REVERSED[name]
    hi, lo = process.level(t), process.level(s)
    x = torch.zeros(1, 1, dtype=torch.float64)
    pred = Prediction(x, hi, x, x, var_frac=torch.full_like(x, 0.25))
    # Precisions add: that of x_s given x_0, and that of x_t as a measurement of x_s.
    var_ts = hi.sigma**2 - (hi.alpha / lo.alpha) ** 2 * lo.sigma**2
    known = 1 / (1 / lo.sigma**2 + (hi.alpha / lo.alpha) ** 2 / var_ts)
    lower, upper, learned = (process.reverse(pred, t, s, v).var.item() for v in ("lower", "upper", "learned"))
    assert lower == pytest.approx(known.item(), rel=1e-12)
    if name == "linear":  # white data: x_s and x_t have variance 1 and covariance α_{t|s}
        assert upper == pytest.approx(float(1 - (hi.alpha / lo.alpha) ** 2), rel=1e-12)
    assert upper == pytest.approx(var_ts.item(), rel=1e-12)
    assert math.log(learned) == pytest.approx(0.25 * math.log(upper) + 0.75 * math.log(lower), rel=1e-12)


def test_reverse_of_a_process_takes_what_belongs_together():
    process, x = PROCESSES["cosine"], torch.zeros(2, 1, dtype=torch.float64)
    pred = Prediction(x, process.level(1), x, x)
    # Without a grid time above it, the step to 0 has σ²_{1|0}; with one, the variance of the step from it to t.
    assert process.reverse(pred, 1, 0).var.item() == pytest.approx(process.transition(1, 0)[1].item())
    above = transitions.lower_var(process.level(7), process.level(1))
    assert process.reverse(pred, 1, 0, above=7).var.item() == pytest.approx(above.item())
    with pytest.raises(sf.InputError, match="another level"):
        process.reverse(pred, 2, 1)
    with pytest.raises(sf.InputError, match="another level"):
        process.reverse(Prediction(x, process.level(torch.tensor([1, 1])), x, x), torch.tensor([1, 1, 1]), 0)
    with pytest.raises(sf.InputError, match="model returns"):
        process.reverse(x, 1, 0)
    with pytest.raises(sf.InputError, match="lower, upper, learned"):
        process.reverse(pred, 1, 0, "small")
