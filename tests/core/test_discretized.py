"""The discretized Gaussian decoder: golden B05, an independent integral, normalization, tails, gradients and
refusals.
"""

import math

import pytest
import torch
from scipy import integrate
from support import Golden, assert_close

import scorefield as sf
from scorefield.core.distributions import Normal, discretized_log_prob

IMAGES = sf.DataSpec((1,), bins=256)


def normal(mean, std, dtype=torch.float64):
    return Normal(torch.tensor([[mean]], dtype=dtype), torch.tensor([[std**2]], dtype=dtype))


@pytest.mark.parametrize("case", ["near", "far"])
def test_tanh_equals_published_values(case):
    # [DDPM Eq. 13]
    golden = Golden("B05_likelihood_helpers")
    x, mean, log_std = (golden[f"in.{case}.{k}"].double()[:, None] for k in ("x", "mean", "log_scale"))
    ours = discretized_log_prob(x, Normal(mean, (2 * log_std).exp()), IMAGES, "tanh")
    assert_close(ours, golden[f"out64.loglik_{case}"], 1e-9)
    if case == "near":
        exact = discretized_log_prob(x, Normal(mean, (2 * log_std).exp()), IMAGES)
        assert (exact.exp() - ours.exp()).abs().max() < 4e-4  # twice the approximation's largest error


def test_kl_equals_published_values():
    golden = Golden("B05_likelihood_helpers")
    m1, l1, m2, l2 = (
        golden[f"in.kl.{k}"].double()[:, None] for k in ("mean1", "logvar1", "mean2", "logvar2")
    )
    assert_close(Normal(m1, l1.exp()).kl(Normal(m2, l2.exp())), golden["out64.normal_kl"], 1e-9)
    standard = Normal(torch.zeros_like(m1), torch.ones_like(m1))
    assert_close(Normal(m1, l1.exp()).kl(standard), golden["out64.normal_kl_std"], 1e-9)


@pytest.mark.parametrize(
    ("level", "mean", "std"),
    [(100, -0.2, 0.01), (3, -0.9, 0.3), (0, -0.8, 0.1), (16, 2.1, 0.2), (5, 0.3, 1e-2)],
)
def test_exact_equals_an_integral(level, mean, std):
    data = sf.DataSpec((1,), range=(-1.0, 2.0), bins=256 if level == 100 else 17)
    step = 3 / (data.bins - 1)
    x = -1 + step * level
    low = -math.inf if level == 0 else x - step / 2
    high = math.inf if level == data.bins - 1 else x + step / 2

    def density(v):
        return math.exp(-0.5 * ((v - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))

    mass, _ = integrate.quad(
        density, max(low, mean - 40 * std), min(high, mean + 40 * std), epsabs=0, epsrel=1e-12
    )
    ours = discretized_log_prob(torch.tensor([[x]], dtype=torch.float64), normal(mean, std), data)
    assert ours.item() == pytest.approx(math.log(mass), rel=1e-9)


@pytest.mark.parametrize("bins", [2, 17, 256])
@pytest.mark.parametrize(("mean", "std"), [(0.1, 0.02), (-1.4, 0.5), (0.9, 1e-4)])
def test_levels_share_all_the_mass(bins, mean, std):
    data = sf.DataSpec((1,), bins=bins)
    x = torch.linspace(-1, 1, bins, dtype=torch.float64)[:, None]
    every = Normal(torch.full_like(x, mean), torch.full_like(x, std**2))
    assert discretized_log_prob(x, every, data).exp().sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("std", [1e-6, 1e-3, 0.1, 1.0])
@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_float32_is_finite_with_right_gradients_in_any_tail(std, level):
    x = IMAGES.from_bins(torch.tensor([[level]]))
    grads, values = {}, {}
    for dtype in (torch.float32, torch.float64):
        mean = torch.tensor([[-1.2]], dtype=dtype, requires_grad=True)
        var = torch.tensor([[std**2]], dtype=dtype, requires_grad=True)
        value = discretized_log_prob(x.to(dtype), Normal(mean, var), IMAGES)
        values[dtype], grads[dtype] = (
            value.detach(),
            torch.stack(torch.autograd.grad(value.sum(), [mean, var])),
        )
        assert torch.isfinite(values[dtype]).all()
        assert torch.isfinite(grads[dtype]).all()
    assert values[torch.float32].item() == pytest.approx(values[torch.float64].item(), rel=2e-4)
    assert_close(grads[torch.float32], grads[torch.float64], 2e-3)


def test_refusals():
    x = IMAGES.from_bins(torch.tensor([[3], [7]]))
    p = Normal(torch.zeros(2, 1), torch.ones(2, 1))
    with pytest.raises(sf.InputError, match=r"256 bins.*1 of 2 values.*density"):
        discretized_log_prob(x + torch.tensor([[0.0], [0.001]]), p, IMAGES)
    for bad in (1.2, math.nan, math.inf):
        with pytest.raises(sf.InputError, match="256 bins"):
            discretized_log_prob(torch.full((2, 1), bad), p, IMAGES)
    with pytest.raises(sf.InputError, match="17 bins"):
        discretized_log_prob(x, p, sf.DataSpec((1,), bins=17))
    with pytest.raises(sf.InputError, match="no bins"):
        discretized_log_prob(x, p, sf.DataSpec((1,)))
    with pytest.raises(sf.InputError, match="exact, tanh"):
        discretized_log_prob(x, p, IMAGES, "erf")
