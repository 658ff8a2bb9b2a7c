"""Euler, DDIM, Heun, DPM-Solver++ and UniPC: their orders, the exact moments of their ends, calls, safe ends, and
what goes around them.
"""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate
from support import relative_error

import scorefield as sf
from scorefield.core.noise import NoiseSource, Recorded
from scorefield.models.guidance import ClassifierGuidance
from scorefield.samplers import (
    DDIM,
    Ancestral,
    DPMSolver2M,
    DPMSolver2S,
    DPMSolver3M,
    Euler,
    Heun,
    Inpaint,
    Langevin,
    PredictorCorrector,
    UniPC,
)

F64 = torch.float64
EYE = torch.eye(2, dtype=F64)
MIXTURE = sf.oracle.GaussianMixture(
    [[-1.0, 0.5], [1.5, 1.0], [0.3, -1.5]],
    torch.stack([0.1 * EYE, torch.tensor([[0.2, 0.1], [0.1, 0.15]], dtype=F64), 0.05 * EYE]),
    [0.5, 0.2, 0.3],
)
LINEAR = sf.process.from_betas(sf.process.linear_betas(1000))
COSINE = sf.process.from_betas(sf.process.cosine_betas(100))
TABLES = {
    "linear": LINEAR,
    "cosine": COSINE,
    "ve": sf.process.from_sigmas(sf.process.geometric_sigmas(20.0, 0.01, 60)),
}
CONTINUOUS: dict[str, Any] = {
    "vp": sf.process.vp(),
    "ve": sf.process.ve(0.005, 100.0),
    "edm": sf.process.edm(),
}
ORDERS = {
    Euler(): 1,
    DDIM(): 1,
    Heun(): 2,
    DPMSolver2M(): 2,
    DPMSolver2S(): 2,
    DPMSolver3M(): 3,
    UniPC(2): 3,
    UniPC(3): 4,
}
FROM, TO = 80.0, 0.01


def flow_of_the_mixture(y, r_start, r_end):
    """y at r_end of dy/dr = −r ∇ log p_r(y), p_r the mixture blurred by N(0, r² I), to 1e-12, in ln r."""
    means, covariances, weights = (a.numpy() for a in (MIXTURE.means, MIXTURE.covariances, MIXTURE.weights))

    def slope(log_r, flat):
        r2, y = math.exp(2 * log_r), flat.reshape(-1, 2)
        C = covariances + r2 * np.eye(2)
        away = y[:, None] - means  # (B, K, 2)
        pull = np.einsum("kij,bkj->bki", np.linalg.inv(C), away)
        log_p = np.log(weights) - np.log(np.linalg.det(C)) / 2 - (away * pull).sum(-1) / 2
        p = np.exp(log_p - log_p.max(1, keepdims=True))
        score = -(p[..., None] * pull).sum(1) / p.sum(1, keepdims=True)
        return (-r2 * score).ravel()

    span = (math.log(r_start), math.log(r_end))
    solution = integrate.solve_ivp(slope, span, y.numpy().ravel(), method="DOP853", rtol=1e-12, atol=1e-12)
    return torch.from_numpy(solution.y[:, -1].reshape(-1, 2))


@pytest.fixture(scope="module")
def exact():
    """(y at σ/α = 80, y at σ/α = 0.01) for y = x/α, which follows the same equation on every process."""
    start = MIXTURE.sample(12, NoiseSource(0)) + FROM * NoiseSource(1).normal((12, 2)).double()
    return start, flow_of_the_mixture(start, FROM, TO)


FITS = [
    ("vp", "karras"),
    ("edm", "log_snr"),
]  # the others are the same equation, and say the same: see the next test
SLOW_FITS = [
    (name, spacing) for name in CONTINUOUS for spacing in ("karras", "log_snr") if (name, spacing) not in FITS
]


@pytest.mark.parametrize(
    ("name", "spacing"), [*FITS, *(pytest.param(*fit, marks=pytest.mark.slow) for fit in SLOW_FITS)]
)
def test_order_of_convergence(exact, name, spacing):
    # [Lu et al. 2022b Algorithms 1 and 2; Lu et al. 2022b Eq. 8–9; Karras et al. 2022 Algorithm 1]
    # [Zhao et al. 2023] [Zhao et al. 2023, Eq. 5]
    process, (start, end) = CONTINUOUS[name], exact
    model, make = MIXTURE.denoiser(process), getattr(sf.grids, spacing)
    errors = {sampler: [] for sampler in ORDERS}
    steps = (40, 80, 160, 320)
    for n in steps:
        grid = make(process, n, sigma_min=TO, sigma_max=FROM, to_zero=False)
        alpha_T, alpha_0 = (process.level(grid[i]).alpha for i in (0, -1))
        for sampler, found in errors.items():
            y = sf.sample(model, sampler, grid, x_T=alpha_T * start) / alpha_0  # type: ignore[arg-type]
            found.append((y - end).abs().mean().item())
    for sampler, order in ORDERS.items():
        slope = -np.polyfit(np.log(steps), np.log(errors[sampler]), 1)[0]
        print(
            f"{name} {spacing} {sampler}: slope {slope:.3f}, errors {', '.join(f'{e:.2e}' for e in errors[sampler])}"
        )
        # The higher ones are not at their limit yet at these steps.
        assert abs(slope - order) < (0.15 if order < 3 else 0.35)


@pytest.mark.parametrize("spacing", ["karras", "log_snr"])
@pytest.mark.parametrize("sampler", ORDERS, ids=str)
def test_the_process_does_not_matter_to_the_flow(exact, sampler, spacing):
    """x/α on the same σ/α is the same on every process: 60 steps to σ/α = 0.01, then to 0, from below 80,
    which rounds to either side.
    """
    ends = []
    for process in CONTINUOUS.values():
        grid = getattr(sf.grids, spacing)(process, 60, sigma_min=TO, sigma_max=79.0)
        x_T = process.level(grid[0]).alpha * exact[0]
        ends.append(sf.sample(MIXTURE.denoiser(process), sampler, grid, x_T=x_T))
    for end in ends[1:]:
        assert relative_error(end, ends[0]) < 1e-9


# The exact moments of whole walks on N(M, V) in one dimension

M, V = 0.4, 0.3
LINE = sf.oracle.GaussianMixture([[M]], [[[V]]])
GRIDS = {"uniform": sf.grids.uniform, "log_snr": sf.grids.log_snr, "karras": sf.grids.karras}


def levels(process, t):
    alpha, sigma = (float(c) for c in process.level(t))
    return alpha, sigma, math.log(alpha / sigma) if sigma else math.inf


def moments(process, sampler, grid):
    """Exact mean and variance of where a sampler takes q(x_T) of N(M, V): on a Gaussian its result is affine
    in x_T and its draws.

    One run on S + 2 particles reads the coefficients off: one without anything, one for x_T, one for each
    draw.
    """
    alpha, sigma, _ = levels(process, grid[0])
    S = len(grid) - 1
    units = torch.eye(S + 2, dtype=F64)
    x_T = alpha * M + math.sqrt(alpha**2 * V + sigma**2) * units[:, :1]
    tape = Recorded([units[:, i + 1 : i + 2] for i in range(S)])
    x = sf.sample(LINE.denoiser(process), sampler, grid, x_T=x_T, noise=tape)[:, 0]
    return x[-1].item(), ((x[:-1] - x[-1]) ** 2).sum().item()


@pytest.mark.parametrize(
    "sampler",
    [
        DPMSolver2M(),
        DPMSolver2M(stochastic=True),
        DPMSolver2S(),
        DPMSolver3M(),
        UniPC(2),
        UniPC(3),
        Heun(),
        Heun(churn=20.0),
        Heun(churn=20.0, churn_min=0.05, churn_max=50.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["vp", "edm"])
def test_the_exact_moments_tend_to_those_of_the_data(name, sampler):
    """N(M, V) itself, from the exact q(x_T), as the steps double."""
    process, errors = CONTINUOUS[name], []
    for n in (20, 40, 80):
        grid = sf.grids.karras(process, n, sigma_max=FROM, sigma_min=TO, to_zero=False)
        mean, var = moments(process, sampler, grid)
        alpha, sigma, _ = levels(process, grid[-1])
        errors.append(abs(mean / alpha - M) + abs(var / alpha**2 - V - (sigma / alpha) ** 2))
    print(name, sampler, [f"{e:.1e}" for e in errors])
    assert (
        errors[2] < errors[1] / 2.5 < errors[0] / 2.5**2
    )  # a second-order error falls by 4 as the steps double


def test_without_a_bend_the_solvers_are_ddim():
    """A point mass: x̂0 never changes, so that every order is exact, and one step is DDIM's; with noise it is
    ancestral.
    """
    # [Lu et al. 2022b]
    x0 = torch.tensor([[0.3, -0.8]], dtype=F64)
    for process in (*TABLES.values(), *CONTINUOUS.values()):
        model = sf.oracle.GaussianMixture(x0, torch.zeros(1, 2, 2, dtype=F64)).denoiser(process)
        x_T = process.sample(x0, process.T, torch.tensor([[1.3, -0.2]], dtype=F64))
        for sampler in (DPMSolver2M(), DPMSolver2M(stochastic=True), DPMSolver2S(), DPMSolver3M(), UniPC(3)):
            view = sf.samplers.between_levels(model)
            for n in (1, 2, 7):
                x = sf.sample(view, sampler, sf.grids.log_snr(process, n), x_T=x_T, noise=NoiseSource(0))
                assert relative_error(x, x0) < 1e-10
        model = MIXTURE.denoiser(process)
        one = [process.T, process.T * 0.5]
        for solver, same in ((DPMSolver2M(), DDIM()), (DPMSolver2M(stochastic=True), Ancestral("lower"))):
            mine, other = (
                sf.sample(model, sampler, one, x_T=x_T, noise=NoiseSource(1)) for sampler in (solver, same)
            )
            assert relative_error(mine, other) < 1e-12


@pytest.mark.parametrize("sampler", [*ORDERS, DPMSolver2M(stochastic=True), Heun(churn=5.0)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_ends_are_safe(sampler, dtype):
    """From σ/α of tens of thousands down to t = 0, on any spacing: finite, and within the data's reach.

    In few steps too, except for Heun: a Karras grid that begins so far out leaves it steps that its
    correction does not bear.
    """
    process = sf.process.Interpolated(sf.process.from_betas(sf.process.cosine_betas(1000)))
    assert process.level(1000).sigma / process.level(1000).alpha > 1e4
    x_T = NoiseSource(3).normal((64, 2)).to(dtype)
    for make in GRIDS.values():
        for n in (1, 25) if isinstance(sampler, Heun) else (1, 2, 4, 10, 25):
            x = sf.sample(MIXTURE.denoiser(process), sampler, make(process, n), x_T=x_T, noise=NoiseSource(4))
            assert x.dtype == dtype
            assert x.abs().max() < 6, (n, make)


@pytest.mark.parametrize(
    "sampler",
    [
        DPMSolver2M(),
        DPMSolver2M(stochastic=True),
        DPMSolver2S(),
        DPMSolver3M(),
        UniPC(2),
        UniPC(3),
        Heun(churn=5.0),
    ],
    ids=str,
)
def test_calls(sampler):
    made = []

    def net(x, c, y=None):
        made.append(float(c[0]))
        return torch.zeros_like(x)

    process = sf.process.Interpolated(LINEAR)
    model = sf.Denoiser(net, process)
    for grid in (
        sf.grids.log_snr(process, 9),
        sf.grids.log_snr(process, 9, sigma_max=40.0, to_zero=False),
        [50.0, 0],
    ):
        made.clear()
        sf.sample(model, sampler, grid, x_T=torch.zeros(2, 3), noise=NoiseSource(0))
        long = sum(
            float(_ratio(process, t)) > 80 and s > 0 for t, s in pairwise(torch.as_tensor(grid).tolist())
        )
        assert len(made) == sampler.calls(grid) - (long if isinstance(sampler, Heun) else 0)
        assert len(made) == sampler.calls_on(process, grid)
        assert min(made) >= 0  # t − 1
        for around in (
            Inpaint(sampler, torch.zeros(3), torch.tensor([True, False, False])),
            PredictorCorrector(sampler, Langevin(1e-3)),
        ):
            made.clear()
            sf.sample(model, around, grid, x_T=torch.zeros(2, 3), noise=NoiseSource(0))
            assert len(made) == around.calls_on(process, grid) <= around.calls(grid)


@pytest.mark.parametrize("n", [5, 40])
@pytest.mark.parametrize(
    "process",
    [sf.process.vp(), sf.process.ve(0.002, 100.0), sf.process.edm()],
    ids=repr,
)
def test_a_grid_that_starts_at_80_is_not_above_it_by_rounding(process, n):
    grid = sf.grids.karras(process, n, sigma_max=80.0)
    assert Heun().calls_on(process, grid) == Heun().calls(grid) == 2 * n - 1


def _ratio(process, t):
    alpha, sigma = process.level(t)
    return sigma / alpha


def test_bad_options():
    bad = [
        {"churn": -1.0},
        {"churn": math.inf},
        {"churn_min": 2.0, "churn_max": 1.0},
        {"churn_noise": 0.0},
        {"churn_noise": math.nan},
    ]
    for options in bad:
        with pytest.raises(sf.InputError, match="churn"):
            Heun(**options)
    process = CONTINUOUS["vp"]
    with pytest.raises(sf.InputError, match="churn of a step depends on the grid"):
        Heun(churn=1.0).step(MIXTURE.denoiser(process), torch.zeros(1, 2), 1.0, 0.5, None, NoiseSource(0))


def test_churn_goes_through_what_is_around_it():
    process = CONTINUOUS["edm"]
    grid, x_T = sf.grids.karras(process, 6), 80 * NoiseSource(0).normal((4, 2)).double()
    churned, plain = (
        sf.sample(
            MIXTURE.denoiser(process),
            PredictorCorrector(heun, Langevin(1e-12)),
            grid,
            x_T=x_T,
            noise=NoiseSource(1),
        )
        for heun in (Heun(churn=2.0), Heun())
    )
    alone = sf.sample(MIXTURE.denoiser(process), Heun(churn=2.0), grid, x_T=x_T, noise=NoiseSource(1))
    assert relative_error(churned, alone) < 0.1 < relative_error(plain, alone)
    unknown = Inpaint(Heun(churn=2.0), torch.zeros(2), torch.zeros(2, dtype=torch.bool))
    inpainted = sf.sample(MIXTURE.denoiser(process), unknown, grid, x_T=x_T, noise=NoiseSource(1))
    assert torch.equal(inpainted, alone)


@pytest.mark.parametrize(
    "sampler",
    [
        DPMSolver2M(),
        DPMSolver2M(stochastic=True),
        DPMSolver2S(),
        DPMSolver3M(),
        UniPC(2),
        UniPC(3),
        Heun(churn=5.0),
    ],
    ids=str,
)
def test_guided_at_scale_one_it_walks_as_with_the_class_alone(sampler):
    """Exactly, on the same noise; with clipping around either."""
    process = sf.process.Interpolated(LINEAR)
    one = sf.oracle.GaussianMixture(MIXTURE.means[1:2], MIXTURE.covariances[1:2]).denoiser(process)
    guided = ClassifierGuidance(MIXTURE.denoiser(process), MIXTURE.classifier(process), 1)
    x_T, grid = NoiseSource(0).normal((50, 2)).double(), sf.grids.log_snr(process, 8)
    for wrap in (lambda model: model, lambda model: sf.guidance.ClipX0(model, -1.0, 1.2)):
        walks = [
            list(sf.trajectory(wrap(model), sampler, grid, x_T, NoiseSource(1))) for model in (guided, one)
        ]
        for mine, exact in zip(*walks, strict=True):
            assert relative_error(mine.x, exact.x) < 1e-9, (mine.t, mine.s)
            assert relative_error(mine.x0, exact.x0) < 1e-9, (mine.t, mine.s)


def test_a_wrapper_that_is_a_module_is_left_as_it_was():
    class Wrapper(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.process = model, model.process

        def forward(self, x_t, t):
            return self.model(x_t, t)

    wrapper = Wrapper(sf.Denoiser(sf.nets.MLP(2, hidden=16), LINEAR, data=sf.DataSpec((2,))))
    view = sf.samplers.between_levels(wrapper)
    assert isinstance(view.model.process, sf.process.Interpolated)
    assert (wrapper.process, wrapper.model.process) == (LINEAR, LINEAR)


def test_a_model_between_the_levels_of_its_table():
    """The same network and the same x̂0 at the levels; wrappers come along; what has no meaning between
    levels is refused.
    """
    net = sf.nets.MLP(2, hidden=16, layers=2, num_classes=3)
    model = sf.Denoiser(net, LINEAR, data=sf.DataSpec((2,), classes=tuple("abc")))
    stack = sf.guidance.ClipX0(model.given(1))
    view, x = sf.samplers.between_levels(stack), NoiseSource(0).normal((4, 2))
    assert isinstance(view.process, sf.process.Interpolated)
    assert (stack.process, model.process) == (LINEAR, LINEAR)
    assert torch.equal(view(x, 400).x0, stack(x, 400).x0)
    assert view(x, 400.5).x0.isfinite().all()
    assert sf.samplers.between_levels(view) is view
