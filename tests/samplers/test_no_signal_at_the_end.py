"""A process of one's own, x_t = (1 − t) x_0 + t ε, of which nothing of the data is left at t = 1."""

import pytest
import torch

import scorefield as sf
from scorefield.core.noise import NoiseSource


class Straight(sf.process.GaussianProcess):
    T = 1.0

    def level(self, t):
        time = torch.as_tensor(t, dtype=torch.float64)
        return sf.Level(1 - time, time)


PROCESS = Straight()
POINT = torch.tensor([0.7, -1.3])


class Exact(torch.nn.Module):
    """What the network must give where all data are one point: ε = (x_t − α x_0)/σ is known."""

    def __init__(self, parametrization):
        super().__init__()
        self.parametrization = parametrization

    def forward(self, x, c, y=None):
        if self.parametrization == "x0":
            return POINT.expand_as(x)
        alpha, sigma = (part.to(x)[:, None] for part in PROCESS.level(c.double() / 1000))
        n = (alpha**2 + sigma**2).sqrt()
        eps = (x * n - alpha * POINT) / sigma
        return (alpha * eps - sigma * POINT) / n


@pytest.mark.parametrize("parametrization", ["v", "x0"])
@pytest.mark.parametrize(
    "sampler",
    [sf.samplers.DDIM(), sf.samplers.DDIM(1.0), sf.samplers.Ancestral("lower"), sf.samplers.DPMSolver2M()],
)
def test_predictions_of_v_and_x0_start_from_pure_noise(parametrization, sampler):
    model = sf.Denoiser(Exact(parametrization), PROCESS, parametrization, noise_input="scaled")
    grid = sf.grids.uniform(PROCESS, 5)
    assert grid[0] == 1
    steps = list(sf.trajectory(model, sampler, grid, NoiseSource(0).normal((4, 2)), NoiseSource(1)))
    for step in steps:
        torch.testing.assert_close(step.x0, POINT.expand(4, 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(steps[-1].x, POINT.expand(4, 2), rtol=0, atol=1e-5)


def test_ddim_walks_the_exact_flow_of_a_gaussian():
    """Of N(m, s²) the flow keeps (x − α m)/√(α² s² + σ²), so that x_T = z becomes m + s z."""
    mean, std = 0.5, 0.3
    mixture = sf.oracle.GaussianMixture(
        torch.tensor([[mean]]).double(), torch.tensor([[[std**2]]]).double(), torch.ones(1).double()
    )
    z = torch.tensor([[-1.5], [0.0], [0.8]]).double()
    model = mixture.denoiser(PROCESS)
    errors = []
    for n in (50, 100, 200):
        x = sf.sample(model, sf.samplers.DDIM(), sf.grids.uniform(PROCESS, n), x_T=z)
        errors.append(float((x - (mean + std * z)).abs().max()))
    assert errors[2] < 0.005
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.3)  # first order
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize("parametrization", ["eps", "score"])
def test_what_divides_by_the_signal_is_refused_where_there_is_none(parametrization):
    model = sf.Denoiser(lambda x, c, y=None: x, PROCESS, parametrization, noise_input="scaled")
    with pytest.raises(sf.IncompatibleModel, match=f'parametrization="{parametrization}".*use "v" or "x0"'):
        model(torch.zeros(2, 2), 1.0)
    assert torch.isfinite(model(torch.ones(2, 2), 0.99).x0).all()
    with pytest.raises(sf.IncompatibleModel, match=r'noise_input="log_sigma".*"scaled"'):
        sf.Denoiser(lambda x, c, y=None: x, PROCESS, "v", noise_input="log_sigma")(torch.zeros(2, 2), 1.0)
