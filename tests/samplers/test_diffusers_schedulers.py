"""Trajectories of diffusers' DDIM, DDPM DPM-Solver++ and UniPC schedulers, which keep float32 tables; and where
only ours are right.

Every scheduler walks the exact x̂0 or ε̂ of one mixture, so that neither side has a network to hide behind.
"""

from itertools import pairwise

import pytest
import torch
from support import relative_error

import scorefield as sf
from scorefield.core.noise import NoiseSource, Recorded
from scorefield.core.prediction import Prediction
from scorefield.samplers import DDIM, Ancestral, DPMSolver2M, UniPC

F64 = torch.float64
EYE = torch.eye(2, dtype=F64)
MIXTURE = sf.oracle.GaussianMixture(
    [[-1.0, 0.5], [0.8, 0.9]], torch.stack([0.1 * EYE, 0.05 * EYE]), [0.6, 0.4]
)
PROCESSES = {
    "linear": sf.process.from_betas(sf.process.linear_betas(1000)),
    "squaredcos_cap_v2": sf.process.from_betas(sf.process.cosine_betas(1000)),
}
TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def theirs():
    """diffusers itself, whose import takes seconds."""
    return pytest.importorskip("diffusers")


def walk(scheduler, model, steps, x, **options):
    """Every x of a scheduler's walk over its own timesteps; its t is ours − 1."""
    scheduler.set_timesteps(steps)
    states = []
    for i, t in enumerate(scheduler.timesteps):
        pred = model(x, int(t) + 1)
        output = pred.x0 if scheduler.config.prediction_type == "sample" else pred.eps
        more = {name: values[i] for name, values in options.items() if isinstance(values, list)}
        x = scheduler.step(output, t, x, **{**options, **more}).prev_sample
        states.append(x)
    return states


def furthest(model, sampler, grid, x_T, tape, states):
    """The largest relative error of their states against ours, over all steps."""
    ours = [step.x for step in sf.trajectory(model, sampler, grid, x_T, Recorded(tape))]
    return max(float(relative_error(other, mine)) for mine, other in zip(ours, states, strict=True))


@pytest.mark.parametrize("schedule", PROCESSES)
@pytest.mark.parametrize(
    ("spacing", "make"), [("trailing", sf.grids.trailing), ("leading", sf.grids.leading)]
)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(theirs, schedule, spacing, make, eta):
    """On numbers of steps that divide T, where its ⌊T/S⌋ is right."""
    process = PROCESSES[schedule]
    scheduler = theirs.DDIMScheduler(beta_schedule=schedule, clip_sample=False, timestep_spacing=spacing)
    x_T, draws = NoiseSource(0).normal((16, 2)), list(NoiseSource(1).normal((20, 16, 2)))
    model, grid = MIXTURE.denoiser(process), make(process, 20)
    noise = {"variance_noise": draws} if eta else {}
    assert (
        furthest(model, DDIM(eta), grid, x_T, draws, walk(scheduler, model, 20, x_T, eta=eta, **noise))
        < TOLERANCE
    )


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_ddim_with_a_clipped_x0_and_the_unclipped_eps(theirs, eta):
    """Their defaults, clip_sample=True without use_clipped_model_output. A fifth of the range, so that x̂0 leaves it."""
    process, model = PROCESSES["linear"], MIXTURE.denoiser(PROCESSES["linear"])
    scheduler = theirs.DDIMScheduler(
        beta_schedule="linear", clip_sample_range=0.2, timestep_spacing="trailing"
    )
    x_T, draws = NoiseSource(0).normal((16, 2)), list(NoiseSource(1).normal((20, 16, 2)))
    noise = {"variance_noise": draws} if eta else {}
    # They take ς from their own formula at η; a clip by ClipX0 gives other states.
    states, grid = walk(scheduler, model, 20, x_T, eta=eta, **noise), sf.grids.trailing(process, 20)
    assert furthest(model, DDIM(eta, clip_x0=(-0.2, 0.2)), grid, x_T, draws, states) < TOLERANCE
    assert furthest(sf.guidance.ClipX0(model, -0.2, 0.2), DDIM(eta), grid, x_T, draws, states) > 0.01


def test_inverse_ddim_with_a_clipped_x0_and_the_unclipped_eps(theirs):
    """DDIMInverseScheduler's default: clip_sample=True. Its step is told the output at the end of the interval that it
    leaves, so every step is compared by itself.
    """
    process, model = PROCESSES["linear"], MIXTURE.denoiser(PROCESSES["linear"])
    inverse = theirs.DDIMInverseScheduler(beta_schedule="linear", clip_sample_range=0.2)
    inverse.set_timesteps(20)
    for t in (100, 400, 900):  # a step of 50 levels, from our t + 1 to t + 51
        x = process.sample(MIXTURE.sample(16, NoiseSource(0)), t + 1, NoiseSource(1).normal((16, 2)).double())
        pred = model(x, t + 1)
        theirs_next = inverse.step(pred.eps, t + 50, x).prev_sample
        (step,) = sf.trajectory(model, DDIM(clip_x0=(-0.2, 0.2)), [t + 1, t + 51], x)
        assert relative_error(theirs_next, step.x) < TOLERANCE


@pytest.mark.parametrize("schedule", PROCESSES)
@pytest.mark.parametrize("variance", ["lower", "upper"])
def test_ddpm(theirs, schedule, variance):
    process, kind = PROCESSES[schedule], {"lower": "fixed_small", "upper": "fixed_large"}[variance]
    scheduler = theirs.DDPMScheduler(
        beta_schedule=schedule, variance_type=kind, clip_sample=False, timestep_spacing="leading"
    )
    x_T, model = NoiseSource(0).normal((16, 2)), MIXTURE.denoiser(process)
    states = walk(scheduler, model, 50, x_T, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    draws = [torch.randn(16, 2, generator=generator) for _ in range(49)]
    assert furthest(model, Ancestral(variance), sf.grids.leading(process, 50), x_T, draws, states) < TOLERANCE


@pytest.mark.parametrize("schedule", PROCESSES)
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("steps", [10, 20])
def test_dpm_solver_2m(theirs, schedule, stochastic, steps):
    """Told x̂0 on the cosine schedule: it works in x̂0, and float32 loses that of an ε̂ where σ/α is 20,000."""
    told = {"linear": "epsilon", "squaredcos_cap_v2": "sample"}[schedule]
    process, kind = PROCESSES[schedule], "sde-dpmsolver++" if stochastic else "dpmsolver++"
    scheduler = theirs.DPMSolverMultistepScheduler(
        beta_schedule=schedule, algorithm_type=kind, timestep_spacing="trailing", prediction_type=told
    )
    x_T, draws = NoiseSource(0).normal((16, 2)), list(NoiseSource(1).normal((20, 16, 2)))
    model = MIXTURE.denoiser(process)
    noise = {"variance_noise": draws} if stochastic else {}
    states = walk(scheduler, model, steps, x_T, **noise)
    assert (scheduler.timesteps + 1).tolist() == sf.grids.trailing(process, steps).tolist()[:-1]
    assert (
        furthest(model, DPMSolver2M(stochastic), sf.grids.trailing(process, steps), x_T, draws, states)
        < TOLERANCE
    )


@pytest.mark.parametrize("schedule", PROCESSES)
@pytest.mark.parametrize("order", [2, 3])
def test_unipc(theirs, schedule, order):
    """In x̂0 with B(h) = e^h − 1; of order 3 but for its last two states, since theirs takes the last step but one at order 2."""
    process, steps = PROCESSES[schedule], 20
    scheduler = theirs.UniPCMultistepScheduler(
        beta_schedule=schedule,
        solver_order=order,
        solver_type="bh2",
        timestep_spacing="trailing",
        prediction_type="sample",
    )
    model, x_T, grid = (
        MIXTURE.denoiser(process),
        NoiseSource(0).normal((16, 2)),
        sf.grids.trailing(process, steps),
    )
    states = walk(scheduler, model, steps, x_T)
    until = steps if order == 2 else steps - 2
    assert (scheduler.timesteps + 1).tolist() == grid.tolist()[:-1]
    assert furthest(model, UniPC(order), grid[: until + 1], x_T, [], states[:until]) < TOLERANCE


# Where theirs are wrong, ours against a float64 oracle; what theirs say is printed only, as it may be mended


@pytest.mark.parametrize(
    ("spacing", "make"), [("trailing", sf.grids.trailing), ("linspace", sf.grids.linspace)]
)
def test_ddim_reads_its_own_grid(theirs, spacing, make):
    """The exact ε̂ of a point mass leads DDIM to it from anywhere, whatever the grid; a step of ⌊T/S⌋ loses
    its way.
    """
    process, x0 = PROCESSES["linear"], torch.tensor([[0.3, -0.8]], dtype=F64)
    model = sf.oracle.GaussianMixture(x0, torch.zeros(1, 2, 2, dtype=F64)).denoiser(process)
    x_T = torch.tensor([[1.3, -0.2]], dtype=F64)
    for steps in (7, 30, 150, 600):
        scheduler = theirs.DDIMScheduler(clip_sample=False, timestep_spacing=spacing)
        theirs_x0 = walk(scheduler, model, steps, x_T)[-1]
        print(spacing, steps, "their error", (theirs_x0 - x0).abs().max().item())
        assert relative_error(sf.sample(model, DDIM(), make(process, steps), x_T=x_T), x0) < 1e-10


class Headed:
    """A model with a variance head, half-way between its bounds in the logarithm."""

    def __init__(self, process):
        self.process, self.variance = process, "range"
        self.inner = MIXTURE.denoiser(process)

    def score(self, x, t=None):
        return self.inner.score(x, t)

    def __call__(self, x_t, t):
        pred = self.inner(x_t, t)
        return Prediction(x_t, pred.level, pred.x0, pred.raw, var_frac=torch.full_like(x_t, 0.5))


@pytest.mark.parametrize("variance", ["lower", "upper", "learned"])
@pytest.mark.parametrize(
    "make", [sf.grids.full, lambda p: sf.grids.trailing(p, 7), lambda p: sf.grids.log_snr(p, 30)]
)
def test_every_variance_is_finite_and_that_of_the_equations(theirs, variance, make):
    process = sf.process.from_betas(sf.process.cosine_betas(100))
    grid, x = make(process).tolist(), NoiseSource(0).normal((4, 2)).double()
    zeros, ones = torch.zeros(4, 2, dtype=F64), torch.ones(4, 2, dtype=F64)
    for t, s in pairwise(grid[:-1]):
        quiet, noisy = (
            sf.sample(Headed(process), Ancestral(variance), [t, s], x_T=x, noise=Recorded([z]))
            for z in (zeros, ones)
        )
        (a_t, s_t), (a_s, s_s) = process.level(t), process.level(s)
        upper = s_t**2 - (a_t / a_s) ** 2 * s_s**2
        lower = upper * s_s**2 / s_t**2
        expected = {"lower": lower, "upper": upper, "learned": (0.5 * upper.log() + 0.5 * lower.log()).exp()}[
            variance
        ]
        assert relative_error((noisy - quiet) ** 2, expected.expand(4, 2)) < 1e-9, (t, s)
    if variance == "upper":
        scheduler = theirs.DDPMScheduler(variance_type="fixed_large_log")
        ended = walk(
            scheduler,
            MIXTURE.denoiser(PROCESSES["linear"]),
            10,
            x.float(),
            generator=torch.Generator().manual_seed(0),
        )[-1]
        print("their fixed_large_log is finite:", bool(ended.isfinite().all()))


@pytest.mark.parametrize("limit", [1.0, 1.5, 100.0])
def test_dynamic_thresholding_with_an_upper_limit(theirs, limit):
    scheduler = theirs.DDPMScheduler(
        thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=limit, clip_sample=False
    )
    x0 = 2 * NoiseSource(0).normal((5, 3, 4, 4))
    model = sf.Denoiser(lambda x, c: x0, PROCESSES["linear"], "x0", data=sf.DataSpec((3, 4, 4)))
    ours = sf.guidance.DynamicThreshold(model, 0.9, largest=limit)(torch.zeros_like(x0), 10).x0
    assert relative_error(ours, scheduler._threshold_sample(x0)) < 1e-6
