"""Grids: exact counts, strict descent, the ends."""

import pytest
import torch

import scorefield as sf


@pytest.fixture(scope="module")
def process():
    return sf.process.from_betas(sf.process.cosine_betas(200))


@pytest.mark.parametrize("make", [sf.grids.uniform, sf.grids.quadratic, sf.grids.linspace])
def test_n_steps_from_T_to_0_for_every_n(process, make):
    for n in range(1, process.T + 1):
        grid = make(process, n)
        assert len(grid) == n + 1
        assert grid[-1] == 0
        assert (grid.diff() < 0).all()
        if (
            n > 1 or make is not sf.grids.linspace
        ):  # the published rule keeps the first level where one is asked for
            assert grid[0] == process.T


def test_full_is_every_level(process):
    assert sf.grids.full(process).tolist() == list(range(200, -1, -1))
    assert torch.equal(sf.grids.uniform(process, 200), sf.grids.full(process))
    assert torch.equal(sf.grids.quadratic(process, 200), sf.grids.full(process))


def test_documented_values():
    process = sf.process.from_betas(sf.process.linear_betas(1000))
    assert sf.grids.uniform(process, 4).tolist() == [1000, 750, 500, 250, 0]
    assert sf.grids.uniform(process, 3).tolist() == [1000, 667, 333, 0]
    assert sf.grids.quadratic(process, 4).tolist() == [1000, 563, 250, 63, 0]
    assert sf.grids.leading(process, 4).tolist() == [751, 501, 251, 1, 0]
    assert sf.grids.sections(process, [1, 1, 2]).tolist() == [1000, 668, 335, 1, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: sf.grids.uniform(p, 0), "from 1 to 200"),
        (lambda p: sf.grids.uniform(p, 201), "from 1 to 200"),
        (lambda p: sf.grids.quadratic(p, 2.5), "from 1 to 200"),  # type: ignore[arg-type]
        (lambda p: sf.grids.sections(p, [101, 10]), "section 0 must be an integer from 1 to 100"),
        (lambda p: sf.grids.sections(p, []), "between 1 and T"),
    ],
)
def test_bad_counts(process, make, message):
    with pytest.raises(sf.InputError, match=message):
        make(process)


def test_a_staircase_starts_the_same_number_of_steps_at_every_level(process):
    # [NCSN Algorithm 1]
    short = sf.process.from_sigmas(sf.process.geometric_sigmas(1.0, 0.1, 3))
    assert sf.grids.staircase(short, 2).tolist() == [3, 3, 2, 2, 1, 1, 0]
    assert sf.grids.staircase(process, 1).tolist() == sf.grids.full(process).tolist()
    assert sf.grids.staircase(process, 3, [150, 20]).tolist() == [150, 150, 150, 20, 20, 20, 0]
    assert torch.equal(
        sf.grids.staircase(process, 1, sf.grids.uniform(process, 7)), sf.grids.uniform(process, 7)
    )
    for repeats, times in (
        (0, None),
        (1.5, None),
        (2, [20, 20]),
        (2, [20, 30]),
        (2, []),
        (2, [0]),
        (2, [20, -1]),
        (2, [201]),
    ):
        with pytest.raises(sf.InputError):
            sf.grids.staircase(process, repeats, times)  # type: ignore[arg-type]


def test_steps_number_the_updates_that_are_left():
    assert sf.grids.steps(3).tolist() == [3, 2, 1, 0]
    with pytest.raises(sf.InputError, match="positive integer"):
        sf.grids.steps(0)


@pytest.mark.parametrize("make", [sf.grids.karras, sf.grids.log_snr])
@pytest.mark.parametrize(
    ("process", "low", "high"),
    [(sf.process.edm(), 0.002, 80.0), (sf.process.ve(0.01, 50.0), 0.01, 50.0)],
    ids=["edm", "ve"],
)
def test_the_ends_of_a_continuous_process_may_be_named(make, process, low, high):
    named = make(process, 10, sigma_min=low, sigma_max=high)
    assert torch.allclose(
        named, make(process, 10), rtol=0, atol=5 * process.t_min
    )  # the named end lies that little below its own
    assert bool((named.diff() < 0).all())
    with pytest.raises(sf.InputError, match="exceeds this process"):
        make(process, 10, sigma_min=low * 0.99)
    with pytest.raises(sf.InputError, match="descends from sigma_max to sigma_min"):
        make(process, 2, sigma_min=1.0, sigma_max=1.0)


def test_an_empty_grid_is_no_grid():
    for grid in ([], [5]):
        with pytest.raises(sf.InputError, match="at least two times"):
            sf.samplers.Euler().calls(grid)
