"""The classifier trained on the spot: accurate, deterministic, independent of torch's global state."""

import functools
import re
from dataclasses import replace

import pytest
import torch

from scorefield.core.shapes import DataSpec
from scorefield.data import Dataset
from scorefield.evaluation import features, train_classifier
from scorefield.runtime.errors import InputError


def bars(count, shape, spec_range=(-1.0, 1.0), seed=0):
    """Three classes of noisy images: dark, a bright upper half, a bright left half."""
    height, width = shape[1:]
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 100, (count, *shape), generator=generator)
    labels = torch.arange(count) % 3
    levels[labels == 1, :, : height // 2] += 100
    levels[labels == 2, :, :, : width // 2] += 100
    spec = DataSpec(shape, spec_range, classes=("dark", "upper", "left"), bins=256)
    return Dataset(spec, levels.to(torch.uint8), labels, "bars")


def test_digits(split, classifier):
    heldout = split[1]
    accuracy = classifier.accuracy(heldout)
    print(f"accuracy on {len(heldout)} held-out digits: {accuracy:.4f}")
    assert accuracy >= 0.98
    assert re.fullmatch(
        "classifier trained on 1437 digits images, seed 0, weights [0-9a-f]{12}", classifier.name
    )
    x0, labels = heldout.batch(torch.arange(300))
    assert float((classifier.predict(x0) == labels).double().mean()) == pytest.approx(accuracy, abs=0.02)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 20, 13), (1, 28, 28), (3, 64, 64), (2, 1, 4)])
def test_other_sizes_and_ranges(shape):
    data = bars(256, shape, spec_range=(0.0, 1.0))
    net = train_classifier(data, examples=0)  # two passes
    found = net.features(data.batch(torch.arange(7))[0])
    assert found.shape == (7, 64)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert net.predict(data.batch(torch.arange(7))[0]).dtype == torch.int64


def test_learns_rectangles():
    assert train_classifier(bars(200, (3, 12, 20))).accuracy(bars(99, (3, 12, 20), seed=1)) == 1.0


def test_same_seed_same_features_whatever_the_global_state():
    train_quickly = functools.partial(train_classifier, examples=0)
    data = bars(256, (1, 8, 8))
    x0 = data.batch(torch.arange(20))[0]
    torch.manual_seed(1)
    first = train_quickly(data, seed=3).features(x0)
    before = torch.manual_seed(2).get_state()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            net = train_quickly(data, seed=3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)
    again = net.features(x0.double())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert (
        net.name
        == train_quickly(data, seed=3).name
        != train_quickly(data.subset(torch.arange(255)), seed=3).name
    )
    assert not torch.equal(first, train_quickly(data, seed=4).features(x0))


def test_features_do_not_depend_on_the_batch(split, classifier):
    x0 = split[1].batch(torch.arange(300))[0]
    whole = classifier.features(x0)
    torch.testing.assert_close(
        torch.cat([classifier.features(part) for part in x0.split(7)]), whole, rtol=1e-4, atol=1e-5
    )
    assert classifier.features(x0[:0]).shape == (0, 64)


def test_progress_counts_every_step():
    seen = []
    train_classifier(
        bars(256, (1, 8, 8)), progress=lambda done, total: seen.append((done, total)), examples=0
    )
    assert seen == [(i, 8) for i in range(1, 9)]


def test_shift_moves_whole_images_within_an_eighth():
    x0 = torch.zeros(200, 1, 16, 24)
    x0[:, 0, 8, 12] = 1.0
    moved = features._shift(x0, torch.Generator().manual_seed(0))
    assert moved.shape == x0.shape
    places = moved[:, 0].nonzero()
    assert len(places) == 200
    assert set((places[:, 1] - 8).tolist()) == {-2, -1, 0, 1, 2}
    assert set((places[:, 2] - 12).tolist()) == {-3, -2, -1, 0, 1, 2, 3}


def test_bad_input(classifier):
    data = bars(6, (1, 8, 8))
    unlabelled = replace(data, labels=None)
    with pytest.raises(InputError, match="needs labels, but this data has none: use labelled data"):
        train_classifier(unlabelled)
    with pytest.raises(InputError, match="at least two classes"):
        train_classifier(data.subset(torch.tensor([0, 3])))
    points = Dataset(DataSpec((2,), classes=("a", "b")), torch.zeros(2, 2), torch.arange(2), "points")
    with pytest.raises(InputError, match="for images"):
        train_classifier(points)
    with pytest.raises(InputError, match=r"takes images \(B, 1, 8, 8\), got \(2, 1, 9, 9\)"):
        classifier.features(torch.zeros(2, 1, 9, 9))
    with pytest.raises(InputError, match="accuracy needs labelled examples"):
        classifier.accuracy(unlabelled)
