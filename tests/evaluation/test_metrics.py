"""The figures of generated sets, on real digits that stand in for samples."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch

from scorefield.evaluation import (
    Moments,
    Observed,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
    train_classifier,
)
from scorefield.evaluation.sample_evaluator import SampleEvaluator
from scorefield.evaluation.statistics import compute_statistics, real
from scorefield.runtime.errors import InputError

STAMP = {"sampling": {"made by": "hand"}}


@dataclass
class Sets:
    """Sets that a test makes up: make(k) gives the whole k-th set."""

    make: Callable
    sets: int
    count: int = 0

    def __post_init__(self):
        self.count = len(self.make(0)[0])

    def images(self, k):
        x0, labels = self.make(k)
        for part in torch.arange(len(x0)).split(64):
            yield x0[part], None if labels is None else labels[part[part < len(labels)]]


def judge(make, train, heldout, classifier, sets=1, metrics=("fd",)):
    """(Figures by name, warnings) of sets that a function makes."""
    prepared = replace(prepare(train, heldout, classifier), names=metrics)
    found, warnings = prepared.figures(Sets(make, sets), STAMP)
    return {figure.name: figure for figures in found.values() for figure in figures}, warnings


@cache
def prepare(train, heldout, classifier):
    names = ("copies", "palette") if classifier is None else ("fd", "kid", "pr", "is")
    return SampleEvaluator.of(names, train, heldout, classifier)


def same(data):
    """A model that returns the same images every time."""
    return lambda k: data.batch(torch.arange(len(data)))


@pytest.fixture(scope="module")
def halves(split):
    """Training images (half of the training split) and two unseen sets of equal size, all stratified."""
    rest, second = split[0].split(0.25, 1)
    train, first = rest.split(0.3333, 2)
    return train, first.subset(torch.arange(359)), second.subset(torch.arange(359))


def written(x):
    """By the digits' own 17 levels."""
    return ((x.float().clamp(-1, 1) + 1) * 8).round() / 8 - 1


def noisy(data):
    def make(k):
        x0, labels = data.batch(torch.arange(360))
        return (x0 + 0.3 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(k))).double(), labels

    return make


def test_real_images_are_as_good_as_held_out_ones(split, classifier):
    """Two random halves of unseen images, one as samples: ratios near 1, whichever is which."""
    train, heldout = split
    unseen, held = heldout.split(0.5, 1)
    figures, warnings = judge(same(unseen), train, held, classifier, 2, ("fd", "kid", "pr", "is"))
    assert warnings == []
    assert 0.6 < figures["frechet"].ratio < 1.6
    assert 0.9 < figures["nearest"].ratio < 1.1
    assert figures["near"].value < 0.06
    assert figures["agreement"].value == classifier.accuracy(unseen)
    assert figures["agreement"].heldout == classifier.accuracy(held)
    assert figures["frechet"].error == 0.0
    for name in ("precision", "recall", "inception_score"):
        assert figures[name].value == pytest.approx(figures[name].heldout, rel=0.1)


def test_halves_of_training_data_as_samples(halves):
    """As above for a classifier that has seen neither part, at 359 images each."""
    train, samples, held = halves
    figures, _ = judge(same(samples), train, held, train_classifier(train))
    print(
        f"Fréchet ratio of real to real images: {figures['frechet'].ratio:.3f}, copying ratio {figures['nearest'].ratio:.3f}"
    )
    assert 0.6 < figures["frechet"].ratio < 1.6
    assert 0.9 < figures["nearest"].ratio < 1.1
    assert figures["frechet"].error is None


def test_figures_are_those_of_the_parts(split, classifier):
    """Every figure again, from whole sets, by the functions and formulas that have tests of their own."""
    train, heldout = split
    figures, _ = judge(noisy(heldout), train, heldout, classifier, 2, ("fd", "kid", "pr", "is"))
    images, labels = zip(*(noisy(heldout)(k) for k in range(2)), strict=True)
    seen = [classifier(written(x)) for x in images]
    everything, _ = train.batch(torch.arange(len(train)))
    real_features = classifier(everything).features
    reference = Moments().update(real_features)
    expected = [frechet_distance(Moments().update(one.features), reference) for one in seen]
    assert figures["frechet"].parts["sets"] == pytest.approx(expected, rel=1e-4)
    assert figures["frechet"].value == pytest.approx(sum(expected) / 2, rel=1e-4)
    assert figures["frechet"].error == pytest.approx(float(torch.tensor(expected).std()), rel=1e-2)
    assert figures["frechet"].error_of == "standard deviation over sets"
    assert figures["frechet"].ratio > 3  # visible noise
    agreed = [classifier.predict(written(x)) == y for x, y in zip(images, labels, strict=True)]
    assert figures["agreement"].value == pytest.approx(float(torch.cat(agreed).double().mean()))
    flat = everything.flatten(1).double()
    nearest = [torch.cdist(written(x).double().flatten(1), flat).amin(1) for x in images]
    medians = [float(one.quantile(0.5)) for one in nearest]
    assert figures["nearest"].parts["sets"] == pytest.approx(medians, rel=1e-5)
    usual = torch.cdist(heldout.batch(torch.arange(360))[0].double().flatten(1), flat).amin(1)
    assert figures["nearest"].heldout == pytest.approx(float(usual.quantile(0.5)), rel=1e-5)
    assert figures["near"].value == pytest.approx(
        float((torch.cat(nearest) < usual.quantile(0.01)).double().mean())
    )
    assert figures["kid"].parts["sets"] == pytest.approx(
        [kernel_distance(one.features, real_features).mean for one in seen], rel=1e-4
    )
    found = [precision_recall(one.features, real_features) for one in seen]
    assert figures["precision"].parts["sets"] == pytest.approx([one.precision for one in found])
    assert figures["recall"].parts["sets"] == pytest.approx([one.recall for one in found])


def test_the_score_does_not_depend_on_the_order_of_classes(split):
    """With certain labels a split's score is e^H of its classes: exp(ln 10 − 9/(2·36)) = 8.82 for 36 shuffled
    images.
    """
    train, heldout = split
    heldout = heldout.subset(heldout.labels.argsort())
    classes = {
        x.numpy().tobytes(): int(y) for x, y in zip(*heldout.batch(torch.arange(len(heldout))), strict=True)
    }

    class Certain:
        name, dimension = "certain", 2

        def __call__(self, x0):
            y = torch.tensor([classes[x.numpy().tobytes()] for x in x0])
            return Observed(torch.randn(len(x0), 2), torch.nn.functional.one_hot(y, 10).float().log())

    sorted_score = inception_score(Certain()(heldout.batch(torch.arange(360))[0]).log_probs).mean
    assert sorted_score < 2
    found, warnings = SampleEvaluator.of(("is",), train, heldout, Certain()).figures(
        Sets(same(heldout), 1),  # type: ignore[arg-type]
        STAMP,  # type: ignore[arg-type]
    )
    (score,) = found["is"]
    assert score.value == pytest.approx(8.82, rel=0.03)
    assert score.error_of == "standard deviation over splits"
    assert not warnings


def test_copies_show(split, classifier):
    train, heldout = split
    assert judge(same(train), train, heldout, classifier)[0]["nearest"].ratio < 0.1

    def tenth(k):  # one sample in ten is a copy: the median hardly moves, the count does
        x0, labels = heldout.batch(torch.arange(360))
        x0[::10], labels[::10] = train.batch(torch.arange(36))
        return x0, labels

    figures, _ = judge(tenth, train, heldout, classifier)
    assert figures["nearest"].ratio > 0.9
    assert 0.1 <= figures["near"].value < 0.13


def test_unconditional(split, classifier):
    train, heldout = split
    figures, _ = judge(lambda k: (same(heldout)(k)[0], None), train, heldout, classifier, 2)
    assert "agreement" not in figures
    assert figures["frechet"].ratio == pytest.approx(1.0)
    assert figures["frechet"].value == pytest.approx(figures["frechet"].heldout)


def test_every_figure_has_its_stamp(split, classifier):
    train, heldout = split
    figures, _ = judge(same(heldout), train, heldout, classifier, metrics=("fd", "is"))
    assert figures["frechet"].stamp["sampling"] == {"made by": "hand"}
    assert figures["frechet"].stamp["features"] == {"extractor": classifier.name, "dimension": 64}
    assert figures["frechet"].stamp["reference"]["fingerprint"] == train.fingerprint()
    assert figures["frechet"].stamp["reference"]["images"] == len(train)
    assert "reference" not in figures["inception_score"].stamp


def test_a_reference_file_serves_in_place_of_the_training_images(split, classifier, tmp_path):
    train, heldout = split
    first = SampleEvaluator.of(("kid",), train, heldout, classifier, tmp_path / "reference.safetensors")
    written_at = (tmp_path / "reference.safetensors").stat().st_mtime_ns

    def asked(x0):
        assert len(x0) <= 256
        counts.append(len(x0))
        return classifier(x0)

    asked.name, asked.dimension, counts = classifier.name, 64, []  # type: ignore[attr-defined]
    second = SampleEvaluator.of(("kid",), train, heldout, asked, tmp_path / "reference.safetensors")  # type: ignore[arg-type]
    assert sum(counts) == len(heldout)  # the training images were not looked at again
    assert second.reference.hash == first.reference.hash
    assert (tmp_path / "reference.safetensors").stat().st_mtime_ns == written_at
    found = [one.figures(Sets(same(heldout), 1), STAMP)[0]["kid"][0] for one in (first, second)]  # type: ignore[arg-type]
    assert found[0] == found[1]
    asked.name = "another"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="use the same extractor"):
        SampleEvaluator.of(("kid",), train, heldout, asked, tmp_path / "reference.safetensors")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="remove reference, or give another file"):
        SampleEvaluator.of(
            ("kid",),
            train.subset(torch.arange(1000)),
            heldout,
            classifier,
            tmp_path / "reference.safetensors",
        )


def test_one_batch_of_images_in_memory(split, classifier):
    """Batches are let go of as they are seen; for distances to the training images a bounded number is put
    together.
    """
    train, heldout = split[0].subset(torch.arange(300)), split[1].subset(torch.arange(160))
    alive, most = [], []

    def images():
        for part in torch.arange(160).split(16):
            gc.collect()
            most.append(sum(made() is not None for made in alive))
            x0, labels = heldout.batch(part)
            alive.append(weakref.ref(x0))
            yield x0, labels

    seen = compute_statistics(images(), classifier, train, {"nearest", "features"}, together=32 * 64)
    assert seen.count == 160
    assert max(most) <= 3
    whole = compute_statistics(real(heldout), classifier, train, {"nearest", "features"})
    assert torch.allclose(seen.nearest, whole.nearest, rtol=1e-12)
    assert torch.allclose(seen.features, whole.features, atol=1e-5)


def test_warnings(split, classifier):
    train, heldout = split
    few = heldout.subset(torch.arange(50))
    _, texts = judge(same(few), train, heldout, classifier)
    assert any(
        "50 examples are too few for 64 features" in text and "use at least 65" in text for text in texts
    )
    assert any("the ratio is too high; use sets of 360" in text for text in texts)
    ones = heldout.batch(torch.arange(360))[0]
    _, texts = judge(lambda k: (ones, torch.ones(360, dtype=torch.int64)), train, heldout, classifier)
    assert len(texts) == 1
    assert "use the held-out images' labels" in texts[0]
    _, texts = judge(same(few), train, heldout, classifier, metrics=("pr",))
    assert any("precision and recall depend on the count; use sets of 360" in text for text in texts)


def test_bad_input(split, classifier):
    train, heldout = split
    x0, labels = heldout.batch(torch.arange(10))

    def made(*sets, held=heldout):
        return judge(lambda k: sets[k], train, held, classifier, sets=len(sets))

    with pytest.raises(InputError, match="of one size, got 9 and 10"):
        made((x0, labels), (x0[:9], labels[:9]))
    with pytest.raises(InputError, match="at least 2 images, got 1"):
        made((x0[:1], labels[:1]))
    with pytest.raises(InputError, match=r"\(N, 1, 8, 8\), got \(10, 8, 8\)"):
        made((x0[:, 0], labels))
    with pytest.raises(InputError, match="expected one each"):
        made((x0, labels[:3]))
    with pytest.raises(InputError, match="of 10 classes"):
        made((x0, labels + 5))
    with pytest.raises(InputError, match="10 of 10 images hold NaN"):
        made((x0 * float("nan"), labels))
    with pytest.raises(InputError, match="remove the duplicates"):
        made((x0, labels), held=train.subset(torch.arange(100)))

    class UnreadableLog:
        name, dimension = "broken", 2

        def __call__(self, x0):
            return Observed(torch.full((len(x0), 2), float("nan")), None)

    with pytest.raises(InputError, match="feature vectors hold NaN"):
        SampleEvaluator.of(("kid",), train, heldout, UnreadableLog())
    UnreadableLog.__call__ = lambda self, x0: Observed(torch.zeros(len(x0), 2), None)
    with pytest.raises(InputError, match="no class probabilities"):
        SampleEvaluator.of(("is",), train, heldout, UnreadableLog())


def test_copies_and_palette_need_no_features(split):
    """A set of which a quarter are training images, a quarter the same with two other pixels, by hand."""
    train, heldout = split
    x0 = heldout.batch(torch.arange(80))[0].clone()
    x0[:40] = train.batch(torch.arange(40))[0]
    x0[20:40, :, 0, 0] = -x0[20:40, :, 0, 0]  # black becomes white
    x0[20:40, :, 7, 7] = 1.0
    figures, warnings = judge(lambda k: (x0, None), train, heldout, None, metrics=("copies", "palette"))
    levels = train.values.flatten(1).short()
    asked = train.spec.to_bins(x0).flatten(1).short()
    differ = (asked[:, None] - levels).abs() > 0  # one of the 17 levels is 16 of 255
    expected = (differ.sum(dim=2) == 0).any(dim=1).double().mean()
    expected_but = (differ.sum(dim=2) <= 3).any(dim=1).double().mean()
    assert figures["copies"].value == pytest.approx(float(expected))
    assert figures["copies_but"].value == pytest.approx(float(expected_but))
    assert 0.25 <= figures["copies"].value < figures["copies_but"].value
    assert figures["palette"].value == figures["palette"].heldout == 1.0  # all 17 levels are known
    assert figures["copies"].stamp == STAMP
    assert warnings == []
