from __future__ import annotations

import pytest
import torch

from scorefield.core.shapes import DataSpec
from scorefield.data import dequantize, flip, shift
from scorefield.runtime.errors import InputError


def test_flip_mirrors_where_the_coin_is_below_a_half() -> None:
    x = torch.arange(24.0).reshape(4, 1, 2, 3)
    y = flip(x, torch.tensor([0.0, 0.4999, 0.5, 0.99]))
    assert torch.equal(y[:2], x[:2].flip(-1))
    assert torch.equal(y[2:], x[2:])
    assert torch.equal(flip(y, torch.tensor([0.0, 0.0, 1.0, 1.0])), x)
    assert y.dtype == x.dtype


def test_flip_of_an_example_does_not_depend_on_the_batch() -> None:
    x, coin = torch.randn(6, 3, 4, 4), torch.rand(6)
    assert torch.equal(flip(x, coin)[2:3], flip(x[2:3], coin[2:3]))


@pytest.mark.parametrize(
    ("shape", "coins"), [((2, 3, 4), (2,)), ((2, 1, 4, 4), (3,)), ((2, 1, 4, 4), (2, 1))]
)
def test_flip_refuses_other_shapes(shape: tuple[int, ...], coins: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="one coin each"):
        flip(torch.zeros(shape), torch.zeros(coins))


def test_shift_is_padding_with_the_edge_and_cropping() -> None:
    far, (height, width) = 2, (5, 7)
    offsets = torch.cartesian_prod(torch.arange(-far, far + 1), torch.arange(-far, far + 1))
    x = torch.randn(len(offsets), 3, height, width, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x, (far, far, far, far), mode="replicate")
    moved = shift(x, offsets)
    for k, (down, across) in enumerate(offsets.tolist()):
        assert torch.equal(
            moved[k], padded[k, :, far + down : far + down + height, far + across : far + across + width]
        )
    assert moved.is_contiguous()
    assert torch.equal(shift(x, torch.zeros_like(offsets)), x)


def test_shift_beyond_the_image_repeats_the_corner() -> None:
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert torch.equal(shift(x, torch.tensor([[9, 9]])), torch.full((1, 1, 2, 3), 5.0))


@pytest.mark.parametrize(
    ("shape", "offsets"),
    [
        ((2, 3, 4), torch.zeros(2, 2, dtype=torch.long)),
        ((2, 1, 4, 4), torch.zeros(2, dtype=torch.long)),
        ((2, 1, 4, 4), torch.zeros(3, 2, dtype=torch.long)),
        ((2, 1, 4, 4), torch.zeros(2, 2)),
    ],
)
def test_shift_refuses_other_shapes(shape: tuple[int, ...], offsets: torch.Tensor) -> None:
    with pytest.raises(InputError, match="two integers each"):
        shift(torch.zeros(shape), offsets)


def test_dequantize_is_ncsn_s_formula_on_8_bit_images() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    u = torch.rand(256, 1, 1, 1, dtype=torch.float64)
    x = levels.double() / 255
    spec = DataSpec((1, 1, 1), range=(0.0, 1.0), bins=256)
    torch.testing.assert_close(dequantize(levels, u, spec), 255 / 256 * x + u / 256, rtol=0, atol=1e-15)


@pytest.mark.parametrize("bins", [2, 17, 256])
def test_dequantized_levels_fill_the_range_and_round_back(bins: int) -> None:
    spec = DataSpec((1, 4, 4), bins=bins)
    levels = torch.randint(0, bins, (50, 1, 4, 4)).to(torch.uint8)
    x = dequantize(levels, torch.rand(50, 1, 4, 4, dtype=torch.float64), spec)
    assert x.min() >= -1
    assert x.max() < 1
    assert torch.equal(((x + 1) / 2 * bins).floor().to(torch.uint8), levels)
    ends = dequantize(torch.tensor([[[[0]]], [[[bins - 1]]]]), torch.zeros(2, 1, 1, 1), spec).flatten()
    torch.testing.assert_close(ends, torch.tensor([-1.0, 1 - 2 / bins]))


def test_dequantize_refuses() -> None:
    levels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(InputError, match="continuous"):
        dequantize(levels, torch.rand(2, 1, 2, 2), DataSpec((1, 2, 2)))
    with pytest.raises(InputError, match="one u for each value"):
        dequantize(levels, torch.rand(2, 1, 1, 1), DataSpec((1, 2, 2), bins=256))
    with pytest.raises(InputError, match="integer bins"):
        dequantize(levels.float(), torch.rand(2, 1, 2, 2), DataSpec((1, 2, 2), bins=256))
