"""The likelihood of the probability-flow ODE against the exact log p_t of mixtures."""

import math
import sys

import pytest
import torch

import scorefield as sf
from scorefield.core.noise import NoiseSource

F64 = torch.float64
MIXTURE = sf.oracle.GaussianMixture(
    [[-1.0, 0.3], [0.8, -0.5]], [[[0.05, 0.01], [0.01, 0.08]], [[0.1, 0.0], [0.0, 0.04]]], [0.4, 0.6]
)
PROCESSES = {
    "linear": sf.process.from_betas(sf.process.linear_betas(1000)),
    "cosine": sf.process.from_betas(sf.process.cosine_betas(100)),
    "exploding": sf.process.from_sigmas(sf.process.geometric_sigmas(20.0, 0.05, 30)),
    "continuous vp": sf.process.vp(),
    "continuous ve": sf.process.ve(0.02, 30.0),
    "sub-vp": sf.process.sub_vp(),
    "flow": sf.process.flow(),
}


def on(process):
    return process if isinstance(process, sf.process.ContinuousProcess) else sf.process.Interpolated(process)


def case(name, n=24, t_min=None):
    """(model, x ~ p_{t_min}, exact ln p_{t_min}(x), exact prior)."""
    process = on(PROCESSES[name])
    noisy, last = (MIXTURE.at(process.level(t)) for t in (t_min or process.t_min, process.T))
    x = noisy.sample(n, NoiseSource(0))
    return MIXTURE.denoiser(PROCESSES[name]), x, noisy.log_prob(x), last.log_prob


@pytest.mark.parametrize("name", PROCESSES)
def test_exact_trace_and_prior_give_the_exact_density(name):
    # [Song et al. 2021 Eq. 39–40; Grathwohl et al. 2019]
    model, x, exact, prior = case(name)
    result = sf.likelihood.ode_log_prob(model, x, prior, trace="exact")
    assert (result.log_prob - exact).abs().max() < 1e-3
    assert (result.error == 0).all()
    assert result.prior_error is None
    assert 10 < result.calls < 1000


@pytest.mark.parametrize("t_min", [1e-3, 1e-2, 0.3])
def test_the_prior_of_the_straight_path_is_exact(t_min):
    """q(x_1) is N(0, 1) whatever the data are, so that the default prior gives the density too."""
    model, x, exact, _ = case("flow", t_min=t_min)
    result = sf.likelihood.ode_log_prob(model, x, t_min=t_min, trace="exact", rtol=1e-6, atol=1e-6)
    assert (result.log_prob - exact).abs().max() < 1e-3
    assert (result.prior_error == 0).all()


@pytest.mark.parametrize("t_min", [0.4, 3.7])
def test_any_t_min(t_min):
    model, x, exact, prior = case("cosine", t_min=t_min)
    result = sf.likelihood.ode_log_prob(model, x, prior, t_min, trace="exact")
    assert (result.log_prob - exact).abs().max() < 1e-3


def test_tighter_tolerances_cost_more_and_err_less():
    model, x, exact, prior = case("linear")
    errors, calls = [], []
    for tolerance in (1e-2, 1e-4, 1e-7):
        result = sf.likelihood.ode_log_prob(model, x, prior, trace="exact", rtol=tolerance, atol=tolerance)
        errors.append((result.log_prob - exact).abs().max().item())
        calls.append(result.calls)
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5
    assert calls[0] < calls[1] < calls[2]


def test_hutchinson_is_within_its_error_bars():
    model, x, exact, prior = case("cosine", 200)
    result = sf.likelihood.ode_log_prob(model, x, prior, probes=8, noise=NoiseSource(1))
    difference = result.log_prob - exact
    # In two dimensions vᵀJv takes two values: all eight probes may agree, and then the error is 0.
    spread = result.error > 0
    ratio = (difference[spread].abs() / result.error[spread]).median()
    assert 0.4 < ratio < 1.2  # about 0.7, were the error known exactly
    assert 0.8 < (difference**2).mean().sqrt() / (result.error**2).mean().sqrt() < 1.2
    assert abs(difference.mean()) < 4 * difference.std() / 200**0.5
    one = sf.likelihood.ode_log_prob(model, x, prior, noise=NoiseSource(1))
    assert one.error.isnan().all()
    assert abs((one.log_prob - exact).mean()) < 4 * (one.log_prob - exact).std() / 200**0.5


def test_noise_decides_the_probes():
    model, x, _, prior = case("cosine")
    first, again = (
        sf.likelihood.ode_log_prob(model, x, prior, noise=NoiseSource(5)).log_prob for _ in range(2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, sf.likelihood.ode_log_prob(model, x, prior, noise=NoiseSource(6)).log_prob)


@pytest.mark.parametrize("name", ["linear", "exploding"])
def test_prior_error_bounds_the_shift(name):
    """Over x ~ p the mean of exact − default is KL(p_T ‖ prior), at most the mean over x_0 of KL(q(x_T | x_0)
    ‖ prior).
    """
    model, x, exact, _ = case(name, 300)
    result = sf.likelihood.ode_log_prob(model, x, trace="exact")
    shift = exact - result.log_prob
    error = shift.std().item() / 300**0.5
    assert -4 * error < shift.mean().item() < result.prior_error.mean().item() + 4 * error
    assert (result.prior_error >= 0).all()


def gaussian_bits(mean, std, low, width):
    """−log₂ ∫ over a bin: the bits of a narrow-binned Gaussian, to second order in the width."""
    return lambda x: (
        0.5 * ((x - mean) / std) ** 2 / math.log(2)
        + math.log2(std * math.sqrt(2 * math.pi))
        - math.log2(width)
    )


def test_bits_of_quantized_data():
    """On a wide Gaussian dequantization costs nothing to first order: the bits are those of the bins."""
    # [Theis et al. 2016]
    data, std = sf.DataSpec((3,), range=(-1.0, 2.0), bins=64), 0.6
    process = sf.process.vp()
    model = sf.oracle.GaussianMixture(torch.zeros(1, 3), std**2 * torch.eye(3)[None]).denoiser(process)
    model.data = data
    x0 = data.from_bins(torch.randint(0, 64, (3000, 3), generator=torch.Generator().manual_seed(0))).double()
    result = sf.likelihood.ode_bits_per_dim(model, x0, NoiseSource(0), trace="exact", rtol=1e-4, atol=1e-4)
    alpha, sigma = (float(c) for c in process.level(process.t_min))
    noisy = math.hypot(alpha * std, sigma)
    expected = gaussian_bits(0.0, noisy, -1.0, 3 / 63)(x0).mean(dim=1)
    assert result.bits.shape == (3000,)
    difference = result.bits - expected
    assert abs(difference.mean()) < 4 * difference.std() / 3000**0.5 + 1e-3


def small_model(**options):
    torch.manual_seed(0)
    heads = 1 + ("variance" in options)
    net, seen = torch.nn.Conv2d(1, heads, 3, padding=1).double(), []

    def call(x, c, y=None):
        seen.append(float(c[0]))
        return 0.3 * net(x.double()).tanh().to(x.dtype)

    process = sf.process.from_betas(sf.process.cosine_betas(20))
    return sf.Denoiser(call, process, data=sf.DataSpec((1, 3, 3), bins=17), **options), seen


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"parametrization": "v"},
        {"variance": "range"},
        {"variance": "direct"},
        {"noise_input": "log_sigma"},
    ],
)
def test_models_of_levels_are_read_between_them(options):
    model, seen = small_model(**options)
    x0 = model.data.from_bins(torch.randint(0, 17, (2, 1, 3, 3))).double()
    result = sf.likelihood.ode_bits_per_dim(model, x0, NoiseSource(0))
    assert torch.isfinite(result.bits).all()
    assert len(seen) == result.calls
    assert any(c != round(c) for c in seen)
    assert isinstance(model.process, sf.process.DiscreteProcess)  # the caller's model is left as it was
    wrapped = sf.likelihood.ode_bits_per_dim(sf.guidance.ClipX0(model, -1e9, 1e9), x0, NoiseSource(0))
    assert torch.allclose(wrapped.bits, result.bits)


def test_float32():
    model, _ = small_model()
    x = 0.5 * torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    ours, exact = (sf.likelihood.ode_log_prob(model, y, trace="exact").log_prob for y in (x, x.double()))
    assert (ours - exact).abs().max() < 1e-2


def test_refusals(monkeypatch):
    model, x, _, _ = case("cosine", 2)
    with pytest.raises(sf.InputError, match="hutchinson, exact"):
        sf.likelihood.ode_log_prob(model, x, trace="full")
    with pytest.raises(sf.InputError, match="probes"):
        sf.likelihood.ode_log_prob(model, x, probes=0)
    for t_min in (0.0, 100.0, -1.0):
        with pytest.raises(sf.InputError, match="t_min"):
            sf.likelihood.ode_log_prob(model, x, t_min=t_min)
    with pytest.raises(sf.InputError, match="no bins"):
        sf.likelihood.ode_bits_per_dim(model, x, NoiseSource(0))
    image = torch.zeros(1, 1, 3, 3)
    with pytest.raises(sf.IncompatibleModel, match='"mean"'):
        sf.likelihood.ode_log_prob(small_model(parametrization="mean")[0], image)
    with pytest.raises(sf.IncompatibleModel, match="integer t"):
        sf.likelihood.ode_log_prob(small_model(noise_input="rank")[0], image)
    with pytest.raises(sf.IncompatibleModel, match="noise levels"):
        sf.likelihood.ode_log_prob(MIXTURE, x)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(sf.InputError, match="pip install torchdiffeq"):
        sf.likelihood.ode_log_prob(model, x)
