"""Continuous and interpolated processes against quadrature and their tables; what models and grids make of
them.
"""

import math
from typing import Any

import pytest
import torch
from scipy import integrate
from support import relative_error

import scorefield as sf
from scorefield.models.parametrization import coefficients, noise_input

TABLES = {
    "linear": sf.process.from_betas(sf.process.linear_betas(1000)),
    "cosine": sf.process.from_betas(sf.process.cosine_betas(4000)),
    "ve": sf.process.from_sigmas(sf.process.geometric_sigmas(50.0, 0.01, 10), mean=0.1, std=0.4),
}
CONTINUOUS = {
    "flow": sf.process.flow(),
    "vp": sf.process.vp(),
    "sub-vp": sf.process.sub_vp(),
    "constant": sf.process.vp(8.0, 8.0),
    "ve": sf.process.ve(0.01, 50.0, std=0.5),
    **{name: sf.process.Interpolated(table) for name, table in TABLES.items()},
}


@pytest.mark.parametrize("t", [1e-3, 0.2, 0.77, 1.0])
def test_vp_is_the_integral_of_beta(t):
    # [Song et al. 2021 Eq. 32–33]
    process = sf.process.vp(0.1, 20.0)
    integral, _ = integrate.quad(lambda u: 0.1 + u * 19.9, 0, t, epsabs=0, epsrel=1e-13)
    alpha, sigma = process.level(t)
    assert alpha.item() == pytest.approx(math.exp(-integral / 2), rel=1e-12)
    assert sigma.item() ** 2 == pytest.approx(1 - math.exp(-integral), rel=1e-9)


@pytest.mark.parametrize("t", [1e-3, 0.2, 0.77, 1.0])
def test_sub_vp_has_the_variance_of_its_sde(t):
    """dσ²/dt = −β σ² + g², g² = β (1 − e^{−2∫β}), solved numerically from σ² = 0."""
    # [Song et al. 2021 Eq. 12, 29]

    def beta(u):
        return 0.1 + u * 19.9

    def slope(u, var):
        return -beta(u) * var + beta(u) * (1 - math.exp(-2 * (0.1 * u + 19.9 * u**2 / 2)))

    solved = integrate.solve_ivp(slope, (0, t), [0.0], method="LSODA", rtol=1e-11, atol=1e-15)
    alpha, sigma = sf.process.sub_vp(0.1, 20.0).level(t)
    assert float(sigma) ** 2 == pytest.approx(solved.y[0, -1], rel=1e-6)
    assert torch.equal(alpha, sf.process.vp(0.1, 20.0).level(t).alpha)


def test_flow_is_the_straight_path():
    """Its velocity is ε − x_0 at every t, and the network of parametrization "flow" is that velocity."""
    # [Lipman et al. 2023 Eq. 22, 23; Liu et al. 2023 Eq. 1]
    process = sf.process.flow()
    x0, eps = (sf.noise.NoiseSource(i).normal((5, 3)).double() for i in range(2))
    t = torch.tensor([1e-3, 0.25, 0.5, 0.999, 1.0], dtype=torch.float64)
    x_t = process.sample(x0, t, eps)
    assert torch.equal(x_t, torch.lerp(x0, eps, t[:, None]))

    def net(x, c, y=None):
        assert torch.equal(x, x_t)
        assert torch.equal(c, 1000 * t)
        return eps - x0

    pred = sf.Denoiser(net, process, "flow", noise_input="scaled")(x_t, t)
    torch.testing.assert_close(pred.x0, x0, rtol=0, atol=1e-14)
    torch.testing.assert_close(pred.eps, eps, rtol=0, atol=1e-12)
    assert [float(c) for c in process.level(1.0)] == [0.0, 1.0]
    assert (process.prior_mean, process.prior_std, process.is_discrete) == (0.0, 1.0, False)


def test_plain_error_of_the_velocity_is_the_weighting_network():
    """mean|F − (ε − x_0)|², with times uniform on [t_min, 1].  [Lipman et al. 2023 Eq. 23]"""
    process, noise = sf.process.flow(), sf.noise.NoiseSource(0)
    x0 = sf.noise.NoiseSource(3).normal((64, 2)).double()
    model = sf.Denoiser(lambda x, c, y=None: x.sin(), process, "flow", noise_input="scaled")
    loss = sf.objectives.Simple(model, "network")(x0, None, noise)
    again = sf.noise.NoiseSource(0)
    t = 1e-3 + (1 - 1e-3) * again.uniform((64, 1)).double()
    eps = again.normal_like(x0)
    expected = (((1 - t) * x0 + t * eps).sin() - (eps - x0)).square().mean(dim=1)
    torch.testing.assert_close(loss.per_example, expected, rtol=1e-12, atol=0)


def test_discrete_linear_tends_to_vp():
    alpha, sigma = sf.process.vp().level(torch.linspace(0.1, 1, 10))
    for T, tolerance in ((1000, 2e-2), (16000, 2e-3)):
        table = sf.process.from_betas(sf.process.linear_betas(T, 0.1 / T, 20 / T)).level(
            torch.arange(1, 11) * T // 10
        )
        assert relative_error(table.alpha, alpha) < tolerance
        assert relative_error(table.sigma, sigma) < tolerance


def test_ve_is_geometric_and_starts_from_the_data():
    # [Song et al. 2021 Eq. 30–31]
    process = sf.process.ve(0.01, 50.0, mean=0.2, std=0.5)
    alpha, sigma = process.level(torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(alpha, torch.ones(3, dtype=torch.float64))
    assert sigma.tolist() == pytest.approx([0.0, math.sqrt(0.01 * 50), 50.0])
    assert (process.prior_mean, process.prior_std) == (0.2, pytest.approx(math.hypot(50, 0.5)))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_levels_ascend_from_data_and_invert(name):
    process = CONTINUOUS[name]
    t = torch.cat([torch.tensor([1e-4, 0.3, 0.999, 1.0]), torch.rand(200, dtype=torch.float64)]) * process.T
    alpha, sigma = process.level(t)
    assert relative_error(process.time((alpha / sigma).log()), t) < 1e-9
    order = (sigma / alpha)[t.argsort()]
    assert (order.diff() > 0).all()
    assert tuple(float(c) for c in process.level(0)) == (1.0, 0.0)
    assert (isinstance(process.T, float), process.level(0.5).alpha.dtype) == (True, torch.float64)


@pytest.mark.parametrize("name", TABLES)
def test_interpolated_keeps_the_table_and_its_kind(name):
    table, process = TABLES[name], sf.process.Interpolated(TABLES[name])
    t = torch.arange(table.T + 1)
    for ours, theirs in zip(process.level(t), table.level(t), strict=True):
        assert ((ours - theirs).abs() <= 1e-13 * theirs.abs().clamp_min(1e-3)).all()
    alpha, sigma = process.level(torch.rand(500, dtype=torch.float64) * table.T)
    invariant = alpha if name == "ve" else alpha**2 + sigma**2
    assert (invariant - 1).abs().max() < 1e-14
    assert (process.prior_mean, process.prior_std) == (table.prior_mean, table.prior_std)


@pytest.mark.parametrize("name", TABLES)
def test_interpolated_between_levels(name):
    table, process = TABLES[name], sf.process.Interpolated(TABLES[name])

    def log_ratio(p, t):
        alpha, sigma = p.level(t)
        return (alpha / sigma).log().item()

    for k in (1, 4, table.T - 1):
        expected = 0.75 * log_ratio(table, k) + 0.25 * log_ratio(table, k + 1)
        assert log_ratio(process, k + 0.25) == pytest.approx(expected, rel=1e-12)
    assert math.exp(-log_ratio(process, 0.3)) == pytest.approx(
        0.3 * math.exp(-log_ratio(table, 1)), rel=1e-12
    )


def test_one_level_can_be_interpolated():
    process = sf.process.Interpolated(sf.process.from_sigmas([2.0]))
    assert process.level(0.25).sigma.item() == pytest.approx(0.5)
    assert process.time(torch.tensor(-math.log(0.5))).item() == pytest.approx(0.25)


def test_noise_inputs():
    between = sf.process.Interpolated(TABLES["linear"])
    t = torch.tensor([0.5, 1.0, 2.25, 1000.0])
    assert noise_input("index", between, t, torch.float32).tolist() == [0.0, 0.0, 1.25, 999.0]
    assert noise_input("scaled", between, t, torch.float64).tolist() == pytest.approx([0.0, 0.0, 1.25, 999.0])
    assert noise_input("rank", between, t[[1, 3]], torch.float32).tolist() == [999, 0]
    with pytest.raises(sf.IncompatibleModel, match="integer t"):
        noise_input("rank", between, t, torch.float32)
    vp = sf.process.vp()
    assert noise_input("scaled", vp, torch.tensor([0.25, 1.0]), torch.float32).tolist() == [250.0, 1000.0]
    for name in ("index", "rank"):
        with pytest.raises(sf.IncompatibleModel, match="log_sigma"):
            noise_input(name, vp, torch.tensor([0.5]), torch.float32)


@pytest.mark.parametrize("process", [CONTINUOUS["vp"], CONTINUOUS["linear"]])
def test_what_needs_neighbours_is_refused(process):
    with pytest.raises(sf.IncompatibleModel, match="mean"):
        coefficients("mean", process, torch.tensor([0.5]))
    several: list[dict[str, Any]] = [{"parametrization": "mean"}, {"variance": "direct"}]
    for options in several:
        with pytest.raises(sf.IncompatibleModel, match="continuous"):
            sf.Denoiser(lambda x, c: x, process, noise_input="scaled", **options)


@pytest.mark.parametrize("name", ["flow", "vp", "sub-vp", "ve", "linear"])
def test_grids(name):
    process = CONTINUOUS[name]
    grid = sf.grids.uniform(process, 5)
    assert grid[[0, -2, -1]].tolist() == [process.T, pytest.approx(process.t_min), 0.0]
    assert len(grid) == 6
    assert torch.allclose(grid[:-1].diff(), grid[1] - grid[0])
    for refused in (sf.grids.full, lambda p: sf.grids.quadratic(p, 4), lambda p: sf.grids.sections(p, [4])):
        with pytest.raises(sf.IncompatibleModel, match="uniform"):
            refused(process)
    with pytest.raises(sf.InputError, match="positive integer"):
        sf.grids.uniform(process, 0)


@pytest.mark.parametrize("name", ["flow", "vp", "sub-vp", "ve", "linear"])
def test_samplers_recover_the_data_on_them(name):
    process = CONTINUOUS[name]
    mixture = sf.oracle.GaussianMixture([[0.4]], [[[0.04]]])
    x_T = mixture.at(process.level(process.T)).sample(4000, sf.noise.NoiseSource(0))
    model, grid = mixture.denoiser(process), sf.grids.uniform(process, 200)
    for sampler in (sf.samplers.DDIM(0.0), sf.samplers.Ancestral("upper")):
        x = sf.sample(model, sampler, grid, x_T=x_T, noise=sf.noise.NoiseSource(1))
        assert x.mean().item() == pytest.approx(0.4, abs=0.02)
        assert x.std().item() == pytest.approx(0.2, abs=0.02)


def test_refusals():
    vp = sf.process.vp()
    for t in (-0.1, 1.01, torch.tensor([0.5, 2.0])):
        with pytest.raises(sf.InputError, match=r"\[0, 1\]"):
            vp.level(t)
    with pytest.raises(sf.InputError, match="beta_min"):
        sf.process.vp(0.0, 1.0)
    with pytest.raises(sf.InputError, match="sigma_min"):
        sf.process.ve(1.0, 0.5)
    for make in (sf.process.vp, sf.process.sub_vp, sf.process.flow):
        with pytest.raises(sf.InputError, match="t_min"):
            make(t_min=0.0)
    with pytest.raises(sf.InputError, match="table of levels"):
        sf.process.Interpolated(vp)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: sf.process.edm(mean=math.nan),
        lambda: sf.process.edm(std=math.inf),
        lambda: sf.process.edm(sigma_max=math.inf),
        lambda: sf.process.vp(beta_max=math.inf),
        lambda: sf.process.sub_vp(beta_min=-1.0),
        lambda: sf.process.ve(0.1, math.inf),
        lambda: sf.process.from_sigmas([1.0, 2.0], mean=math.nan),
        lambda: sf.process.from_sigmas([1.0, 2.0], std=-1.0),
    ],
)
def test_what_is_not_finite_is_refused(make):
    with pytest.raises(sf.InputError, match=r"nan|inf|-1"):
        make()
