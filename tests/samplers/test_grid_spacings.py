"""Grids even in λ and in (σ/α)^{1/ρ}: the formulas where t is continuous, the nearest levels of a table,
counts, ends, refusals.
"""

import math
from typing import Any

import pytest
import torch

import scorefield as sf
from scorefield.runtime.registry import GRIDS

TABLES: dict[str, Any] = {
    "linear": sf.process.from_betas(sf.process.linear_betas(200, 5e-4, 0.1)),
    "cosine": sf.process.from_betas(sf.process.cosine_betas(300)),
    "ve": sf.process.from_sigmas(sf.process.geometric_sigmas(50.0, 0.01, 60)),
    "one level": sf.process.from_sigmas([2.0]),
    "two levels": sf.process.from_sigmas([0.5, 2.0]),
}
CONTINUOUS: dict[str, Any] = {
    "vp": sf.process.vp(),
    "ve": sf.process.ve(0.01, 50.0),
    "edm": sf.process.edm(),
    "interpolated": sf.process.Interpolated(TABLES["cosine"]),
}
SPACINGS: dict[str, Any] = {
    "log_snr": sf.grids.log_snr,
    "karras": sf.grids.karras,
    "rho 1": lambda p, n, **ends: sf.grids.karras(p, n, 1.0, **ends),
}


def ratios(process, times):
    alpha, sigma = process.level(torch.as_tensor(times, dtype=torch.float64))
    return (sigma / alpha).tolist()


def formula(spacing, high, low, count):
    """σ/α, by Karras et al. 2022 Eq. 5 or geometrically, in plain numbers."""
    shares = [i / max(1, count - 1) for i in range(count)]
    if spacing == "log_snr":
        return [high * (low / high) ** share for share in shares]
    rho = 1.0 if spacing == "rho 1" else 7.0
    return [(high ** (1 / rho) + share * (low ** (1 / rho) - high ** (1 / rho))) ** rho for share in shares]


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_exact_where_t_is_continuous(name, spacing, n):
    # [Lu et al. 2022a]
    process, make = CONTINUOUS[name], SPACINGS[spacing]
    high, low = ratios(process, [process.T, process.t_min])
    grid = make(process, n)
    assert (grid[0], grid[-1], len(grid)) == (process.T, 0, n + 1)
    assert n == 1 or grid[-2] == process.t_min
    assert ratios(process, grid[:-1]) == pytest.approx(formula(spacing, high, low, n), rel=1e-9)
    grid = make(process, n, sigma_min=0.05, sigma_max=40.0, to_zero=False)
    assert ratios(process, grid) == pytest.approx(formula(spacing, 40.0, 0.05, n + 1), rel=1e-9)
    assert (grid.diff() < 0).all()


def test_even_times_of_edm_are_the_karras_schedule():
    # [Karras et al. 2022 Eq. 5]
    process = sf.process.edm(0.01, 30.0, rho=5.0)
    expected = [(30.0**0.2 + i / 9 * (0.01**0.2 - 30.0**0.2)) ** 5 for i in range(10)]
    assert ratios(process, sf.grids.uniform(process, 10)[:-1]) == pytest.approx(
        expected, rel=1e-7
    )  # it stops at t_min = 1e-9
    assert ratios(process, sf.grids.karras(process, 10, 5.0)[:-1]) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_levels_of_a_table_for_every_n(name, spacing):
    process, make = TABLES[name], SPACINGS[spacing]
    for n in range(1, process.T + 1):
        grid = make(process, n)
        assert not grid.is_floating_point()
        assert len(grid) == n + 1
        assert (grid[0], grid[-1]) == (process.T, 0)
        assert n == 1 or grid[-2] == 1
        assert (grid.diff() < 0).all()
    assert torch.equal(grid, sf.grids.full(process))


@pytest.mark.parametrize("name", ["linear", "cosine", "ve"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("n", [5, 12, 40])
def test_the_nearest_levels_of_a_table(name, spacing, n):
    """By brute force: each wanted value's nearest level; collisions go up, then down where the top is full."""
    process = TABLES[name]
    scale = math.log if spacing == "log_snr" else lambda r: r ** (1.0 if spacing == "rho 1" else 1 / 7)
    table = [scale(r) for r in ratios(process, range(1, process.T + 1))]
    wanted = [scale(r) for r in formula(spacing, *ratios(process, [process.T, 1]), n)][::-1]  # type: ignore[call-arg]
    nearest = [min(range(process.T), key=lambda k: abs(table[k] - u)) + 1 for u in wanted]
    up = nearest[:1]
    for t in nearest[1:]:
        up.append(max(t, up[-1] + 1))
    for i in range(n):
        up[i] = min(up[i], process.T - (n - 1 - i))
    assert SPACINGS[spacing](process, n).tolist() == [*up[::-1], 0]


def test_ends_of_ones_own_on_a_table():
    process = TABLES["ve"]
    grid = sf.grids.log_snr(process, 6, sigma_min=0.5, sigma_max=10.0, to_zero=False)
    assert len(grid) == 7
    assert ratios(process, grid[[0, -1]]) == pytest.approx(
        [10.0, 0.5], rel=0.08
    )  # neighbouring levels are a factor 1.155 apart
    assert sf.grids.karras(process, 59, to_zero=False).tolist() == list(range(60, 0, -1))


def test_trailing_is_uniform():
    assert sf.grids.trailing is sf.grids.uniform
    assert {"log_snr", "karras", "trailing"} <= set(GRIDS)


@pytest.mark.parametrize("make", SPACINGS.values())
@pytest.mark.parametrize(
    ("process", "n", "options", "message"),
    [
        ("linear", 0, {}, "positive integer"),
        ("linear", 2.5, {}, "positive integer"),
        ("linear", True, {}, "positive integer"),
        ("vp", 0, {}, "positive integer"),
        ("linear", 201, {}, "200 levels"),
        ("linear", 200, {"to_zero": False}, "200 levels"),
        ("table", 30, {"sigma_min": 1.0, "sigma_max": 10.0}, "levels from one to the other"),
        ("linear", 5, {"sigma_max": 200.0}, "exceeds this process"),
        ("linear", 5, {"sigma_min": 1e-3}, "exceeds this process"),
        ("vp", 5, {"sigma_max": 200.0}, "exceeds this process"),
        ("edm", 5, {"sigma_min": 1e-3}, "exceeds this process"),
        ("vp", 5, {"sigma_min": 2.0, "sigma_max": 1.0}, "descends from sigma_max"),
        ("vp", 5, {"sigma_min": 0.0}, "sigma_min must be a finite number above 0"),
        ("vp", 5, {"sigma_max": math.nan}, "sigma_max must be a finite number above 0"),
    ],
)
def test_bad_input(make, process, n, options, message):
    with pytest.raises(sf.InputError, match=message):
        make({**TABLES, **CONTINUOUS, "table": TABLES["ve"]}[process], n, **options)


def test_what_has_no_such_scale():
    with pytest.raises(sf.IncompatibleModel, match="categorical"):
        sf.grids.log_snr(sf.process.uniform_categorical(sf.process.linear_kappas(10), 3), 4)
    for rho in (0, -1, math.inf, math.nan):
        with pytest.raises(sf.InputError, match="rho"):
            sf.grids.karras(TABLES["linear"], 4, rho)


def test_a_list_of_times_keeps_its_digits():
    process, times = CONTINUOUS["vp"], [1.0, 1 / 3, 0.1, 0]
    steps = list(
        sf.trajectory(
            sf.oracle.GaussianMixture([[0.0]], [[[1.0]]]).denoiser(process),
            sf.samplers.DDIM(),
            times,
            torch.ones(1, 1),
        )
    )
    assert [step.t for step in steps] == times[:-1]
