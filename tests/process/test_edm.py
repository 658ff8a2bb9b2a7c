"""The EDM process: its levels by the formula, its inverse, its start, its description, and what it refuses."""

import math
import tomllib

import pytest
import tomli_w
import torch
from support import relative_error

import scorefield as sf
from scorefield.runs import build
from scorefield.runtime.registry import PROCESSES


@pytest.mark.parametrize(("low", "high", "rho"), [(0.002, 80.0, 7.0), (0.01, 30.0, 1.0), (0.5, 2.0, 3.0)])
def test_levels_and_their_inverse(low, high, rho):
    process = sf.process.edm(low, high, rho)
    times = [1e-9, 1e-3, 0.25, 0.5, 0.999, 1.0]
    alpha, sigma = process.level(torch.tensor(times, dtype=torch.float64))
    expected = [(low ** (1 / rho) + t * (high ** (1 / rho) - low ** (1 / rho))) ** rho for t in times]
    assert sigma.tolist() == pytest.approx(expected, rel=1e-12)
    assert alpha.tolist() == [1.0] * 6
    assert process.time(-sigma.log()).tolist() == pytest.approx(times, rel=1e-12, abs=1e-13)
    assert tuple(float(c) for c in process.level(0)) == (1.0, 0.0)
    assert (process.T, process.levels) == (1.0, None)
    assert float(process.level(1.0).sigma) == pytest.approx(high, rel=1e-15)
    assert float(process.level(process.t_min).sigma) == pytest.approx(low, rel=1e-5)


def test_it_starts_from_the_data():
    process = sf.process.edm(mean=0.2, std=0.5)
    assert (process.prior_mean, process.prior_std) == (0.2, pytest.approx(math.hypot(80, 0.5)))
    assert sf.process.edm().prior_std == 80.0


def test_it_is_rebuilt_from_its_description():
    for process in (sf.process.edm(), sf.process.edm(0.01, 50.0, 5.0, 0.1, 0.3)):
        described = tomllib.loads(tomli_w.dumps({"process": dict(process.config)}))["process"]
        rebuilt = build.build(PROCESSES, described, "process")
        t = torch.linspace(0, 1, 11, dtype=torch.float64)
        assert described["kind"] == "edm"
        assert all(
            torch.equal(mine, theirs) for mine, theirs in zip(process.level(t), rebuilt.level(t), strict=True)
        )
        assert (rebuilt.prior_mean, rebuilt.prior_std, rebuilt.config) == (
            process.prior_mean,
            process.prior_std,
            process.config,
        )
    with pytest.raises(sf.InputError, match="sigma_maxx"):
        build.build(PROCESSES, {"kind": "edm", "sigma_maxx": 3.0}, "process")


def test_the_networks_input_is_that_of_the_paper():
    """c_noise = ln(σ)/4 and c_skip, c_out, c_in of Karras et al. 2022, Table 1, at σ_data = 0.5."""
    # [Karras et al. 2022 Table 1]
    process, seen = sf.process.edm(), []

    def net(x, c, y=None):
        seen.append((x, c))
        return torch.full_like(x, 0.7)

    model = sf.Denoiser(net, process, "edm", noise_input="log_sigma")
    x, sigma = torch.tensor([[1.5, -40.0]], dtype=torch.float64), process.level(0.6).sigma
    x0 = model(x, 0.6).x0
    ((inp, c),) = seen
    k2 = sigma**2 + 0.25
    assert relative_error(inp, x / k2.sqrt()) < 1e-12
    assert float(c[0]) == pytest.approx(float(sigma.log() / 4), rel=1e-12)
    assert relative_error(x0, 0.25 / k2 * x + sigma * 0.5 / k2.sqrt() * 0.7) < 1e-12


def test_refusals():
    for options, message in [
        ({"sigma_min": 0.0}, "sigma_min"),
        ({"sigma_min": 90.0}, "sigma_min"),
        ({"rho": 0.0}, "rho"),
        ({"rho": math.inf}, "rho"),
        ({"rho": math.nan}, "rho"),
        ({"std": -1.0}, "std"),
    ]:
        with pytest.raises(sf.InputError, match=message):
            sf.process.edm(**options)
    with pytest.raises(sf.InputError, match=r"\[0, 1\]"):
        sf.process.edm().level(1.01)
