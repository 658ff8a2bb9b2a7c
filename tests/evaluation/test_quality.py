"""The figures of generated sets, on real digits that stand in for samples."""

import json
import weakref
from dataclasses import replace

import pytest
import torch

from scorefield.core.errors import InputError
from scorefield.evaluation import Moments, frechet_distance, quality, train_classifier


def real(data):
    """A model that returns the same images every time."""
    return lambda k: data.batch(torch.arange(len(data)))


@pytest.fixture(scope="module")
def halves(split):
    """Training images (half of the training split) and two unseen sets of equal size, all stratified."""
    rest, second = split[0].split(0.25, 1)
    train, first = rest.split(0.3333, 2)
    return train, first.subset(torch.arange(359)), second.subset(torch.arange(359))


def test_real_images_are_as_good_as_held_out_ones(split, classifier):
    """Two random halves of unseen images, one as samples: ratios near 1, whichever is which."""
    train, heldout = split
    unseen, held = heldout.split(0.5, 1)
    result = quality(real(unseen), train, held, classifier, sets=2)
    assert result.warnings == ()
    assert 0.6 < result.frechet_ratio < 1.6
    assert 0.9 < result.copying_ratio < 1.1
    assert result.near < 0.06
    assert result.agreement == classifier.accuracy(unseen)
    assert result.frechet_std == 0.0


def test_halves_of_training_data_as_samples(halves):
    """As above for a classifier that has seen neither part, at 359 images each."""
    train, samples, held = halves
    result = quality(real(samples), train, held, train_classifier(train), sets=1)
    print(f"Fréchet ratio of real to real images: {result.frechet_ratio:.3f}, copying ratio {result.copying_ratio:.3f}")
    assert 0.6 < result.frechet_ratio < 1.6
    assert 0.9 < result.copying_ratio < 1.1
    assert result.frechet_std is None


def test_figures_are_those_of_the_parts(split, classifier):
    train, heldout = split

    def generate(k):
        x0, labels = heldout.batch(torch.arange(360))
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(k))
        return (x0 + 0.3 * noise).double(), labels

    def written(x):  # by the digits' own 17 levels
        return ((x.float().clamp(-1, 1) + 1) * 8).round() / 8 - 1

    result = quality(generate, train, heldout, classifier, sets=3)
    reference = Moments().update(classifier.features(train.batch(torch.arange(len(train)))[0]))
    images, labels = zip(*(generate(k) for k in range(3)), strict=True)
    expected = [frechet_distance(Moments().update(classifier.features(written(x))), reference) for x in images]
    assert result.frechet == pytest.approx(expected, rel=1e-4)
    assert result.frechet_mean == pytest.approx(sum(expected) / 3, rel=1e-4)
    assert result.frechet_std == pytest.approx(float(torch.tensor(expected).std()), rel=1e-2)
    agreed = [classifier.predict(written(x)) == y for x, y in zip(images, labels, strict=True)]
    assert result.agreement == pytest.approx(float(torch.cat(agreed).double().mean()))
    assert result.frechet_ratio > 3  # visible noise
    everything = train.batch(torch.arange(len(train)))[0].flatten(1).double()
    nearest = [torch.cdist(written(x).double().flatten(1), everything).amin(1).quantile(0.5) for x in images]
    assert result.nearest_mean == pytest.approx(float(sum(nearest)) / 3, rel=1e-5)


def test_copies_show(split, classifier):
    train, heldout = split
    assert quality(real(train), train, heldout, classifier, sets=1).copying_ratio < 0.1

    def tenth(k):  # one sample in ten is a copy: the median hardly moves, the count does
        x0, labels = heldout.batch(torch.arange(360))
        x0[::10], labels[::10] = train.batch(torch.arange(36))
        return x0, labels

    result = quality(tenth, train, heldout, classifier, sets=1)
    assert result.copying_ratio > 0.9
    assert 0.1 <= result.near < 0.13


def test_unconditional_and_json(split, classifier):
    train, heldout = split
    result = quality(lambda k: (real(heldout)(k)[0], None), train, heldout, classifier, sets=2)
    assert result.agreement is None
    assert result.frechet_ratio == pytest.approx(1.0)
    figures = json.loads(json.dumps(result.as_dict()))
    assert figures["sets"] == 2
    assert figures["frechet_mean"] == pytest.approx(figures["frechet_heldout"])
    assert figures["features"] == classifier.name


def test_one_set_in_memory_at_a_time(split, classifier):
    train, heldout = split
    alive = []

    def generate(k):
        assert not any(made() is not None for made in alive)
        x0, labels = real(heldout)(k)
        alive.append(weakref.ref(x0))
        return x0, labels

    quality(generate, train, heldout, classifier, sets=3)
    assert len(alive) == 3


def test_warnings(split, classifier):
    train, heldout = split
    few = heldout.subset(torch.arange(50))
    texts = quality(real(few), train, heldout, classifier, sets=1).warnings
    assert any("50 samples are too few; use at least 65" in text for text in texts)
    assert any("is unfair to the samples; make sets of 360" in text for text in texts)
    ones = heldout.batch(torch.arange(360))[0]
    texts = quality(lambda k: (ones, torch.ones(360, dtype=torch.int64)), train, heldout, classifier, sets=1).warnings
    assert len(texts) == 1
    assert "ask for the held-out images' own labels" in texts[0]


def test_bad_input(split, classifier):
    train, heldout = split
    x0, labels = heldout.batch(torch.arange(10))

    def judge(*made, held=heldout):
        return quality(lambda k: made[k], train, held, classifier, sets=len(made))

    with pytest.raises(InputError, match="at least one generated set"):
        judge()
    with pytest.raises(InputError, match="hold out a part"):
        judge((x0, labels), held=heldout.subset(torch.arange(0)))
    with pytest.raises(InputError, match="of one size, got 10 and 9"):
        judge((x0, labels), (x0[:9], labels[:9]))
    with pytest.raises(InputError, match=r"\(N, 1, 8, 8\), got \(10, 8, 8\)"):
        judge((x0[:, 0], labels))
    with pytest.raises(InputError, match="expected one each"):
        judge((x0, labels[:3]))
    with pytest.raises(InputError, match="of 10 classes"):
        judge((x0, labels + 5))
    with pytest.raises(InputError, match="10 of 10 images hold NaN"):
        judge((x0 * float("nan"), labels))
    with pytest.raises(InputError, match="must be of the same data"):
        judge((x0, labels), held=replace(heldout, spec=replace(heldout.spec, classes=tuple("abcdefghij"))))
    with pytest.raises(InputError, match="remove the duplicates"):
        judge((x0, labels), held=train.subset(torch.arange(100)))
