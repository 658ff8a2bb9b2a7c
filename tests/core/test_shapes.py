"""What one example is: levels and values, there and back."""

import math

import pytest
import torch

import scorefield as sf
from scorefield.core.shapes import check_batch_of, expand, mean_flat, sum_flat


@pytest.mark.parametrize(
    ("bins", "bounds"), [(17, (-1.0, 1.0)), (256, (-1.0, 1.0)), (256, (0.0, 1.0)), (2, (-3.0, 5.0))]
)
def test_levels_survive_values_and_back(bins, bounds):
    spec = sf.DataSpec((1, 4, 4), range=bounds, bins=bins)
    levels = torch.arange(bins, dtype=torch.uint8)[:, None]
    x = spec.from_bins(levels)
    assert (x.min(), x.max()) == bounds
    assert torch.equal(spec.to_bins(x), levels)
    half = (bounds[1] - bounds[0]) / (bins - 1) / 2
    assert torch.equal(spec.to_bins(x + 0.98 * half), levels)
    assert torch.equal(spec.to_uint8(x), (levels.double() * 255 / (bins - 1)).round().to(torch.uint8))
    beyond = torch.tensor([[bounds[0] - 9], [bounds[1] + 9]])
    assert spec.to_uint8(beyond).flatten().tolist() == [0, 255]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_integers_are_levels_already(dtype):
    spec = sf.DataSpec((3,), bins=17)
    levels = torch.tensor([[0, 7, 16]], dtype=dtype)
    assert spec.to_bins(levels).tolist() == spec.exact_bins(levels).tolist() == [[0, 7, 16]]
    assert spec.exact_bins(spec.from_bins(levels)).tolist() == [[0, 7, 16]]
    assert spec.to_bins(levels + 1).tolist() == [[1, 8, 16]]
    for wrong in (levels + 1, spec.from_bins(levels) + 0.01, spec.from_bins(levels) * math.nan):
        with pytest.raises(sf.InputError, match="grid of 17 bins"):
            spec.exact_bins(wrong)


def test_continuous_data_has_pictures_but_no_levels():
    spec = sf.DataSpec((1, 2, 2))
    assert spec.to_uint8(torch.tensor([[-1.0, 0.0, 1.0]])).tolist() == [[0, 128, 255]]
    for act in (spec.from_bins, spec.to_bins, spec.exact_bins):
        with pytest.raises(sf.InputError, match="levels"):
            act(torch.zeros(1, 1))


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_values_that_are_not_finite_are_not_drawn(wrong):
    for bins in (17, 256, None):
        with pytest.raises(sf.InputError, match="1 of 2 images hold NaN"):
            sf.DataSpec((2,), bins=bins).to_uint8(torch.tensor([[0.0, 1.0], [wrong, 0.0]]))


@pytest.mark.parametrize(
    "options",
    [{"shape": ()}, {"shape": (0,)}, {"shape": (2,), "range": (1.0, 0.0)}, {"shape": (2,), "bins": 1}],
)
def test_impossible_examples_are_refused(options):
    with pytest.raises(sf.InputError):
        sf.DataSpec(**options)


def test_expand_and_reductions():
    x = torch.ones(3, 2, 4, dtype=torch.float64)
    assert expand(torch.tensor([1.0, 2.0, 3.0]), x).shape == (3, 1, 1)
    assert expand(torch.tensor(2.0), x).dtype == torch.float64
    assert sum_flat(x).tolist() == [8, 8, 8]
    assert mean_flat(x).tolist() == [1, 1, 1]


def test_a_sparse_batch_is_refused():
    with pytest.raises(sf.InputError, match="to_dense"):
        check_batch_of("x", torch.zeros(4, 2).to_sparse())
