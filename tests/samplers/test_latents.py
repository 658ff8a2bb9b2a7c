"""Encoding and decoding against the Gaussian's exact flow, the spherical walk against its formula, and
refusals.
"""

import math

import numpy as np
import pytest
import torch
from support import assert_close

import scorefield as sf
from scorefield.samplers import DDIM, Ancestral, Euler, Heun, Langevin

F64 = torch.float64
MEAN, VARS = torch.tensor([0.4, -0.3], dtype=F64), torch.tensor([0.5, 0.05], dtype=F64)
VP = sf.process.from_betas(sf.process.linear_betas(1000))
VE = sf.process.from_sigmas(sf.process.geometric_sigmas(20.0, 0.01, 60), 3.0, 0.5)
CONTINUOUS = sf.process.vp()
X0 = torch.tensor([[0.1, 0.2], [-1.0, 0.5], [2.0, -0.4]], dtype=F64)


def gaussian(process):
    return sf.oracle.GaussianMixture(MEAN[None], torch.diag(VARS)[None]).denoiser(process)


def flow(process, x, t, s):
    """Where the probability flow of N(MEAN, diag VARS) carries x from t to s: the standardized value is kept."""
    (a_t, s_t), (a_s, s_s) = process.level(t), process.level(s)
    std_t, std_s = ((a**2 * VARS + sigma**2).sqrt() for a, sigma in ((a_t, s_t), (a_s, s_s)))
    return a_s * MEAN + std_s * (x - a_t * MEAN) / std_t


@pytest.mark.parametrize("process", [VP, VE], ids=["vp", "ve"])
def test_encoding_is_the_recursion_of_ddim_upwards(process):
    """x_s = α_s x̂0 + σ_s ε̂ with ε̂ at (x_t, t), and at (x_0, t₁) for the step from 0, dimension by
    dimension.
    """
    # [DDIM Eq. 14]
    times = sf.grids.quadratic(process, 12).tolist()
    x = X0
    for t, s in zip(times[::-1], times[::-1][1:], strict=False):
        at = t or s  # the level whose ε̂ is used
        a, sigma = process.level(at)
        slope = sigma / (a**2 * VARS + sigma**2)  # ε̂ = σ (x − α m)/(α² v + σ²)
        eps = slope * (x - a * MEAN)
        a_t, s_t = process.level(t)
        a_s, s_s = process.level(s)
        x = a_s * (x if t == 0 else (x - s_t * eps) / a_t) + s_s * eps
    assert_close(sf.latents.encode(gaussian(process), X0, sf.grids.quadratic(process, 12)), x, 1e-10)


@pytest.mark.parametrize(("sampler", "order"), [(DDIM(), 1), (Heun(), 2)], ids=["ddim", "heun"])
def test_orders_of_encoding_and_of_the_round_trip(sampler, order):
    """Both errors fall as S^-order on a grid that refines evenly, here in t from 1 to 0.02, without a step to
    0.
    """
    # [DDIM §5.4]
    model, counts = gaussian(CONTINUOUS), [20, 40, 80]
    exact = flow(CONTINUOUS, X0, 0.02, 1.0)
    errors = []
    for count in counts:
        grid = torch.linspace(1.0, 0.02, count + 1, dtype=F64)
        latent = sf.latents.encode(model, X0, grid, sampler)
        back = sf.latents.decode(model, latent, grid, sampler)
        errors.append([(latent - exact).abs().max().item(), (back - X0).abs().max().item()])
    slopes = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    print("errors", errors, "slopes", slopes)
    assert slopes[0] == pytest.approx(order, abs=0.15)
    assert slopes[1] > order - 0.15  # the way back undoes part of the way up, so it may be better


def test_decoding_is_sampling_from_the_latent():
    model, grid = gaussian(VP), sf.grids.uniform(VP, 20)
    x_T = sf.noise.NoiseSource(0).normal((4, 2)).double()
    expected = sf.sample(model, DDIM(), grid, x_T=x_T)
    assert torch.equal(sf.latents.decode(model, x_T, grid), expected)
    assert_close(sf.latents.decode(model, x_T, grid, Euler()), expected, 1e-12)


class Spy:
    """A model that notes the times it is called at."""

    def __init__(self, model):
        self.model, self.process, self.times = model, model.process, []

    def __call__(self, x_t, t):
        self.times.append(t)
        return self.model(x_t, t)

    def score(self, x, t=None):
        return self(x, t).score


def test_both_ways_call_the_model_once_a_step_and_never_at_0():
    spy = Spy(gaussian(VP))
    latent = sf.latents.encode(spy, X0, [1000, 400, 10, 0])
    assert spy.times == [10, 10, 400]
    sf.latents.decode(spy, latent, [1000, 400, 10, 0])
    assert spy.times == [10, 10, 400, 1000, 400, 10]


def formula(a, b, w):
    theta = np.arccos(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))
    return np.sin((1 - w) * theta) / np.sin(theta) * a + np.sin(w * theta) / np.sin(theta) * b


def test_slerp_is_the_paper_s_formula_example_by_example():
    # [DDIM Eq. 67]
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 5, 3, 4, 4))
    weights = rng.uniform(size=5)
    expected = np.stack([formula(*pair) for pair in zip(a, b, weights, strict=True)])
    found = sf.latents.slerp(torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(weights))
    assert_close(found, torch.from_numpy(expected), 1e-12)
    assert (
        sf.latents.slerp(torch.from_numpy(a).float(), torch.from_numpy(b).float(), 0.3).dtype == torch.float32
    )
    assert torch.equal(sf.latents.slerp(torch.from_numpy(a), torch.from_numpy(b), 0.0), torch.from_numpy(a))


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-7, 1e-5, 1e-3, 1.0, math.pi - 1e-3, math.pi - 1e-5, math.pi])
def test_slerp_keeps_to_the_circle_at_every_angle(angle):
    """Unit vectors at this angle: at w the point is a unit vector, wθ from a and (1 − w)θ from b."""
    a = torch.zeros(1, 7, dtype=F64)
    b = torch.zeros(1, 7, dtype=F64)
    a[0, 2], b[0, 2], b[0, 5] = 1.0, math.cos(angle), math.sin(angle) if angle < math.pi else 0.0
    for w in (0.0, 0.25, 0.5, 0.9, 1.0):
        x = sf.latents.slerp(a, b, w)
        for end, away in ((a, w * angle), (b, (1 - w) * angle)):
            found = 2 * torch.atan2((x - end).norm(), (x + end).norm()).item()
            assert found == pytest.approx(away, abs=2e-6)
        assert x.norm().item() == pytest.approx(1.0, abs=1e-9)


def test_slerp_of_opposite_and_of_empty_vectors():
    noise = sf.noise.NoiseSource(1).normal((3, 1, 5, 5)).double()
    middle = sf.latents.slerp(noise, -2 * noise, 0.5).flatten(1)
    assert_close(middle.norm(dim=1), 1.5 * noise.flatten(1).norm(dim=1), 1e-12)
    assert (middle * noise.flatten(1)).sum(dim=1).abs().max() < 1e-12
    # One number has no plane to turn in.
    assert sf.latents.slerp(torch.ones(1, 1), -torch.ones(1, 1), 0.25).isfinite().all()
    assert sf.latents.slerp(torch.zeros(1, 4), torch.ones(1, 4), 1.0).tolist() == [[1, 1, 1, 1]]
    assert sf.latents.slerp(torch.zeros(1, 4), torch.zeros(1, 4), 0.5).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("process", [VP, VE], ids=["vp", "ve"])
def test_a_walk_turns_around_the_mean_of_the_prior(process):
    # [DDIM §5.3, appendix D.5]
    model, grid = gaussian(process), sf.grids.uniform(process, 5)
    a, b = process.prior((2, 2), sf.noise.NoiseSource(3)).double()
    frames = sf.latents.interpolate(model, a, b, 4, grid)
    mean = process.prior_mean
    latents = [
        torch.from_numpy(formula((a - mean).numpy(), (b - mean).numpy(), k / 3)) + mean for k in range(4)
    ]
    assert_close(frames, sf.sample(model, DDIM(), grid, x_T=torch.stack(latents)), 1e-10)


def test_a_walk_takes_one_class_or_one_a_frame():
    process = sf.process.from_betas(sf.process.linear_betas(100, 1e-3, 0.2))
    net = lambda x, c, y=None: 0.1 * x + y[:, None].to(x.dtype)  # noqa: E731
    model = sf.Denoiser(net, process, "x0", data=sf.DataSpec((2,), classes=("a", "b")))
    a, b = torch.randn(2, 2, generator=torch.Generator().manual_seed(0))
    one = sf.latents.interpolate(model.given(1), a, b, 3, [100, 50, 0])
    each = sf.latents.interpolate(model.given([0, 1, 1]), a, b, 3, [100, 50, 0])
    assert torch.equal(one[1:], each[1:])
    assert not torch.equal(one[0], each[0])


SPEC = sf.DataSpec((2,), classes=("a", "b"))
NETWORK = sf.Denoiser(lambda x, c, y=None: x, VP, data=SPEC)
BF16 = sf.Denoiser(lambda x, c, y=None: x, VP, data=SPEC)
BF16.autocast_dtype = torch.bfloat16
CLASSIFIER = sf.NoisyClassifier(lambda x, c: x, VP, data=SPEC)
CATEGORIES = sf.CategoricalDenoiser(
    lambda x, c, y=None: x, sf.process.uniform_categorical([1 - k / 10 for k in range(1, 11)], 3)
)
GRID = [1000, 500, 0]


@pytest.mark.parametrize(
    ("model", "grid", "sampler", "message"),
    [
        (sf.guidance.ClipX0(NETWORK), GRID, DDIM(), "without ClipX0"),
        (sf.guidance.ClipX0(NETWORK.given(0)), GRID, Heun(), "without ClipX0"),
        (sf.guidance.DynamicThreshold(NETWORK), GRID, DDIM(), "clipping"),
        (sf.guidance.ClassifierGuidance(NETWORK, CLASSIFIER, 0, 1.0), GRID, DDIM(), "unguided model"),
        (BF16, GRID, DDIM(), "autocast_dtype"),
        (BF16.given(0), GRID, DDIM(), "autocast_dtype"),
        (NETWORK, GRID[::-1], DDIM(), "descending from noise"),
        (NETWORK, [1000, 500, 600, 0], DDIM(), "strictly"),
        (NETWORK, GRID, DDIM(0.5), "η = 0"),
        (NETWORK, GRID, Ancestral(), "strictly descend"),
        (NETWORK, GRID, Langevin(0.1), "not ascend"),
        (sf.ScoreModel(lambda x, _: x), [2, 1, 0], DDIM(), "noise levels"),
        (CATEGORIES, [10, 5, 0], DDIM(), "categorical"),
    ],
)
def test_refusals(model, grid, sampler, message):
    for call in (
        lambda: sf.latents.encode(model, torch.zeros(1, 2), grid, sampler),
        lambda: sf.latents.decode(model, torch.zeros(1, 2), grid, sampler),
        lambda: sf.latents.interpolate(model, torch.zeros(2), torch.ones(2), 3, grid, sampler),
    ):
        with pytest.raises(sf.ScorefieldError, match=message):
            call()


def test_bad_arguments():
    for frames in (1, 0, -2, 2.5, True, None):
        with pytest.raises(sf.InputError, match="at least 2"):
            sf.latents.interpolate(NETWORK, torch.zeros(2), torch.ones(2), frames, GRID)  # type: ignore[arg-type]
    with pytest.raises(sf.InputError, match="one shape"):
        sf.latents.slerp(torch.zeros(2, 3), torch.zeros(2, 4), 0.5)
    for weight in (-0.1, 1.1, torch.zeros(3)):
        with pytest.raises(sf.InputError, match=r"\[0, 1\]"):
            sf.latents.slerp(torch.zeros(2, 3), torch.zeros(2, 3), weight)
