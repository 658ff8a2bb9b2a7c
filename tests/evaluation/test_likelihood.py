"""The variational bound: golden B04, exact answers on Gaussians and mixtures, its estimate from some terms,
and its refusals.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from support import Golden, assert_close, schedule

import scorefield as sf
from scorefield.core.noise import NoiseSource, Recorded
from scorefield.core.prediction import Prediction
from scorefield.evaluation.likelihood import _stratified_error
from scorefield.objectives.vlb import Bound, bound_terms, prior_term
from scorefield.process import transitions

F64 = torch.float64
EULER = 0.5772156649015329
MEANS: dict[str, Any] = {"EPSILON": "eps", "START_X": "x0", "PREVIOUS_X": "mean"}
HEADS: dict[str, Any] = {
    "FIXED_SMALL": (None, "lower"),
    "FIXED_LARGE": (None, "upper"),
    "LEARNED": ("direct", "learned"),
    "LEARNED_RANGE": ("range", "learned"),
}
MIXTURE = sf.oracle.GaussianMixture([[-0.6], [0.7]], [[[0.04]], [[0.1]]], [0.4, 0.6])


def linear(T):
    return sf.process.from_betas(sf.process.linear_betas(T, 0.1 / T, min(20 / T, 0.99)) if T > 1 else [0.999])


class Optimal:
    """The exact x̂0 of one-dimensional data with the exact variance of x_{t−1} given x_t: no Gaussian reverse
    step is better.
    """

    variance = "direct"

    def __init__(self, mixture, process):
        self.exact, self.process, self.data = mixture.denoiser(process), process, sf.DataSpec((1,))

    def __call__(self, x_t, t):
        t = torch.as_tensor(t)
        hi, below = self.process.level(t), self.process.level(t - 1)
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            x0 = self.exact(x, t).x0
            slope = torch.autograd.grad(x0.sum(), x)[0]
        c_0, _ = transitions.posterior_coefficients(hi, below)
        column = [-1, 1] if hi.alpha.ndim else []
        spread = (hi.sigma**2 / hi.alpha).reshape(column) * slope  # Var(x_0 | x_t), by Tweedie
        var = transitions.lower_var(hi, below).reshape(column) + (c_0**2).reshape(column) * spread
        return Prediction(x_t, hi, x0.detach(), x0.detach(), log_var=var.log(), below=below)

    def score(self, x, t=None):
        return self.exact.score(x, t)


@pytest.mark.parametrize("combination", range(4))
def test_golden_bits_per_dim(combination):
    # [DDPM Eq. 5; Improved DDPM Eq. 4–7]
    golden = Golden("B04_calc_bpd_loop")
    mean, variance, clip = golden.config["combinations"][combination]
    head, choice = HEADS[variance]
    net, data = golden.stub("learned" if head else "fixed"), sf.DataSpec((3, 4, 5), bins=256)
    model = sf.Denoiser(net, schedule(golden.config["schedule"]), MEANS[mean], head, data=data)
    model = sf.guidance.ClipX0(model) if clip == "clip" else model  # type: ignore[assignment]
    tape = Recorded(list(golden["in.noise"].double().flip(0)))  # the original draws at t = T first
    result = sf.likelihood.bits_per_dim(
        model, golden["in.x_start"].double(), tape, variance=choice, cdf="tanh"
    )
    name = f"out64.{mean}.{variance}.{clip}"
    assert_close(result.terms, golden[f"{name}.vb"].flip(1), 1e-8, "terms")
    assert_close(result.prior, golden[f"{name}.prior_bpd"], 1e-8, "prior")
    assert_close(result.total, golden[f"{name}.total_bpd"], 1e-8, "total")


def test_golden_prior_term():
    # [DDPM Eq. 5]
    golden = Golden("B01_forward_process")
    process = schedule(golden.config["schedule"])
    bits = prior_term(process, golden["in.x_start"].double(), process.T) / (60 * math.log(2))
    assert_close(bits, golden["out64.prior_bpd"], 1e-9)


def test_prior_term_at_a_time_for_each_example():
    process, x0 = linear(10), torch.linspace(-1, 1, 12, dtype=F64).reshape(3, 2, 2)
    together = prior_term(process, x0, torch.tensor([10, 5, 1]))
    alone = [prior_term(process, x0[i : i + 1], t) for i, t in enumerate((10, 5, 1))]
    assert_close(together, torch.cat(alone), 1e-12)


def kl_of_gaussians(m, v, m2, v2):
    return (math.log(v2 / v) + (v + (m - m2) ** 2) / v2 - 1) / 2


@pytest.mark.parametrize("T", [1, 2, 3, 10, 100, 1000])
@pytest.mark.parametrize("kind", ["linear", "cosine", "ve"])
def test_gap_on_gaussian_data_is_the_priors(kind, T):
    """With the optimal variance Σ E[L_t] − entropy = KL(q(x_T) ‖ p(x_T)). Two nodes a variable are exact for
    quadratics in (x_0, ε).
    """
    # [DDPM Eq. 5]
    mean, var = 0.3, 0.25
    process = {
        "linear": lambda: linear(T),
        "cosine": lambda: sf.process.from_betas(sf.process.cosine_betas(T)),
        "ve": lambda: sf.process.from_sigmas(
            [0.05 * 400 ** (k / max(1, T - 1)) for k in range(T)], mean=0.1, std=0.4
        ),
    }[kind]()
    model = Optimal(sf.oracle.GaussianMixture([[mean]], [[[var]]]), process)
    nodes = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=F64)
    x0, eps = mean + math.sqrt(var) * nodes[:, :1], nodes[:, 1:]
    result = sf.likelihood.bits_per_dim(model, x0, Recorded([eps] * T), variance="learned", decoder="density")
    entropy = 0.5 * math.log(2 * math.pi * math.e * var)
    alpha, sigma = (float(c) for c in process.level(T))
    expected = kl_of_gaussians(
        alpha * mean, alpha**2 * var + sigma**2, process.prior_mean, process.prior_std**2
    )
    assert result.total.mean().item() * math.log(2) - entropy == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("grid", [[100, 60, 7, 0], [100, 0], [40, 3, 2, 0]])
def test_gap_on_respaced_grids(grid):
    """The direct variance carries over exactly to any pair, so the gap stays that of where the grid starts."""
    process = linear(100)
    model = Optimal(sf.oracle.GaussianMixture([[0.3]], [[[0.25]]]), process)
    nodes = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=F64)
    tape = Recorded([nodes[:, 1:]] * (len(grid) - 1))
    result = sf.likelihood.bits_per_dim(
        model, 0.3 + 0.5 * nodes[:, :1], tape, grid, "learned", decoder="density"
    )
    alpha, sigma = (float(c) for c in process.level(grid[0]))
    expected = kl_of_gaussians(alpha * 0.3, alpha**2 * 0.25 + sigma**2, 0, 1) + 0.5 * math.log(
        2 * math.pi * math.e * 0.25
    )
    assert result.total.mean().item() * math.log(2) == pytest.approx(expected, abs=1e-8)


def gap(model, x0, variance, grid=None, seed=1):
    """(mean, standard error) of bound − (−ln p(x_0)) over the same examples, nats."""
    bits = sf.likelihood.bits_per_dim(model, x0, NoiseSource(seed), grid, variance, decoder="density")
    difference = bits.total * math.log(2) + MIXTURE.log_prob(x0)
    return difference.mean().item(), difference.std().item() / len(x0) ** 0.5


@pytest.mark.parametrize("variance", ["lower", "upper", "learned"])
def test_bound_is_above_the_entropy_and_falls_with_T(variance):
    x0, gaps = MIXTURE.sample(10_000, NoiseSource(0)), []
    for T in (5, 20, 80):
        process = sf.process.from_betas(sf.process.cosine_betas(T))
        model = Optimal(MIXTURE, process) if variance == "learned" else MIXTURE.denoiser(process)
        mean, error = gap(model, x0, variance)
        assert mean > -4 * error
        gaps.append((mean, error))
    if variance != "lower":  # which first rises: see below
        (first, e1), (second, e2), (third, e3) = gaps
        assert second < first - 2 * math.hypot(e1, e2)
        assert third < min(second, 0.03) + 2 * e3


def cost_of_lower(T):
    """Σ_t E[L_t] with "lower" minus that with "upper", in nats, in one call: many points where t is small and
    single terms are large.
    """
    process = sf.process.from_betas(sf.process.cosine_betas(T))
    counts = (40_000 // torch.arange(1, T + 1)).clamp_min(8)
    t = torch.arange(1, T + 1).repeat_interleave(counts)
    x0 = MIXTURE.sample(len(t), NoiseSource(T))
    pred = MIXTURE.denoiser(process)(process.sample(x0, t, NoiseSource(7).normal(x0.shape).double()), t)
    lower, upper = (
        bound_terms(pred, x0, process.level(t - 1), Bound(v, "density")) for v in ("lower", "upper")
    )
    return ((lower - upper) / counts[t - 1]).sum().item()


def test_lower_costs_half_of_eulers_constant():
    """As T grows "upper" loses nothing, and "lower" ½ Σ_n (1/n − ln(1 + 1/n)) = γ/2 = 0.289 nats a dimension,
    next to the data.

    There σ_s²/σ_t² = (t − 1)/t, so β̃ is too small by t/(t − 1) at every t > 1, however large T is.
    """
    costs = [cost_of_lower(T) for T in (400, 4000, 40_000)]
    assert costs[0] > costs[1] > costs[2]
    assert costs[2] == pytest.approx(EULER / 2, abs=0.015)


def test_discrete_data_with_the_exact_denoiser():
    """Quantized data of known entropy: the bound is above it. Here x_0 is known long before t = 0, so "lower"
    is the right variance.
    """
    data = sf.DataSpec((1,), bins=5)
    points = data.from_bins(torch.arange(5)).double()[:, None]
    weights = torch.tensor([0.1, 0.3, 0.05, 0.35, 0.2], dtype=F64)
    process = sf.process.from_betas(sf.process.cosine_betas(200))
    model = sf.oracle.GaussianMixture(points, torch.zeros(5, 1, 1), weights).denoiser(process)
    model.data = data
    k = torch.multinomial(weights, 4000, replacement=True, generator=torch.Generator().manual_seed(0))
    entropy = -(weights[k].log2())  # of these very examples
    gaps = {}
    for variance in ("lower", "upper"):
        difference = (
            sf.likelihood.bits_per_dim(model, points[k], NoiseSource(0), variance=variance).total - entropy
        )
        gaps[variance], error = difference.mean().item(), difference.std().item() / 4000**0.5
        assert gaps[variance] > -4 * error
    assert gaps["lower"] < 0.1 < gaps["upper"]


def range_model(data=None):
    """A small network of random weights with a variance head."""
    torch.manual_seed(0)
    net = torch.nn.Conv2d(1, 2, 3, padding=1).double()
    data = data or sf.DataSpec((1, 4, 4), bins=17)
    return sf.Denoiser(
        lambda x, c, y=None: net(x),
        sf.process.from_betas(sf.process.cosine_betas(12)),
        variance="range",
        data=data,
    )


def levels(n, data):
    return data.from_bins(
        torch.randint(0, 17, (n, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    ).double()


def test_an_example_has_the_same_bound_in_any_batch():
    model = range_model()
    x0, noise = levels(5, model.data), NoiseSource(3)
    together = sf.likelihood.bits_per_dim(model, x0, noise)
    alone = sf.likelihood.bits_per_dim(model, x0[3:4], noise.of([3]))
    assert together.terms.shape == (5, 12)
    assert_close(together.terms[3:4], alone.terms, 1e-12)
    assert_close(together.prior + together.terms.sum(1), together.total, 1e-15)


@pytest.mark.parametrize("grid", [None, [12, 9, 4, 1, 0], [12, 5, 0]])
def test_estimate_from_some_terms_is_unbiased_with_an_honest_error(grid):
    model = range_model()
    x0 = levels(1, model.data)
    rows = x0.expand(4000, 1, 4, 4)
    full = sf.likelihood.bits_per_dim(model, rows, NoiseSource(1), grid)
    some = sf.likelihood.estimate_bits_per_dim(model, rows, NoiseSource(2), 4, grid)
    error = math.hypot(some.total.std().item(), full.total.std().item()) / 4000**0.5
    assert abs(some.total.mean() - full.total.mean()) < 4 * error
    assert torch.equal(some.prior, full.prior)
    # error leaves out the decoder's own ε, whose spread is that of the first column; neighbours taken in
    # pairs make it err upwards.
    spread = math.sqrt(some.total.var().item() - full.terms[:, 0].var().item())
    others = full.terms[:, 1:]
    count = others.shape[1]
    u = torch.rand(4000, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    other_rows = (torch.arange(4000)[:, None] + 1000 * torch.arange(4)) % 4000  # no two draws share their ε
    drawn = others[other_rows, ((torch.arange(4) + u) * count / 4).long()]
    pairs = (count / 4) ** 2 * ((drawn[:, 0] - drawn[:, 1]) ** 2 + (drawn[:, 2] - drawn[:, 3]) ** 2)
    error = (some.error**2).mean().item()
    assert 0.95 * spread < error**0.5
    assert (
        abs(error - pairs.mean().item())
        < 4 * math.hypot(pairs.std().item(), (some.error**2).std().item()) / 4000**0.5
    )


@pytest.mark.parametrize("terms", [2, 3, 5, 8])
def test_the_estimates_error_where_all_strata_are_alike(terms):
    # [Cochran 1977 §5A.12]
    values = torch.randn(20_000, terms, generator=torch.Generator().manual_seed(terms), dtype=F64)
    assert (_stratified_error(values) ** 2).mean().item() == pytest.approx(terms, rel=0.05)


@pytest.mark.parametrize("variance", ["lower", "learned"])
def test_float32_agrees_with_float64(variance):
    T, results = 4000, {}
    torch.manual_seed(0)
    net = torch.nn.Conv2d(1, 2 if variance == "learned" else 1, 3, padding=1)
    head = "range" if variance == "learned" else None
    data, process = sf.DataSpec((1, 4, 4), bins=17), sf.process.from_betas(sf.process.cosine_betas(T))
    for dtype in (torch.float32, F64):
        model = sf.Denoiser(lambda x, c, y=None: net.to(x.dtype)(x), process, "v", head, data=data)
        results[dtype] = sf.likelihood.bits_per_dim(
            model, levels(3, data).to(dtype), NoiseSource(0), range(T, -1, -20), variance
        )
    assert_close(results[torch.float32].total, results[F64].total, 1e-5)


def test_ignores_a_classifiers_gradient():
    model = range_model()

    class Guided(sf.guidance.ClipX0):
        def __call__(self, x_t, t):
            return replace(super().__call__(x_t, t), log_p_grad=lambda x, t: 1e6 * x)

    x0 = levels(2, model.data)
    plain = sf.likelihood.bits_per_dim(sf.guidance.ClipX0(model), x0, NoiseSource(0))
    assert torch.equal(sf.likelihood.bits_per_dim(Guided(model), x0, NoiseSource(0)).total, plain.total)


def test_default_variance_is_the_models_own():
    model = range_model()
    x0 = levels(2, model.data)
    for variance in ("learned", None):
        result = sf.likelihood.bits_per_dim(model, x0, NoiseSource(0), variance=variance).total
        assert torch.equal(result, sf.likelihood.bits_per_dim(model, x0, NoiseSource(0)).total)
    fixed = sf.Denoiser(lambda x, c, y=None: 0 * x, model.process, data=model.data)
    upper = sf.likelihood.bits_per_dim(fixed, x0, NoiseSource(0), variance="upper").total
    assert torch.equal(sf.likelihood.bits_per_dim(fixed, x0, NoiseSource(0)).total, upper)


def test_refusals():
    model = range_model()
    x0, noise = levels(2, model.data), NoiseSource(0)
    fixed = sf.Denoiser(lambda x, c, y=None: 0 * x, model.process, data=model.data)
    with pytest.raises(sf.IncompatibleModel, match="variance head"):
        sf.likelihood.bits_per_dim(fixed, x0, noise, variance="learned")
    with pytest.raises(sf.InputError, match="17 bins"):
        sf.likelihood.bits_per_dim(model, x0 + 0.01, noise)
    with pytest.raises(sf.InputError, match="no bins"):
        sf.likelihood.bits_per_dim(range_model(sf.DataSpec((1, 4, 4))), x0, noise)
    for grid in ([12, 4, 1], [0, 4, 12], [12, 12, 0]):
        with pytest.raises(sf.InputError, match="descends to 0"):
            sf.likelihood.bits_per_dim(model, x0, noise, grid)
    with pytest.raises(sf.InputError, match="at least 2"):
        sf.likelihood.estimate_bits_per_dim(model, x0, noise, 1)
    with pytest.raises(sf.InputError, match="one step"):
        sf.likelihood.estimate_bits_per_dim(model, x0, noise, 2, [12, 0])
