"""The DDIM family: marginals for every η and ς, and one objective for all of its members.  [DDIM Lemma 1,
Theorem 1]
"""

import math
from itertools import combinations, pairwise

import pytest
import torch
from support import relative_error

import scorefield as sf
from scorefield.core.distributions import Normal
from scorefield.core.noise import NoiseSource, Recorded
from scorefield.models.guidance import ClassifierGuidance
from scorefield.runtime.parsing import build
from scorefield.runtime.registry import SAMPLERS
from scorefield.samplers import DDIM, Ancestral, Langevin, PredictorCorrector

F64 = torch.float64
X0 = torch.tensor([[0.3, -0.8]], dtype=F64)
POINT = sf.oracle.GaussianMixture(X0, torch.zeros(1, 2, 2, dtype=F64))
PROCESSES = {
    "linear": sf.process.from_betas(sf.process.linear_betas(16, 0.02, 0.6)),
    "cosine": sf.process.from_betas(sf.process.cosine_betas(16)),
    "ve": sf.process.from_sigmas(sf.process.geometric_sigmas(20.0, 0.01, 16)),
}
ETAS = (0.0, 0.3, 0.7, 1.0)


def pairs(process):
    return [(t, s) for s, t in combinations(range(process.T + 1), 2)]


def fraction(share, process):
    """ς = share·σ_s."""
    return lambda t, s: share * float(process.level(s).sigma)


def members(process):
    """Named members of the family: by η, and by ς up to its largest, σ_s, which forgets ε̂ altogether."""
    return [
        *(DDIM(eta) for eta in ETAS),
        *(DDIM(varsigma=fraction(share, process)) for share in (0.0, 0.4, 1.0)),
    ]


def read_off(model, sampler, t, s, x):
    """(x_s without noise, ς) of one step, read off the sampler with its draw set to 0 and to 1."""
    quiet, noisy = (
        next(iter(sf.trajectory(model, sampler, [t, s], x, Recorded([torch.full_like(x, z)])))).x
        for z in (0.0, 1.0)
    )
    return quiet, (noisy - quiet)[0, 0]


@pytest.mark.parametrize("name", PROCESSES)
def test_every_member_keeps_the_marginals(name):
    """x_t = α_t x_0 + σ_t ε and x̂0 = x_0 give x_s of mean α_s x_0 and variance d² + ς² = σ_s², for every
    pair of times.
    """
    # [DDIM Lemma 1]
    process = PROCESSES[name]
    eps, draw = (
        torch.tensor(rows, dtype=F64)[:, None].expand(3, 2) for rows in ([0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    )
    for sampler in members(process):
        for t, s in pairs(process):
            a_s, s_s = process.level(s)
            x_t = process.sample(X0.expand(3, 2), t, eps)
            (step,) = sf.trajectory(POINT.denoiser(process), sampler, [t, s], x_t, Recorded([draw]))
            along, varsigma = (step.x[1:] - step.x[0])[:, 0]
            assert (step.x[0] - a_s * X0).abs().max() <= 1e-12
            assert abs(along**2 + varsigma**2 - s_s**2) <= 1e-12 * max(1.0, s_s**2)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_marginals_by_simulation(name):
    """20,000 chains of one x_0 from the exact q(x_T | x_0) along four times; 4 standard errors."""
    process, n = PROCESSES[name], 20_000
    grid, model = [16, 11, 5, 2], POINT.denoiser(process)
    x_T = process.sample(X0.expand(n, 2), 16, NoiseSource(1).normal((n, 2)).double())
    for k, sampler in enumerate([DDIM(0.5), DDIM(1.0), DDIM(varsigma=fraction(0.6, process))]):
        for step in sf.trajectory(model, sampler, grid, x_T, NoiseSource(2 + k)):
            alpha, sigma = process.level(step.s)
            assert ((step.x.mean(0) - alpha * X0).abs() < 4 * sigma / n**0.5).all()
            assert ((step.x.var(0) / sigma**2 - 1).abs() < 4 * (2 / n) ** 0.5).all()


# Theorem 1: KL(q_ς(x_s | x_t, x_0) ‖ q_ς(x_s | x_t, x̂0)) and −ln p(x_0 | x_t), from Gaussians read off the
# sampler


class Guess:
    """A model with some x̂0 of its own."""

    def __init__(self, process):
        self.process = process

    def score(self, x, t=None):
        raise NotImplementedError

    def __call__(self, x_t, t):
        x0 = torch.sin(2 * x_t + 0.1 * float(t)) - 0.3
        return sf.Prediction(x_t, self.process.level(t), x0, x0)


def varsigmas(process, grid, seed):
    """Some 0 < ς < σ_s for every step, and one for the step to 0, which the sampler does not use."""
    shares = (0.1 + 0.85 * NoiseSource(seed).uniform((len(grid) - 1, 1)).double())[:, 0].tolist()
    return [share * float(process.level(s).sigma) for share, s in zip(shares, grid[1:], strict=True)], shares[
        -1
    ]


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize(
    "grid", [list(range(16, -1, -1)), [16, 13, 9, 8, 3, 1, 0], [15, 6, 0], [9, 0]], ids=str
)
def test_the_bound_is_a_weighted_denoising_loss(name, grid):
    # [DDPM Eq. 12]
    process, n = PROCESSES[name], 6
    stds, last = varsigmas(process, grid, seed=7)
    x0 = NoiseSource(8).normal((n, 2)).double()
    model, exact = Guess(process), Known(process, x0)
    for i, (t, s) in enumerate(pairwise(grid)):
        eps = NoiseSource(9 + i).normal((n, 2)).double()
        x_t, (a_t, s_t), (a_s, s_s) = process.sample(x0, t, eps), process.level(t), process.level(s)
        squared = ((eps - (x_t - a_t * model(x_t, t).x0) / s_t) ** 2).sum(1)  # ‖ε − ε̂‖²
        if s > 0:
            one = DDIM(varsigma=[stds[i]])
            (mean, std), (guess, _) = (read_off(m, one, t, s, x_t) for m in (exact, model))
            assert float(std) == pytest.approx(stds[i], rel=1e-9)
            var = torch.as_tensor(stds[i], dtype=F64) ** 2
            term = Normal(mean, var).kl(Normal(guess, var))
            weight = (a_s * s_t / a_t - (s_s**2 - var).sqrt()) ** 2 / (2 * var)
            constant = 0.0
        else:
            var = torch.as_tensor(last, dtype=F64) ** 2  # of p(x_0 | x_t) = N(x̂0, ς²)
            (step,) = sf.trajectory(model, DDIM(), [t, 0], x_t)
            term = -Normal(step.x, var).log_prob(x0)
            weight, constant = s_t**2 / a_t**2 / (2 * var), math.log(2 * math.pi * float(var))
        assert relative_error(term - constant, weight * squared) < 1e-10, (t, s)


def test_times_left_out_are_denoised_at_once():
    """Every t that a sub-sequence leaves out has a term of its own, −ln p(x_0 | x_t), with the same weight as
    the last step.
    """
    process, x0 = PROCESSES["cosine"], NoiseSource(0).normal((6, 2)).double()
    model = Guess(process)
    for t in set(range(1, 17)) - {16, 9, 3}:
        eps = NoiseSource(t).normal((6, 2)).double()
        x_t, (a_t, s_t), var = (
            process.sample(x0, t, eps),
            process.level(t),
            torch.tensor(0.2 + 0.01 * t, dtype=F64),
        )
        (step,) = sf.trajectory(model, DDIM(), [t, 0], x_t)
        term = -Normal(step.x, var).log_prob(x0) - math.log(2 * math.pi * float(var))
        squared = ((eps - (x_t - a_t * model(x_t, t).x0) / s_t) ** 2).sum(1)
        assert relative_error(term, s_t**2 / a_t**2 / (2 * var) * squared) < 1e-10


class Known(Guess):
    """The model that knows x_0."""

    def __init__(self, process, x0):
        super().__init__(process)
        self.x0 = x0

    def __call__(self, x_t, t):
        return sf.Prediction(x_t, self.process.level(t), self.x0, self.x0)


# The schedule as an option


MIXTURE = sf.oracle.GaussianMixture([[-1.0, 0.5], [1.5, 1.0]], 0.1 * torch.eye(2, dtype=F64).expand(2, 2, 2))


def ancestral(process):
    """The ς of ancestral sampling, DDIM Eq. 16 with η = 1."""

    def varsigma(t, s):
        (a_t, s_t), (a_s, s_s) = process.level(t), process.level(s)
        return float(s_s / s_t * (s_t**2 - (a_t / a_s * s_s) ** 2).sqrt())

    return varsigma


@pytest.mark.parametrize("name", PROCESSES)
def test_one_schedule_in_three_ways(name):
    process = PROCESSES[name]
    schedule, grid = ancestral(process), [16, 12, 7, 3, 1, 0]
    listed = [schedule(t, s) if s else 0.0 for t, s in pairwise(grid)]
    x_T = NoiseSource(0).normal((8, 2)).double()
    samplers = (
        Ancestral("lower"),
        DDIM(1.0),
        DDIM(varsigma=schedule),
        DDIM(varsigma=listed),
        DDIM(varsigma=torch.tensor(listed)),  # type: ignore[arg-type]
    )
    first, *others = (
        sf.sample(MIXTURE.denoiser(process), sampler, torch.tensor(grid), x_T=x_T, noise=NoiseSource(1))
        for sampler in samplers
    )
    for other in others[:3]:
        assert relative_error(other, first) < 1e-10
    assert relative_error(others[3], first) < 1e-5  # a float32 list


def test_a_schedule_of_zeros_is_deterministic_and_draws_nothing():
    process = PROCESSES["cosine"]
    x_T, grid = NoiseSource(0).normal((8, 2)).double(), [16, 8, 0]
    model = MIXTURE.denoiser(process)
    for varsigma in ([0.0, 0.0], lambda t, s: 0.0):
        assert torch.equal(
            sf.sample(model, DDIM(varsigma=varsigma), grid, x_T=x_T, noise=Recorded([])),
            sf.sample(model, DDIM(), grid, x_T=x_T),
        )


def test_a_schedule_goes_with_guidance_and_a_corrector():
    process, seen = PROCESSES["cosine"], []

    def varsigma(t, s):
        seen.append((t, s))
        return 0.0

    guided = ClassifierGuidance(MIXTURE.denoiser(process), MIXTURE.classifier(process), 1)
    x = sf.sample(
        guided,
        PredictorCorrector(DDIM(varsigma=varsigma), Langevin(1e-9)),
        [16, 8, 3, 0],
        x_T=torch.zeros(2, 2, dtype=F64),
    )
    assert x.isfinite().all()
    assert set(seen) == {(16, 8), (8, 3)}  # s = 0 is not asked about


def test_eta_and_varsigma_exclude_each_other():
    with pytest.raises(sf.InputError, match="give one"):
        DDIM(0.5, varsigma=[0.1])
    assert str(DDIM(0.5)) == "DDIM(eta=0.5)"
    assert str(DDIM(varsigma=[0.1, 0])) == "DDIM(varsigma=(0.1, 0.0))"


def test_clipping_in_the_step_is_refused_where_the_model_clips():
    process = sf.process.linear(100)
    model = sf.oracle.GaussianMixture([[0.0]], [[[1.0]]]).denoiser(process)
    x_T = torch.zeros(2, 1, dtype=torch.float64)
    with pytest.raises(sf.IncompatibleModel, match="clips x̂0 already"):
        sf.sample(sf.guidance.ClipX0(model), sf.samplers.DDIM(clip_x0=(-1, 1)), [100, 0], x_T=x_T)
    for wrong in ([1, -1], [0.0], [-1, 0, 1]):
        with pytest.raises(sf.InputError, match="low < high"):
            sf.samplers.DDIM(clip_x0=wrong)  # type: ignore[arg-type]


def test_new_settings_of_samplers_can_be_written_in_a_recipe():
    built = build(SAMPLERS, {"kind": "ddim", "clip_x0": [-1, 1]}, "sampling.sampler")
    assert built == sf.samplers.DDIM(clip_x0=(-1.0, 1.0))
    assert build(SAMPLERS, {"kind": "heun", "largest_ratio": 20}, "sampling.sampler").largest_ratio == 20
    last = build(SAMPLERS, {"kind": "ancestral", "last": "sample"}, "sampling.sampler")
    assert last == sf.samplers.Ancestral(last="sample")
