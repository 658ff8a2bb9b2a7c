"""Nearest distances against brute force, and ratios whose answer is known."""

import numpy as np
import pytest
import torch

from scorefield.evaluation import copying_ratio, nearest_distances
from scorefield.evaluation.copies import copied
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
    with pytest.raises(InputError, match="references must hold"):
        nearest_distances(torch.zeros(2, 3), torch.zeros(0, 3))
    with pytest.raises(InputError, match="remove the duplicates"):
        copying_ratio(torch.ones(2).double(), torch.zeros(2).double())
    with pytest.raises(InputError, match="samples has shape"):
        copying_ratio(torch.ones(0).double(), torch.ones(2).double())


def altered(seed):
    """Images and references, of which some are the same images with a few pixels moved by a few levels."""
    generator = torch.Generator().manual_seed(seed)
    references = torch.randint(0, 256, (40, 3, 5, 4), generator=generator, dtype=torch.uint8)
    queries = references[torch.randint(0, 40, (60,), generator=generator)].short()
    for i in range(60):
        for _ in range(i % 6):
            h, w = (int(torch.randint(0, n, (), generator=generator)) for n in (5, 4))
            queries[i, int(torch.randint(0, 3, (), generator=generator)), h, w] += int(
                torch.randint(-20, 21, (), generator=generator)
            )
    return queries.clamp(0, 255).to(torch.uint8), references


@pytest.mark.parametrize(("within", "pixels"), [(0, 0), (8, 0), (8, 2), (3, 1), (0, 19), (255, 0), (5, 100)])
def test_copies_are_those_of_comparing_every_pair(within, pixels):
    queries, references = altered(seed=within + pixels)
    differ = (queries[:, None].short() - references.short()).abs().amax(dim=2) > within
    expected = (differ.flatten(2).sum(dim=2) <= pixels).any(dim=1)
    found = copied(queries, references, within, pixels)
    assert found.tolist() == expected.tolist()
    print(f"within {within}, but {pixels} pixels: {int(found.sum())} of 60 are copies")


def test_copies_in_several_blocks(monkeypatch):
    queries, references = altered(seed=1)
    whole = copied(queries, references, 8, 1)
    monkeypatch.setattr("scorefield.evaluation.copies._ROWS", 7)
    assert copied(queries, references, 8, 1).tolist() == whole.tolist()
    assert 0 < int(whole.sum()) < 60


def test_copies_refuse_other_images():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    for queries, within, words in [
        (images.float(), 8, "uint8"),
        (images[:, :1], 8, "one size"),
        (images, 256, "within must be an integer from 0 to 255"),
        (images, -1, "within must be an integer from 0 to 255"),
    ]:
        with pytest.raises(InputError, match=words):
            copied(queries, images, within)
