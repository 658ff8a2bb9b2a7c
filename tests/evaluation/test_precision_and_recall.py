"""Precision and recall against brute force over whole numbers, where every distance and every tie is exact."""

import numpy as np
import pytest
import torch

from scorefield.evaluation import precision_recall
from scorefield.runtime.errors import InputError


def brute_force(generated, reference, k):
    """By sorted lists of squared distances in Python's integers: exact, ties included."""

    def squared(x, y):
        return sum((p - q) ** 2 for p, q in zip(x, y, strict=True))

    def covered(queries, points):
        radii = [
            sorted(squared(p, q) for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)
        ]
        inside = [any(squared(x, p) <= r for p, r in zip(points, radii, strict=True)) for x in queries]
        return sum(inside) / len(inside)

    generated, reference = generated.long().tolist(), reference.long().tolist()
    return covered(generated, reference), covered(reference, generated)


@pytest.mark.parametrize("k", [1, 3, 8])
@pytest.mark.parametrize(("dimension", "spread"), [(1, 40), (2, 6), (7, 3), (40, 2)])
def test_equals_brute_force_with_ties_and_duplicates(dimension, spread, k):
    # [Kynkäänniemi et al. 2019 Eq. 1]
    rng = np.random.default_rng(100 * dimension + k)
    x = torch.from_numpy(rng.integers(-spread, spread + 1, (70, dimension))).float()
    y = torch.from_numpy(rng.integers(-spread, spread + 1, (50, dimension))).float() + 1
    x[10:15], y[20:24] = y[0], y[1]  # copies of one another and of themselves
    expected = brute_force(x, y, k)
    assert precision_recall(x, y, k) == expected
    assert precision_recall(x, y, k, block=200, columns=16) == expected


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_ties_far_from_zero(offset):
    """A grid of unit steps: the query at distance exactly 1 is inside, the next above is not, wherever zero
    lies.
    """
    grid = torch.arange(10, dtype=torch.float64)[:, None] + offset
    queries = torch.tensor([-1.0, 10.0, -1.0 - 1e-9, 10.0 + 1e-9], dtype=torch.float64)[:, None] + offset
    assert precision_recall(queries, grid, k=1).precision == 0.5


def test_doubtful_pairs_are_decided_by_differences():
    """Balls of radius 1e-5 far from zero, where |x|² - 2 x·y + |y|² has lost them: the answer is that of the
    shifted points.
    """
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.integers(0, 200, (60, 3)) * 2.0**-20) for _ in range(2))
    expected = precision_recall(x * 2.0**20, y * 2.0**20)
    assert expected == brute_force(x * 2.0**20, y * 2.0**20, 3)
    assert 0 < expected.precision < 1
    assert precision_recall(x + 4096, y + 4096) == expected


def test_meaning():
    rng = np.random.default_rng(1)
    left, right = (torch.from_numpy(rng.standard_normal((200, 4)) + shift) for shift in (0.0, 50.0))
    both = torch.cat([left, right])
    again = torch.from_numpy(rng.standard_normal((200, 4)))
    real_but_half = precision_recall(again, both)
    assert real_but_half.precision > 0.8
    assert 0.35 < real_but_half.recall < 0.5
    assert precision_recall(left, right) == (0.0, 0.0)
    assert precision_recall(both, both) == (1.0, 1.0)
    swapped = precision_recall(both, again)
    assert swapped == real_but_half[::-1]


def test_bad_input():
    x = torch.zeros(4, 2)
    with pytest.raises(
        InputError, match=r"the 4-th nearest neighbour needs at least 5 examples .* 4 generated examples"
    ):
        precision_recall(x, torch.zeros(9, 2), k=4)
    with pytest.raises(InputError, match="4 reference examples"):
        precision_recall(torch.zeros(9, 2), x, k=4)
    with pytest.raises(InputError, match="k at least 1"):
        precision_recall(x, x, k=0)
    with pytest.raises(InputError, match="NaN or infinite"):
        precision_recall(x, x + torch.nan)
    with pytest.raises(InputError, match="2 and 3 features"):
        precision_recall(x, torch.zeros(4, 3))
