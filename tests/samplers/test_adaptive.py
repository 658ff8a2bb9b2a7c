"""The adaptive solver against the exact flow of a Gaussian, from pure noise too; its tolerances, calls and refusals."""

import pytest
import torch
from support import relative_error

import scorefield as sf
from scorefield.core.noise import NoiseSource
from scorefield.samplers import Adaptive

M, V = 0.4, 0.3
LINE = sf.oracle.GaussianMixture([[M]], [[[V]]])
PROCESSES = {
    "flow": sf.process.flow(),
    "vp": sf.process.vp(),
    "ve": sf.process.ve(0.01, 50.0),
    "edm": sf.process.edm(),
    "interpolated": sf.process.Interpolated(sf.process.cosine(1000)),
}


def exact(process, x, t, s):
    """Of N(M, V) the flow keeps (x − α M)/√(α² V + σ²)."""
    (a, b), (c, d) = process.level(t), process.level(s)
    return c * M + (x - a * M) * ((c**2 * V + d**2) / (a**2 * V + b**2)).sqrt()


@pytest.mark.parametrize("name", PROCESSES)
def test_it_follows_the_exact_flow_within_its_tolerances(name):
    # [Song et al. 2021, §4.3]
    process = PROCESSES[name]
    model, x = LINE.denoiser(process), 1 + NoiseSource(0).normal((4, 1)).double()
    errors = []
    for tolerance in (1e-3, 1e-6, 1e-9):
        steps = list(
            sf.trajectory(
                model, Adaptive(tolerance, tolerance), [process.T, process.T / 3, process.t_min, 0], x
            )
        )
        worst = max(
            float(relative_error(step.x, exact(process, x, process.T, step.s))) for step in steps[:-1]
        )
        errors.append(worst)
        assert torch.equal(steps[-1].x, steps[-1].x0)
    print(name, errors)
    assert errors[0] < 0.03
    assert errors[1] < 3e-5
    assert errors[2] < 3e-8


def test_calls_are_no_more_than_were_said_and_grow_with_the_tolerances():
    process, made = sf.process.vp(), []

    def net(x, c, y=None):
        made.append(1)
        return torch.sin(5 * x)

    model, counts = sf.Denoiser(net, process, "v", noise_input="scaled", data=sf.DataSpec((2,))), []
    grid = [1.0, 0.001, 0]
    for tolerance in (1e-2, 1e-6):
        made.clear()
        sf.sample(model, Adaptive(tolerance, tolerance), grid, n=3, noise=NoiseSource(0))
        counts.append(len(made))
        assert len(made) <= Adaptive().calls(grid)
    assert counts[0] < counts[1]


def test_what_it_cannot_solve_is_said():
    process = sf.process.vp()
    broken = sf.Denoiser(
        lambda x, c, y=None: x * torch.nan, process, "v", noise_input="scaled", data=sf.DataSpec((2,))
    )
    with pytest.raises(sf.InputError, match="cannot go from t = 1 to"):
        sf.sample(broken, Adaptive(), [1.0, 0.001, 0], n=2, noise=NoiseSource(0))
    for options in ({"rtol": 0.0}, {"atol": -1.0}, {"rtol": float("nan")}):
        with pytest.raises(sf.InputError, match="tolerance"):
            Adaptive(**options)
    with pytest.raises(sf.IncompatibleModel, match="between_levels"):
        sf.sample(LINE.denoiser(sf.process.cosine(100)), Adaptive(), [100, 0], x_T=torch.zeros(2, 1))
