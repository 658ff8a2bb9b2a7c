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
