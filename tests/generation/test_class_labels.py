"""Which classes are sampled: as a user names them, up to the last one and no further."""

import pytest
import torch

import scorefield as sf
from scorefield.generation.labels import class_labels


def model(classes: tuple[str, ...] = ("cat", "dog", "owl")) -> sf.Denoiser:
    net = sf.nets.MLP(2, hidden=8, layers=1, num_classes=3)
    return sf.Denoiser(net, sf.process.cosine(10), data=sf.DataSpec((2,), classes=classes))


@pytest.mark.parametrize("label", [3, -1, "3", "-1", [0, 3], "0,3"])
def test_one_past_the_last_class_is_refused(label):
    with pytest.raises(sf.InputError, match=r"there is no class|cat, dog, owl"):
        class_labels(model(), label)
    with pytest.raises(sf.InputError):
        model().given(torch.tensor([3]))


def test_the_last_class_is_one_and_each_may_be_named():
    assert class_labels(model(), 2) == class_labels(model(), "2") == class_labels(model(), "owl") == [2]
    assert class_labels(model(), "dog,cat") == [1, 0]
    assert class_labels(model(), None) == [0, 1, 2]
