"""EfficientNet-Lite0 with its published weights: another implementation's features, known photographs, other
resizers.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import Golden, assert_close, pattern

from scorefield.core.shapes import DataSpec
from scorefield.evaluation import imagenet_features
from scorefield.evaluation.efficientnet import EfficientNetLite0
from scorefield.runtime.errors import InputError

PALACE, DAISY = 698, 985  # in ImageNet's order


@pytest.fixture(scope="module")
def extract():
    return imagenet_features(DataSpec((3, 224, 224), range=(0.0, 1.0)))


def photo(name):
    """The middle square of one of scikit-learn's photographs, float64 (1, 3, 427, 427) in [0, 1]."""
    folder = Path(importlib.util.find_spec("sklearn").origin).parent / "datasets" / "images"
    image = torch.from_numpy(np.array(Image.open(folder / name))).permute(2, 0, 1)
    return image[None, :, :, 106:533].double() / 255


def test_equals_another_implementation(extract):
    # [Tan & Le 2019; Tan & Le 2019 Table 1; Sandler et al. 2018 §3.3]
    golden = Golden("efficientnet_lite0")
    seen = extract(pattern(2, 224, 224))
    assert_close(seen.features, golden["features"], 1e-5, "features")
    assert_close(seen.log_probs, golden["logits"].log_softmax(dim=1), 1e-5, "log_probs")
    assert extract.name == "EfficientNet-Lite0, weights 579344248a93, 1,280 pooled features"
    assert extract.dimension == 1280


def test_size():
    """The published count of trained parameters."""
    with torch.device("meta"):
        assert sum(p.numel() for p in EfficientNetLite0().parameters()) == 4_652_008


@pytest.mark.parametrize(("name", "expected"), [("china.jpg", PALACE), ("flower.jpg", DAISY)])
def test_recognizes_photographs(name, expected):
    image = photo(name)
    extract = imagenet_features(DataSpec(tuple(image.shape[1:])))
    assert int(extract(2 * image - 1).log_probs.argmax()) == expected


def test_resizing_is_antialiased(extract):
    """Reduced by Pillow's bicubic filter, which is antialiased, or by the extractor: the same features."""
    image = photo("china.jpg")
    small = [
        np.array(Image.fromarray(channel).resize((224, 224), Image.Resampling.BICUBIC))
        for channel in image[0].float().numpy()
    ]
    ours = imagenet_features(DataSpec((3, 427, 427), range=(0.0, 1.0)))(image)
    assert_close(extract(torch.from_numpy(np.stack(small))[None]).features, ours.features, 1e-4)


def test_batches_ranges_and_grey(extract):
    images = pattern(3, 32, 32)[:, :1]
    grey = imagenet_features(DataSpec((1, 32, 32), range=(-2.0, 3.0)))
    colour = imagenet_features(DataSpec((3, 32, 32), range=(0.0, 1.0)))
    whole = grey(5 * images - 2)
    assert torch.isfinite(whole.features).all()
    assert (torch.pdist(whole.features) > 0.1).all()
    one = torch.cat([grey(5 * image[None] - 2).features for image in images])
    assert_close(one, whole.features, 1e-5)
    assert_close(colour(images.expand(-1, 3, -1, -1)).features, whole.features, 1e-5)
    torch.testing.assert_close(whole.log_probs.exp().sum(dim=1), torch.ones(3), rtol=0, atol=1e-5)
    assert grey(images[:0]).features.shape == (0, 1280)


def test_bad_input(extract, monkeypatch):
    with pytest.raises(InputError, match=r"takes images \(B, 3, 224, 224\), got \(2, 3, 32, 32\)"):
        extract(torch.zeros(2, 3, 32, 32))
    with pytest.raises(InputError, match="images of 1 or 3 channels"):
        imagenet_features(DataSpec((2, 8, 8)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"pip install 'scorefield\[features\]'; or use the classifier's features"
    ):
        imagenet_features(DataSpec((1, 8, 8)))
