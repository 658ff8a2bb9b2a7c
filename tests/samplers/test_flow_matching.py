"""Samplers on x_t = (1 − t) x_0 + t ε, from t = 1 on, where nothing of the data is left and nothing may be divided by α."""

import itertools
import math
from typing import Any

import pytest
import torch
from scipy.integrate import solve_ivp
from support import relative_error

import scorefield as sf
from scorefield.core.noise import NoiseSource, Recorded
from scorefield.samplers import DDIM, DPMSolver2M, DPMSolver2S, Euler, Heun, Langevin, PredictorCorrector

FLOW = sf.process.flow()
EYE = torch.eye(2, dtype=torch.float64)
MIXTURE = sf.oracle.GaussianMixture(
    [[-1.0, 0.5], [1.5, 1.0]], torch.stack([0.2 * EYE, 0.1 * EYE + 0.05]), [0.4, 0.6]
)


def even(n: int) -> torch.Tensor:
    """1, (n − 1)/n, …, 0."""
    return torch.linspace(1, 0, n + 1, dtype=torch.float64)


def velocity(x: torch.Tensor, c: torch.Tensor, y: Any = None) -> torch.Tensor:
    return torch.cat([(2 * x[:, :1]).sin() + c[:, None] / 700, x[:, 1:] * x[:, :1].cos() - 0.3], dim=1)


def network() -> sf.Denoiser:
    return sf.Denoiser(velocity, FLOW, "flow", noise_input="scaled", data=sf.DataSpec((2,)))


def start(n: int = 16) -> torch.Tensor:
    return NoiseSource(0).normal((n, 2)).double()


def by_hand(x: torch.Tensor, times: list[float]) -> torch.Tensor:
    """x ← x + (s − t)·F(x, t).  [Liu et al. 2023 Eq. 1; Lipman et al. 2023 Eq. 23]"""
    for t, s in itertools.pairwise(times):
        x = x + (s - t) * velocity(x, torch.full((len(x),), 1000 * t, dtype=x.dtype))
    return x


@pytest.mark.parametrize("sampler", [Euler(), DDIM()])
@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_euler_is_the_loop_that_one_would_write(sampler, n):
    ours = sf.sample(network(), sampler, even(n), x_T=start())
    assert relative_error(ours, by_hand(start(), even(n).tolist())) < 1e-12


def test_heun_averages_two_velocities():
    x, times = start(), [1.0, 0.8, 0.55, 0.2, 0.0]
    ours = sf.sample(network(), Heun(), times, x_T=x)
    for t, s in itertools.pairwise(times):
        here = velocity(x, torch.full((len(x),), 1000 * t, dtype=x.dtype))
        ahead = x + (s - t) * here
        if s > 0:  # no model is called at the data
            there = velocity(ahead, torch.full((len(x),), 1000 * s, dtype=x.dtype))
            ahead = x + (s - t) * (here + there) / 2
        x = ahead
    assert relative_error(ours, x) < 1e-12
    assert Heun().calls_on(FLOW, times) == 7


@pytest.mark.parametrize("n", [3, 10, 40])
def test_euler_is_the_scheduler_of_diffusers(n):
    """In float32, on its own times: σ from 1 to 1/1000, and then 0, which are those of `grids.uniform`."""
    FlowMatchEulerDiscreteScheduler = pytest.importorskip("diffusers").FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(n)
    x = start().float()
    for t in scheduler.timesteps:
        x = scheduler.step(velocity(x, t.expand(len(x))), t, x).prev_sample
    grid = sf.grids.uniform(FLOW, n)
    torch.testing.assert_close(scheduler.sigmas.double(), grid, rtol=0, atol=1e-6)
    ours = sf.sample(network(), Euler(), scheduler.sigmas.double(), x_T=start())
    assert (ours - x.double()).abs().max() < 1e-6 * max(1.0, float(x.abs().max()))


def exact(x: torch.Tensor, t_end: float) -> torch.Tensor:
    """The flow of the mixture from t = 1 down to t_end by SciPy, from dx/dt = E[ε − x_0 | x_t] in its own formulas."""
    means, covariances, weights = (
        part.numpy() for part in (MIXTURE.means, MIXTURE.covariances, MIXTURE.weights)
    )

    def slope(t: float, flat: Any) -> Any:
        points = torch.as_tensor(flat).reshape(-1, 2)
        logs, slopes = [], []
        for m, C, w in zip(means, covariances, weights, strict=True):
            var = (1 - t) ** 2 * torch.as_tensor(C) + t**2 * EYE
            off = points - (1 - t) * torch.as_tensor(m)
            solved = torch.linalg.solve(var, off.T).T
            logs.append(math.log(w) - 0.5 * ((off * solved).sum(1) + torch.logdet(var)))
            # E[ε | x_t] = t Var⁻¹ (x_t − α m), E[x_0 | x_t] = m + α C Var⁻¹ (x_t − α m)
            slopes.append(t * solved - torch.as_tensor(m) - (1 - t) * solved @ torch.as_tensor(C))
        share = torch.softmax(torch.stack(logs), dim=0)
        return (share[..., None] * torch.stack(slopes)).sum(0).reshape(-1).numpy()

    solved = solve_ivp(slope, (1.0, t_end), x.reshape(-1).numpy(), method="DOP853", rtol=1e-11, atol=1e-12)
    return torch.as_tensor(solved.y[:, -1]).reshape(-1, 2)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [(Euler(), 1), (Heun(), 2), (DPMSolver2M(), 2), (DPMSolver2S(), 2)],
    ids=["euler", "heun", "2m", "2s"],
)
def test_order_of_convergence_from_pure_noise(sampler, order):
    """Against SciPy's solution of the flow, on even times from t = 1.

    2M and 2S are first order on the one or two steps at which h is infinite, and near them h falls as 1/k only, so that
    their slope comes to 2 more slowly than Heun's.
    """
    x, t_end = start(64), 0.1
    truth, model = exact(x, t_end), MIXTURE.denoiser(FLOW)
    errors = []
    for n in (20, 40, 80, 160):
        times = torch.linspace(1, t_end, n + 1, dtype=torch.float64)
        errors.append((sf.sample(model, sampler, times, x_T=x) - truth).abs().mean().log2().item())
    slopes = [a - b for a, b in itertools.pairwise(errors)]
    print(sampler, "slopes", [round(slope, 3) for slope in slopes])
    assert abs(slopes[-1] - order) < 0.2, slopes


@pytest.mark.parametrize("sampler", [Euler(), Heun()])
def test_encoding_arrives_at_pure_noise_and_comes_back(sampler):
    model, x0, errors = MIXTURE.denoiser(FLOW), MIXTURE.sample(128, NoiseSource(2)), []
    for n in (10, 40, 160):
        grid = even(n)
        x_T = sf.latents.encode(model, x0, grid, sampler)
        back = sf.latents.decode(model, x_T, grid, sampler)
        errors.append(float((back - x0).square().mean()))
        assert x_T.isfinite().all()
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 30


def test_a_classifier_says_nothing_at_pure_noise():
    """Where α = 0 its gradient is 0 and is not multiplied by σ²/α: the step is that of the model alone."""
    model, x = MIXTURE.denoiser(FLOW), start()
    guided = sf.guidance.ClassifierGuidance(
        model, MIXTURE.classifier(FLOW), torch.zeros(16, dtype=torch.long), 3.0
    )
    first, *_, last = sf.trajectory(guided, DDIM(), even(20), x)
    assert torch.equal(first.x, next(iter(sf.trajectory(model, DDIM(), even(20), x))).x)
    assert (MIXTURE.posterior(last.x)[:, 0] > 0.5).double().mean() > 0.9


def test_langevin_draws_nothing_where_there_is_no_signal():
    model, x = MIXTURE.denoiser(FLOW), start()
    times = [1.0, 1.0, 0.9, 0.9, 0.5]
    tape = Recorded([NoiseSource(i).normal_like(x) for i in range(2)])
    steps = list(sf.trajectory(model, Langevin(1e-7), times, x, tape))
    torch.testing.assert_close(steps[0].x, x, rtol=0, atol=1e-14)
    torch.testing.assert_close(steps[1].x, sf.sample(model, DDIM(), [1.0, 0.9], x_T=x), rtol=0, atol=1e-14)
    corrected = PredictorCorrector(DDIM(), Langevin(1e-7))
    assert sf.sample(model, corrected, even(5), x_T=x, noise=NoiseSource(0)).isfinite().all()


@pytest.mark.parametrize("make", [sf.grids.log_snr, sf.grids.karras])
@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_grids_in_the_ratio_begin_at_pure_noise(make, n):
    """T, and then even values of the scale from σ/α of T − t_min to that of t_min."""
    grid = make(FLOW, n)
    assert (len(grid), grid[0], grid[-1]) == (n + 1, 1, 0)
    ratio = grid[1:-1] / (1 - grid[1:-1])
    scale = ratio.log() if make is sf.grids.log_snr else ratio ** (1 / 7)
    if n > 2:
        torch.testing.assert_close(grid[[1, -2]], torch.tensor([0.999, 0.001]).double())
        torch.testing.assert_close(scale.diff(), scale.diff()[:1].expand(n - 2), rtol=1e-8, atol=0)
    open_ended = make(FLOW, n, to_zero=False)
    assert (len(open_ended), open_ended[0]) == (n + 1, 1)
    assert (open_ended.diff() < 0).all()
    assert make(FLOW, n, sigma_max=20.0)[0] == pytest.approx(20 / 21)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_the_shifted_grid(shift):
    """σ/α of evenly spaced times, multiplied; of a table the nearest levels, for every n."""
    # [Esser et al. 2024 Eq. 23]
    grid = sf.grids.shifted(FLOW, 8, shift)
    ratio = even(8)[1:-1] / (1 - even(8)[1:-1])
    assert grid[[0, -1]].tolist() == [1.0, 0.0]
    torch.testing.assert_close(grid[1:-1] / (1 - grid[1:-1]), shift * ratio, rtol=1e-12, atol=0)
    table = sf.process.cosine(50)
    wanted = [50 * shift * i / (8 + (shift - 1) * i) for i in range(9)][::-1]
    assert sf.grids.shifted(table, 8, shift).tolist() == [math.floor(t + 0.5) for t in wanted]
    for n in range(1, 51):
        times = sf.grids.shifted(table, n, shift)
        assert (len(times), times[0], times[-1]) == (n + 1, 50, 0)
        assert (times.diff() < 0).all()
