"""Nearest distances against brute force, and ratios whose answer is known."""

import numpy as np
import pytest
import torch

from scorefield.evaluation import copying_ratio, nearest_distances
from scorefield.runtime.errors import InputError


def brute(queries, references):
    q, r = queries.flatten(1).double().numpy(), references.flatten(1).double().numpy()
    return np.array([min(np.linalg.norm(a - b) for b in r) for a in q])


@pytest.mark.parametrize("block", [1, 5000, 2**22])
def test_equals_brute_force(block):
    generator = torch.Generator().manual_seed(0)
    queries, references = (torch.randn(n, 3, 4, 4, generator=generator) for n in (30, 70))
    found = nearest_distances(queries, references, block=block)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, brute(queries, references), rtol=1e-13)


def test_more_queries_than_a_block():
    generator = torch.Generator().manual_seed(1)
    queries, references = torch.randn(2500, 2, generator=generator), torch.randn(40, 2, generator=generator)
    np.testing.assert_allclose(nearest_distances(queries, references), brute(queries, references), rtol=1e-12)


def test_far_from_zero_and_exact_copies():
    references = torch.randn(50, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 1e4
    assert nearest_distances(references[[3, 40]], references).tolist() == [0.0, 0.0]
    moved = references.clone()
    moved[:, 0] += 1e-3
    np.testing.assert_allclose(nearest_distances(moved, references), 1e-3, rtol=1e-8)


def test_ratio():
    heldout = torch.tensor([1.0, 2.0, 3.0, 100.0], dtype=torch.float64)
    assert copying_ratio(heldout, heldout) == 1.0
    assert copying_ratio(torch.tensor([5.0], dtype=torch.float64), heldout) == pytest.approx(2.0)
    assert copying_ratio(torch.zeros(3, dtype=torch.float64), heldout) == 0.0


def test_training_images_as_samples_are_copies(split):
    train, heldout = split
    everything = train.batch(torch.arange(len(train)))[0]
    noise = torch.randn(360, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    usual = nearest_distances(heldout.batch(torch.arange(len(heldout)))[0], everything)
    for scale in (0.0, 0.02):  # exact copies, and copies with invisible noise
        assert copying_ratio(nearest_distances(everything[:360] + scale * noise, everything), usual) < 0.1


def test_bad_input():
    with pytest.raises(InputError, match="one data shape"):
        nearest_distances(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(InputError, match="no references"):
        nearest_distances(torch.zeros(2, 3), torch.zeros(0, 3))
    with pytest.raises(InputError, match="remove the duplicates"):
        copying_ratio(torch.ones(2).double(), torch.zeros(2).double())
    with pytest.raises(InputError, match="got 0 and 2"):
        copying_ratio(torch.ones(0).double(), torch.ones(2).double())
