"""Extractors around modules of any kind, and the choice among the built-in ones."""

import functools
from dataclasses import replace

import pytest
import torch
from support import assert_close
from torch import nn

from scorefield.core.shapes import DataSpec
from scorefield.evaluation import (
    FeatureNet,
    ModuleFeatures,
    Observed,
    enough,
    open_features,
    train_classifier,
)
from scorefield.evaluation.extractors import Pretrained
from scorefield.runtime.errors import InputError

SPEC = DataSpec((3, 4, 6), range=(0.0, 1.0))


def images(count, spec=SPEC, seed=0):
    return torch.rand(count, *spec.shape, generator=torch.Generator().manual_seed(seed))


class Twice(nn.Module):
    """Sums over channels and pixels, and logits; dropout that must not act."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.dropout = nn.Dropout(0.9)
        self.given = []

    def forward(self, x):
        self.given.append(len(x))
        features = self.dropout(self.scale * x.sum(dim=(2, 3)))
        return features, features[:, :2]


def test_a_module_runs_in_eval_mode_and_is_left_as_it_was():
    module = Twice()
    module.dropout.eval()  # a mixture of modes, as of a partly frozen network
    module.dropout.requires_grad_(False)
    extract = ModuleFeatures(module.train(), SPEC, "twice")
    module.dropout.eval()
    x0 = images(600)
    seen = extract(x0)
    assert (module.training, module.dropout.training) == (True, False)
    assert module.given == [1, 256, 256, 88]
    assert isinstance(seen, Observed)
    assert (extract.name, extract.dimension) == ("twice", 3)
    expected = 2 * x0.double().sum(dim=(2, 3))
    assert_close(seen.features, expected, 1e-6)
    assert_close(seen.log_probs, expected[:, :2].log_softmax(dim=1), 1e-6)
    assert seen.features.dtype == seen.log_probs.dtype == torch.float32
    assert not seen.features.requires_grad
    module.train()
    assert torch.equal(extract(x0).features, seen.features)
    assert module.dropout.training


def test_functions_and_other_extractors():
    flat = ModuleFeatures(lambda x: x.flatten(1), SPEC, "pixels")
    x0 = images(5)
    assert flat.dimension == 72
    assert torch.equal(flat(x0.double()).features, x0.flatten(1))
    assert flat(x0).log_probs is None
    assert flat(x0[:0]).features.shape == (0, 72)
    again = ModuleFeatures(flat, SPEC, "an extractor")
    assert torch.equal(again(x0).features, x0.flatten(1))


def test_modules_that_give_something_else():
    for wrong, got in (
        (lambda x: x, r"expected features \(B, D\) of 1 images, got \(1, 3, 4, 6\): flatten or pool"),
        (lambda x: x.sum(), r"features \(B, D\) of 1 images, got \(\)"),
        (lambda x: [x], "features .* got a list"),
        (lambda x: (x.flatten(1), x[:, 0]), r"expected logits \(B, K\) of 1 images, got \(1, 4, 6\)"),
    ):
        with pytest.raises(InputError, match=f"mine: .*{got}"):
            ModuleFeatures(wrong, SPEC, "mine")
    fine = ModuleFeatures(lambda x: x.flatten(1), SPEC, "mine")
    with pytest.raises(
        InputError, match=r"mine: takes images \(B, 3, 4, 6\), got \(2, 3, 6, 4\): use images of this size"
    ):
        fine(images(2).transpose(2, 3))


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)])
def test_pretrained_networks_get_colours_between_0_and_1(low, high):
    class SetStatistics(nn.Module):
        def forward(self, rgb):
            return rgb.flatten(1), rgb.sum(dim=(2, 3))

    grey = DataSpec((1, 4, 6), range=(low, high))
    share = images(33, grey)
    x0 = low + (high - low) * share
    seen = Pretrained(SetStatistics(), grey, "seen", 72)(x0.double())
    assert seen.features.dtype == torch.float32
    assert_close(seen.features.reshape(33, 3, 4, 6), share.repeat(1, 3, 1, 1), 1e-6)
    assert seen.log_probs.shape == (33, 3)
    for shape in ((5,), (2, 4, 6)):
        with pytest.raises(
            InputError, match=r"seen: takes images of 1 or 3 channels \(C, H, W\), and an example here is"
        ):
            Pretrained(SetStatistics(), DataSpec(shape), "seen", 72)


def test_the_classifier_is_an_extractor(split, classifier):
    x0, labels = split[1].batch(torch.arange(300))
    seen = classifier(x0)
    assert seen.features.shape == (300, classifier.dimension)
    assert torch.equal(seen.features, classifier.features(x0))
    torch.testing.assert_close(seen.log_probs.exp().sum(dim=1), torch.ones(300))
    assert torch.equal(seen.log_probs.argmax(dim=1), classifier.predict(x0))
    assert float((seen.log_probs.argmax(dim=1) == labels).double().mean()) > 0.95
    with pytest.raises(InputError, match=r"takes images \(B, 1, 8, 8\), got \(2, 1, 9, 9\)"):
        classifier(torch.zeros(2, 1, 9, 9))


def test_too_few_examples():
    assert enough(65, 64) is None
    assert "64 examples are too few for 64 features" in enough(64, 64)
    assert "use at least 65" in enough(64, 64)


@pytest.fixture
def quick(monkeypatch):
    """The classifier trains for two passes only."""
    monkeypatch.setattr(
        "scorefield.evaluation.catalogue.train_classifier", functools.partial(train_classifier, examples=0)
    )


def test_open_features(quick, split):
    train = split[0].subset(torch.arange(200))
    steps = []
    extract = open_features("classifier", train.spec, train, lambda done, total: steps.append(done))
    assert isinstance(extract, FeatureNet)
    assert steps
    assert open_features("imagenet", train.spec).dimension == 1280


def test_default_features(quick, split):
    train = split[0].subset(torch.arange(200))
    assert open_features(None, train.spec, train).dimension == 64
    assert open_features(None, train.spec, replace(train, labels=None)).dimension == 1280
    assert open_features(None, train.spec).dimension == 1280
    assert open_features(None, SPEC, train).dimension == 1280


def test_open_features_teaches(tmp_path, split):
    spec = split[0].spec
    kinds = "features must be one of classifier, imagenet, inception:FILE"
    with pytest.raises(InputError, match=f"{kinds}; got 'imagnet', did you mean 'imagenet'"):
        open_features("imagnet", spec)
    for unfinished in ("inception", "inception:"):
        with pytest.raises(InputError, match=f"{kinds}; got '{unfinished}', did you mean 'inception:FILE'"):
            open_features(unfinished, spec)
    with pytest.raises(InputError, match=f"{kinds}; got 'imagenet:weights.pth'"):
        open_features("imagenet:weights.pth", spec)
    with pytest.raises(
        InputError, match=r"none.pth: there is no such file.*pt_inception-2015-12-05-6726825d\.pth"
    ):
        open_features(f"inception:{tmp_path / 'none.pth'}", spec)
    with pytest.raises(InputError, match="need labelled training images"):
        open_features("classifier", spec)
    with pytest.raises(InputError, match="needs labels, but this data has none"):
        open_features("classifier", spec, replace(split[0], labels=None))
