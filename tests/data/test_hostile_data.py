"""Data that is none, and examples that are not there, are refused in words."""

import pytest
import torch
from PIL import Image

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
    for wrong in (
        {"values": None},
        {"values": VALUES.to(torch.bfloat16)},
        {"values": VALUES[:, :1]},
        {"spec": 3},
        {"labels": 0.5},
        {"labels": [0]},
        {"labels": [0.5] * len(VALUES)},
        {"labels": [-1] * len(VALUES)},
    ):
        with pytest.raises(sf.InputError):
            sf.Samples(**{"values": VALUES, "spec": SPEC, **wrong})  # type: ignore[arg-type]
    image = torch.zeros(1, 1, 4, 4)
    with pytest.raises(sf.InputError, match="offsets must be integers"):
        shift(image, None)  # type: ignore[arg-type]
    with pytest.raises(sf.InputError, match="u must be a tensor"):
        dequantize(image, 0.5, sf.DataSpec((1, 4, 4), bins=4))  # type: ignore[arg-type]


def test_a_folder_is_named_by_a_path():
    wrong: object
    for wrong in (b"pictures", 3, None):
        with pytest.raises(sf.InputError, match="by its path"):
            sf.data.folder(wrong)  # type: ignore[arg-type]
    for wrong in (3, None, [1]):
        with pytest.raises(sf.InputError, match="by its path"):
            sf.data.npz(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 2.5}, "the image size must be at least 1 pixel and at most 65,536, got 2.5"),
        ({"size": "8"}, "the image size"),
        ({"size": True}, "the image size"),
        ({"size": 10**9, "upscale": True}, "the image size.*at most 65,536"),
        ({"white": 1.5}, "white is a value of 16-bit images"),
        ({"memory": float("nan")}, "memory, bytes of decoded images"),
        ({"memory": -1}, "memory, bytes of decoded images"),
        ({"probe": 0}, "probe"),
    ],
)
def test_options_of_a_folder_that_are_none(tmp_path, options, said):
    Image.new("L", (8, 8)).save(tmp_path / "1.png")
    with pytest.raises(sf.InputError, match=said):
        sf.data.folder(tmp_path, **{"size": 8, "on_demand": None, **options})


@pytest.mark.parametrize("range_", ["ab", 3, (0,), (0, 1, 2), (0, float("nan")), (1, 0), None])
def test_a_range_that_is_none(range_):
    with pytest.raises(sf.InputError, match="range"):
        sf.data.tensor(torch.rand(4, 1, 8, 8), range=range_)
    if range_ is not None:
        with pytest.raises(sf.InputError, match="range"):
            sf.DataSpec((2,), range=range_)


def test_a_range_may_be_a_tensor():
    data = sf.data.tensor(torch.rand(4, 1, 8, 8), range=torch.tensor([0, 1]))  # type: ignore[arg-type]
    assert data.spec.range == (0.0, 1.0)


@pytest.mark.parametrize("fraction", ["x", None, float("nan"), 1, -0.1])
def test_a_share_that_is_none(fraction):
    with pytest.raises(sf.InputError, match="the held-out fraction must be at least 0 and below 1"):
        MOONS.split(fraction, 0)
