"""Data that is none, and examples that are not there, are refused in words."""

import pytest
import torch

import scorefield as sf
from scorefield.data import dequantize, shift

MOONS = sf.data.toy("moons", 8)
SPEC = sf.DataSpec((2,))
VALUES = torch.zeros(4, 2)


@pytest.mark.parametrize(
    "indices",
    [
        None,
        3,
        [0, 1],
        torch.zeros(2),
        torch.zeros(2, 1, dtype=torch.int64),
        torch.tensor(True),
        torch.zeros(8, dtype=torch.bool),
        torch.tensor([8]),
        torch.tensor([-1]),
        torch.zeros(1, dtype=torch.complex64),
    ],
)
def test_examples_that_are_not_there(indices):
    for of in (MOONS.batch, MOONS.subset):
        with pytest.raises(sf.InputError, match="from 0 to 7"):
            of(indices)


def test_no_examples_are_an_empty_batch():
    none = torch.zeros(0, dtype=torch.int64)
    assert MOONS.batch(none)[0].shape == (0, 2)
    assert len(MOONS.subset(none)) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"spec": None},
        {"values": None},
        {"values": 3},
        {"labels": [0, 1, 0, 1]},
        {"arrays": ()},
        {"arrays": "mask"},
        {"arrays": {"mask": [1]}},
    ],
)
def test_a_dataset_of_something_else(wrong):
    with pytest.raises(sf.InputError):
        sf.Dataset(**{"spec": SPEC, "values": VALUES, "labels": None, "source": "mine", **wrong})


def test_samples_and_transforms_of_something_else():
    for wrong in ({"values": None}, {"spec": 3}, {"labels": 0.5}):
        with pytest.raises(sf.InputError):
            sf.Samples(**{"values": VALUES, "spec": SPEC, **wrong})  # type: ignore[arg-type]
    image = torch.zeros(1, 1, 4, 4)
    with pytest.raises(sf.InputError, match="offsets must be a tensor"):
        shift(image, None)  # type: ignore[arg-type]
    with pytest.raises(sf.InputError, match="u must be a tensor"):
        dequantize(image, 0.5, sf.DataSpec((1, 4, 4), bins=4))  # type: ignore[arg-type]


def test_a_folder_is_named_by_a_path():
    for wrong in (b"pictures", 3, None):
        with pytest.raises(sf.InputError, match="by its path"):
            sf.data.folder(wrong)  # type: ignore[arg-type]
