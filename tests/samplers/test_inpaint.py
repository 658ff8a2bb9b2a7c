"""Inpainting: what is exact (the known part, independent values, no mask), the law of the rest, and refusals."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from support import relative_error

import scorefield as sf
from scorefield.core.noise import NoiseSource, Recorded
from scorefield.samplers import (
    DDIM,
    Ancestral,
    CategoricalAncestral,
    DPMSolver2M,
    Euler,
    Heun,
    Inpaint,
    Langevin,
    PredictorCorrector,
)

F64 = torch.float64
MEAN = torch.tensor([0.4, -0.3], dtype=F64)
COV = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=F64)
APART = torch.diag(torch.tensor([0.5, 0.4], dtype=F64))
EYE = torch.eye(2, dtype=F64)
KNOWN = torch.tensor([1.1, float("nan")], dtype=F64)  # what is not known may be anything
MASK = torch.tensor([True, False])
VP = sf.process.from_betas(sf.process.linear_betas(1000))
VE = sf.process.from_sigmas(sf.process.geometric_sigmas(20.0, 0.01, 60))
ETA = {"ancestral": 1.0, "ddim": 0.0, "ddim half": 0.5}
FAMILY = {"ancestral": Ancestral(), "ddim": DDIM(), "ddim half": DDIM(0.5)}


def oracle(cov, process=VP):
    return sf.oracle.GaussianMixture(MEAN[None], cov[None]).denoiser(process)


def law_of_the_command(model, sampler, grid):
    """(mean, variance) of the unknown value, read off the sampler: the result is affine in every number that
    is drawn.

    Row 0 draws nothing; each other row draws 1 in one place of one draw (or of x_T) and 0 everywhere else.
    """
    draws = 3 * (len(grid) - 1)
    rows = 1 + 2 * (draws + 1)
    tape = torch.zeros(draws + 1, rows, 2, dtype=F64)
    for k in range(draws + 1):
        tape[k, 1 + 2 * k, 0] = tape[k, 2 + 2 * k, 1] = 1
    x = sf.sample(model, Inpaint(sampler, KNOWN, MASK), grid, x_T=tape[0], noise=Recorded(tape[1:]))
    assert torch.equal(x[:, 0], KNOWN[0].expand(rows))
    effect = x[1:, 1] - x[0, 1]
    return x[0, 1], (effect**2).sum()


def law_by_hand(process, cov, grid, eta):
    """The same by the recursion of DDIM's family on the Gaussian, the known value redrawn as α_s k + σ_s z
    after every step.
    """
    known = float(KNOWN[0])
    mean, var = torch.zeros((), dtype=F64), torch.ones((), dtype=F64)  # of the unknown value at T
    for t, s in pairwise(grid):
        (a_t, s_t), (a_s, s_s) = process.level(t), process.level(s)
        gain = a_t * cov @ torch.linalg.inv(a_t**2 * cov + s_t**2 * EYE)
        std = eta * (s_s / s_t) * (s_t**2 - (a_t / a_s) ** 2 * s_s**2).sqrt() if s > 0 else 0.0
        along = (s_s**2 - std**2) ** 0.5
        A = a_s * gain + along * (EYE - a_t * gain) / s_t
        b = (a_s - along * a_t / s_t) * (MEAN - a_t * gain @ MEAN)
        mean = A[1, 1] * mean + A[1, 0] * a_t * known + b[1]
        var = A[1, 1] ** 2 * var + A[1, 0] ** 2 * s_t**2 + std**2
    return mean, var


def conditional(cov):
    """Mean and variance of the unknown value given the known one."""
    slope = cov[1, 0] / cov[0, 0]
    return MEAN[1] + slope * (KNOWN[0] - MEAN[0]), cov[1, 1] - slope * cov[0, 1]


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("cov", [COV, APART], ids=["correlated", "independent"])
def test_the_law_of_the_unknown_value(name, cov):
    grid = sf.grids.uniform(VP, 8).tolist()
    mean, var = law_of_the_command(oracle(cov), FAMILY[name], grid)
    exact_mean, exact_var = law_by_hand(VP, cov, grid, ETA[name])
    assert relative_error(mean, exact_mean) < 1e-9
    assert relative_error(var, exact_var) < 1e-9


@pytest.mark.parametrize("name", FAMILY)
def test_how_far_that_is_from_the_conditional(name):
    """Not at all for independent values, as the steps become many; for others it stays biased, and is
    reported as measured.
    """
    for cov in (APART, COV):
        mean, var = law_by_hand(VP, cov, sf.grids.full(VP).tolist(), ETA[name])
        true_mean, true_var = conditional(cov)
        if cov is APART:
            assert abs(mean - true_mean) < 0.01
            assert abs(var - true_var) < 0.02 * true_var
            continue
        share = (mean - MEAN[1]) / (true_mean - MEAN[1])
        print(
            f"{name}: mean {share:.2f} of the way from the marginal to the conditional, variance {var / true_var:.2f} of its"
        )
        assert 0 < share <= 1  # it moves towards what is known, and not beyond
        assert true_var < cov[1, 1]


EVERY: dict[str, Any] = {
    **FAMILY,
    "ddim, its own ς": DDIM(varsigma=lambda t, s: 0.005),
    "2m": DPMSolver2M(),
    "2m, stochastic": DPMSolver2M(stochastic=True),
    "euler": Euler(),
    "heun": Heun(),
    "upper": Ancestral("upper"),
    "langevin": Langevin(2e-5),
    "denoised": Langevin(2e-5, final_denoise=True),
    "corrected": PredictorCorrector(Ancestral(), Langevin(2e-5)),
}


def grid_of(name, process):
    times = sf.grids.uniform(process, 4)
    return sf.grids.staircase(process, 2, times) if name in ("langevin", "denoised") else times


@pytest.mark.parametrize("process", [VP, VE], ids=["vp", "ve"])
@pytest.mark.parametrize("name", EVERY)
def test_known_values_are_exact_and_no_mask_changes_nothing(name, process):
    model, sampler, grid, noise = oracle(COV, process), EVERY[name], grid_of(name, process), NoiseSource(5)
    x_T = process.prior((8, 2), noise.at(0)).double()
    plain = sf.sample(model, sampler, grid, x_T=x_T, noise=noise)
    known = torch.tensor([0.1, 0.7], dtype=F64)
    for mask in (torch.tensor([False, False]), torch.tensor([True, False]), torch.tensor(True)):
        found = sf.sample(model, Inpaint(sampler, known, mask), grid, x_T=x_T, noise=noise)
        assert torch.equal(found[:, mask.expand(2)], known.expand(8, 2)[:, mask.expand(2)])
        if not mask.any():
            assert torch.equal(found, plain)
        elif not mask.all():
            assert found[:, 1].unique().numel() == 8


@pytest.mark.parametrize("name", ["ancestral", "ddim", "heun", "langevin"])
def test_known_values_follow_q_on_the_way(name):
    """At every s they are α_s k + σ_s z: standard normal when that is undone (4 standard errors of 4,000
    draws).
    """
    # [Song et al. 2021 App. I.2; Lugmayr et al. 2022]
    model, grid, count = oracle(COV), grid_of(name, VP), 4000
    x_T, noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(0), dtype=F64), NoiseSource(2)
    for step in sf.trajectory(model, Inpaint(EVERY[name], KNOWN, MASK), grid, x_T, noise):
        alpha, sigma = VP.level(step.s)
        if step.s == 0:
            continue
        z = (step.x[:, 0] - alpha * KNOWN[0]) / sigma
        assert abs(z.mean()) < 4 / count**0.5
        assert abs(z.var() - 1) < 4 * (2 / count) ** 0.5


def test_updates_at_one_level_keep_their_draw():
    grid = [10, 10, 10, 4, 4, 0]
    steps = sf.trajectory(
        oracle(COV), Inpaint(Langevin(1e-5), KNOWN, MASK), grid, torch.zeros(3, 2, dtype=F64), NoiseSource(0)
    )
    held = [step.x[:, 0] for step in steps]
    assert torch.equal(held[0], held[1])
    assert torch.equal(held[2], held[3])
    assert not torch.equal(held[1], held[2])


def test_a_grid_that_stops_early_ends_in_a_draw_of_q():
    grid = [1000, 500, 100]
    (_, step) = sf.trajectory(
        oracle(COV),
        Inpaint(DDIM(), KNOWN, MASK),
        grid,
        torch.zeros(4, 2, dtype=F64),
        Recorded([torch.ones(4, 2, dtype=F64)] * 3),
    )
    alpha, sigma = VP.level(100)
    assert torch.allclose(step.x[:, 0], alpha * KNOWN[0] + sigma, atol=1e-14)


def test_a_sampler_that_plans_still_does():
    """Heun's churn takes the number of steps from the grid, and DDIM refuses a ς that is too large."""
    process = sf.process.vp()
    model, grid = oracle(COV, process), torch.linspace(1, 0.05, 6, dtype=F64)
    x_T, noise = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=F64), NoiseSource(3)
    sampler = Heun(churn=2.0)
    inpaint = Inpaint(sampler, torch.zeros(2, dtype=F64), torch.tensor(False))
    plain = sf.sample(model, sampler, grid, x_T=x_T, noise=noise)
    assert torch.equal(sf.sample(model, inpaint, grid, x_T=x_T, noise=noise), plain)
    with pytest.raises(sf.InputError, match="ς"):
        sf.trajectory(oracle(COV), Inpaint(DDIM(varsigma=lambda t, s: 2.0), KNOWN, MASK), [1000, 500, 0], x_T)


def test_a_sample_does_not_depend_on_the_batch():
    model, grid = oracle(COV), sf.grids.uniform(VP, 8)

    def run(samples):
        noise = NoiseSource(9, samples)
        x_T = VP.prior((len(samples), 2), noise.at(0)).double()
        return sf.sample(model, Inpaint(Ancestral(), KNOWN, MASK), grid, x_T=x_T, noise=noise)

    everyone = run(range(32))
    assert torch.allclose(run([17, 3]), everyone[[17, 3]], atol=1e-12)


def test_images_an_example_each_and_masks_that_broadcast():
    """known (B, C, H, W) with a mask (H, W) shared by the colours; under guidance like its sampler."""
    process = sf.process.from_betas(sf.process.linear_betas(50, 1e-3, 0.3))
    model = sf.Denoiser(lambda x, c, y=None: 0.1 * x, process, data=sf.DataSpec((3, 4, 4)))
    known = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:2] = True
    sampler = Inpaint(Ancestral(), known, mask)
    x = sf.sample(sf.guidance.ClipX0(model), sampler, sf.grids.full(process), n=2, noise=NoiseSource(0))
    assert torch.equal(x[:, :, :2], known[:, :, :2])
    assert not torch.isclose(x[:, :, 2:], known[:, :, 2:]).any()
    assert sampler.guidance == "mean"
    assert sampler.calls(sf.grids.full(process)) == 50
    assert Inpaint(Heun(), known, mask).calls([50, 20, 0]) == 3


def test_its_text_tells_what_is_known():
    one, other = Inpaint(DDIM(), KNOWN, MASK), Inpaint(DDIM(), KNOWN + 1, MASK)
    assert str(one) == str(Inpaint(DDIM(), KNOWN.clone(), MASK.clone()))
    assert (
        len({str(one), str(other), str(Inpaint(DDIM(), KNOWN, ~MASK)), str(Inpaint(DDIM(0.5), KNOWN, MASK))})
        == 4
    )


ONE = torch.zeros(2)
DENOISER = sf.Denoiser(lambda x, c, y=None: x, VP)
CATEGORIES = sf.CategoricalDenoiser(
    lambda x, c, y=None: x, sf.process.uniform_categorical([1 - k / 10 for k in range(1, 11)], 3)
)


@pytest.mark.parametrize(
    ("model", "sampler", "known", "mask", "grid", "message"),
    [
        (DENOISER, Langevin(0.1, metropolis=True), ONE, MASK, [2, 1, 0], "noise levels"),
        (sf.ScoreModel(lambda x, _: x), Langevin(0.1), ONE, MASK, [2, 1, 0], "noise levels"),
        (CATEGORIES, CategoricalAncestral(), ONE, MASK, [10, 5, 0], "categorical"),
        (DENOISER, DDIM(), ONE, MASK, [0, 5, 10], "must not ascend"),
        (DENOISER, DDIM(), torch.zeros(3), MASK, [10, 5, 0], "shape of one example"),
        (DENOISER, DDIM(), torch.zeros(5, 2), MASK, [10, 5, 0], "shape of one example"),
        (DENOISER, DDIM(), ONE, torch.ones(3, dtype=torch.bool), [10, 5, 0], "mask one that fits it"),
        (DENOISER, DDIM(), ONE, torch.ones(4, 1, 1, dtype=torch.bool), [10, 5, 0], "mask one that fits it"),
        (DENOISER, DDIM(), ONE / 0, MASK, [10, 5, 0], "values that are kept hold NaN"),
    ],
)
def test_refusals_come_before_the_first_step(model, sampler, known, mask, grid, message):
    x = torch.zeros(1, 2, dtype=torch.int64 if model is CATEGORIES else torch.float32)
    with pytest.raises(sf.ScorefieldError, match=message):
        sf.trajectory(model, Inpaint(sampler, known, mask), grid, x, NoiseSource(0))


def test_a_mask_is_of_booleans():
    with pytest.raises(sf.InputError, match="bool"):
        Inpaint(DDIM(), ONE, torch.ones(2))
